//! Slots with addresses that are fixed when the kernel is compiled (Linux: `asm/fixmap.h`): one page each for good, and
//! some of 31 pages for what is read before memory is up (Linux: `early_memremap`).
//!
//! The latter are in the boot loader's page tables. They are closed, and what is left in them is told, when the kernel
//! goes over to its own.
#![expect(
    unsafe_code,
    reason = "maps device registers, and what the firmware left"
)]

use super::MEMORY;
use super::address_space::LAYOUT;
use crate::num::{to_u64, to_usize};
use crate::{arch, boot_info};
use core::panic::Location;
use core::slice;
use mm::addr::{PfnRange, PhysAddr, VirtAddr};
use mm::config::PAGE_SIZE;
use mm::kspace::early::{EARLY_BYTES, EarlyMapError, EarlyMapStats, EarlyMaps};
use mm::pagetable::{Attributes, Entry, MapError, OutOfTables, PageSize};
use spin::Mutex;

/// What has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Slot {
    /// The registers of the local APIC (Linux: `FIX_APIC_BASE`).
    LocalApic = 0,
}

impl Slot {
    /// Where it is.
    const fn address(self) -> u64 {
        let index = match self {
            Self::LocalApic => 0_u64,
        };
        LAYOUT
            .fixmap
            .start()
            .as_u64()
            .saturating_add(index.saturating_mul(PAGE_SIZE))
    }
}

/// Maps the page with a device's registers into its slot, uncached, for good; answers where the registers are, or nothing as
/// long as the kernel has no address space of its own.
pub(crate) fn map_device(slot: Slot, registers: PhysAddr) -> Option<u64> {
    let space = MEMORY.kernel_space()?;
    let at = VirtAddr::new(slot.address());
    let frames = PfnRange::from_count(registers.frame(), 1)?;
    // SAFETY: the slot is the device's; its registers are no memory, and whoever has the address is its driver.
    let mapped = unsafe {
        MEMORY.map_pages(
            &space.tables,
            (at, frames),
            Attributes::KERNEL_IO,
            PageSize::Size4K,
        )
    };
    let offset = registers.as_u64() & PAGE_SIZE.wrapping_sub(1);
    match mapped {
        // Where it is mapped already, it is this device: slots have one.
        Ok(()) | Err(MapError::Occupied(_)) => Some(slot.address().saturating_add(offset)),
        Err(error) => {
            log::warn!("no slot for {slot:?}: {error}");
            None
        }
    }
}

/// Where the slots for the early boot begin: behind those for good.
const EARLY_START: VirtAddr = VirtAddr::new(
    LAYOUT
        .fixmap
        .start()
        .as_u64()
        .saturating_add(256 * PAGE_SIZE),
);
const _: () =
    assert!(EARLY_START.as_u64().saturating_add(EARLY_BYTES) <= LAYOUT.fixmap.end().as_u64());

static EARLY: Mutex<EarlyMaps> = Mutex::new(EarlyMaps::new(EARLY_START));

/// Memory that is mapped in a slot until this is dropped: to be read.
#[derive(Debug)]
pub(crate) struct EarlyMemory {
    at: VirtAddr,
    bytes: usize,
}

/// Maps memory that nobody writes to, before there are areas (Linux: `early_memremap_ro`).
///
/// # Errors
/// [`EarlyMapError`].
///
/// # Safety
///
/// There is memory, with or without RAM behind it, which can be read without harm, and nobody writes to it as long as it
/// is mapped.
///
/// # Context
/// Boot, on one CPU.
#[track_caller]
pub(crate) unsafe fn early_memremap(
    at: PhysAddr,
    bytes: usize,
) -> Result<EarlyMemory, EarlyMapError> {
    let what = (at, to_u64(bytes));
    let at = EARLY.lock().map(what, Attributes::KERNEL_RO, set_entry)?;
    Ok(EarlyMemory { at, bytes })
}

impl EarlyMemory {
    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        let first = core::ptr::with_exposed_provenance::<u8>(to_usize(self.at.as_u64()));
        // SAFETY: so many bytes are mapped there for as long as `self` lives, and nobody writes to them (the word of
        // who had them mapped).
        unsafe { slice::from_raw_parts(first, self.bytes) }
    }
}

impl Drop for EarlyMemory {
    fn drop(&mut self) {
        if let Err(error) = EARLY.lock().unmap(MEMORY.platform(), self.at, set_entry) {
            log::error!("early_ioremap: {error}");
        }
    }
}

/// Writes an entry for a page of a slot, where the boot loader's tables are in use.
fn set_entry(page: VirtAddr, entry: Entry) -> Result<(), OutOfTables> {
    let offset = boot_info().and_then(|info| info.physical_memory_offset.as_ref().copied());
    let offset = offset.ok_or(OutOfTables)?;
    // SAFETY: (1) pages of slots are mapped by `EARLY` alone; (2) slots are closed before other tables are used.
    unsafe { arch::set_early_page(offset, page, entry) }.map_err(|_| OutOfTables)
}

/// The kernel goes over to its own page tables: nothing is mapped in the slots any more. Says what was left in them (Linux:
/// `check_early_ioremap_leak`).
///
/// # Context
/// Boot.
pub(super) fn close_early() {
    let mut early = EARLY.lock();
    let stats = early.stats();
    log::debug!(
        "early_ioremap: {} mappings, {} at a time",
        stats.made,
        stats.most
    );
    for left in early.close() {
        let place: &Location<'_> = left.place;
        log::warn!(
            "early_ioremap: {} was never unmapped, from {place}",
            left.phys
        );
    }
}

/// What the slots were used for, in numbers.
pub(super) fn early_stats() -> EarlyMapStats {
    EARLY.lock().stats()
}
