//! What CPUs have at hand of a cache, given back because somebody asked.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::ground::Ground;
use super::magazine::{Gauges, Magazine};
use crate::platform::CpuId;
use crate::sync::{OwnerCell, Pin, Seized};

/// More than a CPU has at hand.
const ALL: u32 = 128;

impl Cache {
    /// Gives back what this CPU has at hand, if somebody asked for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn serve<G: Ground>(&self, ground: &G, pin: &Pin<'_, G::P>) {
        if let Some(rooms) = self.rooms().get() {
            rooms.cells().serve(pin, |magazine, gauges| {
                self.spill_all(ground, magazine, gauges)
            });
        }
    }

    /// Gives back what a CPU left behind.
    pub(crate) fn drain_seized<G: Ground>(&self, ground: &G, seized: &Seized<'_>) {
        if let Some(rooms) = self.rooms().get() {
            let _ = rooms.cells().with_seized(seized, |magazine, gauges| {
                self.spill_all(ground, magazine, gauges)
            });
        }
    }

    fn spill_all<G: Ground>(&self, ground: &G, magazine: &mut Magazine, gauges: &Gauges) {
        while gauges.count() > 0 {
            self.spill(ground, magazine, gauges, ALL);
        }
        magazine.close(gauges);
    }

    /// Whether a CPU has objects at hand, or had some since it was last asked to give them back. Stale when it
    /// arrives.
    pub(crate) fn has_at_hand(&self, cpu: CpuId) -> bool {
        self.cell(cpu).is_some_and(|cell| cell.shared().is_open())
    }

    /// The same of all CPUs.
    pub(super) fn is_open_anywhere(&self) -> bool {
        let mut cells = self.rooms().get().map(|rooms| rooms.cells().shared());
        cells
            .as_mut()
            .is_some_and(|cells| cells.any(Gauges::is_open))
    }

    /// Asks a CPU to give back what it has at hand.
    pub(crate) fn want_drain(&self, cpu: CpuId) {
        if let Some(cell) = self.cell(cpu) {
            cell.want_drain();
        }
    }

    /// Whether a CPU did what was last asked of it.
    pub(crate) fn is_drained(&self, cpu: CpuId) -> bool {
        self.cell(cpu).is_none_or(OwnerCell::is_drained)
    }

    /// Takes back what was asked of a CPU that cannot be reached, if it has nothing anyway.
    pub(crate) fn unless_at_hand_forget_drain(&self, cpu: CpuId) {
        if let Some(cell) = self.cell(cpu).filter(|cell| !cell.shared().is_open()) {
            cell.drained();
        }
    }
}
