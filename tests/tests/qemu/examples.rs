//! The kernels in `examples`: each comes up, uses memory its way, and misses none at the end.

use boot_runner::kernel::Package;
use boot_runner::outcome::Outcome;
use libtest_mimic::Failed;

use crate::cases::Boot;
use crate::guest;

/// Boots an example, which must pass and print some texts.
fn passes_and_says(package: Package, options: &str, texts: &[&str]) -> Result<(), Failed> {
    let mut options = guest::options(options)?;
    options.kernel.package = package;
    let recorded = guest::start(&options)?;
    let (outcome, serial) = (recorded.finished.outcome, &recorded.serial);
    if outcome != Outcome::Passed || !texts.iter().all(|text| serial.contains(text)) {
        return Err(format!("{outcome}, or not all of {texts:?}:\n{serial}").into());
    }
    Ok(())
}

/// A heap, a DMA buffer, a stack, a device: the status says whether all is back.
pub(crate) fn tiny_kernel(case: &Boot) -> Result<(), Failed> {
    let says = [
        "Zone ranges:",
        "1000 names, DmaBuffer",
        "APIC version 0x",
        "MemFree: ",
        "Ok(())",
    ];
    passes_and_says(Package::TinyKernel, case.options, &says)
}
