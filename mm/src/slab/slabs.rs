//! What a cache does with its slabs: objects off their lists and back, slabs that come and go.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::SlabFlags;
use super::cache::{Cache, NoObject};
use super::debug::Guard;
use super::ground::{Effort, Ground};
use super::object::{END, Object};
use super::partial::Partial;
use crate::addr::VirtAddr;
use crate::buddy::{Gfp, Step, Trace};
use crate::frame::SlabFrame;
use crate::frame::slab::SlabUse;
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;

/// Empty slabs that a node keeps for a cache (Linux: `MIN_PARTIAL`).
pub(super) const KEPT: u64 = 5;
/// Empty slabs that go back to the page allocator after one hold of a lock.
const SURPLUS: usize = 8;

impl Cache {
    /// Takes objects from slabs on the list into empty places. Answers how many there were.
    pub(super) fn pop<G: Ground>(
        &self,
        ground: &G,
        partial: &mut Partial,
        places: &mut [Option<Object>],
    ) -> usize {
        let Some((shape, _)) = self.parts() else {
            return 0;
        };
        let (frames, code) = (ground.frames(), self.code::<G>());
        let mut filled: usize = 0;
        while let Some(rest) = places.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let Some(slab) = partial.first().and_then(|pfn| frames.slab_at(pfn)) else {
                break;
            };
            let Some(memory) = slab.memory(ground.platform(), (&shape, code), partial) else {
                break;
            };
            let shape = shape.in_order(slab.order);
            let before = slab.frame.slab_use();
            let mut now = before;
            let (count, result) = memory.pop_into(&mut now, rest);
            filled = filled.wrapping_add(count);
            if let Err(bad) = result {
                if count == 0 && self.mend(ground, partial, slab) {
                    continue;
                }
                // What was behind is out of reach, and the slab stays as it is for good.
                ground.damaged(self, slab.pfn, bad.object);
                now = SlabUse {
                    taken: shape.objects(),
                    free: END,
                    fresh: shape.objects(),
                };
            }
            let taken = now.taken.wrapping_sub(before.taken);
            let is_full = now.taken >= shape.objects();
            if is_full || before.taken == 0 {
                partial.remove(slab, before.taken == 0, frames);
                if !is_full {
                    partial.insert(slab, false, frames);
                } else if shape.is_guarded() {
                    partial.full_mut().insert(slab, frames);
                }
            }
            slab.frame.set_slab_use(now);
            partial.note_taken(u64::from(taken));
        }
        filled
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
        let block = self.alloc_block(ground, gfp, node, trace).ok_or(NoObject)?;
        let usual = shape.order();
        let shape = shape.in_order(block.order());
        let block = self.constructed(ground, shape, block);
        let frames = ground.frames();
        let slab = match frames.make_slab(block, (self.id(), usual)) {
            Ok(slab) => slab,
            Err(block) => {
                ground.free_slab(block);
                return Err(NoObject);
            }
        };
        let seed = self.definition().order_seed(slab.pfn);
        // All objects of a debugged cache are on the list.
        let seed = seed.or(shape.is_guarded().then_some(0));
        let lock = rooms.node_with(slab.home.node);
        let added = lock.and_then(|lock| {
            let mut partial = lock.lock(ground.platform());
            let known = (&shape, self.code::<G>());
            let memory = slab.memory(ground.platform(), known, &mut partial)?;
            slab.frame.set_slab_use(memory.link_all(seed));
            if shape.is_guarded() {
                Guard::new(self, ground, (slab, &shape), &mut partial)?.make_new();
            }
            partial.note_slab(&shape);
            partial.insert(slab, true, frames);
            Some(slab.home.node)
        });
        if added.is_none() {
            slab.frame.set_slab_use(SlabUse::FRESH);
            self.end_slab(ground, slab);
        }
        trace.step(Step::SlabMade {
            pfn: slab.pfn,
            order: slab.order,
            objects: shape.objects(),
        });
        added.ok_or(NoObject)
    }

    /// Memory for a slab: of the usual order if that is to be had without any trouble, or of the least one
    /// (Linux: `allocate_slab`).
    fn alloc_block<G: Ground>(
        &self,
        ground: &G,
        gfp: Gfp,
        node: NodeId,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let (shape, _) = self.parts()?;
        let gfp = self.definition().gfp(gfp);
        let mut alloc = |order, effort| match self.definition().mask() {
            u64::MAX => ground.alloc_slab((gfp, effort), order, node, trace),
            mask => ground.alloc_slab_below((gfp, effort), order, mask),
        };
        let (usual, least) = (shape.order(), shape.least_order());
        if least >= usual {
            return alloc(usual, Effort::AsAsked);
        }
        alloc(usual, Effort::Little).or_else(|| alloc(least, Effort::AsAsked))
    }

    pub(super) fn end_slab<G: Ground>(&self, ground: &G, slab: SlabFrame<'_>) {
        let Ok(block) = ground.frames().end_slab(slab) else {
            // Its record says that it has objects, or is none: whoever counted it as empty was misled.
            let (pfn, order) = (slab.pfn, slab.order);
            ground.report(&Corruption::LostBlock { pfn, order });
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

    /// Gives objects back to their slabs, and empties their places; empty slabs that are too many go back to the page
    /// allocator.
    /// Context: any but NMI; no lock held.
    #[inline(never)]
    pub(super) fn give_back<G: Ground>(&self, ground: &G, objects: &mut [Option<Object>]) {
        let Some((shape, rooms)) = self.parts() else {
            return;
        };
        let frames = ground.frames();
        let known = (&shape, self.code::<G>());
        let mut rest = objects;
        let mut next = first_slab(ground, rest);
        // As many neighbours of one node as there are, under one hold of its lock.
        while let Some(node) = next.map(|slab| slab.home.node) {
            let Some(lock) = rooms.node_with(node) else {
                return;
            };
            let mut surplus = [const { None }; SURPLUS];
            let mut many: usize = 0;
            let mut partial = lock.lock(ground.platform());
            let is_next = |slab: &SlabFrame<'_>, many| slab.home.node == node && many < SURPLUS;
            while let Some(slab) = next.filter(|slab| is_next(slab, many)) {
                let memory = slab.memory(ground.platform(), known, &mut partial);
                let before = slab.frame.slab_use();
                let mut now = before;
                let count = memory.map_or(0, |memory| memory.push_all(&mut now, rest));
                slab.frame.set_slab_use(now);
                partial.note_back(crate::addr::to_count(count));
                let objects = shape.in_order(slab.order).objects();
                if before.taken >= objects && count > 0 {
                    partial.insert(slab, now.taken == 0, frames);
                } else if now.taken == 0 && before.taken > 0 {
                    partial.remove(slab, false, frames);
                    partial.insert(slab, true, frames);
                }
                if let Some(slab) = self.take_empty(ground, &mut partial, KEPT)
                    && let Some(place) = surplus.get_mut(many)
                {
                    *place = Some(slab);
                    many = many.wrapping_add(1);
                }
                // One that starts nowhere is lost: `free` looks at that where it matters.
                if count == 0 {
                    let _ = rest.first_mut().and_then(Option::take);
                }
                rest = rest.get_mut(count.max(1)..).unwrap_or_default();
                next = first_slab(ground, rest);
            }
            drop(partial);
            for slab in surplus.iter_mut().take(many).filter_map(Option::take) {
                self.end_slab(ground, slab);
            }
        }
    }

    /// Takes an empty slab off the list if there are more than `keep`.
    pub(super) fn take_empty<'a, G: Ground>(
        &self,
        ground: &'a G,
        partial: &mut Partial,
        keep: u64,
    ) -> Option<SlabFrame<'a>> {
        let frames = ground.frames();
        let slab = frames.slab_at(partial.surplus(keep)?)?;
        let shape = self.shape()?.in_order(slab.order);
        if shape.is_guarded() {
            Guard::new(self, ground, (slab, &shape), partial)?.check_last();
        }
        partial.remove(slab, true, frames);
        partial.note_slab_gone(&shape);
        Some(slab)
    }

    /// Gives all empty slabs back. Answers how many pages they were. Context: any but NMI; no lock held.
    pub(crate) fn shrink<G: Ground>(&self, ground: &G) -> u64 {
        let Some(rooms) = self.rooms().get() else {
            return 0;
        };
        let mut pages: u64 = 0;
        for node in rooms.nodes().iter() {
            loop {
                let mut partial = node.lock(ground.platform());
                let slab = self.take_empty(ground, &mut partial, 0);
                drop(partial);
                let Some(slab) = slab else { break };
                pages = pages.saturating_add(slab.order.frames());
                self.end_slab(ground, slab);
            }
        }
        pages
    }
}

/// The slab of the first object.
fn first_slab<'a, G: Ground>(ground: &'a G, objects: &[Option<Object>]) -> Option<SlabFrame<'a>> {
    slab_of(ground, objects.first()?.as_ref()?)
}

/// The slab that an object is in.
pub(super) fn slab_of<'a, G: Ground>(ground: &'a G, object: &Object) -> Option<SlabFrame<'a>> {
    slab_around(ground, object.as_ptr())
}

/// The slab that a byte is in.
pub(super) fn slab_around<G: Ground>(ground: &G, byte: NonNull<u8>) -> Option<SlabFrame<'_>> {
    let address = VirtAddr::from_ptr(byte.as_ptr());
    let pfn = ground.platform().virt_to_phys(address)?.frame();
    ground.frames().slab_at(pfn)
}
