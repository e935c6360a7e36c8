//! Physical memory as bytes, for parsers of what firmware left there, before memory is up.

use crate::memory::fixmap;
use crate::num::{to_u64, to_usize};
use acpi_tables::PhysMemory;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bootloader_api::BootInfo;
use core::cell::RefCell;
use core::ops::Range;
use mm::addr::PhysAddr;

/// The BIOS's own memory, which few maps mention; boot loaders map it.
const FIRST_MIB: u64 = 1 << 20;
/// What is mapped at a time.
const STEP: usize = 64 << 10;

/// The memory that the firmware's map mentions, wherever it is: reading there touches no device
/// that the firmware keeps quiet about. What lies above the first MiB is copied through early mappings, so it need not be
/// memory that the boot loader has mapped.
#[derive(Debug)]
pub(crate) struct FirmwareMemory {
    offset: u64,
    ranges: Vec<Range<u64>>,
    /// What the kernel itself writes to.
    image: Range<u64>,
    /// What was read so far, by where it starts. None of these goes before `self` does.
    copies: RefCell<Vec<(u64, Box<[u8]>)>>,
}

impl FirmwareMemory {
    /// What the boot loader told of; `None` if it did not map memory.
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
            copies: RefCell::new(Vec::new()),
        })
    }

    /// Bytes of the first MiB.
    fn low(&self, at: u64, length: usize) -> Option<&[u8]> {
        let address = to_usize(self.offset.checked_add(at)?);
        let bytes = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the boot loader maps the first MiB at the offset; the bytes are outside
        // of the image, so nobody writes to them while `self` lives (1); any byte is a valid `u8`.
        Some(unsafe { core::slice::from_raw_parts(bytes, length) })
    }

    /// A copy of bytes, which lives as long as `self`.
    fn copy(&self, at: u64, length: usize) -> Option<&[u8]> {
        let mut copies = self.copies.borrow_mut();
        let is_it = |copy: &&(u64, Box<[u8]>)| copy.0 == at && copy.1.len() >= length;
        if copies.iter().find(is_it).is_none() {
            copies.push((at, read(at, length)?));
        }
        let (_, found) = copies.iter().find(is_it)?;
        let first = found.get(..length)?.as_ptr();
        // SAFETY: copies are in boxes of their own, which neither move nor go before `self` does, and are never written to
        // again.
        Some(unsafe { core::slice::from_raw_parts(first, length) })
    }
}

/// Copies bytes, as many at a time as an early mapping takes.
fn read(at: u64, length: usize) -> Option<Box<[u8]>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).ok()?;
    while bytes.len() < length {
        let from = PhysAddr::new(at.checked_add(to_u64(bytes.len()))?);
        let part = length.saturating_sub(bytes.len()).min(STEP);
        // SAFETY: the firmware's map mentions it, and nobody writes there (the word of who made the `FirmwareMemory`).
        let memory = unsafe { fixmap::early_memremap(from, part) };
        let memory = memory.inspect_err(|error| log::warn!("{from:?} cannot be read: {error}"));
        bytes.extend_from_slice(memory.ok()?.bytes());
    }
    Some(bytes.into_boxed_slice())
}

impl PhysMemory for FirmwareMemory {
    fn bytes(&self, at: u64, length: usize) -> Option<&[u8]> {
        let end = at.checked_add(to_u64(length))?;
        let is_known = |range: &&Range<u64>| range.start <= at && end <= range.end;
        self.ranges.iter().find(is_known)?;
        if at < self.image.end && self.image.start < end {
            // No table lies there: a pointer that says so lies itself.
            return None;
        }
        match end <= FIRST_MIB {
            true => self.low(at, length),
            false => self.copy(at, length),
        }
    }
}
