//! Benchmarks inside the kernel: instructions per operation.
//!
//! Under QEMU's `-icount shift=0` a TSC tick is one guest instruction, so the figures are exact
//! and the same on every host. `calibration` proves that before anything
//! is measured. Without instruction counting the same command prints TSC ticks, as a cross-check.
//!
//! How a figure comes about: interrupts off; a round times a loop of operations; the least of
//! [`ROUNDS`] rounds counts; the least of as many rounds of an empty loop is taken off.

mod calibration;
mod measure;

pub use measure::Bencher;

use crate::registry::{registry, sorted};
use crate::shell::parse::{glob_list, unmatched_glob};
use crate::shell::{CommandError, CommandResult, interrupt};
use crate::{command, kprintln, params};
use alloc::string::String;
use core::fmt;

/// Rounds of which the least counts.
pub const ROUNDS: usize = 11;

/// A registered benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Its name, and the beginning of the names of its results.
    pub name: &'static str,
    /// One line: what an operation is, and whether it zeroes memory.
    pub help: &'static str,
    /// Runs it.
    pub run: fn(&mut Bencher) -> Result<(), BenchError>,
}

/// Why a benchmark has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BenchError {
    /// The emulator was to count instructions, and does not.
    NotCalibrated {
        /// What was measured.
        what: &'static str,
        /// What it should read.
        expected: u64,
        /// What it reads.
        measured: u64,
    },
    /// The benchmark's own code failed, for example to allocate.
    Failed(String),
}

impl BenchError {
    /// A failure, in words.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(alloc::format!("{reason}"))
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCalibrated {
                what,
                expected,
                measured,
            } => write!(
                f,
                "`icount` is given, but {what} read {measured} ticks, not {expected}: \
                 run QEMU with -accel tcg -icount shift=0,sleep=off"
            ),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

registry! {
    /// Every registered benchmark, in no order.
    pub fn benches() -> [Bench]; start "__start_benches", stop "__stop_benches"
}

/// Registers a benchmark: `bench!("page_o0", "order 0 alloc + free, not zeroed", page_o0);`.
#[macro_export]
macro_rules! bench {
    ($name:literal, $help:literal, $run:expr) => {
        $crate::__register!(
            "benches",
            $crate::bench::Bench,
            $crate::bench::Bench {
                name: $name,
                help: $help,
                run: $run,
            }
        );
    };
}

command! { "bench", "[--list | GLOB[,GLOB]...]", "run benchmarks: TSC ticks per operation, which are instructions with --icount", bench_command }

fn bench_command(arguments: &[String]) -> CommandResult {
    match arguments {
        [] => run_matching("*"),
        [option] if option == "--list" => {
            for bench in sorted(benches(), |bench| bench.name) {
                kprintln!("{:<28} {}", bench.name, bench.help);
            }
            Ok(())
        }
        [patterns] if !patterns.starts_with('-') => run_matching(patterns),
        _ => Err(CommandError::usage("expected --list or one list of globs")),
    }
}

fn run_matching(patterns: &str) -> CommandResult {
    let names = benches().iter().map(|bench| bench.name);
    if let Some(pattern) = unmatched_glob(patterns, names) {
        return Err(CommandError::failed(format_args!(
            "no benchmark matches `{pattern}`; `bench --list` lists them"
        )));
    }
    calibration::calibrate(params::is_set("icount")).map_err(CommandError::failed)?;

    let mut failed: usize = 0;
    for bench in sorted(benches(), |bench| bench.name) {
        if !glob_list(patterns, bench.name) {
            continue;
        }
        interrupt::check()?;
        if let Err(error) = (bench.run)(&mut Bencher::new(bench.name)) {
            kprintln!("BENCH {} FAILED: {error}", bench.name);
            failed = failed.saturating_add(1);
        }
    }

    interrupt::check()?;
    match failed {
        0 => Ok(()),
        failed => Err(CommandError::failed(format_args!("{failed} failed"))),
    }
}

bench!(
    "harness_nothing",
    "an empty operation: reads 0.0 when instructions are counted, or the harness is wrong",
    |bencher| {
        bencher.each("", 1_000, |_| ());
        Ok(())
    }
);
