//! The single-step proof of the page and object paths, in the profiles that kernels ship with.

use libtest_mimic::Failed;

use crate::guest;
use boot_runner::outcome::RanCommands;

/// Boundaries that there are at least, interrupts and NMIs together.
const LEAST: u64 = 100_000;

/// The profiles.
pub(crate) const PROFILES: [&str; 2] = ["plain", "hardened"];

/// Boots with a profile and steps through the page and object paths.
pub(crate) fn step_through(profile: &str) -> Result<(), Failed> {
    let options = guest::options(&format!("--profile {profile}"))?;
    let recorded = guest::boot(&options, "ktest selftest::*steps*")?;
    let (outcome, serial) = (recorded.finished.outcome, &recorded.serial);
    if outcome.exit_status(RanCommands::Yes) != 0 {
        return Err(format!("{outcome}\n{serial}").into());
    }
    let sums = serial.lines().filter_map(|line| {
        let (_, told) = line.split_once("single step: ")?;
        let (count, rest) = told.split_once(" boundaries (")?;
        println!("{profile}: {count} boundaries ({rest}");
        count.parse::<u64>().ok()
    });
    let boundaries: u64 = sums.sum();
    if boundaries < LEAST {
        return Err(format!("only {boundaries} boundaries:\n{serial}").into());
    }
    Ok(())
}
