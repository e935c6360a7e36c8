//! Small areas that lie ready for a CPU, by size: stacks, linked through their records.
#![forbid(unsafe_code)]

use super::Area;
use crate::addr::to_index;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Pages of the largest area that lies ready.
pub(super) const LARGEST: u64 = 16;
const SIZES: usize = to_index(LARGEST);

/// Areas that lie ready for one CPU.
#[derive(Debug)]
pub(super) struct Shelf {
    /// By pages, one less.
    newest: [Option<&'static Area>; SIZES],
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
    #[inline]
    pub(super) fn take(&mut self, pages: u64, gauges: &Gauges) -> Option<&'static Area> {
        let taken = self.pop(size(pages)?, gauges)?;
        let hits = gauges.hits().wrapping_add(1);
        gauges.hits.store(hits, Ordering::Relaxed);
        Some(taken)
    }

    #[inline]
    fn pop(&mut self, size: usize, gauges: &Gauges) -> Option<&'static Area> {
        let newest = &mut self.newest[size % SIZES];
        let area = (*newest)?;
        *newest = area.next.get();
        let count = gauges.count().wrapping_sub(1);
        gauges.count.store(count, Ordering::Relaxed);
        Some(area)
    }

    /// Puts an area on it. `false` if it is too large.
    #[inline]
    pub(super) fn put(&mut self, area: &'static Area, gauges: &Gauges) -> bool {
        let Some(size) = size(area.pages()) else {
            return false;
        };
        area.next.set(self.newest[size % SIZES].replace(area));
        let count = gauges.count().wrapping_add(1);
        gauges.count.store(count, Ordering::Relaxed);
        true
    }

    /// Takes any area.
    pub(super) fn take_any(&mut self, gauges: &Gauges) -> Option<&'static Area> {
        (0..SIZES).find_map(|size| self.pop(size, gauges))
    }
}
