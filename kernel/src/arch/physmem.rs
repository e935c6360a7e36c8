//! Physical memory as bytes, for parsers of what firmware left there.

use crate::num::{to_u64, to_usize};
use acpi_tables::PhysMemory;
use alloc::vec::Vec;
use bootloader_api::BootInfo;
use core::ops::Range;

/// All that the boot loader maps whether it is RAM or not.
const MAPPED: u64 = 1 << 32;
/// The BIOS's own memory, which few maps mention.
const FIRST_MIB: u64 = 1 << 20;

/// The memory that the firmware's map mentions, below 4 GiB: reading there touches no device
/// that the firmware keeps quiet about.
#[derive(Debug)]
pub(crate) struct FirmwareMemory {
    offset: u64,
    ranges: Vec<Range<u64>>,
    /// What the kernel itself writes to.
    image: Range<u64>,
}

impl FirmwareMemory {
    /// What the boot loader mapped; `None` if it did not.
    ///
    /// # Safety
    ///
    /// 1. While the value lives, nobody writes to memory outside of the kernel's image that is
    ///    read through it.
    pub(crate) unsafe fn new(info: &BootInfo) -> Option<Self> {
        let offset = info.physical_memory_offset.as_ref().copied()?;
        let known = info
            .memory_regions
            .iter()
            .map(|region| region.start..region.end);
        Some(Self {
            offset,
            image: info.kernel_addr..info.kernel_addr.saturating_add(info.kernel_len),
            ranges: core::iter::once(0..FIRST_MIB).chain(known).collect(),
        })
    }
}

impl PhysMemory for FirmwareMemory {
    fn bytes(&self, at: u64, length: usize) -> Option<&[u8]> {
        let end = at
            .checked_add(to_u64(length))
            .filter(|&end| end <= MAPPED)?;
        let is_known = |range: &&Range<u64>| range.start <= at && end <= range.end;
        self.ranges.iter().find(is_known)?;
        if at < self.image.end && self.image.start < end {
            // No table lies there: a pointer that says so lies itself.
            return None;
        }
        let address = to_usize(self.offset.checked_add(at)?);
        let bytes = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the boot loader maps everything below 4 GiB at the offset; the bytes are outside
        // of the image, so nobody writes to them while `self` lives (1); any byte is a valid `u8`.
        Some(unsafe { core::slice::from_raw_parts(bytes, length) })
    }
}
