//! A kernel stack that is used up, on the boot CPU and on others: the guard page below it stops that, the report names the
//! thread, and the machine ends with the status of a fault. Never with a triple fault, which would say nothing at all.

use boot_runner::outcome::Outcome;
use libtest_mimic::Failed;

use crate::guest;

/// How often each is done.
const RUNS: usize = 20;

/// Where a stack is used up.
pub(crate) struct Overflow {
    /// Name of the test, after `overflow::`.
    pub(crate) name: &'static str,
    commands: &'static str,
    cpu: u32,
    /// The thread's name, between backticks.
    thread: &'static str,
}

/// The boot CPU, whose shell runs on its main stack, and two others, whose threads have stacks of their own.
pub(crate) const OVERFLOWS: &[Overflow] = &[
    Overflow {
        name: "boot_cpu",
        commands: "crash overflow",
        cpu: 0,
        thread: "`shell`",
    },
    Overflow {
        name: "another_cpu",
        commands: "on 1 crash overflow",
        cpu: 1,
        thread: "`kworker/1`",
    },
    Overflow {
        name: "the_last_of_four_cpus",
        commands: "on 3 crash overflow",
        cpu: 3,
        thread: "`kworker/3`",
    },
];

/// Machines that take turns.
const MACHINES: [&str; 5] = [
    "--cpus 4",
    "--cpus 4 --cpu max",
    "--cpus 4 --profile plain --machine pc",
    "--cpus 4 --cpu max --cmdline la57=off --memory 64M",
    "--cpus 4 --machine microvm",
];

/// Every run ends with the report.
pub(crate) fn are_reported(case: &Overflow) -> Result<(), Failed> {
    for (run, machine) in MACHINES.iter().cycle().take(RUNS).enumerate() {
        let recorded = guest::boot(&*guest::options(machine)?, case.commands)?;
        let (outcome, serial) = (recorded.finished.outcome, &recorded.serial);
        let says = [
            format!("UNEXPECTED EXCEPTION on CPU {}: #", case.cpu),
            format!(" {}", case.thread),
            "KERNEL STACK OVERFLOW: that is the guard page of the ".to_owned(),
            "kernel::arch::crash::stack_overflow".to_owned(),
        ];
        let missing = says.iter().find(|text| !serial.contains(text.as_str()));
        let reports = serial.matches("UNEXPECTED EXCEPTION").count();
        if outcome != Outcome::Faulted || missing.is_some() || reports != 1 {
            let said = format!("{outcome}, {reports} reports, without {missing:?}");
            return Err(format!("run {run}, {machine}: {said}\n{serial}").into());
        }
    }
    Ok(())
}
