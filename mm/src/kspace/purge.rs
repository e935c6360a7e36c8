//! The end of areas: unmapped at once, forgotten together.
//!
//! To have all CPUs forget a translation costs about as much for thousands of areas as for one. So areas wait until
//! there are many pages of them (Linux: `__purge_vmap_area_lazy`). Until then their frames and their addresses belong to
//! nobody else.
#![forbid(unsafe_code)]

use super::{AreaKind, Space, Supply};
use crate::addr::VirtRange;
use crate::collections::range_tree::Slot;
use crate::platform::Platform;
use crate::sync::atomic::Ordering;

/// Ranges that are flushed one by one; if there are more, all that is between the first and the last is.
const RANGES: usize = 16;
/// Areas whose addresses go back under one hold of the lock.
const BATCH: usize = 32;

impl Space {
    /// Unmaps an area, now or with the purge, and lets it wait for that. Answers whether so much waits that somebody
    /// should purge; `None` if nobody has the area. Context: task, or, to unmap it later, any but NMI.
    pub(crate) fn retire<P: Platform>(&self, platform: &P, slot: Slot, now: bool) -> Option<bool> {
        let area = self.area(slot).filter(|area| area.end(now))?;
        if area.kind() == AreaKind::Ioremap {
            self.forget_device(platform, slot);
        }
        let range = area.mapped();
        if now {
            self.mapping.unmap(range);
        }
        let pages = range.pages();
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

    /// Has all CPUs forget the areas that wait, and gives their frames and addresses back. Answers how many there
    /// were; `None` if somebody else is at it. Context: task, no lock held.
    pub(crate) fn purge<S: Supply>(&self, supply: &S) -> Option<u64> {
        if self.is_purging.swap(true, Ordering::Acquire) {
            return None;
        }
        let first = Slot::new(self.lazy.swap(Slot::encode(None), Ordering::Acquire));
        let areas = self.flush(first);
        self.give_back(supply, first);
        if areas > 0 {
            self.purges.fetch_add(1, Ordering::Relaxed);
            self.purged.fetch_add(areas, Ordering::Relaxed);
        }
        self.is_purging.store(false, Ordering::Release);
        Some(areas)
    }

    /// Has all CPUs forget the areas of a list. Answers how many they are.
    fn flush(&self, first: Option<Slot>) -> u64 {
        let mut ranges = [VirtRange::EMPTY; RANGES];
        let mut hull = VirtRange::EMPTY;
        let mut areas: usize = 0;
        let mut next = first;
        while let Some(area) = next.and_then(|slot| self.area(slot)) {
            let range = area.mapped();
            if area.is_still_mapped() {
                self.mapping.unmap(range);
            }
            hull = hull.hull(range);
            if let Some(place) = ranges.get_mut(areas) {
                *place = range;
            }
            areas = areas.saturating_add(1);
            next = area.next();
        }
        match ranges.get(..areas) {
            Some([]) => {}
            Some(ranges) => self.mapping.flush(ranges),
            None => self.mapping.flush(&[hull]),
        }
        crate::addr::to_count(areas)
    }

    /// Gives frames and addresses of a list of areas back that no CPU remembers.
    fn give_back<S: Supply>(&self, supply: &S, first: Option<Slot>) {
        let mut batch: [Option<Slot>; BATCH] = [None; BATCH];
        let mut full: usize = 0;
        let mut next = first;
        while let Some((slot, area)) = next.and_then(|slot| Some((slot, self.area(slot)?))) {
            next = area.next();
            area.frames.take().release(supply);
            self.lazy_pages.fetch_sub(area.pages(), Ordering::Relaxed);
            if self.lay_ready(supply, slot) {
                continue;
            }
            batch[full % BATCH] = Some(slot);
            full = full.wrapping_add(1);
            if full == BATCH {
                self.forget(supply, &batch);
                full = 0;
            }
        }
        self.forget(supply, batch.get(..full).unwrap_or_default());
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
