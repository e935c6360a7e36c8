//! Reads what one boot printed about its tests, however it ended.

use core::fmt;

use boot_runner::outcome::Outcome;

/// One boot of the tests: all that was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The serial output.
    pub serial: String,
    /// How the machine ended.
    pub outcome: Outcome,
}

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed, with its message.
    Failed(String),
    /// The kernel panicked in it.
    Panicked,
    /// The CPU raised a fault in it.
    Faulted,
    /// It did not end in time.
    TimedOut,
    /// The machine ended in it, in another way.
    MachineEnded(Outcome),
    /// The kernel never began it; how the boot ended.
    NotRun(Outcome),
}

/// A test's verdict, and what was printed while it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// What became of it.
    pub verdict: Verdict,
    /// What was printed from its start to its end, or to the machine's.
    pub output: String,
}

/// The numbers of the kernel's last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
}

/// What one boot said about its tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Each test that began, in order, with its result.
    pub results: Vec<(String, TestResult)>,
    /// The last line, when the kernel came so far.
    pub tally: Option<Tally>,
}

/// The names that `ktest --list` printed.
#[must_use]
pub fn list(serial: &str) -> Vec<String> {
    let names = serial
        .lines()
        .filter_map(|line| line.trim().strip_prefix("KTEST "));
    names
        .filter(|name| !name.contains(' '))
        .map(str::to_owned)
        .collect()
}

impl Report {
    /// Reads one boot's output.
    #[must_use]
    pub fn read(ended: &Ended) -> Self {
        let mut report = Self::default();
        let mut running: Option<(String, String)> = None;
        for line in ended.serial.lines() {
            match Line::parse(line) {
                Line::Start(name) => {
                    // A test that is still running has lost its last line; its successor says
                    // that the kernel went on.
                    report.close(running.take(), &Verdict::MachineEnded(ended.outcome));
                    running = Some((name.to_owned(), String::new()));
                }
                Line::End(name, verdict) => {
                    let output = match running.take() {
                        Some((started, output)) if started == name => output,
                        other => {
                            running = other;
                            String::new()
                        }
                    };
                    report.close(Some((name.to_owned(), output)), &verdict);
                }
                Line::Done(tally) => report.tally = Some(tally),
                Line::Other => {
                    if let Some((_, output)) = &mut running {
                        output.push_str(line.trim_end());
                        output.push('\n');
                    }
                }
            }
        }
        report.close(running, &verdict_of_death(ended.outcome));
        report
    }

    fn close(&mut self, test: Option<(String, String)>, verdict: &Verdict) {
        if let Some((name, output)) = test {
            self.results.push((
                name,
                TestResult {
                    verdict: verdict.clone(),
                    output,
                },
            ));
        }
    }

    /// The numbers that the last line should have.
    #[must_use]
    pub fn counted(&self) -> Tally {
        let passed = |(_, result): &&(_, TestResult)| result.verdict == Verdict::Passed;
        let passed = self.results.iter().filter(passed).count();
        Tally {
            passed,
            failed: self.results.len() - passed,
        }
    }
}

/// What a test suffered when the machine ended in it.
const fn verdict_of_death(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Panicked => Verdict::Panicked,
        Outcome::Faulted | Outcome::TripleFaulted => Verdict::Faulted,
        Outcome::TimedOut => Verdict::TimedOut,
        other => Verdict::MachineEnded(other),
    }
}

