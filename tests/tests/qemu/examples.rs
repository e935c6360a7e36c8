//! The kernels in `examples`: each comes up, uses memory its way, and misses none at the end.

use boot_runner::kernel::Package;
use boot_runner::outcome::Outcome;
use libtest_mimic::Failed;

use crate::cases::{Boot, boot};
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

/// Machines on which the kernel in the tutorial's style must come up: page tables of four levels and of five, with and
/// without a BIOS.
pub(crate) const IN_TUTORIAL_STYLE: &[Boot] = &[
    boot("q35", ""),
    boot("q35_max", "--cpu max"),
    boot("microvm_6G", "--machine microvm --memory 6G"),
];

/// Addresses are translated, a page is mapped, used and unmapped, and the heap is used.
pub(crate) fn blog_os_style(case: &Boot) -> Result<(), Failed> {
    let says = [
        "VirtAddr(0xb8000) -> Some(PhysAddr(0xb8000))",
        "Page[4KiB](0x444444440000) -> PhysFrame[4KiB](0x",
        ": 0x123456789abcdef",
        "2 owners",
        "Ok(())",
    ];
    passes_and_says(Package::BlogOsStyle, case.options, &says)
}
