//! Whose a frame is that was never handed to the page allocator.

use super::MEMORY;
use super::bring_up::boot_map;
use crate::arch::cpu;
use core::fmt;
use mm::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange};
use mm::frame::FrameState;
use mm::proc::firmware_resources;

/// What `LowMemory::Reserve` keeps back.
const FIRST_MIB: PhysRange = PhysRange::from_size(PhysAddr::ZERO, 1 << 20);

/// Why a frame is not the page allocator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The kernel or the boot loader put something there.
    Taken(&'static str),
    /// The firmware's map, after the command line's changes, does not call it RAM.
    Firmware(&'static str),
    /// The first MiB, which firmware is known to write to.
    LowMemory,
    /// It was handed out before the page allocator was there.
    Early,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(name) => f.write_str(name),
            Self::Firmware(name) => write!(f, "the firmware ({name})"),
            Self::LowMemory => f.write_str("nobody: firmware is known to write to the first MiB"),
            Self::Early => f.write_str("early memory (the frame table and what maps it)"),
        }
    }
}

/// What holds a reserved frame, or what lies where there is no frame; `None` for frames that
/// belong to the page allocator, and where nobody said what there is.
pub(super) fn of(pfn: Pfn) -> Option<Holder> {
    let head = MEMORY.frames().and_then(|table| table.head(pfn));
    let state = head.and_then(|head| head.state());
    if state.is_some_and(|state| state != FrameState::Reserved) {
        return None;
    }
    let map = boot_map()?;
    pfn.checked_addr()?;
    let page = PfnRange::block(pfn, Order::ZERO).addrs();

    // The smallest of what overlaps says most.
    let taken = map.firmware.taken.iter();
    let taken = taken.filter(|(range, _)| range.overlaps(page));
    if let Some((_, name)) = taken.min_by_key(|(range, _)| range.size()) {
        return Some(Holder::Taken(name));
    }
    let (phys_bits, _) = cpu::address_bits();
    let edited = map.firmware.map(phys_bits).edited(&map.params);
    let resource = firmware_resources(edited).find(|resource| resource.range.overlaps(page))?;
    if resource.name != "System RAM" {
        return Some(Holder::Firmware(resource.name));
    }
    state?;
    if FIRST_MIB.overlaps(page) {
        return Some(Holder::LowMemory);
    }
    Some(Holder::Early)
}
