//! The kernels in `examples`: each comes up, uses memory its way, and misses none at the end.

use std::fs;
use std::path::Path;

use boot_runner::kernel::Package;
use boot_runner::options::BootOptions;
use boot_runner::outcome::Outcome;
use libtest_mimic::Failed;

use crate::cases::{Boot, boot};
use crate::guest;

/// Boots an example, which must pass and print some texts.
fn passes_and_says(package: Package, options: &str, texts: &[&str]) -> Result<(), Failed> {
    let mut options = guest::options(options)?;
    options.kernel.package = package;
    ends_and_says(&options, Outcome::Passed, texts)
}

/// Boots an example, which must end in some way and print some texts.
fn ends_and_says(options: &BootOptions, end: Outcome, texts: &[&str]) -> Result<(), Failed> {
    let recorded = guest::start(options)?;
    let (outcome, serial) = (recorded.finished.outcome, &recorded.serial);
    if outcome != end || !texts.iter().all(|text| serial.contains(text)) {
        let qemu = &recorded.finished.qemu_messages;
        return Err(format!("{outcome}, or not all of {texts:?}:\n{qemu}\n{serial}").into());
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

/// Machines with a virtio disk: a device of either age, on PCI Express and on PCI, and with memory above 4 GiB.
pub(crate) const WITH_A_DISK: &[Disk] = &[
    disk("q35", "", "virtio-blk-pci"),
    disk("pc", "--machine pc", "virtio-blk-pci"),
    disk("q35_max_6G", "--cpu max --memory 6G", "virtio-blk-pci"),
    disk("q35_modern", "", "virtio-blk-pci,disable-legacy=on"),
    // The driver speaks to the address that the firmware chose.
    disk("pc_bios", "--machine pc --firmware bios", "virtio-blk-pci"),
];

/// A machine with a disk.
pub(crate) struct Disk {
    /// Name of the test, after `virtio_blk::`.
    pub(crate) name: &'static str,
    options: &'static str,
    device: &'static str,
}

const fn disk(name: &'static str, options: &'static str, device: &'static str) -> Disk {
    Disk {
        name,
        options,
        device,
    }
}

/// Sectors of a test's disk: each way to a buffer, read and written, several times.
const SECTORS: usize = 100;

/// What sector and index say of a byte, as the kernel expects it.
fn byte(sector: usize, index: usize) -> u8 {
    (sector * 31 + index).to_le_bytes()[0]
}

/// The whole disk; every other sector inverted, if it was written.
fn contents(is_written: bool) -> Vec<u8> {
    let sector = |sector: usize| {
        let mask = if is_written && sector % 2 == 1 { !0 } else { 0 };
        (0..512).map(move |index| byte(sector, index) ^ mask)
    };
    (0..SECTORS).flat_map(sector).collect()
}

/// Each sector is read, every other one is written: the kernel sees it, and so does the host.
pub(crate) fn virtio_blk(case: &Disk) -> Result<(), Failed> {
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk-{}.img", case.name));
    fs::write(&image, contents(false))?;
    let mut options = guest::options(case.options)?;
    options.kernel.package = Package::VirtioBlk;
    // A comma in a path is written twice.
    let file = image.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id=disk,format=raw,file={file}");
    let device = format!("{},drive=disk", case.device);
    let arguments = ["-drive", &drive, "-device", &device].map(str::to_owned);
    options.machine.extra_args.extend(arguments);
    let says = ["100 sectors read, every other one written", "Ok(())"];
    ends_and_says(&options, Outcome::Passed, &says)?;

    let found = fs::read(&image)?;
    let expected = contents(true);
    let wrong = found
        .iter()
        .zip(&expected)
        .position(|(one, other)| one != other);
    if found.len() != expected.len() || wrong.is_some() {
        return Err(format!("{} bytes; the first wrong one: {wrong:?}", found.len()).into());
    }
    fs::remove_file(&image)?;
    Ok(())
}

/// Without a disk the kernel says so.
pub(crate) fn virtio_blk_without_a_disk() -> Result<(), Failed> {
    let mut options = guest::options("")?;
    options.kernel.package = Package::VirtioBlk;
    let says = ["there is no virtio disk"];
    ends_and_says(&options, Outcome::CommandFailed, &says)
}
