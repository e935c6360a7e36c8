//! Memory of any size: the boot takes as long with much of it as with little, and all of it can be had.

use core::time::Duration;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libtest_mimic::Failed;

use crate::{guest, succeeds_and_says};

/// The sizes, beside 512M.
pub(crate) const SIZES: [&str; 2] = ["256G", "1T"];
/// How many instructions to the prompt there may be for 100 with 512M.
const MOST: u64 = 120;
/// What QEMU may have resident at the prompt, in KiB.
const RESIDENT_KIB: u64 = 400 << 10;
/// Where blocks are not zeroed on their way out, the host need not back them.
const UNTOUCHED: &str = "--profile plain --cmdline init_on_alloc=0";

/// The prompt is reached with hardly more instructions than with 512M.
pub(crate) fn boots_as_fast(size: &str) -> Result<(), Failed> {
    let (small, large) = (prompt("512M")?, prompt(size)?);
    if large.saturating_mul(100) > small.saturating_mul(MOST) {
        let text = format!("{large} instructions to the prompt with {size}, {small} with 512M");
        return Err(text.into());
    }
    Ok(())
}

/// Instructions from the kernel's entry to its first command.
fn prompt(size: &str) -> Result<u64, Failed> {
    let options = format!("--icount --memory {size}");
    let serial = guest::boot(&*guest::options(&options)?, "bench boot_prompt")?.serial;
    let line = serial
        .lines()
        .find_map(|line| line.strip_prefix("BENCH boot_prompt 1 "));
    let count = line.and_then(|count| count.trim().strip_suffix(".0")?.parse().ok());
    count.ok_or_else(|| format!("no count:\n{serial}").into())
}

/// A machine that idles at its prompt for ten seconds takes little of the host's memory, however much
/// its own is.
pub(crate) fn leaves_the_host_its_memory(size: &str) -> Result<(), Failed> {
    let mark = format!("idle_with_{size}");
    let has_ended = AtomicBool::new(false);
    let (outcome, resident) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut last = None;
            while !has_ended.load(Ordering::Acquire) {
                last = resident_kib(&mark).or(last);
                thread::sleep(Duration::from_millis(100));
            }
            last
        });
        let options = format!("--memory {size}");
        let commands = format!("echo {mark}; sleep 10; sections");
        let outcome = succeeds_and_says(&options, &commands, &["are populated"]);
        has_ended.store(true, Ordering::Release);
        (outcome, watcher.join())
    });
    outcome?;
    match resident {
        Ok(Some(kib)) if kib < RESIDENT_KIB => Ok(()),
        Ok(Some(kib)) => Err(format!("{kib} KiB are resident").into()),
        _ => Err("QEMU was not found among the processes".into()),
    }
}

/// What QEMU has resident whose command line says `mark`; nothing where there is no such process or
/// no `/proc`.
fn resident_kib(mark: &str) -> Option<u64> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        if !line.contains(mark) || !line.starts_with("qemu") && !line.contains("/qemu") {
            return None;
        }
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        resident.trim().strip_suffix("kB")?.trim().parse().ok()
    })
}

/// Every free block of 4 MiB can be had, from every section, and goes back.
pub(crate) fn gives_all_of_256g() -> Result<(), Failed> {
    let says = [
        "blocks of 4 MiB taken, from all but 0 sections",
        "sections: 2048 of 2048 are populated",
    ];
    let options = format!("--memory 256G {UNTOUCHED}");
    succeeds_and_says(&options, "sections take; stress 2000", &says)
}

/// A block of each section can be had, and goes back.
pub(crate) fn gives_a_block_of_each_section_of_1t() -> Result<(), Failed> {
    let says = [
        "blocks of 4 MiB taken, from all but 0 sections",
        "sections: 8192 of 8192 are populated",
    ];
    succeeds_and_says(&format!("--memory 1T {UNTOUCHED}"), "sections touch", &says)
}
