//! Small areas that lie ready for a CPU, by size: stacks, linked through their records.
#![forbid(unsafe_code)]

use super::{Area, AreaState, Space, Supply, Wanted};
use crate::addr::to_index;
use crate::config::PAGE_SIZE;
use crate::platform::CpuId;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Owned, OwnerCell, Pin, Seized};

/// Pages of the largest area that lies ready.
pub(super) const LARGEST: u64 = 16;
const SIZES: usize = to_index(LARGEST);
/// Areas that lie ready for a CPU, at most.
const READY: u32 = 8192;

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

impl Space {
    /// One of those that lie ready for this CPU.
    #[inline]
    pub(crate) fn take_ready<S: Supply>(
        &self,
        supply: &S,
        wanted: &Wanted,
    ) -> Option<&'static Area> {
        if wanted.align != PAGE_SIZE {
            return None;
        }
        let pin = Pin::new(supply.platform());
        let mut shelf = self.shelves.enter(&pin)?;
        let (areas, gauges) = shelf.parts();
        let taken = areas.take(wanted.pages, gauges);
        if shelf.leave() {
            self.serve(supply, &pin);
        }
        drop(pin);
        let taken = taken?;
        self.begin(taken, wanted);
        Some(taken)
    }

    /// Lays `count` areas ready that nobody remembers, of those that are linked from `first` on: as long as there are
    /// not enough, and they are not too large. Answers the first of the others, which are linked, and the one behind all.
    #[inline]
    pub(super) fn lay_ready<S: Supply>(
        &self,
        supply: &S,
        (first, count): (Option<&'static Area>, usize),
    ) -> (Option<&'static Area>, Option<&'static Area>) {
        let (mut next, mut left) = (first, None);
        let pin = Pin::new(supply.platform());
        let mut shelf = self.shelves.enter(&pin);
        for _ in 0..count {
            let Some(area) = next else { break };
            next = area.next.get();
            let is_ready = shelf.as_mut().is_some_and(|shelf| {
                let (areas, gauges) = shelf.parts();
                gauges.count() < READY && areas.put(area, gauges)
            });
            if is_ready {
                area.set_state(AreaState::Cached);
            } else {
                area.next.set(left.replace(area));
            }
        }
        if shelf.is_some_and(Owned::leave) {
            self.serve(supply, &pin);
        }
        (left, next)
    }

    /// Gives the addresses back that lie ready for this CPU, if another one has none.
    #[cold]
    pub(crate) fn serve<S: Supply>(&self, supply: &S, pin: &Pin<'_, S::P>) {
        self.shelves
            .serve(pin, |shelf, gauges| self.empty(supply, shelf, gauges));
    }

    /// Gives addresses back one by one: the lock is not held for long.
    fn empty<S: Supply>(&self, supply: &S, shelf: &mut Shelf, gauges: &Gauges) {
        while let Some(taken) = shelf.take_any(gauges) {
            taken.next.set(None);
            self.forget(supply, Some(taken));
        }
    }

    /// Gives the addresses back that lie ready for this CPU.
    pub(crate) fn empty_shelf_here<S: Supply>(&self, supply: &S, pin: &Pin<'_, S::P>) {
        if let Some(cell) = self.shelves.cell(pin.cpu()) {
            cell.want_drain();
        }
        self.serve(supply, pin);
    }

    /// The same of a CPU that is away. `false` if it left in the midst of using them.
    pub(crate) fn empty_shelf_of<S: Supply>(&self, supply: &S, seized: &Seized<'_>) -> bool {
        let empty = |shelf: &mut Shelf, gauges: &Gauges| self.empty(supply, shelf, gauges);
        self.shelves.with_seized(seized, empty)
    }

    /// Asks a CPU for them, if it has any.
    pub(crate) fn want_shelf(&self, cpu: CpuId) -> bool {
        let cell = self.shelves.cell(cpu);
        let cell = cell.filter(|cell| cell.shared().count() > 0);
        cell.inspect(|cell| cell.want_drain()).is_some()
    }

    /// Whether a CPU did what it was asked for.
    pub(crate) fn is_shelf_given_back(&self, cpu: CpuId) -> bool {
        let cell = self.shelves.cell(cpu);
        cell.is_none_or(OwnerCell::is_drained)
    }

    pub(super) fn ready(&self, count: impl Fn(&Gauges) -> u32) -> u32 {
        self.shelves
            .shared()
            .map(count)
            .fold(0, u32::saturating_add)
    }

    /// Areas that lie ready.
    pub(crate) fn ready_areas(&self) -> u32 {
        self.ready(Gauges::count)
    }

    /// How often an area was taken that lay ready.
    pub(crate) fn hits(&self) -> u64 {
        let hits = self.shelves.shared().map(Gauges::hits);
        hits.fold(0, u64::wrapping_add)
    }
}
