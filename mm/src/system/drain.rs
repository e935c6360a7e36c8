//! Getting back what CPUs have on their lists (Linux: `drain_all_pages`), and CPUs that come and go.
//!
//! A CPU that is away has its place taken for a moment. One that runs is asked: its lists are
//! marked, it is kicked, and it drains them itself, at once or when it is done with them. Waiting
//! for it has a limit, is done with interrupts on and without locks; what it still has after that,
//! it gives back later.
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::platform::{CpuId, Platform};
use crate::sync::{Pin, Seized};
use crate::zone::{Node, Zone};

/// Which CPUs that run are asked to give back what they have, and waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// None: only those that are away are seen to.
    Nobody,
    /// Those that have something.
    WhoHasPages,
    /// All: one that is putting a page on a list right now has nothing yet.
    Everybody,
}

impl<P: Platform> Memory<P> {
    /// Gives back what this CPU has on its lists (Linux: `drain_local_pages`). Context: any but NMI.
    pub fn drain_local_pages(&self) {
        let Some(core) = self.core() else { return };
        self.free_deferred_here(core);
        let pin = Pin::new(&self.platform);
        for zone in core.listed_zones() {
            let _ = zone.drain_here(&pin, &core.frames);
        }
    }

    /// Gives back what all CPUs have on their lists (Linux: `drain_all_pages`). Answers whether
    /// all did; one that runs and does not answer in time gives its pages back later. Context:
    /// task.
    pub fn drain_all_pages(&self) -> bool {
        self.core()
            .is_none_or(|core| self.drain_zones(core, || core.listed_zones(), Ask::WhoHasPages))
    }

    /// Does what other CPUs asked this one for: to be called in the interrupt that
    /// [`Platform::kick`] sends. Context: any but NMI.
    pub fn drain_wanted(&self) {
        let Some(core) = self.core() else { return };
        let pin = Pin::new(&self.platform);
        core.serve_drains(&pin);
        core.caches.serve(&self.soil(core), &pin);
        self.serve_percpu(core, &pin);
        self.serve_shelves(&pin);
    }

    /// Drains lists for a request: all if it may wait, otherwise those of its own CPU and of CPUs that are
    /// away. Others would not be done in time, and only lose what they have at hand (Linux drains all in
    /// direct reclaim only). Whether there was anything on them or not, zones are worth another look: what
    /// is not there any more may have come from there since the last one.
    pub(super) fn drain_for(&self, core: &Core, may_wait: bool) {
        self.free_deferred(core, may_wait);
        let listed = |zone: &Zone| core.cpus.presence.cpus().any(|cpu| zone.has_listed(cpu));
        if core.listed_zones().any(listed) {
            let ask = match may_wait {
                true => Ask::WhoHasPages,
                false => Ask::Nobody,
            };
            let _ = self.drain_zones(core, || core.listed_zones(), ask);
        }
    }

    /// Drains the lists of some zones on all CPUs. Answers whether all gave back what they had.
    pub(super) fn drain_zones<'a, Z: Iterator<Item = &'a Zone>>(
        &self,
        core: &Core,
        zones: impl Fn() -> Z,
        ask: Ask,
    ) -> bool {
        self.free_deferred(core, ask != Ask::Nobody);
        if !core.options.page_lists.are_on() {
            return true;
        }
        let pin = Pin::new(&self.platform);
        let here = pin.cpu();
        for zone in zones() {
            let _ = zone.drain_here(&pin, &core.frames);
        }
        drop(pin);
        let others = || core.cpus.presence.cpus().filter(|&cpu| cpu != here);
        for cpu in others() {
            self.drain_remote(core, &zones, cpu, ask);
        }
        let is_drained = |cpu| zones().all(|zone| zone.is_drained(cpu));
        if ask == Ask::Nobody {
            return others().all(is_drained);
        }
        let drain = |cpu| self.drain_remote(core, &zones, cpu, ask);
        self.wait_for_drains((core, here), is_drained, drain)
    }

