//! Devices and tables before there are areas (Linux: `early_ioremap`, `early_memremap`, `mm/early_ioremap.c`).
//!
//! A few slots of a few pages each, at addresses that are fixed when a kernel is built: so nothing has to be allocated.
//! Who maps something unmaps it again soon; what is still mapped when [the slots are closed](EarlyMaps::close) is
//! told, with who mapped it.
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use crate::addr::{PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::config::{MAX_PHYS_BITS, PAGE_SIZE};
use crate::pagetable::{Attributes, Entry, OutOfTables, PageSize, Protection};
use crate::platform::{Platform, TlbFlush};

/// How many mappings there are at most (Linux: `FIX_BTMAPS_SLOTS`).
pub const EARLY_SLOTS: usize = 8;
/// Pages from one slot to the next. The last one is never mapped, so that whoever runs off the end has a page fault.
pub const EARLY_SLOT_PAGES: u64 = 32;
/// Bytes of addresses that all slots take.
pub const EARLY_BYTES: u64 = EARLY_SLOT_PAGES * PAGE_SIZE * 8;
const _: () = assert!(EARLY_SLOTS == 8, "EARLY_BYTES is about as many");
const SLOT_BYTES: u64 = EARLY_SLOT_PAGES * PAGE_SIZE;
const MOST_PAGES: u64 = EARLY_SLOT_PAGES - 1;

/// Why nothing was mapped or unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlyMapError {
    /// Nothing was asked for.
    Empty,
    /// The range wraps around, or reaches beyond what the architecture can address.
    BadRange(PhysAddr),
    /// It touches more pages than a slot has.
    TooLarge {
        /// So many there may be.
        most: u64,
    },
    /// Nobody can have pages like that: code that can be written to, or what user code may use.
    Forbidden(Attributes),
    /// All slots are in use.
    NoSlot,
    /// There is no page table for the slots.
    NoTable,
    /// There are areas by now: see [`Memory::ioremap`](crate::system::Memory::ioremap).
    Closed,
    /// Nothing that is mapped starts at this address.
    NotMapped(VirtAddr),
}

impl fmt::Display for EarlyMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing was asked for"),
            Self::BadRange(at) => write!(f, "nothing can be at {at:?}"),
            Self::TooLarge { most } => write!(f, "more than {most} pages"),
            Self::Forbidden(how) => write!(f, "nothing is mapped {how:?}"),
            Self::NoSlot => f.write_str("all slots are in use"),
            Self::NoTable => f.write_str("no page table for the slots"),
            Self::Closed => f.write_str("the slots are closed"),
            Self::NotMapped(at) => write!(f, "nothing that is mapped starts at {at:?}"),
        }
    }
}

impl core::error::Error for EarlyMapError {}

/// Something that is mapped in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EarlyMapping {
    /// What was asked for.
    pub phys: PhysRange,
    /// Where the first byte of it is.
    pub at: VirtAddr,
    /// The pages that are mapped.
    pub pages: VirtRange,
    /// Who asked.
    pub place: &'static Location<'static>,
}

/// Slots in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EarlyMapStats {
    /// Mappings that were made so far, …
    pub made: u32,
    /// … of which so many are there, …
    pub used: usize,
    /// … and were there at most.
    pub most: usize,
}

/// The slots. Whoever writes to page tables is told the entries by these: one CPU alone, since no other one is told to
/// forget anything.
#[derive(Debug)]
pub struct EarlyMaps {
    start: VirtAddr,
    slots: [Option<EarlyMapping>; EARLY_SLOTS],
    made: u32,
    most: usize,
    is_closed: bool,
}

impl EarlyMaps {
    /// Slots at some addresses: [`EARLY_BYTES`] from a page on, that nobody else maps. Context: any.
    #[must_use]
    pub const fn new(start: VirtAddr) -> Self {
        Self {
            start,
            slots: [None; EARLY_SLOTS],
            made: 0,
            most: 0,
            is_closed: false,
        }
    }

