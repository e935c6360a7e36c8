//! The end of areas: unmapped at once, forgotten together.
//!
//! To have all CPUs forget a translation costs about as much for thousands of areas as for one. So areas wait until
//! there are many pages of them (Linux: `__purge_vmap_area_lazy`). Until then their frames and their addresses belong to
//! nobody else.
#![forbid(unsafe_code)]

use super::raw::Returned;
use super::{Area, AreaKind, Space, Supply};
use crate::addr::{VirtAddr, VirtRange};
use crate::config::PAGE_SIZE;
use crate::pagetable::TableMemory;
use crate::platform::Platform;
use crate::sync::atomic::Ordering;

/// Areas that go back together.
const BATCH: usize = 64;

/// How long somebody waits for another one's purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// As long as the platform [waits](Platform::relax): it would be good if there was more room.
    AsThePlatform,
    /// To its end: what was retired before is used for something else then.
    Endless,
}

impl Space {
    /// Unmaps an area that was [ended](Self::ended_at), now or with the purge, and lets it wait for that. Answers whether
    /// somebody should purge: so much waits, or it is mapped still. Context: any but NMI.
    #[inline(always)]
    pub(crate) fn retire<S: Supply>(
        &self,
        supply: &S,
        area: &'static Area,
        kind: AreaKind,
    ) -> bool {
        let pages = area.pages();
        let is_unmapped =
            self.unmap_known(supply, area, pages) || self.unmap_or_leave(supply, area);
        if kind == AreaKind::Ioremap {
            self.let_device_go(supply.platform(), area);
        }
        let most = self.lazy_most.load(Ordering::Relaxed);
        // Counted before it can be taken off.
        let before = self.lazy_pages.fetch_add(pages, Ordering::Relaxed);
        self.lazy.push(area);
        !is_unmapped || before.saturating_add(pages) > most
    }

    /// Unmaps an area by a walk. `false` if that is left to the purge.
    #[cold]
    #[inline(never)]
    fn unmap_or_leave<S: Supply>(&self, supply: &S, area: &Area) -> bool {
        // Page tables may be locked by the code that was interrupted.
        let may_sleep = supply.platform().may_sleep();
        match may_sleep {
            true => self.unmap(supply, area.mapped()),
            false => area.set_still_mapped(),
        }
        may_sleep
    }

    /// Somebody should purge who may sleep. Called when what is to go [waits](Self::retire) already.
    pub(crate) fn want_purge(&self) {
        self.is_purge_wanted.store(true, Ordering::Release);
    }

    /// Whether somebody should.
    pub(crate) fn is_purge_wanted(&self) -> bool {
        self.is_purge_wanted.load(Ordering::Relaxed)
    }

    /// Has all CPUs forget the areas that wait, and gives their frames and addresses back. Answers how many there
    /// were; `None` if somebody else is at it. Context: task, no lock held.
    pub(crate) fn purge<S: Supply>(&self, supply: &S) -> Option<u64> {
        if self.is_purging.swap(true, Ordering::Acquire) {
            return None;
        }
        // Before what waits is taken: who wants more gone than that says so after this.
        self.is_purge_wanted.swap(false, Ordering::AcqRel);
        let first = self.lazy.take();
        let areas = self.flush(supply, first);
        self.give_back(supply, first);
        if areas > 0 {
            self.purges.fetch_add(1, Ordering::Relaxed);
            self.purged.fetch_add(areas, Ordering::Relaxed);
        }
        self.is_purging.store(false, Ordering::Release);
        Some(areas)
    }

    /// The same; whoever is at it already is waited for, so that what was retired before has gone: unless the caller loses
    /// patience. Answers how many areas went meanwhile. Context: task, no lock held.
    pub(crate) fn purge_or_wait<S: Supply>(&self, supply: &S, patience: Patience) -> u64 {
        let before = self.purged.load(Ordering::Relaxed);
        let mut rounds: u32 = 0;
        while self.purge(supply).is_none() {
            let makes_sense = supply.platform().relax(rounds);
            if patience == Patience::AsThePlatform && !makes_sense {
                break;
            }
            // It may be a task of this CPU.
            supply.platform().reschedule();
            rounds = rounds.saturating_add(1);
        }
        self.purged.load(Ordering::Relaxed).wrapping_sub(before)
    }

    /// Has all CPUs forget the areas of a list, and what lies between them. Answers how many they are.
    fn flush<S: Supply>(&self, supply: &S, first: Option<&'static Area>) -> u64 {
        let (mut start, mut end) = (u64::MAX, 0);
        let [mut areas, mut devices] = [0_u64; 2];
        let mut next = first;
        while let Some(area) = next {
            if area.is_still_mapped() {
                self.unmap(supply, area.mapped());
            }
            let span = area.node.span();
            start = start.min(span.start);
            end = end.max(span.end);
            areas = areas.wrapping_add(1);
            devices = devices.wrapping_add(u64::from(area.kind() == AreaKind::Ioremap));
            next = area.next.get();
        }
        // The last page of the last one is never mapped.
        let end = VirtAddr::new(end).checked_sub(PAGE_SIZE);
        let hull = VirtRange::new(VirtAddr::new(start), end.unwrap_or_default());
        if let Some(hull) = hull {
            supply.memory().flush(hull, false);
        }
        self.devices_gone(supply.platform(), devices);
        areas
    }

    /// Gives frames and addresses of a list of areas back that no CPU remembers.
    fn give_back<S: Supply>(&self, supply: &S, first: Option<&'static Area>) {
        let mut pages = Returned::new();
        let mut rest = first;
        while let Some(first) = rest {
            let (mut count, mut gone): (usize, u64) = (0, 0);
            let mut next = rest;
            while let Some(area) = next.filter(|_| count < BATCH) {
                area.frames.take().release_with(supply, &mut pages);
                gone = gone.wrapping_add(area.pages());
                count = count.wrapping_add(1);
                next = area.next.get();
            }
            self.lazy_pages.fetch_sub(gone, Ordering::Relaxed);
            let (left, behind) = self.lay_ready(supply, (Some(first), count));
            if left.is_some() {
                self.forget(supply, left);
            }
            rest = behind;
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
