//! Taking and leaving a zone's lock: every free block is on its list inside, and what anyone may read is
//! up to date outside.
#![forbid(unsafe_code)]

use super::Zone;
use crate::buddy::{FreeAreas, MigrateType, Told, Trace};
use crate::platform::Platform;
use crate::sync::IrqGuard;
use crate::sync::atomic::Ordering;

impl Zone {
    /// Takes the zone lock, with every free block on its list. Context: task, atomic or irq; not NMI.
    #[inline]
    pub(super) fn lock<'a, P: Platform>(&'a self, platform: &'a P) -> IrqGuard<'a, FreeAreas, P> {
        self.lock_traced(platform, &mut Told(platform))
    }

    /// The same; what it takes to get there is noted.
    #[inline]
    pub(super) fn lock_traced<'a, P: Platform>(
        &'a self,
        platform: &'a P,
        trace: &mut impl Trace,
    ) -> IrqGuard<'a, FreeAreas, P> {
        let mut areas = self.areas.lock(platform);
        areas.settle(trace);
        areas
    }

    /// As [`Self::lock`], if nobody has it. Context: any.
    pub(super) fn try_lock<'a, P: Platform>(
        &'a self,
        platform: &'a P,
    ) -> Option<IrqGuard<'a, FreeAreas, P>> {
        let mut areas = self.areas.try_lock(platform)?;
        areas.settle(&mut Told(platform));
        Some(areas)
    }

    #[inline(always)]
    pub(super) fn unlock<P: Platform>(&self, mut areas: IrqGuard<'_, FreeAreas, P>) {
        self.free.store(areas.free_frames(), Ordering::Relaxed);
        self.latest.store(areas.latest().bits(), Ordering::Relaxed);
        if !areas.notes().is_empty() {
            self.look_at_notes(&mut areas);
        }
        drop(areas);
    }

    #[cold]
    #[inline(never)]
    fn look_at_notes(&self, areas: &mut FreeAreas) {
        if areas.take_fragmented() && self.watermarks.raise() {
            self.boosted.store(true, Ordering::Relaxed);
        }
        let free = areas.free_frames_of(MigrateType::HighAtomic);
        self.high_atomic_free.store(free, Ordering::Relaxed);
        let kept = areas.high_atomic_frames();
        self.high_atomic.store(kept, Ordering::Relaxed);
        let free = areas.free_frames_of(MigrateType::Cma);
        self.cma_free.store(free, Ordering::Relaxed);
        self.cma.store(areas.cma_frames(), Ordering::Relaxed);
    }
}
