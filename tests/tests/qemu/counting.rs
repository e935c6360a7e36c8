//! Machines whose clock counts instructions: what the boot costs, and that counting repeats.

use boot_runner::outcome::RanCommands;
use boot_runner::vm::Recorded;
use libtest_mimic::Failed;

use crate::guest;

/// The most instructions from the kernel's start to its first command, at 512M. The aim
/// is far fewer.
const BOOT_BUDGET: u64 = 300_000_000;

/// With one nanosecond for each instruction, the log's time is a count.
const OPTIONS: &str = "--icount --memory 512M";

/// The first command runs within the budget.
pub(crate) fn boot_stays_within_its_budget() -> Result<(), Failed> {
    let serial = counted("time")?;
    let instructions = uptime_ns(&serial).ok_or_else(|| format!("it told no time:\n{serial}"))?;
    if instructions > BOOT_BUDGET {
        return Err(format!("{instructions} instructions, more than {BOOT_BUDGET}").into());
    }
    Ok(())
}

/// Two boots print the same, times included.
pub(crate) fn counting_repeats() -> Result<(), Failed> {
    // All but those that take each instruction by itself, which takes minutes.
    let tests = "memory::*,selftest::threads::*,selftest::waiting::*,selftest::traps::*";
    let commands = format!("time; ktest {tests}; time");
    let (first, second) = (counted(&commands)?, counted(&commands)?);
    if uptime_ns(&first).is_none() {
        return Err(format!("it told no time:\n{first}").into());
    }
    match first
        .lines()
        .zip(second.lines())
        .find(|(first, second)| first != second)
    {
        Some((first, second)) => Err(format!("first {first:?}\nthen  {second:?}").into()),
        None if first.len() != second.len() => Err("one boot printed more".into()),
        None => Ok(()),
    }
}

fn counted(commands: &str) -> Result<String, Failed> {
    let Recorded { serial, finished } = guest::boot(&*guest::options(OPTIONS)?, commands)?;
    match finished.outcome {
        outcome if outcome.exit_status(RanCommands::Yes) == 0 => Ok(serial),
        outcome => Err(format!("{outcome}\n{serial}").into()),
    }
}

/// The last `[    0.000048] since boot` in nanoseconds.
fn uptime_ns(serial: &str) -> Option<u64> {
    let line = serial
        .lines()
        .rev()
        .find(|line| line.contains("] since boot"))?;
    let (time, _) = line.trim().strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = time.trim().split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let micros: u64 = micros.parse().ok()?;
    seconds
        .checked_mul(1_000_000)?
        .checked_add(micros)?
        .checked_mul(1000)
}
