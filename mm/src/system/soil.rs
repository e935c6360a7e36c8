//! The machine, as caches see it.
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, Request, Told, Trace};
use crate::frame::FrameTable;
use crate::mem::Exclusive;
use crate::platform::{CpuId, NodeId, Platform};
use crate::report::Corruption;
use crate::slab::{Cache, Effort, Ground, Places, Treatment};
use crate::sync::Pin;

/// What caches stand on.
pub(crate) struct Soil<'m, P: Platform> {
    pub(super) memory: &'m Memory<P>,
    pub(super) core: &'m Core,
}

impl<P: Platform> Ground for Soil<'_, P> {
    type P = P;

    fn platform(&self) -> &P {
        &self.memory.platform
    }

    fn frames(&self) -> &FrameTable {
        &self.core.frames
    }

    fn node_of(&self, cpu: CpuId) -> NodeId {
        self.core.cpus.memory_node(cpu)
    }

    fn alloc_slab_below(
        &self,
        (gfp, effort): (Gfp, Effort),
        order: Order,
        mask: u64,
    ) -> Option<Exclusive> {
        let wanted = (effort.of(gfp), order);
        self.memory.alloc_below(self.core, wanted, mask).ok()
    }

    fn alloc_slab(
        &self,
        (gfp, effort): (Gfp, Effort),
        order: Order,
        node: NodeId,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let request = Request::new(effort.of(gfp), order).ok()?;
        let request = match gfp.contains(Gfp::DIRECT_RECLAIM) {
            true => request.populating(),
            false => request,
        };
        let here = self.node_of(Pin::new(self.platform()).cpu());
        if here == node && !gfp.contains(Gfp::THISNODE) {
            // It may come from what this CPU has at hand; a task's policy is asked too.
            return self.memory.alloc_request(&request, trace).ok();
        }
        let node = self.core.node(node)?;
        let found = self.memory.alloc_at(self.core, node.into(), request, trace);
        found.ok()
    }

    fn alloc_room(&self, bytes: u64) -> Option<Exclusive> {
        let order = Order::for_bytes(bytes)?;
        let request = Request::new(Gfp::KERNEL, order).ok()?;
        self.memory
            .alloc_request(&request, &mut Told(&self.memory.platform))
            .ok()
    }

    fn free_slab(&self, block: Exclusive) {
        self.memory.release(block);
    }

    fn make_way(&self, cache: &Cache) {
        let trusts = self.core.trusts_callers::<P>();
        self.core.cpus.make_way(cache, trusts);
    }

    fn free_slab_after_grace(&self, block: Exclusive) {
        self.memory.free_block_after_grace(self.core, block);
    }

    fn has_damage(&self) -> bool {
        self.core.caches.has_damage()
    }

    fn damaged(&self, cache: &Cache, slab: Pfn, object: u16) {
        self.core.caches.note_damage();
        let cache = cache.id();
        self.memory.platform.corruption(&Corruption::FreeObject {
            slab,
            object,
            cache,
        });
    }

    fn report(&self, report: &Corruption) {
        self.memory.platform.corruption(report);
    }

    fn places(&self) -> Option<&Places> {
        self.core.caches.places()
    }

    #[inline(always)]
    fn treatment(&self) -> Treatment {
        self.core.caches.treatment()
    }

    fn strikes(&self, cache: &Cache, gfp: Gfp, size: usize) -> bool {
        let faults = &self.core.slab_faults;
        faults.strike_aloud(&self.memory.platform, cache, gfp, size)
    }
}
