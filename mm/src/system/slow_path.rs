//! What happens when no zone has memory to spare (Linux: `__alloc_pages_slowpath`).
//!
//! Nothing frees memory yet, so the way is short: down to the `min` mark, or as far below it as
//! the request may go, then to the last page if it may, then failure and its report.
#![forbid(unsafe_code)]

use core::fmt;

use super::{AllocError, Core, Memory};
use crate::buddy::{Gfp, Request, Trace};
use crate::config::PAGE_SHIFT;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::AllocFailure;
use crate::zone::watermark::{AllocFlags, Limit, Mark, policy};
use crate::zone::{Node, Zone};

impl<P: Platform> Memory<P> {
    /// Serves a request that no zone can serve above its `low` mark.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(
        &self,
        core: &Core,
        node: &Node,
        request: &Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let flags = policy::alloc_flags(request.gfp());
        let last = AllocFlags::NO_WATERMARKS;
        let mut found = self.alloc_with(core, node, request, flags.difference(last), trace);
        if found.is_none() && flags.contains(last) {
            found = self.alloc_with(core, node, request, flags, trace);
        }
        if found.is_none() && request.gfp().contains(Gfp::NOFAIL) {
            found = self.alloc_with(core, node, request, AllocFlags::HARDER, trace);
        }
        // Free pages may hide in the lists of CPUs.
        if found.is_none() && self.drain_for(core, request) {
            found = self.alloc_with(core, node, request, flags, trace);
        }
        found.ok_or_else(|| {
            self.report_failure(core, request);
            AllocError::OutOfMemory
        })
    }

    /// One round over the zones, down to the `min` mark or as far below it as `flags` let it.
    fn alloc_with(
        &self,
        core: &Core,
        node: &Node,
        request: &Request,
        flags: AllocFlags,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let limit = Limit {
            mark: Mark::Min,
            flags,
            highest: request.highest(),
        };
        let floor = |zone: &Zone| zone.watermarks().floor(limit);
        self.alloc_above(core, node, request, floor, trace)
    }

    fn report_failure(&self, core: &Core, request: &Request) {
        if request.gfp().contains(Gfp::NOWARN) {
            return;
        }
        let gfp = request.gfp();
        self.platform.allocation_failed(&AllocFailure {
            order: request.order(),
            mode: gfp.bits(),
            flags: &gfp,
            zones: &ZoneStates(&core.nodes),
        });
    }
}

/// The zones of all nodes in the words of Linux's `show_mem`: two lines each.
struct ZoneStates<'a>(&'a [Node]);

impl fmt::Display for ZoneStates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zones = self.0.iter().flat_map(Node::zones);
        let mut populated = zones.filter(|zone| zone.is_populated());
        populated.try_for_each(|zone| write_state(f, zone))
    }
}

fn write_state(f: &mut fmt::Formatter<'_>, zone: &Zone) -> fmt::Result {
    let marks = zone.watermarks().marks();
    write!(f, "\nNode {} {}", zone.id().node, zone.kind())?;
    for (name, frames) in [
        ("free", zone.free_frames()),
        ("min", marks.min),
        ("low", marks.low),
        ("high", marks.high),
        ("present", zone.present()),
        ("managed", zone.managed()),
    ] {
        let kib = frames.saturating_mul(1 << (PAGE_SHIFT - 10));
        write!(f, " {name}:{kib}kB")?;
    }
    f.write_str("\nlowmem_reserve[]:")?;
    for frames in zone.watermarks().protection() {
        write!(f, " {frames}")?;
    }
    Ok(())
}