/// A line of serial output.
enum Line<'a> {
    Start(&'a str),
    End(&'a str, Verdict),
    Done(Tally),
    Other,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        Self::parse_ktest(line.trim()).unwrap_or(Self::Other)
    }

    fn parse_ktest(line: &'a str) -> Option<Self> {
        let rest = line.strip_prefix("KTEST ")?;
        if let Some(numbers) = rest.strip_prefix("done ") {
            let (passed, failed) = numbers.split_once(' ')?;
            let tally = Tally {
                passed: passed.parse().ok()?,
                failed: failed.parse().ok()?,
            };
            return Some(Self::Done(tally));
        }
        let (name, state) = rest.split_once(" ... ")?;
        match state {
            "start" => Some(Self::Start(name)),
            "ok" => Some(Self::End(name, Verdict::Passed)),
            _ => {
                let message = state.strip_prefix("FAILED: ")?;
                Some(Self::End(name, Verdict::Failed(message.to_owned())))
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Panicked => write!(f, "the kernel panicked"),
            Self::Faulted => write!(f, "the CPU raised a fault"),
            Self::TimedOut => write!(f, "it did not end in time"),
            Self::MachineEnded(outcome) => write!(f, "it has no last line: {outcome}"),
            Self::NotRun(outcome) => write!(f, "the kernel never began it: {outcome}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Report, Tally, Verdict, list};
    use boot_runner::outcome::Outcome;

    fn read(serial: &str, outcome: Outcome) -> Report {
        Report::read(&Ended {
            serial: serial.to_owned(),
            outcome,
        })
    }

    fn verdicts(report: &Report) -> Vec<(&str, &Verdict)> {
        report
            .results
            .iter()
            .map(|(name, result)| (name.as_str(), &result.verdict))
            .collect()
    }

    #[test]
    fn names_are_read_from_a_listing_among_other_lines() {
        let serial = "boot: hello\r\nKTEST buddy::split\r\nlog line\r\nKTEST zone::spans\r\nmm> ";
        assert_eq!(list(serial), ["buddy::split", "zone::spans"]);
        assert_eq!(list("KTEST a ... start\nKTEST done 1 0\n"), [""; 0]);
    }

    #[test]
    fn a_whole_run_gives_each_test_its_verdict_and_its_output() {
        let serial = "boot: hello\r\nKTEST a ... start\r\nsome log\r\nKTEST a ... ok\r\n\
            KTEST b ... start\r\nKTEST b ... FAILED: 3 blocks, not 2\r\nKTEST done 1 1\r\n";
        let report = read(serial, Outcome::CommandFailed);
        let failed = Verdict::Failed("3 blocks, not 2".to_owned());
        assert_eq!(verdicts(&report), [("a", &Verdict::Passed), ("b", &failed)]);
        assert_eq!(report.results[0].1.output, "some log\n");
        assert_eq!(
            report.tally,
            Some(Tally {
                passed: 1,
                failed: 1
            })
        );
        assert_eq!(
            report.counted(),
            Tally {
                passed: 1,
                failed: 1
            }
        );
    }

    #[test]
    fn the_test_in_which_the_machine_died_bears_the_reason() {
        let serial = "KTEST a ... start\nKTEST a ... ok\nKTEST b ... start\npanic: no frame\n";
        for (outcome, verdict) in [
            (Outcome::Panicked, Verdict::Panicked),
            (Outcome::Faulted, Verdict::Faulted),
            (Outcome::TripleFaulted, Verdict::Faulted),
            (Outcome::TimedOut, Verdict::TimedOut),
            (
                Outcome::SwitchedOff,
                Verdict::MachineEnded(Outcome::SwitchedOff),
            ),
            (
                Outcome::QemuFailed(None),
                Verdict::MachineEnded(Outcome::QemuFailed(None)),
            ),
        ] {
            let report = read(serial, outcome);
            assert_eq!(
                verdicts(&report),
                [("a", &Verdict::Passed), ("b", &verdict)]
            );
            assert_eq!(report.results[1].1.output, "panic: no frame\n");
            assert_eq!(report.tally, None);
        }
    }

    #[test]
    fn a_machine_that_died_between_tests_blames_none() {
        let report = read("KTEST a ... start\nKTEST a ... ok\n", Outcome::Panicked);
        assert_eq!(verdicts(&report), [("a", &Verdict::Passed)]);
        assert_eq!(report.tally, None);
    }

    #[test]
    fn a_line_cut_short_by_the_end_is_no_verdict() {
        let report = read("KTEST a ... start\nKTEST a ... o", Outcome::TimedOut);
        assert_eq!(verdicts(&report), [("a", &Verdict::TimedOut)]);
    }

    #[test]
    fn a_test_without_a_last_line_has_not_passed() {
        let serial = "KTEST a ... start\nKTEST b ... start\nKTEST b ... ok\nKTEST done 1 0\n";
        let report = read(serial, Outcome::Passed);
        let lost = Verdict::MachineEnded(Outcome::Passed);
        assert_eq!(verdicts(&report), [("a", &lost), ("b", &Verdict::Passed)]);
        assert_eq!(
            report.counted(),
            Tally {
                passed: 1,
                failed: 1
            }
        );
    }
}
