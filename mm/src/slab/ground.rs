//! What caches need of the machine.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::debug::{Places, Treatment};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, Trace};
use crate::frame::FrameTable;
use crate::mem::Exclusive;
use crate::platform::{CpuId, NodeId, Platform};
use crate::report::Corruption;

/// What trouble a request for pages goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effort {
    /// None, whatever its flags say: there is another way.
    Little,
    /// As much as its flags allow.
    AsAsked,
}

impl Effort {
    /// The flags of a request that goes to that trouble. One that goes to none does not wake background
    /// reclaim either, if it may do its own (Linux: `allocate_slab`).
    pub(crate) fn of(self, gfp: Gfp) -> Gfp {
        let trouble = match gfp.contains(Gfp::DIRECT_RECLAIM) {
            true => Gfp::RECLAIM | Gfp::NOFAIL,
            false => Gfp::NOFAIL,
        };
        match self {
            Self::Little => gfp.difference(trouble) | Gfp::NORETRY | Gfp::NOWARN,
            Self::AsAsked => gfp,
        }
    }
}

/// What a cache stands on: the machine, its frames, and where slabs come from.
pub(crate) trait Ground {
    /// The machine.
    type P: Platform;

    /// It.
    fn platform(&self) -> &Self::P;

    /// All frames.
    fn frames(&self) -> &FrameTable;

    /// The node that objects come from where a CPU is: its own, or the nearest one with memory.
    fn node_of(&self, cpu: CpuId) -> NodeId;

    /// Pages for a slab that reaches no address above a mask. Context: as [`Self::alloc_slab`].
    fn alloc_slab_below(&self, gfp: (Gfp, Effort), order: Order, mask: u64) -> Option<Exclusive>;

    /// Pages for a slab. Context: as the flags say; no lock held, not pinned.
    fn alloc_slab(
        &self,
        gfp: (Gfp, Effort),
        order: Order,
        node: NodeId,
        trace: &mut impl Trace,
    ) -> Option<Exclusive>;

    /// Memory for what a cache has itself. Context: task.
    fn alloc_room(&self, bytes: u64) -> Option<Exclusive>;

    /// Takes pages of a slab, or for one, back. Context: any but NMI; no lock held.
    fn free_slab(&self, block: Exclusive);

    /// The same when a grace period is over that begins after this.
    fn free_slab_after_grace(&self, block: Exclusive);

    /// Makes the ways of CPUs to what they have of a cache.
    fn make_way(&self, cache: &Cache);

    /// Whether somebody was found to have written to a free object.
    fn has_damage(&self) -> bool;

    /// Tells that somebody wrote to a free object of a slab.
    fn damaged(&self, cache: &Cache, slab: Pfn, object: u16);

    /// Tells of damage to an object of a debugged cache, or a slab. Context: a lock of slabs may be held.
    fn report(&self, report: &Corruption);

    /// Who allocates and frees, if anybody keeps that.
    fn places(&self) -> Option<&Places>;

    /// What is done to all objects.
    fn treatment(&self) -> Treatment;

    /// Whether a request for so many bytes of a cache's object fails on purpose.
    fn strikes(&self, cache: &Cache, gfp: Gfp, size: usize) -> bool;
}
