//! Areas in the page tables.
#![forbid(unsafe_code)]

use super::{Area, AreaKind, Space, Supply};
use crate::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange, to_count, to_index};
use crate::buddy::tell;
use crate::pagetable::{Attributes, Empties, Frames, InARow, MapError, PageSize, PteTable, Slot};
use crate::platform::Platform;
use crate::report::{Event, EventKind};
use crate::sync::atomic::Ordering;

impl Space {
    /// Maps single frames in an area: one for each of its pages. Where the area was mapped before in the same table of
    /// pages, that is known, and there is no walk.
    pub(crate) fn map<S: Supply>(
        &self,
        supply: &S,
        area: &Area,
        frames: &mut impl Frames,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let (memory, known) = (supply.memory(), area.table());
        let pages = (area.start(), area.pages());
        if let Some(done) = known.and_then(|table| table.map(memory, pages, frames, attributes)) {
            if done.is_ok() {
                tell_pages(supply.platform(), EventKind::Map, || area.mapped());
            }
            return done;
        }
        let (range, kept) = (area.mapped(), Empties::Kept);
        self.tables.map(memory, range, frames, attributes, kept)?;
        area.set_table(self.tables.pte_table(memory, range));
        tell_pages(supply.platform(), EventKind::Map, || range);
        Ok(())
    }

    /// Maps a frame in an area of one page, where its table of pages is known. `false` if it is not, or something is mapped.
    #[inline]
    pub(crate) fn map_page<S: Supply>(
        &self,
        supply: &S,
        area: &Area,
        frame: Pfn,
        attributes: Attributes,
    ) -> bool {
        let mapped =
            |table: PteTable| table.map_page(supply.memory(), area.start(), (frame, attributes));
        let is_mapped = area.table().is_some_and(mapped);
        if is_mapped {
            tell_pages(supply.platform(), EventKind::Map, || area.mapped());
        }
        is_mapped
    }

    /// Maps a part of an area, with large pages where the frames allow it. Tables without entries may be in the way of these,
    /// and are freed then.
    ///
    /// # Errors
    /// [`MapError`]; nothing that was mapped is changed then.
    pub(crate) fn map_large<S: Supply, F: Frames>(
        &self,
        supply: &S,
        range: VirtRange,
        frames: impl Fn() -> F,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let (memory, kept) = (supply.memory(), Empties::Kept);
        let map = || (self.tables).map(memory, range, &mut frames(), attributes, kept);
        let outcome = match map() {
            // The addresses are the area's, so this is a table of those who had them before; or somebody mapped something that
            // is not theirs to map, which stays.
            Err(MapError::Occupied(_)) => {
                self.tables.release(memory, range)?.complete();
                map()
            }
            done => done,
        };
        if outcome.is_ok() {
            tell_pages(supply.platform(), EventKind::Map, || range);
        }
        outcome
    }

    /// Unmaps an area of so many pages whose table of pages is known. CPUs remember it until they are told. `false` if the
    /// table is not known. Context: any.
    #[inline]
    pub(super) fn unmap_known<S: Supply>(&self, supply: &S, area: &Area, pages: u64) -> bool {
        let cleared = |table: PteTable| table.clear(supply.memory(), area.start(), pages);
        let is_cleared = area.table().is_some_and(cleared);
        if is_cleared {
            tell_pages(supply.platform(), EventKind::Unmap, || area.mapped());
        }
        is_cleared
    }

    /// Unmaps an area, or a part of one with all of its large pages. CPUs remember it until they are told. Context: task.
    pub(crate) fn unmap<S: Supply>(&self, supply: &S, range: VirtRange) {
        // Large pages lie in it as a whole, and the region's tables are the library's: this cannot fail.
        let cleared = self.tables.clear(supply.memory(), range);
        debug_assert!(cleared.is_ok(), "{range:?}: {cleared:?}");
        tell_pages(supply.platform(), EventKind::Unmap, || range);
    }

    /// Ends an area that nobody was told of, and in which nothing was mapped, or nothing any more: what stands in its page
    /// tables is somebody else's. Context: task, no lock held.
    pub(crate) fn abandon_unmapped<S: Supply>(&self, supply: &S, area: &'static Area) {
        let kind = area.kind();
        if !area.end(kind) {
            return;
        }
        if kind == AreaKind::Ioremap {
            self.let_device_go(supply.platform(), area);
        }
        // Counted before it can be taken off.
        self.lazy_pages.fetch_add(area.pages(), Ordering::Relaxed);
        self.lazy.push(area);
        let _ = self.purge(supply);
    }

    /// Where an address leads.
    pub(crate) fn translate<S: Supply>(&self, supply: &S, at: VirtAddr) -> Option<PhysAddr> {
        self.tables.walk(supply.memory(), at).phys(at)
    }
}

#[inline(always)]
fn tell_pages<P: Platform>(platform: &P, kind: EventKind, range: impl FnOnce() -> VirtRange) {
    tell(platform, || {
        let range = range();
        Event::pages(kind, range.start(), range.pages())
    });
}

/// Frames of blocks, one block behind the other, page by page.
#[derive(Debug)]
pub(crate) struct InPages<I> {
    blocks: I,
    /// What is left of the block that came last.
    next: Pfn,
    left: u64,
}

impl<I: Iterator<Item = (Pfn, Order)>> InPages<I> {
    pub(crate) const fn new(blocks: I) -> Self {
        Self {
            blocks,
            next: Pfn::ZERO,
            left: 0,
        }
    }

    /// The next frames in a row, `most` at most: the first, and how many.
    #[inline]
    fn row(&mut self, most: u64) -> (Pfn, u64) {
        if self.left == 0
            && let Some((first, order)) = self.blocks.next()
        {
            self.next = first;
            self.left = order.frames();
        }
        let (first, count) = (self.next, self.left.min(most));
        self.next = first.saturating_add(count);
        self.left = self.left.wrapping_sub(count);
        (first, count)
    }
}

impl<I: Iterator<Item = (Pfn, Order)>> Frames for InPages<I> {
    fn fits(&self, _: u64, size: PageSize) -> bool {
        size == PageSize::Size4K
    }

    fn next(&mut self, _: u64) -> Option<Pfn> {
        let (first, count) = self.row(1);
        (count == 1).then_some(first)
    }

    #[inline]
    fn write(&mut self, _: u64, slots: &[Slot], how: (PageSize, u64)) -> usize {
        let mut left = slots;
        while !left.is_empty() {
            let (first, count) = self.row(to_count(left.len()));
            if count == 0 {
                break;
            }
            let (now, later) = left.split_at(to_index(count).min(left.len()));
            let largest = PageSize::Size4K;
            InARow { first, largest }.write(0, now, how);
            left = later;
        }
        slots.len().wrapping_sub(left.len())
    }
}

/// Frames of blocks of 2 MiB, one block behind the other.
#[derive(Debug)]
pub(crate) struct InLargeBlocks<I>(pub(crate) I);

impl<I: Iterator<Item = (Pfn, Order)>> Frames for InLargeBlocks<I> {
    fn fits(&self, _: u64, size: PageSize) -> bool {
        size == PageSize::Size2M
    }

    fn next(&mut self, _: u64) -> Option<Pfn> {
        self.0.next().map(|(first, _)| first)
    }
}
