//! Each in-kernel test as a test of its own, on each machine.
//!
//! The kernel is asked once for the names. On each machine all tests that were not filtered out
//! run in one boot, or in more when some crash; whoever asks first for a result runs them, and
//! the others wait. The trials of the machines take turns, so that two machines run at a time.

use std::sync::{Arc, OnceLock};

use boot_runner::options::BootOptions;
use libtest_mimic::{Arguments, Failed, Trial};
use mm_tests::ktest::report::{self, Ended, Verdict};
use mm_tests::ktest::rounds::{Guest, Run, run_all};

use crate::cases::{KTEST_MACHINES, KtestMachine};
use crate::guest::{self, GuestError};

/// Name of the trial that stands for all when the kernel cannot be asked for their names.
pub(crate) const LISTING: &str = "ktest::listing";

/// Name of the trial that looks at a machine's boots rather than at one test.
const BOOTS_END_WELL: &str = "boots_end_well";

/// The trials for all in-kernel tests on all machines.
///
/// # Errors
/// Says why the kernel could not be asked for their names.
pub(crate) fn trials(args: &Arguments) -> Result<Vec<Trial>, Failed> {
    let names = names()?;
    let machines: Vec<_> = KTEST_MACHINES
        .iter()
        .map(|machine| Arc::new(Machine::new(machine, &names, args)))
        .collect();

    let mut trials = Vec::new();
    for name in &names {
        for machine in &machines {
            let (machine, test) = (Arc::clone(machine), name.clone());
            trials.push(Trial::test(machine.trial_name(name), move || {
                machine.verdict(&test)
            }));
        }
    }
    for machine in machines {
        let name = machine.trial_name(BOOTS_END_WELL);
        trials.push(Trial::test(name, move || machine.boots_end_well()));
    }
    Ok(trials)
}

/// The names of all in-kernel tests.
fn names() -> Result<Vec<String>, Failed> {
    let first = KTEST_MACHINES.first().ok_or("there is no machine to ask")?;
    let recorded = guest::boot(&*guest::options(first.options)?, "ktest --list")?;
    let names = report::list(&recorded.serial);
    if names.is_empty() {
        let outcome = recorded.finished.outcome;
        return Err(format!("no test was listed; {outcome}:\n{}", recorded.serial).into());
    }
    Ok(names)
}

/// A machine and what its tests gave, once they have run.
struct Machine {
    described: &'static KtestMachine,
    selected: Vec<String>,
    run: OnceLock<Result<Run, String>>,
}

impl Machine {
    fn new(described: &'static KtestMachine, names: &[String], args: &Arguments) -> Self {
        let mut machine = Self {
            described,
            selected: Vec::new(),
            run: OnceLock::new(),
        };
        let selected = names.iter().filter(|name| {
            let trial = Trial::test(machine.trial_name(name), || Ok(()));
            !args.is_filtered_out(&trial)
        });
        machine.selected = selected.cloned().collect();
        machine
    }

    fn trial_name(&self, test: &str) -> String {
        format!("ktest::{}::{test}", self.described.name)
    }

    /// All results; the first caller runs the tests.
    fn run(&self) -> Result<&Run, Failed> {
        let run = self.run.get_or_init(|| {
            let options =
                guest::options(self.described.options).map_err(|error| error.to_string())?;
            let mut qemu = Qemu { options };
            run_all(&mut qemu, &self.selected).map_err(|error| error.to_string())
        });
        run.as_ref().map_err(Failed::from)
    }

    fn verdict(&self, test: &str) -> Result<(), Failed> {
        let result = self
            .run()?
            .results
            .get(test)
            .ok_or("it was not asked for")?;
        match &result.verdict {
            Verdict::Passed => Ok(()),
            verdict => Err(format!("{verdict}\n{}", result.output).into()),
        }
    }

    /// Nothing was wrong beside the tests.
    fn boots_end_well(&self) -> Result<(), Failed> {
        let irregularities = &self.run()?.irregularities;
        if irregularities.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = irregularities.iter().map(ToString::to_string).collect();
        Err(lines.join("\n").into())
    }
}

/// A kernel in QEMU.
struct Qemu {
    options: Box<BootOptions>,
}

impl Guest for Qemu {
    type Error = GuestError;

    fn boot(&mut self, tests: &[String]) -> Result<Ended, GuestError> {
        let recorded = guest::boot(&self.options, &format!("ktest {}", tests.join(",")))?;
        Ok(Ended {
            serial: recorded.serial,
            outcome: recorded.finished.outcome,
        })
    }
}