    /// Has all other CPUs give back what they have of something: those that run are asked (`want`, if there is anything),
    /// kicked, and waited for; from those that are away it is taken. Answers whether all did. Context: task, no lock held.
    pub(super) fn drain_others(
        &self,
        (core, here): (&Core, CpuId),
        take: impl Fn(&Seized<'_>) -> bool,
        want: impl Fn(CpuId) -> bool,
        is_drained: impl Fn(CpuId) -> bool,
    ) -> bool {
        for cpu in core.cpus.presence.cpus().filter(|&cpu| cpu != here) {
            if !self.take_if_away(core, cpu, &take) && want(cpu) {
                let _ = self.platform.kick(cpu);
            }
        }
        self.wait_for_drains((core, here), is_drained, |cpu| {
            let _ = self.take_if_away(core, cpu, &take);
        })
    }

    /// Takes what a CPU has that is away, in its place. `false` if it is there, or nothing was taken.
    pub(super) fn take_if_away(
        &self,
        core: &Core,
        cpu: CpuId,
        take: impl Fn(&Seized<'_>) -> bool,
    ) -> bool {
        let irq = self.platform.irq_save();
        let seized = core.cpus.presence.seize(cpu);
        let is_taken = seized.as_ref().is_some_and(take);
        drop(seized);
        self.platform.irq_restore(irq);
        is_taken
    }

    /// Waits until all other CPUs gave back what they were asked for: with a limit. `drain` takes it from one that has
    /// gone away since. Answers whether all did. Context: task, no lock held.
    pub(super) fn wait_for_drains(
        &self,
        (core, here): (&Core, CpuId),
        is_drained: impl Fn(CpuId) -> bool,
        drain: impl Fn(CpuId),
    ) -> bool {
        let others = || core.cpus.presence.cpus().filter(|&cpu| cpu != here);
        let mut rounds: u32 = 0;
        while !others().all(&is_drained) {
            if !self.platform.relax(rounds) {
                return false;
            }
            rounds = rounds.saturating_add(1);
            // Whoever waits for this CPU meanwhile gets what it wants.
            self.drain_wanted();
            // A CPU may have gone away since it was asked.
            others()
                .filter(|&cpu| !core.cpus.presence.is_present(cpu))
                .for_each(&drain);
        }
        true
    }

    /// Drains what another CPU has, or asks it to.
    fn drain_remote<'a, Z: Iterator<Item = &'a Zone>>(
        &self,
        core: &Core,
        zones: impl Fn() -> Z,
        cpu: CpuId,
        ask: Ask,
    ) {
        let irq = self.platform.irq_save();
        let seized = core.cpus.presence.seize(cpu);
        let mut asked = false;
        for zone in zones() {
            match &seized {
                // Nothing new comes from a CPU that is away, but a request may be left open.
                Some(seized) if zone.has_listed(cpu) || !zone.is_drained(cpu) => {
                    zone.drain_seized(seized, &core.frames, &self.platform);
                }
                None if ask == Ask::Everybody
                    || (ask == Ask::WhoHasPages && zone.has_listed(cpu)) =>
                {
                    zone.want_drain(cpu);
                    asked = true;
                }
                _ => {}
            }
        }
        drop(seized);
        self.platform.irq_restore(irq);
        if asked && !self.platform.kick(cpu) {
            // Nobody waits for a CPU that was never started and has nothing.
            for zone in zones() {
                zone.unless_listed_forget_drain(cpu);
            }
        }
    }
}

impl Core {
    /// Drains the lists of this CPU that somebody wants drained. Context: any but NMI.
    pub(super) fn serve_drains<P: Platform>(&self, pin: &Pin<'_, P>) {
        for zone in self.listed_zones() {
            zone.serve_drain(pin, &self.frames);
        }
    }

    /// Zones with lists.
    fn listed_zones(&self) -> impl Iterator<Item = &Zone> {
        let zones = self.nodes.iter().flat_map(Node::zones);
        zones.filter(|zone| zone.is_populated())
    }
}
