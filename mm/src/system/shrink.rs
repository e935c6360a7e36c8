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
        let here = self.drain_caches_here(core, &|_| true);
        for cpu in core.cpus.presence.cpus().filter(|cpu| *cpu != here) {
            self.drain_caches_of(core, cpu, &|_| true, false);
        }
        core.caches.shrink(&self.soil(core))
    }

    /// Has CPUs give back what they have at hand of some caches. Answers whether all did.
    pub(super) fn drain_caches(&self, core: &Core, which: impl Fn(&Cache) -> bool) -> bool {
        let here = self.drain_caches_here(core, &which);
        let others = || core.cpus.presence.cpus().filter(|&cpu| cpu != here);
        for cpu in others() {
            self.drain_caches_of(core, cpu, &which, true);
        }
        let is_drained = |cpu| {
            let mut caches = core.caches.iter().filter(|cache| which(cache));
            caches.all(|cache| cache.is_drained(cpu))
        };
        let drain = |cpu| self.drain_caches_of(core, cpu, &which, true);
        self.wait_for_drains((core, here), is_drained, drain)
    }

    /// Drains what this CPU has at hand, and answers which one it is.
    fn drain_caches_here(&self, core: &Core, which: &impl Fn(&Cache) -> bool) -> CpuId {
        let soil = self.soil(core);
        let pin = Pin::new(&self.platform);
        let here = pin.cpu();
        let open = |cache: &&Cache| which(cache) && cache.has_at_hand(here);
        for cache in core.caches.iter().filter(open) {
            cache.want_drain(here);
            cache.serve(&soil, &pin);
        }
        here
    }

    /// Drains what another CPU has at hand, or asks it to.
    fn drain_caches_of(&self, core: &Core, cpu: CpuId, which: &impl Fn(&Cache) -> bool, ask: bool) {
        let mut asked = false;
        for cache in core.caches.iter().filter(|cache| which(cache)) {
            asked |= self.drain_cache_of(core, cpu, cache, ask);
        }
        if asked && !self.platform.kick(cpu) {
            core.caches
                .iter()
                .for_each(|cache| cache.unless_at_hand_forget_drain(cpu));
        }
    }

    /// The same of one cache, which is how long interrupts stay off. Answers whether the CPU was asked.
    fn drain_cache_of(&self, core: &Core, cpu: CpuId, cache: &Cache, ask: bool) -> bool {
        if !cache.has_at_hand(cpu) && cache.is_drained(cpu) {
            return false;
        }
        let irq = self.platform.irq_save();
        let seized = core.cpus.presence.seize(cpu);
        let asks = seized.is_none() && ask && cache.has_at_hand(cpu);
        match &seized {
            Some(seized) => cache.drain_seized(&self.soil(core), seized),
            None if asks => cache.want_drain(cpu),
            None => {}
        }
        drop(seized);
        self.platform.irq_restore(irq);
        asks
    }
}
