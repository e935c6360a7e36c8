//! The room that reads and writes entries: nobody else does.

use core::fmt;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use super::entry::Entry;
use super::level::ENTRIES;
use crate::addr::{Pfn, PhysRange, to_index};
use crate::config::PAGE_SIZE;
use crate::frame::TablePage;
use crate::platform::Platform;
use crate::sync::atomic::{AtomicU64, Ordering};

/// An entry's place in a table. The CPU reads it at any time, and sets its accessed and dirty bits.
#[repr(transparent)]
pub(crate) struct Slot(AtomicU64);

impl Slot {
    /// What stands there; what was written to the table that it leads to is visible then.
    #[inline(always)]
    pub(super) fn load(&self) -> Entry {
        Entry::from_bits(self.0.load(Ordering::Acquire))
    }

    /// Writes an entry; all that was written to the table that it leads to is visible to whoever finds it.
    #[inline(always)]
    pub(super) fn store(&self, entry: Entry) {
        self.0.store(entry.bits(), Ordering::Release);
    }

    /// Writes what `change` makes of an entry, whatever others write meanwhile; answers what stands there then.
    pub(super) fn update(&self, change: impl Fn(Entry) -> Entry) -> Entry {
        loop {
            let old = self.load();
            let new = change(old);
            let (before, after) = (old.bits(), new.bits());
            let (set, seen) = (Ordering::AcqRel, Ordering::Acquire);
            if before == after || self.0.compare_exchange(before, after, set, seen).is_ok() {
                return new;
            }
        }
    }
}

/// The entries of a table.
#[derive(Clone, Copy)]
pub(super) struct Table<'a>(&'a [Slot; ENTRIES]);

impl<'a> Table<'a> {
    /// Those of a table that the library made. `None` if the platform does not reach it.
    #[inline]
    pub(super) fn of<P: Platform>(platform: &'a P, page: TablePage<'a>) -> Option<Self> {
        // SAFETY: the frame is a table (`TablePage`).
        unsafe { Self::at(platform, page.pfn()) }
    }

    /// Those of the table that an entry of this one leads to, if it does. Context: the caller holds a lock above it, or is
    /// where tables are not freed.
    #[inline]
    pub(super) fn below<P: Platform>(self, platform: &'a P, entry: Entry) -> Option<Self> {
        let table = entry.table_pfn()?;
        // SAFETY: an entry of a table leads to a table: those that the library writes do, and whoever made the tables that it
        // was given vouched for theirs (`PageTable::adopt`).
        unsafe { Self::at(platform, table) }
    }

    /// The entries in a frame.
    ///
    /// # Safety
    ///
    /// The frame is a page table for as long as the answer is used: only the CPU and this module touch its bytes.
    #[inline]
    unsafe fn at<P: Platform>(platform: &'a P, table: Pfn) -> Option<Self> {
        // Where RAM is mapped at one offset, that is known without a look at what is mapped.
        let first = match platform.direct_map_base() {
            Some(base) => {
                let at = base.as_u64().wrapping_add(table.addr().as_u64());
                NonNull::new(with_exposed_provenance_mut(to_index(at)))?
            }
            None => platform.direct_map(PhysRange::from_size(table.addr(), PAGE_SIZE))?,
        };
        let first = first.cast::<[Slot; ENTRIES]>();
        debug_assert!(first.is_aligned());
        // SAFETY: a page of mapped RAM (Platform 1, and what it says of its base) that holds 512 entries by the caller's
        // word; a slot is an atomic word, and any bits are valid. Pages are aligned where they are mapped.
        Some(Self(unsafe { first.as_ref() }))
    }

    /// All places.
    #[inline(always)]
    pub(super) const fn slots(self) -> &'a [Slot; ENTRIES] {
        self.0
    }

    /// One place; numbers are taken modulo the size of a table.
    #[inline(always)]
    pub(super) const fn slot(self, index: usize) -> &'a Slot {
        &self.0[index & (ENTRIES - 1)]
    }
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().filter(|slot| !slot.load().is_none()).count();
        f.debug_struct("Table").field("used", &used).finish()
    }
}
