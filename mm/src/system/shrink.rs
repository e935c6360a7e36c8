//! What CPUs have at hand of caches, and empty slabs, given back (Linux: `kmem_cache_shrink`, `flush_all`).
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::platform::{CpuId, Platform};
use crate::slab::Cache;
use crate::sync::Pin;

impl<P: Platform> Memory<P> {
    /// Takes back what CPUs have at hand, and gives empty slabs of all caches to the page allocator.
    /// Answers how many pages those were. Context: task.
    pub fn shrink_caches(&self) -> u64 {
        let Some(core) = self.core() else { return 0 };
        self.drain_caches(core, |_| true);
        core.caches.shrink(&self.soil(core))
    }

    /// Gives empty slabs to the page allocator, without waiting for anybody: those of objects at hand of this CPU
    /// and of CPUs that are away too. Answers how many pages they were. Context: any but NMI.
    pub(super) fn shrink_caches_here(&self, core: &Core) -> u64 {
        let soil = self.soil(core);
        let pin = Pin::new(&self.platform);
        for cache in core
            .caches
            .iter()
            .filter(|cache| cache.has_at_hand(pin.cpu()))
        {
            cache.want_drain(pin.cpu());
            cache.serve(&soil, &pin);
        }
        let here = pin.cpu();
        drop(pin);
        for cpu in core.cpus.presence.cpus().filter(|cpu| *cpu != here) {
            self.drain_caches_of(core, cpu, &|_| true, false);
        }
        core.caches.shrink(&soil)
    }

    /// Has CPUs give back what they have at hand of some caches. Answers whether all did.
    pub(super) fn drain_caches(&self, core: &Core, which: impl Fn(&Cache) -> bool) -> bool {
        let soil = self.soil(core);
        let pin = Pin::new(&self.platform);
        let here = pin.cpu();
        for cache in core.caches.iter().filter(|cache| which(cache)) {
            cache.want_drain(here);
            cache.serve(&soil, &pin);
        }
        drop(pin);
        let others = || core.cpus.presence.cpus().filter(|&cpu| cpu != here);
        for cpu in others() {
            self.drain_caches_of(core, cpu, &which, true);
        }
        let is_drained = || {
            let mut caches = core.caches.iter().filter(|cache| which(cache));
            caches.all(|cache| others().all(|cpu| cache.is_drained(cpu)))
        };
        let mut rounds: u32 = 0;
        while !is_drained() {
            if !self.platform.relax(rounds) {
                return false;
            }
            rounds = rounds.saturating_add(1);
            self.drain_wanted();
            for cpu in others().filter(|&cpu| !core.cpus.presence.is_present(cpu)) {
                self.drain_caches_of(core, cpu, &which, true);
            }
        }
        true
    }

    /// Drains what another CPU has at hand, or asks it to.
    fn drain_caches_of(&self, core: &Core, cpu: CpuId, which: &impl Fn(&Cache) -> bool, ask: bool) {
        let soil = self.soil(core);
        let mut asked = false;
        let irq = self.platform.irq_save();
        let seized = core.cpus.presence.seize(cpu);
        for cache in core.caches.iter().filter(|cache| which(cache)) {
            match &seized {
                Some(seized) if cache.has_at_hand(cpu) || !cache.is_drained(cpu) => {
                    cache.drain_seized(&soil, seized);
                }
                None if ask && cache.has_at_hand(cpu) => {
                    cache.want_drain(cpu);
                    asked = true;
                }
                _ => {}
            }
        }
        drop(seized);
        self.platform.irq_restore(irq);
        if asked && !self.platform.kick(cpu) {
            core.caches
                .iter()
                .for_each(|cache| cache.unless_at_hand_forget_drain(cpu));
        }
    }
}
