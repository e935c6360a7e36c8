//! Small areas that lie ready for a CPU, by size: stacks, linked through their records.
#![forbid(unsafe_code)]

use super::Area;
use super::arena::Arena;
use crate::addr::to_index;
use crate::collections::range_tree::Slot;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Pages of the largest area that lies ready.
pub(super) const LARGEST: u64 = 16;
const SIZES: usize = to_index(LARGEST);

/// Areas that lie ready for one CPU.
#[derive(Debug)]
pub(super) struct Shelf {
    /// By pages, one less.
    newest: [Option<Slot>; SIZES],
}

/// What everybody may know of a shelf. The CPU itself writes it with plain stores.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// Areas on it.
    count: AtomicU32,
    /// Areas that were taken off it.
    hits: AtomicU64,
}

impl Gauges {
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

/// The stack for areas of so many pages.
fn size(pages: u64) -> Option<usize> {
    let size = pages.checked_sub(1)?;
    (size < LARGEST).then(|| to_index(size))
}

impl Shelf {
    pub(super) const fn new() -> Self {
        Self {
            newest: [None; SIZES],
        }
    }

    /// Takes the area of so many pages that came last.
    pub(super) fn take<'a>(
        &mut self,
        arena: &'a Arena,
        pages: u64,
        gauges: &Gauges,
    ) -> Option<(Slot, &'a Area)> {
        let taken = self.pop(arena, size(pages)?, gauges)?;
        let hits = gauges.hits().wrapping_add(1);
        gauges.hits.store(hits, Ordering::Relaxed);
        Some(taken)
    }

    fn pop<'a>(
        &mut self,
        arena: &'a Arena,
        size: usize,
        gauges: &Gauges,
    ) -> Option<(Slot, &'a Area)> {
        let newest = &mut self.newest[size % SIZES];
        let slot = (*newest)?;
        let area = arena.area(slot)?;
        *newest = area.next();
        let count = gauges.count().wrapping_sub(1);
        gauges.count.store(count, Ordering::Relaxed);
        Some((slot, area))
    }

    /// Puts an area on it. `false` if it is too large.
    pub(super) fn put(&mut self, (slot, area): (Slot, &Area), gauges: &Gauges) -> bool {
        let Some(size) = size(area.pages()) else {
            return false;
        };
        area.set_next(self.newest[size % SIZES].replace(slot));
        let count = gauges.count().wrapping_add(1);
        gauges.count.store(count, Ordering::Relaxed);
        true
    }

    /// Takes any area.
    pub(super) fn take_any<'a>(
        &mut self,
        arena: &'a Arena,
        gauges: &Gauges,
    ) -> Option<(Slot, &'a Area)> {
        (0..SIZES).find_map(|size| self.pop(arena, size, gauges))
    }
}