    /// Maps the pages that a range of physical memory touches; `set` writes the entry for a page. Answers where the first
    /// byte is: as far from a page's start as `at` is. Context: boot, on one CPU.
    ///
    /// # Errors
    /// [`EarlyMapError`]; nothing is mapped then.
    #[track_caller]
    pub fn map(
        &mut self,
        (at, size): (PhysAddr, u64),
        how: Attributes,
        mut set: impl FnMut(VirtAddr, Entry) -> Result<(), OutOfTables>,
    ) -> Result<VirtAddr, EarlyMapError> {
        let frames = self.check((at, size), how)?;
        let mut slots = (0..).zip(self.slots.iter_mut());
        let free = slots.find(|(_, slot)| slot.is_none());
        let (number, slot) = free.ok_or(EarlyMapError::NoSlot)?;
        let number: u64 = number;
        let offset = number.saturating_mul(SLOT_BYTES);
        let start = self.start.checked_add(offset).unwrap_or_default();
        let bytes = frames.frames().saturating_mul(PAGE_SIZE);
        let pages = VirtRange::from_size(start, bytes).unwrap_or_default();
        for (page, frame) in pages_of(pages).zip(frames.iter()) {
            let entry = Entry::leaf(frame, PageSize::Size4K, how.in_kernel());
            if set(page, entry).is_err() {
                // No CPU has used any of them.
                pages_of(pages)
                    .take_while(|before| *before < page)
                    .for_each(|before| {
                        let _ = set(before, Entry::NONE);
                    });
                return Err(EarlyMapError::NoTable);
            }
        }
        let inside = at.offset_from(frames.first().addr()).unwrap_or_default();
        let first = start.checked_add(inside).unwrap_or(start);
        *slot = Some(EarlyMapping {
            phys: PhysRange::from_size(at, size),
            at: first,
            pages,
            place: Location::caller(),
        });
        self.made = self.made.saturating_add(1);
        self.most = self.most.max(self.iter().count());
        Ok(first)
    }

    /// Which frames are to be mapped.
    fn check(
        &self,
        (at, size): (PhysAddr, u64),
        how: Attributes,
    ) -> Result<crate::addr::PfnRange, EarlyMapError> {
        if self.is_closed {
            return Err(EarlyMapError::Closed);
        }
        if size == 0 {
            return Err(EarlyMapError::Empty);
        }
        let end = at.checked_add(size).map(PhysAddr::as_u64);
        if end.is_none_or(|end| end > 1 << MAX_PHYS_BITS) {
            return Err(EarlyMapError::BadRange(at));
        }
        if how.is_write_execute() || how.protection.contains(Protection::USER) {
            return Err(EarlyMapError::Forbidden(how));
        }
        let frames = PhysRange::from_size(at, size).touched_frames();
        match frames.frames() <= MOST_PAGES {
            true => Ok(frames),
            false => Err(EarlyMapError::TooLarge { most: MOST_PAGES }),
        }
    }

    /// Unmaps what [`Self::map`] mapped at an address, and has this CPU forget it. Context: as [`Self::map`].
    ///
    /// # Errors
    /// [`EarlyMapError::NotMapped`]; [`EarlyMapError::Closed`] where the slots are closed: the page tables that they stood in may
    /// be somebody else's memory by now, so nothing is written there, and the mapping stays what [`Self::close`] told.
    pub fn unmap(
        &mut self,
        platform: &impl Platform,
        at: VirtAddr,
        mut set: impl FnMut(VirtAddr, Entry) -> Result<(), OutOfTables>,
    ) -> Result<(), EarlyMapError> {
        let is_it = |slot: &&mut Option<EarlyMapping>| slot.is_some_and(|mapping| mapping.at == at);
        let slot = self.slots.iter_mut().find(is_it);
        let slot = slot.ok_or(EarlyMapError::NotMapped(at))?;
        if self.is_closed {
            return Err(EarlyMapError::Closed);
        }
        let pages = slot.take().map(|mapping| mapping.pages).unwrap_or_default();
        for page in pages_of(pages) {
            // The tables are there: something was mapped.
            let _ = set(page, Entry::NONE);
        }
        platform.flush_tlb_here(TlbFlush::Pages(pages));
        Ok(())
    }

    /// What is mapped. Context: any.
    pub fn iter(&self) -> impl Iterator<Item = &EarlyMapping> {
        self.slots.iter().flatten()
    }

    /// Maps nothing any more; answers what was not unmapped (Linux: `check_early_ioremap_leak`). Context: boot, when there
    /// are areas.
    pub fn close(&mut self) -> impl Iterator<Item = &EarlyMapping> {
        self.is_closed = true;
        self.iter()
    }

    /// In numbers. Context: any.
    #[must_use]
    pub fn stats(&self) -> EarlyMapStats {
        EarlyMapStats {
            made: self.made,
            used: self.iter().count(),
            most: self.most,
        }
    }
}

/// The pages of a range.
fn pages_of(range: VirtRange) -> impl Iterator<Item = VirtAddr> {
    let after = |page: &VirtAddr| page.checked_add(PAGE_SIZE);
    core::iter::successors(Some(range.start()), after).take_while(move |page| *page < range.end())
}
