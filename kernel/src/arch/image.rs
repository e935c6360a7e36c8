//! Where the kernel's image lies, from the symbols of `boot`'s linker script.

use crate::num::to_u64;
use bootloader_api::BootInfo;
use core::ops::Range;
use mm::addr::{PhysAddr, PhysRange};

unsafe extern "C" {
    #[link_name = "__text_start"]
    safe static TEXT_START: u8;
    #[link_name = "__text_end"]
    safe static TEXT_END: u8;
    #[link_name = "__rodata_start"]
    safe static RODATA_START: u8;
    #[link_name = "__rodata_end"]
    safe static RODATA_END: u8;
    #[link_name = "__data_start"]
    safe static DATA_START: u8;
    #[link_name = "__data_end"]
    safe static DATA_END: u8;
    #[link_name = "__bss_start"]
    safe static BSS_START: u8;
    #[link_name = "__bss_end"]
    safe static BSS_END: u8;
    #[link_name = "__kernel_start"]
    safe static KERNEL_START: u8;
    #[link_name = "__kernel_end"]
    safe static KERNEL_END: u8;
}

/// A part of the image, by the name that Linux gives it in `/proc/iomem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name.
    pub name: &'static str,
    /// Where it lies in physical memory.
    pub range: PhysRange,
}

/// The image's physical range, from its first byte to its last.
#[must_use]
pub fn physical(info: &BootInfo) -> PhysRange {
    range_between(&raw const KERNEL_START, &raw const KERNEL_END, info)
}

/// The parts of the image, lowest first.
#[must_use]
pub fn parts(info: &BootInfo) -> [Part; 4] {
    let part = |name, start, end| Part {
        name,
        range: range_between(start, end, info),
    };
    [
        part("Kernel code", &raw const TEXT_START, &raw const TEXT_END),
        part(
            "Kernel rodata",
            &raw const RODATA_START,
            &raw const RODATA_END,
        ),
        part("Kernel data", &raw const DATA_START, &raw const DATA_END),
        part("Kernel bss", &raw const BSS_START, &raw const BSS_END),
    ]
}

/// Where something in the image lies in physical memory.
pub(crate) fn physical_address(place: *const u8, info: &BootInfo) -> PhysAddr {
    let base = to_u64((&raw const KERNEL_START).addr());
    let offset = to_u64(place.addr()).saturating_sub(base);
    PhysAddr::new(info.kernel_addr).saturating_add(offset)
}

/// Where something at a physical address in the image lies.
pub(crate) fn virtual_address(at: PhysAddr, info: &BootInfo) -> u64 {
    let base = to_u64((&raw const KERNEL_START).addr());
    let offset = at.offset_from(PhysAddr::new(info.kernel_addr));
    base.saturating_add(offset.unwrap_or_default())
}

/// Where the bytes between two symbols lie in physical memory.
fn range_between(start: *const u8, end: *const u8, info: &BootInfo) -> PhysRange {
    let physical = |symbol: *const u8| physical_address(symbol, info);
    PhysRange::new(physical(start), physical(end)).unwrap_or_default()
}

/// The addresses of the kernel's code.
#[must_use]
pub fn text() -> Range<u64> {
    to_u64((&raw const TEXT_START).addr())..to_u64((&raw const TEXT_END).addr())
}
