//! A table, where it stands, and which of its entries a range takes.
#![forbid(unsafe_code)]

use super::entry::Entry;
use super::entry_io::{Slot, Table};
use super::level::{Level, PageSize};
use super::memory::TableMemory;
use crate::addr::{Pfn, VirtAddr, VirtRange, to_count};
use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use crate::frame::{TableLock, TablePage};

/// A table of the library's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub(super) page: TablePage<'a>,
    pub(super) table: Table<'a>,
    pub(super) level: Level,
}

impl<'a> Node<'a> {
    /// The table in a frame. `None` if the library did not make it.
    #[inline]
    pub(super) fn at<M: TableMemory>(memory: &'a M, pfn: Pfn, level: Level) -> Option<Self> {
        Self::of(memory, memory.frames().page_table(pfn)?, level)
    }

    /// A table of the library's own.
    #[inline]
    pub(super) fn of<M: TableMemory>(
        memory: &'a M,
        page: TablePage<'a>,
        level: Level,
    ) -> Option<Self> {
        let table = Table::of(memory.platform(), page)?;
        Some(Self { page, table, level })
    }

    /// The table that one of its entries leads to.
    #[inline]
    pub(super) fn below<M: TableMemory>(self, memory: &'a M, entry: Entry) -> Option<Self> {
        let level = self.level.below()?;
        Self::at(memory, entry.table_pfn()?, level)
    }

    /// Lock and count.
    #[inline]
    pub(super) const fn lock(self) -> TableLock<'a> {
        self.page.lock()
    }

    /// The entries for `range`, which is not empty and lies in what the table maps: each with the part of the range that
    /// it is for.
    #[inline]
    pub(super) fn parts(self, range: VirtRange) -> Parts<'a> {
        Parts {
            table: self.table,
            level: self.level,
            left: range,
        }
    }

    /// The places for `range` that lead to tables, each with the part of the range that it is for: as [`Self::parts`], but
    /// passes quickly over the others.
    #[inline]
    pub(super) fn tables(self, range: VirtRange) -> impl Iterator<Item = (&'a Slot, VirtRange)> {
        let slots = if self.level.below().is_some() {
            self.slots(range)
        } else {
            &[]
        };
        let bytes = self.level.entry_bytes();
        let origin = range.start().align_down(bytes).as_u64();
        let with_index = slots.iter().enumerate();
        let found = with_index.filter(|(_, slot)| slot.load().leads_to_table());
        found.map(move |(index, slot)| {
            let start = to_count(index).wrapping_mul(bytes).wrapping_add(origin);
            let start = VirtAddr::new(start.max(range.start().as_u64()));
            let left = VirtRange::new(start, range.end()).unwrap_or_default();
            (slot, first_part(left, self.level))
        })
    }

    /// The places for `range`.
    #[inline]
    pub(super) fn slots(self, range: VirtRange) -> &'a [Slot] {
        let first = self.level.index(range.start());
        let last = self.level.index(last_of(range));
        self.table.slots().get(first..=last).unwrap_or_default()
    }
}

/// The last byte of a range that is not empty.
#[inline]
pub(super) const fn last_of(range: VirtRange) -> VirtAddr {
    VirtAddr::new(range.end().as_u64().wrapping_sub(1))
}

/// Entries of a table, and the parts of a range that they are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    table: Table<'a>,
    level: Level,
    left: VirtRange,
}

impl<'a> Iterator for Parts<'a> {
    type Item = (&'a Slot, VirtRange);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let part = first_part(self.left, self.level);
        self.left = VirtRange::new(part.end(), self.left.end()).unwrap_or_default();
        Some((self.table.slot(self.level.index(part.start())), part))
    }
}

/// The part of a range that the first of its entries of a level is for.
#[inline]
pub(super) fn first_part(range: VirtRange, level: Level) -> VirtRange {
    let start = range.start();
    let border = start.align_down(level.entry_bytes());
    // Nothing ends above the last entry of the space.
    let border = border
        .checked_add(level.entry_bytes())
        .unwrap_or(range.end());
    VirtRange::new(start, border.min(range.end())).unwrap_or_default()
}

/// What an entry of a level that an address is found by is for; the last page of the space is in no range.
#[inline]
pub(super) fn extent(at: VirtAddr, level: Level) -> VirtRange {
    let start = at.align_down(level.entry_bytes());
    let last = VirtAddr::new(u64::MAX).align_down(PAGE_SIZE);
    let end = start.checked_add(level.entry_bytes()).unwrap_or(last);
    VirtRange::new(start, end).unwrap_or_default()
}

/// The first page whose place in a table of pages is in use, of those from `start` on.
#[inline]
pub(super) fn first_in_use(start: VirtAddr, slots: &[Slot]) -> Option<VirtAddr> {
    // By fours: most of what a loop costs is the loop.
    let (fours, rest) = slots.as_chunks::<4>();
    let or = |all: u64, slot: &Slot| all | slot.load().bits();
    let all = fours.iter().fold(0, |all, four| four.iter().fold(all, or));
    if rest.iter().fold(all, or) == 0 {
        return None;
    }
    let free = slots.iter().take_while(|slot| slot.load().is_none());
    let offset = to_count(free.count()) << PAGE_SHIFT;
    Some(start.checked_add(offset).unwrap_or(start))
}

/// Whether an address is in the lower half, which is user code's.
#[inline]
pub(super) const fn is_users(at: VirtAddr) -> bool {
    at.as_u64() >> 63 == 0
}

/// The page size of a level, if `part` is all that an entry of it is for.
#[inline]
pub(super) fn whole(part: VirtRange, level: Level) -> Option<PageSize> {
    let size = level.page_size()?;
    (part.size() == size.bytes()).then_some(size)
}
