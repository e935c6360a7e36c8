//! Re-booting, tried on a machine that only pretends.

use super::{Ended, Guest, Irregularity, LIST_LIMIT, Run, TestResult, Verdict, run_all};
use boot_runner::outcome::Outcome;

/// A kernel whose tests do what their names say.
#[derive(Default)]
struct Fake {
    boots: Vec<Vec<String>>,
    /// Ends each boot before its first test.
    dies_at_boot: Option<Outcome>,
    /// Ends each boot after so many tests, outside of any.
    dies_after: Option<usize>,
}

impl Guest for Fake {
    type Error = core::convert::Infallible;

    fn boot(&mut self, tests: &[String]) -> Result<Ended, Self::Error> {
        self.boots.push(tests.to_vec());
        let mut serial = String::from("kernel: hello\n");
        if let Some(outcome) = self.dies_at_boot {
            return Ok(Ended { serial, outcome });
        }
        let (mut passed, mut failed) = (0, 0);
        for test in tests.iter().filter(|test| !test.starts_with("unknown")) {
            serial.push_str(&format!("KTEST {test} ... start\n"));
            let death = match test.split('_').next() {
                Some("panic") => Some(Outcome::Panicked),
                Some("fault") => Some(Outcome::Faulted),
                Some("hang") => Some(Outcome::TimedOut),
                Some("fail") => {
                    serial.push_str(&format!("KTEST {test} ... FAILED: as asked\n"));
                    failed += 1;
                    None
                }
                _ => {
                    serial.push_str(&format!("KTEST {test} ... ok\n"));
                    passed += 1;
                    None
                }
            };
            if let Some(outcome) = death {
                return Ok(Ended { serial, outcome });
            }
            if self.dies_after == Some(passed + failed) {
                return Ok(Ended {
                    serial,
                    outcome: Outcome::TripleFaulted,
                });
            }
        }
        serial.push_str(&format!("KTEST done {passed} {failed}\n"));
        let outcome = if failed == 0 {
            Outcome::Passed
        } else {
            Outcome::CommandFailed
        };
        Ok(Ended { serial, outcome })
    }
}

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn run(fake: &mut Fake, list: &str) -> Run {
    run_all(fake, &names(list)).unwrap()
}

fn verdict(run: &Run, test: &str) -> Verdict {
    run.results
        .get(test)
        .map(|result: &TestResult| result.verdict.clone())
        .unwrap()
}

#[test]
fn tests_that_all_return_take_one_boot() {
    let run = run(&mut Fake::default(), "a fail_b c");
    assert_eq!((run.boots, run.results.len()), (1, 3));
    assert_eq!(verdict(&run, "a"), Verdict::Passed);
    assert_eq!(
        verdict(&run, "fail_b"),
        Verdict::Failed("as asked".to_owned())
    );
    assert_eq!(run.irregularities, []);
}

#[test]
fn each_crash_costs_one_boot_and_the_tests_after_it_still_run() {
    let mut fake = Fake::default();
    let run = run(&mut fake, "a panic_b c fault_d hang_e f");
    assert_eq!(
        fake.boots,
        [
            names("a panic_b c fault_d hang_e f"),
            names("c fault_d hang_e f"),
            names("hang_e f"),
            names("f"),
        ]
    );
    for (test, expected) in [
        ("a", Verdict::Passed),
        ("panic_b", Verdict::Panicked),
        ("c", Verdict::Passed),
        ("fault_d", Verdict::Faulted),
        ("hang_e", Verdict::TimedOut),
        ("f", Verdict::Passed),
    ] {
        assert_eq!(verdict(&run, test), expected, "{test}");
    }
    assert_eq!(run.irregularities, []);
}

#[test]
fn a_machine_that_never_comes_to_a_test_is_booted_once() {
    let mut fake = Fake {
        dies_at_boot: Some(Outcome::BootFailed),
        ..Fake::default()
    };
    let run = run(&mut fake, "a b c");
    assert_eq!(run.boots, 1);
    for test in ["a", "b", "c"] {
        assert_eq!(verdict(&run, test), Verdict::NotRun(Outcome::BootFailed));
        assert_eq!(run.results[test].output, "kernel: hello\n");
    }
    assert_eq!(
        run.irregularities,
        [Irregularity::DiedBetweenTests(Outcome::BootFailed)]
    );
}

#[test]
fn a_death_between_tests_is_reported_beside_them() {
    let mut fake = Fake {
        dies_after: Some(2),
        ..Fake::default()
    };
    let run = run(&mut fake, "a b c");
    assert_eq!(run.boots, 2);
    assert!(
        run.results
            .values()
            .all(|result| result.verdict == Verdict::Passed)
    );
    assert_eq!(
        run.irregularities,
        [Irregularity::DiedBetweenTests(Outcome::TripleFaulted)]
    );
}

#[test]
fn a_test_that_the_kernel_does_not_know_has_not_run() {
    let run = run(&mut Fake::default(), "a unknown_b");
    assert_eq!(run.boots, 1);
    assert_eq!(verdict(&run, "unknown_b"), Verdict::NotRun(Outcome::Passed));
}

#[test]
fn many_tests_are_dealt_out_in_command_lines_of_bounded_length() {
    let tests: Vec<String> = (0..200).map(|number| format!("{number:040}")).collect();
    let mut fake = Fake::default();
    let run = run_all(&mut fake, &tests).unwrap();
    assert_eq!((run.results.len(), run.boots), (200, 3));
    assert_eq!(fake.boots.concat(), tests);
    assert!(
        fake.boots
            .iter()
            .all(|boot| boot.join(",").len() <= LIST_LIMIT)
    );

    let long = "x".repeat(2 * LIST_LIMIT);
    assert_eq!(run_all(&mut Fake::default(), &[long]).unwrap().boots, 1);
}
