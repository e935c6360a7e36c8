//! Frame allocators compared on the host: `cargo bench -p mm-tests --bench frames`.
//!
//! Contestants and rows are described in `docs/benchmarks.md`. Times are medians of rounds in which
//! all contestants take turns; on a shared machine only their ratios mean something. With
//! `-- --count WORKLOAD CONTESTANT TIMES` one workload runs so many times and nothing is printed:
//! that is for counting instructions (`scripts/count.sh`). Without `--bench` (`cargo test
//! --benches`) everything runs once, to see that it does.

mod contestants;
mod counting;
mod race;
mod table;
mod workloads;

use std::process::ExitCode;

use contestants::{Bitmap, BuddyFrames, BuddyHeap, Contestant, Floor, Ours};
use mm_tests::race::{heading, line};
use race::{Effort, Entrant, Row, Runner};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["--count", workload, contestant, times, ..] => {
            return counting::run(workload, contestant, times);
        }
        ["--list-counts", ..] => counting::list(),
        _ if words.contains(&"--bench") => compare(Effort::FULL),
        _ => compare(Effort::SMOKE),
    }
    ExitCode::SUCCESS
}

/// Runs everything and prints the tables.
fn compare(effort: Effort) {
    let mut runners: Vec<Box<dyn Runner>> = vec![
        Entrant::<Floor>::boxed(effort),
        Entrant::<Ours>::boxed(effort),
        Entrant::<Bitmap>::boxed(effort),
        Entrant::<BuddyFrames>::boxed(effort),
        Entrant::<BuddyHeap>::boxed(effort),
    ];
    let place = |name| runners.iter().position(|runner| runner.name() == name);
    let floor = place(Floor::NAME).unwrap();
    let ours = place(Ours::NAME).unwrap();

    let rounds = effort.rounds;
    println!("Medians of {rounds} rounds: time, times the floor, times ours.\n");
    heading("row", runners.iter().map(|runner| runner.name()));
    for row in Row::ALL {
        let samples = race::run(row, effort, &mut runners);
        table::times(row, &samples, floor, ours);
    }

    println!();
    heading("quality", runners.iter().map(|runner| runner.name()));
    let reach = runners.iter().map(|runner| runner.reach());
    line(
        "pages that CPU 0 gets of those that CPU 1 gave back",
        reach.map(per_cent),
    );
    let usable = runners.iter_mut().map(|runner| runner.usable());
    line(
        "free memory usable as 2 MiB blocks after churn at 50 % use",
        usable.map(|usable| usable.map_or_else(|| String::from("–"), per_cent)),
    );
}

fn per_cent(value: f64) -> String {
    format!("{value:.0} %")
}
