//! The end of areas: unmapped at once, forgotten together.
//!
//! To have all CPUs forget a translation costs about as much for thousands of areas as for one. So areas wait until
//! there are many pages of them (Linux: `__purge_vmap_area_lazy`). Until then their frames and their addresses belong to
//! nobody else.
#![forbid(unsafe_code)]

use super::raw::Returned;
use super::{Area, AreaKind, Space, Supply};
use crate::addr::{VirtAddr, VirtRange};
use crate::collections::range_tree::Slot;
use crate::pagetable::TableMemory;
use crate::sync::atomic::Ordering;

/// Areas that go back together.
const BATCH: usize = 32;

impl Space {
    /// Unmaps an area, now or with the purge, and lets it wait for that. Answers whether so much waits that somebody
    /// should purge; `None` if nobody has the area. Context: task; or any but NMI, where it `may_wait` for nobody.
    pub(crate) fn retire<S: Supply>(
        &self,
        supply: &S,
        (slot, area): (Slot, &Area),
        may_wait: bool,
    ) -> Option<bool> {
        if !area.end() {
            return None;
        }
        if area.kind() == AreaKind::Ioremap {
            self.forget_device(supply.platform(), slot);
        }
        if self.unmap(supply, area, may_wait) {
            area.set_unmapped();
        }
        let pages = area.pages();
        let most = self.lazy_most.load(Ordering::Relaxed);
        // Counted before it can be taken off.
        let before = self.lazy_pages.fetch_add(pages, Ordering::Relaxed);
        let mut newest = self.lazy.load(Ordering::Relaxed);
        loop {
            area.set_next(Slot::new(newest));
            let (set, seen) = (Ordering::Release, Ordering::Relaxed);
            let next = slot.number();
            match self.lazy.compare_exchange_weak(newest, next, set, seen) {
                Ok(_) => return Some(before.saturating_add(pages) > most),
                Err(now) => newest = now,
            }
        }
    }

    /// Ends an area that nobody was told of. But some of it may have been in the page tables, and CPUs may have looked.
    /// Context: task, no lock held.
    pub(crate) fn abandon<S: Supply>(&self, supply: &S, ended: (Slot, &Area)) {
        let _ = self.retire(supply, ended, true);
        let _ = self.purge(supply);
    }

    /// Has all CPUs forget the areas that wait, and gives their frames and addresses back. Answers how many there
    /// were; `None` if somebody else is at it. Context: task, no lock held.
    pub(crate) fn purge<S: Supply>(&self, supply: &S) -> Option<u64> {
        if self.is_purging.swap(true, Ordering::Acquire) {
            return None;
        }
        let first = Slot::new(self.lazy.swap(Slot::encode(None), Ordering::Acquire));
        let areas = self.flush(supply, first);
        self.give_back(supply, first);
        if areas > 0 {
            self.purges.fetch_add(1, Ordering::Relaxed);
            self.purged.fetch_add(areas, Ordering::Relaxed);
        }
        self.is_purging.store(false, Ordering::Release);
        Some(areas)
    }

    /// Has all CPUs forget the areas of a list, and what lies between them. Answers how many they are.
    fn flush<S: Supply>(&self, supply: &S, first: Option<Slot>) -> u64 {
        let (mut start, mut end) = (u64::MAX, 0);
        let mut areas: u64 = 0;
        let mut next = first;
        while let Some(area) = next.and_then(|slot| self.area(slot)) {
            if area.is_still_mapped() {
                let _ = self.unmap(supply, area, true);
            }
            let range = area.mapped();
            start = start.min(range.start().as_u64());
            end = end.max(range.end().as_u64());
            areas = areas.saturating_add(1);
            next = area.next();
        }
        let hull = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end));
        if let Some(hull) = hull {
            supply.memory().flush(hull, false);
        }
        areas
    }

    /// Gives frames and addresses of a list of areas back that no CPU remembers.
    fn give_back<S: Supply>(&self, supply: &S, first: Option<Slot>) {
        let mut pages = Returned::new();
        let mut next = first;
        loop {
            let mut batch: [Option<(Slot, &Area)>; BATCH] = [None; BATCH];
            let (mut full, mut gone): (usize, u64) = (0, 0);
            for place in &mut batch {
                let Some((slot, area)) = next.and_then(|slot| Some((slot, self.area(slot)?)))
                else {
                    break;
                };
                next = area.next();
                area.frames.take().release_with(supply, &mut pages);
                gone = gone.wrapping_add(area.pages());
                *place = Some((slot, area));
                full = full.wrapping_add(1);
            }
            let batch = batch.get_mut(..full).unwrap_or_default();
            if batch.is_empty() {
                break;
            }
            self.lazy_pages.fetch_sub(gone, Ordering::Relaxed);
            self.lay_ready(supply, batch);
            if batch.iter().any(Option::is_some) {
                self.forget(supply, batch);
            }
        }
        pages.free(supply);
    }

    /// How many pages may wait before somebody purges.
    pub(crate) fn set_lazy_most(&self, pages: u64) {
        self.lazy_most.store(pages, Ordering::Relaxed);
    }

    /// Pages of areas that wait, and how many may.
    pub(crate) fn lazy_pages(&self) -> (u64, u64) {
        let most = self.lazy_most.load(Ordering::Relaxed);
        (self.lazy_pages.load(Ordering::Relaxed), most)
    }

    /// Purges that were done, and areas that went with them.
    pub(crate) fn purges(&self) -> (u64, u64) {
        let purged = self.purged.load(Ordering::Relaxed);
        (self.purges.load(Ordering::Relaxed), purged)
    }
}
