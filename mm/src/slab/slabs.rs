//! What a cache does with its slabs: objects off their lists and back, slabs that come and go.
#![forbid(unsafe_code)]

use super::SlabFlags;
use super::cache::{BATCH, Cache, Ground, NoObject};
use super::object::{END, Object};
use super::partial::Partial;
use super::shape::Shape;
use crate::addr::VirtAddr;
use crate::buddy::{Gfp, Step, Trace};
use crate::frame::slab::SlabUse;
use crate::frame::{FrameTable, SlabFrame};
use crate::platform::{NodeId, Platform};

/// Empty slabs that a node keeps for a cache (Linux: `MIN_PARTIAL`).
const KEPT: u64 = 5;

impl Cache {
    /// Takes objects from slabs on the list into empty places; each is shown to `each`.
    pub(super) fn pop<'o, G: Ground>(
        &self,
        ground: &G,
        partial: &mut Partial,
        mut places: impl Iterator<Item = &'o mut Option<Object>>,
        mut each: impl FnMut(&mut Object),
    ) {
        let Some((shape, _)) = self.parts() else {
            return;
        };
        let (frames, code) = (ground.frames(), self.code::<G>());
        let mut place = places.next();
        while place.is_some() {
            let Some(slab) = partial.first().and_then(|pfn| frames.slab_at(pfn)) else {
                break;
            };
            let Some(memory) = slab.memory(ground.platform(), (&shape, code), partial) else {
                break;
            };
            let before = slab.frame.slab_use();
            let mut now = before;
            while now.taken < shape.objects()
                && let Some(empty) = place.as_deref_mut()
            {
                match memory.pop(now.free) {
                    Ok((mut object, next)) => {
                        now.free = next;
                        now.taken = now.taken.wrapping_add(1);
                        each(&mut object);
                        *empty = Some(object);
                        place = places.next();
                    }
                    Err(bad) => {
                        // What was behind is out of reach, and the slab stays as it is for good.
                        ground.damaged(self, slab.pfn, bad.object);
                        now = SlabUse {
                            taken: shape.objects(),
                            free: END,
                        };
                    }
                }
            }
            let taken = now.taken.wrapping_sub(before.taken);
            let is_full = now.taken >= shape.objects();
            if is_full || before.taken == 0 {
                partial.remove(slab, before.taken == 0, frames);
                if !is_full {
                    partial.insert(slab, false, frames);
                }
            }
            slab.frame.set_slab_use(now);
            partial.note_taken(u64::from(taken));
        }
    }

    /// Makes a new slab, and puts it on the list of its node, which is told.
    #[cold]
    #[inline(never)]
    pub(super) fn add_slab<G: Ground>(
        &self,
        ground: &G,
        gfp: Gfp,
        node: NodeId,
        trace: &mut impl Trace,
    ) -> Result<NodeId, NoObject> {
        let (shape, rooms) = self.parts().ok_or(NoObject)?;
        let gfp = self.definition().gfp(gfp);
        let block = match self.definition().mask() {
            u64::MAX => ground.alloc_slab(gfp, shape.order(), node, trace),
            mask => ground.alloc_slab_below(gfp, shape.order(), mask),
        };
        let block = block.ok_or(NoObject)?;
        let block = self.constructed(ground, shape, block);
        let frames = ground.frames();
        let slab = match frames.make_slab(block, self.id()) {
            Ok(slab) => slab,
            Err(block) => {
                ground.free_slab(block);
                return Err(NoObject);
            }
        };
        let seed = self.definition().order_seed(slab.pfn);
        let lock = rooms.node_with(slab.home.node);
        let added = lock.and_then(|lock| {
            let mut partial = lock.lock(ground.platform());
            let known = (&shape, self.code::<G>());
            let memory = slab.memory(ground.platform(), known, &mut partial)?;
            slab.frame.set_slab_use(memory.link_all(seed));
            partial.note_slab(true);
            partial.insert(slab, true, frames);
            Some(slab.home.node)
        });
        if added.is_none() {
            slab.frame.set_slab_use(SlabUse { taken: 0, free: 0 });
            self.end_slab(ground, slab);
        }
        trace.step(Step::SlabMade {
            pfn: slab.pfn,
            order: slab.order,
            objects: shape.objects(),
        });
        added.ok_or(NoObject)
    }

    pub(super) fn end_slab<G: Ground>(&self, ground: &G, slab: SlabFrame<'_>) {
        let Ok(block) = ground.frames().end_slab(slab) else {
            return;
        };
        match self
            .definition()
            .flags()
            .contains(SlabFlags::TYPESAFE_BY_RCU)
        {
            true => ground.free_slab_after_grace(block),
            false => ground.free_slab(block),
        }
    }

    /// Gives objects back to their slabs; empty slabs that are too many go back to the page allocator.
    /// Context: any but NMI; no lock held.
    #[inline(never)]
    pub(super) fn give_back<G: Ground>(&self, ground: &G, objects: &mut [Option<Object>]) {
        let Some((shape, rooms)) = self.parts() else {
            return;
        };
        let frames = ground.frames();
        // As many neighbours of one node as there are, under one hold of its lock.
        let mut rest = objects;
        while let Some(first) = rest
            .first()
            .and_then(|object| slab_of(ground, object.as_ref()?))
        {
            let node = first.home.node;
            let Some(lock) = rooms.node_with(node) else {
                return;
            };
            let mut surplus = [const { None }; BATCH];
            let mut done: usize = 0;
            let mut partial = lock.lock(ground.platform());
            for (place, spare) in rest.iter_mut().zip(&mut surplus) {
                let slab = place.as_ref().and_then(|object| slab_of(ground, object));
                let Some((slab, object)) =
                    slab.filter(|slab| slab.home.node == node).zip(place.take())
                else {
                    break;
                };
                done = done.wrapping_add(1);
                self.push(ground, shape, &mut partial, slab, object);
                *spare = self.take_empty(&mut partial, KEPT, frames);
            }
            drop(partial);
            for slab in surplus.into_iter().flatten() {
                self.end_slab(ground, slab);
            }
            rest = rest.get_mut(done.max(1)..).unwrap_or_default();
        }
    }

    /// Puts an object on its slab's list.
    fn push<G: Ground>(
        &self,
        ground: &G,
        shape: Shape,
        partial: &mut Partial,
        slab: SlabFrame<'_>,
        object: Object,
    ) {
        let known = (&shape, self.code::<G>());
        let Some(memory) = slab.memory(ground.platform(), known, partial) else {
            return;
        };
        let frames = ground.frames();
        let before = slab.frame.slab_use();
        let Ok(free) = memory.push(object, before.free) else {
            return;
        };
        let mut now = before;
        now.free = free;
        now.taken = now.taken.saturating_sub(1);
        slab.frame.set_slab_use(now);
        partial.note_back(1);
        if before.taken >= shape.objects() {
            partial.insert(slab, now.taken == 0, frames);
        } else if now.taken == 0 {
            partial.remove(slab, false, frames);
            partial.insert(slab, true, frames);
        }
    }

    /// Takes an empty slab off the list if there are more than `keep`.
    fn take_empty<'a>(
        &self,
        partial: &mut Partial,
        keep: u64,
        frames: &'a FrameTable,
    ) -> Option<SlabFrame<'a>> {
        let slab = frames.slab_at(partial.surplus(keep)?)?;
        partial.remove(slab, true, frames);
        partial.note_slab(false);
        Some(slab)
    }

    /// Gives all empty slabs back. Answers how many pages they were. Context: any but NMI; no lock held.
    pub(crate) fn shrink<G: Ground>(&self, ground: &G) -> u64 {
        let Some((shape, rooms)) = self.parts() else {
            return 0;
        };
        let frames = ground.frames();
        let mut pages: u64 = 0;
        for node in rooms.nodes().iter() {
            loop {
                let mut partial = node.lock(ground.platform());
                let slab = self.take_empty(&mut partial, 0, frames);
                drop(partial);
                let Some(slab) = slab else { break };
                self.end_slab(ground, slab);
                pages = pages.saturating_add(shape.order().frames());
            }
        }
        pages
    }
}

/// The slab that an object is in.
pub(super) fn slab_of<'a, G: Ground>(ground: &'a G, object: &Object) -> Option<SlabFrame<'a>> {
    let address = VirtAddr::from_ptr(object.as_ptr().as_ptr());
    let pfn = ground.platform().virt_to_phys(address)?.frame();
    ground.frames().slab_at(pfn)
}
