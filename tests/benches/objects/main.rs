//! Allocators of objects compared on the host: `cargo bench -p mm-tests --features peers --bench objects`.
//!
//! Contestants and rows are described in `docs/benchmarks.md`. Times are medians of rounds in which all contestants
//! take turns; on a shared machine only their ratios mean something. What memory they take is looked at in processes
//! of their own, which this one starts (`--memory ROW CONTESTANT`). With `-- --count WORKLOAD CONTESTANT TIMES` one
//! workload runs so many times and nothing is printed: that is for counting instructions. Without `--bench` everything
//! runs once, to see that it does.

mod contestants;
mod counting;
mod crates;
mod memory;
mod ours;
mod race;
mod verdict;
mod workloads;

use std::process::ExitCode;

use mm_tests::traces::{NAMES, Trace};

use contestants::Talent;
use race::Effort;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["--count", workload, contestant, times, ..] => {
            return counting::run(workload, contestant, times);
        }
        ["--memory", row, contestant, ..] => return memory::run(row, contestant),
        ["--list-counts", ..] => counting::list(),
        _ if words.contains(&"--bench") => compare(Effort::FULL),
        _ => compare(Effort::SMOKE),
    }
    ExitCode::SUCCESS
}

/// Runs everything, and prints the tables and what is to be said about them.
fn compare(effort: Effort) {
    let traces: &'static [Trace] = NAMES.map(Trace::load).to_vec().leak();
    let talents: Vec<Talent> = contestants::all();
    let times = race::times(&talents, traces, effort);
    let shares = memory::shares(&talents, effort);
    let figures: Vec<verdict::Figures> = talents
        .iter()
        .zip(times.into_iter().zip(shares))
        .map(|(talent, (times, shares))| verdict::Figures {
            name: talent.name,
            kind: talent.kind,
            times,
            shares,
        })
        .collect();
    verdict::tables(&figures, effort.rounds);
    verdict::lines(&figures);
}
