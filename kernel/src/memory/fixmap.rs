//! Slots with addresses that are fixed when the kernel is compiled, one page each (Linux: `asm/fixmap.h`).
#![expect(unsafe_code, reason = "maps device registers")]

use super::MEMORY;
use super::address_space::LAYOUT;
use mm::addr::{PfnRange, PhysAddr};
use mm::config::PAGE_SIZE;
use mm::pagetable::{Attributes, MapError, PageSize};

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
    let at = mm::addr::VirtAddr::new(slot.address());
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
