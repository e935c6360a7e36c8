//! When areas are purged, and what else is done where addresses run out (Linux: `purge_vmap_area_lazy` and its callers).
#![forbid(unsafe_code)]

use super::Memory;
use crate::adapters::Store;
use crate::kspace::{Area, NoArea, Patience, Space, Wanted};
use crate::platform::Platform;
use crate::sync::{Pin, Seized};

impl<P: Platform> Memory<P> {
    /// Purges, or has the thread do it that sees to what is put off.
    #[cold]
    #[inline(never)]
    pub(super) fn purge_soon(&self, space: &Space, supply: &Store<'_, P>) {
        if self.platform.may_sleep() {
            // Whoever is at it leaves what came meanwhile to the next.
            let _ = space.purge(supply);
        } else {
            space.want_purge();
            self.platform.wake_grace();
        }
    }

    /// Purges where that was left by who may not sleep. Context: task, no lock held.
    pub(super) fn purge_as_wanted(&self) {
        for (space, supply) in self.spaces() {
            if space.is_purge_wanted() {
                let _ = space.purge(&supply);
            }
        }
    }

    /// Whether that is still to be done.
    pub(super) fn is_purge_wanted(&self) -> bool {
        self.spaces().any(|(space, _)| space.is_purge_wanted())
    }

    /// Has all CPUs forget addresses that areas had, and gives frames and addresses back that wait for that (Linux:
    /// `vm_unmap_aliases`). What was freed before has gone when it returns; if somebody else is at it, that one is waited
    /// for, however long it takes. Answers how many areas went meanwhile, whoever saw to it. Context: task.
    pub fn vmalloc_purge(&self) -> u64 {
        let areas = self
            .spaces()
            .map(|(space, supply)| space.purge_or_wait(&supply, Patience::Endless));
        areas.fold(0, u64::saturating_add)
    }

    /// Gives pages back that wait for a purge, for who needs some. Answers how many those were, at least.
    pub(super) fn purge_for_pages(&self) -> u64 {
        let pages = self.spaces().map(|(space, supply)| {
            let (before, _) = space.lazy_pages();
            if before > 0 {
                let _ = space.purge_or_wait(&supply, Patience::AsThePlatform);
            }
            before.saturating_sub(space.lazy_pages().0)
        });
        pages.fold(0, u64::saturating_add)
    }

    /// An area. Where there is no room for it, what lies ready for other CPUs is given up.
    #[inline]
    pub(super) fn take_area(
        &self,
        space: &Space,
        supply: &Store<'_, P>,
        wanted: &Wanted,
    ) -> Result<&'static Area, NoArea> {
        match space.take(supply, wanted) {
            Err(NoArea::NoSpace) => {
                self.drain_shelves(space, supply);
                space.take(supply, wanted)
            }
            taken => taken,
        }
    }

    /// Has all CPUs give back the addresses that lie ready for them. Context: task, no lock held.
    #[cold]
    #[inline(never)]
    fn drain_shelves(&self, space: &Space, supply: &Store<'_, P>) {
        let Some(core) = self.core() else { return };
        let pin = Pin::new(&self.platform);
        let here = pin.cpu();
        space.empty_shelf_here(supply, &pin);
        drop(pin);
        let take = |seized: &Seized<'_>| space.empty_shelf_of(supply, seized);
        let want = |cpu| space.want_shelf(cpu);
        let _ = self.drain_others((core, here), take, want, |cpu| {
            space.is_shelf_given_back(cpu)
        });
    }

    /// Gives back addresses that lie ready for this CPU and another one wants.
    pub(super) fn serve_shelves(&self, pin: &Pin<'_, P>) {
        for (space, supply) in self.spaces() {
            space.serve(&supply, pin);
        }
    }
}
