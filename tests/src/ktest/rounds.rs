//! Boots as often as it takes to get a verdict on every test.
//!
//! The first boot is given all tests. A test in which the machine dies gets its verdict from the
//! way it died; the tests after it are given to the next boot. Each boot must settle at least one
//! test, so there are never more boots than tests.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use boot_runner::outcome::Outcome;

use super::report::{Ended, Report, Tally, TestResult, Verdict};

/// Longest list of test names in one kernel command line, which holds 4096 bytes.
const LIST_LIMIT: usize = 3072;

/// Something that can boot a kernel and have it run tests.
pub trait Guest {
    /// Why no machine could be started.
    type Error;

    /// Boots once, to run `tests` in their order.
    ///
    /// # Errors
    /// When no machine could be started; none of the tests has run.
    fn boot(&mut self, tests: &[String]) -> Result<Ended, Self::Error>;
}

/// What was wrong with a boot beside its tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Irregularity {
    /// It ended while no test was running, before the last line.
    DiedBetweenTests(Outcome),
    /// It ended badly after its last line.
    DiedAfterTests(Outcome),
    /// Its last line does not count what it printed.
    WrongTally {
        /// What it said.
        said: Tally,
        /// What it printed.
        counted: Tally,
    },
}

/// All verdicts, and what else was seen on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// One result for each test that was asked for.
    pub results: BTreeMap<String, TestResult>,
    /// What was wrong beside the tests.
    pub irregularities: Vec<Irregularity>,
    /// How often the machine was booted.
    pub boots: usize,
}

/// Runs all of `tests` on `guest`.
///
/// # Errors
/// When a machine could not be started at all.
pub fn run_all<G: Guest>(guest: &mut G, tests: &[String]) -> Result<Run, G::Error> {
    let mut run = Run::default();
    let mut left: VecDeque<String> = tests.iter().cloned().collect();
    while !left.is_empty() {
        let batch = first_batch(&left);
        let ended = guest.boot(&batch)?;
        run.boots += 1;

        let report = Report::read(&ended);
        run.note_irregularities(&report, ended.outcome);
        let settled = run.take_results(report, &batch, &ended);
        left.retain(|test| !run.results.contains_key(test));
        if settled == 0 {
            let verdict = Verdict::NotRun(ended.outcome);
            let result = TestResult {
                verdict,
                output: ended.serial,
            };
            run.results
                .extend(left.drain(..).map(|test| (test, result.clone())));
        }
    }
    Ok(run)
}

/// As many tests from the front as one command line holds.
fn first_batch(left: &VecDeque<String>) -> Vec<String> {
    let mut length = 0;
    let fits = |test: &&String| {
        let is_first = length == 0;
        length += test.len() + 1;
        is_first || length <= LIST_LIMIT
    };
    left.iter().take_while(fits).cloned().collect()
}

impl Run {
    /// Keeps the results of the tests of `batch`; says how many there were.
    fn take_results(&mut self, report: Report, batch: &[String], ended: &Ended) -> usize {
        let before = self.results.len();
        let finished = report.tally.is_some();
        for (test, result) in report.results {
            if batch.contains(&test) {
                self.results.insert(test, result);
            }
        }
        if finished {
            // The kernel says that it is done: what it left out it does not know.
            for test in batch
                .iter()
                .filter(|test| !self.results.contains_key(*test))
                .collect::<Vec<_>>()
            {
                let verdict = Verdict::NotRun(ended.outcome);
                let result = TestResult {
                    verdict,
                    output: ended.serial.clone(),
                };
                self.results.insert(test.clone(), result);
            }
        }
        self.results.len() - before
    }

    fn note_irregularities(&mut self, report: &Report, outcome: Outcome) {
        let died_in_a_test = report.results.last().is_some_and(|(_, result)| {
            !matches!(result.verdict, Verdict::Passed | Verdict::Failed(_))
        });
        match report.tally {
            None if died_in_a_test => {}
            None => self
                .irregularities
                .push(Irregularity::DiedBetweenTests(outcome)),
            Some(said) => {
                let counted = report.counted();
                if said != counted {
                    self.irregularities
                        .push(Irregularity::WrongTally { said, counted });
                }
                let expected = match counted.failed {
                    0 => Outcome::Passed,
                    _ => Outcome::CommandFailed,
                };
                if outcome != expected {
                    self.irregularities
                        .push(Irregularity::DiedAfterTests(outcome));
                }
            }
        }
    }
}

impl fmt::Display for Irregularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiedBetweenTests(outcome) => write!(f, "outside of any test: {outcome}"),
            Self::DiedAfterTests(outcome) => write!(f, "after the last test: {outcome}"),
            Self::WrongTally { said, counted } => write!(
                f,
                "the kernel counts {} passed and {} failed, but printed {} and {}",
                said.passed, said.failed, counted.passed, counted.failed
            ),
        }
    }
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
