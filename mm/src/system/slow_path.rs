//! What happens when no zone has memory to spare (Linux: `__alloc_pages_slowpath`).
//!
//! kswapd is woken, and the request goes down to the `min` mark, or as far below it as it may. Who
//! can wait then reclaims and looks again, a limited number of rounds ([`Retry`]); at their end
//! everybody who asked for it is told that there is no memory left. Then the request fails, and is
//! reported.
#![forbid(unsafe_code)]

use core::fmt;

use super::policy::Place;
use super::retry::{Next, Retry};
use super::{AllocError, Core, Memory};
use crate::buddy::{Gfp, Keep, Request, Trace};
use crate::config::PAGE_SHIFT;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::{AllocFailure, SleepInAtomic};
use crate::zone::watermark::{AllocFlags, Limit, Mark, policy};
use crate::zone::{Node, Zone};

impl<P: Platform> Memory<P> {
    /// Serves a request that no zone can serve above its `low` mark.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(
        &self,
        core: &Core,
        place: Place<'_>,
        request: &Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let gfp = request.gfp();
        let may_wait = self.may_wait(request);
        let is_reclaiming = self.is_reclaiming();
        let may_reclaim = may_wait && !is_reclaiming && !gfp.contains(Gfp::MEMALLOC);
        if gfp.contains(Gfp::KSWAPD_RECLAIM) {
            self.wake_kswapds(core, place, request, may_reclaim);
        }
        let last = AllocFlags::NO_WATERMARKS;
        let mut flags = policy::alloc_flags(gfp);
        if is_reclaiming && !gfp.contains(Gfp::NOMEMALLOC) {
            flags.insert(last);
        }
        let mut found = self.alloc_with(core, place, request, flags.difference(last), trace);
        if found.is_none() && flags.contains(last) {
            found = self.alloc_with(core, place, request, flags, trace);
        }
        if found.is_none() && !may_wait && gfp.contains(Gfp::NORETRY) {
            return Err(self.failed(core, place, request));
        }
        // Free pages may hide in the lists of CPUs.
        if found.is_none() {
            self.drain_for(core, may_wait);
            found = self.alloc_with(core, place, request, flags, trace);
        }
        // Or be put off for readers that have gone by now.
        if found.is_none() && self.recover_deferred(core, may_wait) {
            found = self.alloc_drained(core, place, (request, may_wait), flags, trace);
        }
        if found.is_none() && may_reclaim {
            found = self.alloc_by_reclaim(core, place, request, flags, trace);
        }
        if found.is_none() && gfp.contains(Gfp::NOFAIL) {
            found = self.alloc_with(core, place, request, flags.union(last), trace);
        }
        found.ok_or_else(|| self.failed(core, place, request))
    }

    /// What a request gets that cannot be served.
    fn failed(&self, core: &Core, place: Place<'_>, request: &Request) -> AllocError {
        self.report_failure(core, place, request);
        AllocError::OutOfMemory
    }

    /// Reclaims and looks again, for as long as there is hope.
    fn alloc_by_reclaim(
        &self,
        core: &Core,
        place: Place<'_>,
        request: &Request,
        mut flags: AllocFlags,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let mut retry = Retry::new(request);
        loop {
            let pages = self.direct_reclaim(core, place, request);
            let mut found = self.alloc_drained(core, place, (request, true), flags, trace);
            if found.is_none() {
                found = self.alloc_given_up(core, place, (request, Keep::One), flags, trace);
            }
            let mut next = retry.after_reclaim(pages);
            if found.is_none() && next != Next::Again && retry.is_exhausted() {
                found = self.alloc_given_up(core, place, (request, Keep::Nothing), flags, trace);
            }
            if found.is_none() && retry.is_exhausted() && self.wait_for_deferred(core) {
                found = self.alloc_drained(core, place, (request, true), flags, trace);
            }
            if found.is_some() {
                return found;
            }
            if next == Next::OutOfMemory {
                let pages = self.notify_out_of_memory(request.order(), place.only);
                if request.gfp().contains(Gfp::NOFAIL) {
                    flags.insert(AllocFlags::NO_WATERMARKS);
                }
                let found = self.alloc_drained(core, place, (request, true), flags, trace);
                if found.is_some() {
                    return found;
                }
                next = retry.after_call(pages);
            }
            if next == Next::GiveUp {
                return None;
            }
            self.platform.reschedule();
        }
    }

    /// As [`Self::alloc_with`], after what came back has left the lists of CPUs.
    fn alloc_drained(
        &self,
        core: &Core,
        place: Place<'_>,
        (request, may_wait): (&Request, bool),
        flags: AllocFlags,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        self.drain_local_pages();
        let mut found = self.alloc_with(core, place, request, flags, trace);
        if found.is_none() {
            self.drain_for(core, may_wait);
            found = self.alloc_with(core, place, request, flags, trace);
        }
        found
    }

    /// Whether a request may wait: whoever says so where that is impossible is reported, and served
    /// as if it had not.
    pub(super) fn may_wait(&self, request: &Request) -> bool {
        let gfp = request.gfp();
        if !gfp.contains(Gfp::DIRECT_RECLAIM) || self.platform.may_sleep() {
            return gfp.contains(Gfp::DIRECT_RECLAIM);
        }
        self.platform.sleep_in_atomic(&SleepInAtomic {
            order: request.order(),
            mode: gfp.bits(),
        });
        false
    }

    /// One round over the zones, down to the `min` mark or as far below it as `flags` let it.
    fn alloc_with(
        &self,
        core: &Core,
        place: Place<'_>,
        request: &Request,
        flags: AllocFlags,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let limit = Limit {
            mark: Mark::Min,
            flags,
            highest: request.highest(),
            order: request.order(),
        };
        let floor = |zone: &Zone| zone.floor(limit);
        self.alloc_above(core, place, request, (flags, floor), trace)
    }

    /// As [`Self::alloc_with`], after pageblocks that zones keep for large requests that cannot wait
    /// went to this one.
    fn alloc_given_up(
        &self,
        core: &Core,
        place: Place<'_>,
        (request, keep): (&Request, Keep),
        flags: AllocFlags,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let give_up = |zone: &Zone| {
            let wanted = request.migrate();
            zone.give_up_high_atomic(&self.platform, wanted, keep)
        };
        // Each time there is one pageblock less.
        while core.zones_for(place, request).any(give_up) {
            let found = self.alloc_with(core, place, request, flags, trace);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn report_failure(&self, core: &Core, place: Place<'_>, request: &Request) {
        if request.gfp().contains(Gfp::NOWARN) {
            return;
        }
        let gfp = request.gfp();
        self.platform.allocation_failed(&AllocFailure {
            order: request.order(),
            mode: gfp.bits(),
            flags: &gfp,
            nodes: place.only,
            zones: &ZoneStates(&core.nodes, place),
        });
    }
}

/// The zones of all nodes that will do, in the words of Linux's `show_mem`: two lines each.
struct ZoneStates<'a>(&'a [Node], Place<'a>);

impl fmt::Display for ZoneStates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.0.iter().filter(|node| self.1.allows(node));
        let zones = nodes.flat_map(Node::zones);
        let mut populated = zones.filter(|zone| zone.is_populated());
        populated.try_for_each(|zone| write_state(f, zone))
    }
}

fn write_state(f: &mut fmt::Formatter<'_>, zone: &Zone) -> fmt::Result {
    let marks = zone.watermarks().marks();
    let (high_atomic, high_atomic_free) = zone.high_atomic();
    write!(f, "\nNode {} {}", zone.id().node, zone.kind())?;
    for (name, frames, unit) in [
        ("free", zone.free_frames(), "kB"),
        ("boost", zone.watermarks().boost(), "kB"),
        ("min", marks.min, "kB"),
        ("low", marks.low, "kB"),
        ("high", marks.high, "kB"),
        ("reserved_highatomic", high_atomic, "KB"),
        ("free_highatomic", high_atomic_free, "KB"),
        ("present", zone.present(), "kB"),
        ("managed", zone.managed(), "kB"),
    ] {
        let kib = frames.saturating_mul(1 << (PAGE_SHIFT - 10));
        write!(f, " {name}:{kib}{unit}")?;
    }
    f.write_str("\nlowmem_reserve[]:")?;
    for frames in zone.watermarks().protection() {
        write!(f, " {frames}")?;
    }
    Ok(())
}
