//! Looking at one cache, and at one slab: what `slabinfo NAME` and `page PFN` show.
#![forbid(unsafe_code)]

use super::SlabFlags;
use super::cache::Cache;
use super::definition::Name;
use super::ground::Ground;
use super::partial::{Partial, PartialStats};
use super::shape::MOST;
use crate::frame::SlabFrame;
use crate::platform::{CpuId, NodeId, Platform};
use crate::sync::atomic::Ordering;

/// A cache in numbers, as in `/proc/slabinfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Objects with owners.
    pub active_objects: u64,
    /// Objects in all slabs.
    pub objects: u64,
    /// Bytes from one object to the next.
    pub stride: u64,
    /// Bytes that an owner may use.
    pub object_size: u64,
    /// Objects in a slab of that many pages.
    pub objects_per_slab: u64,
    /// Pages in a slab, if there is memory for that.
    pub pages_per_slab: u64,
    /// Pages in all slabs.
    pub pages: u64,
    /// Slabs.
    pub slabs: u64,
    /// Slabs with a taken object.
    pub active_slabs: u64,
    /// Objects that CPUs have at hand.
    pub at_hand: u64,
}

/// A word of [`FreeMap`] for each 64 objects.
const WORDS: usize = MOST / 64;

/// Which objects of a slab are on its list of free ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreeMap {
    free: [u64; WORDS],
    objects: u16,
}

impl FreeMap {
    fn insert(&mut self, object: u16) {
        if let Some(word) = self.free.get_mut(usize::from(object / 64)) {
            *word |= 1 << (object % 64);
        }
    }

    /// Whether each object is free, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        let of = |object: u16| self.free.get(usize::from(object / 64)).copied();
        (0..self.objects).map(move |object| of(object).unwrap_or(0) >> (object % 64) & 1 == 1)
    }
}

/// A cache, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) stats: CacheStats,
    pub(crate) flags: SlabFlags,
    /// Handles to it.
    pub(crate) users: u32,
    /// The most that a CPU has at hand.
    pub(crate) most_at_hand: u32,
}

impl Cache {
    /// The cache in numbers. Context: any but NMI.
    pub(crate) fn stats<P: Platform>(&self, platform: &P) -> CacheStats {
        let Some((shape, rooms)) = self.parts() else {
            return CacheStats::default();
        };
        let mut sum = PartialStats::default();
        for node in rooms.nodes().iter() {
            let one = node.lock(platform).stats();
            sum.slabs = sum.slabs.saturating_add(one.slabs);
            sum.pages = sum.pages.saturating_add(one.pages);
            sum.objects = sum.objects.saturating_add(one.objects);
            sum.empty = sum.empty.saturating_add(one.empty);
            sum.taken = sum.taken.saturating_add(one.taken);
        }
        let at_hand = rooms
            .cells()
            .shared()
            .map(|gauges| u64::from(gauges.count()));
        let at_hand = at_hand.fold(0, u64::saturating_add);
        let per_slab = u64::from(shape.objects());
        let widen = crate::addr::to_count;
        CacheStats {
            active_objects: sum.taken.saturating_sub(at_hand),
            objects: sum.objects,
            stride: widen(shape.stride()),
            object_size: widen(shape.size()),
            objects_per_slab: per_slab,
            pages_per_slab: shape.order().frames(),
            pages: sum.pages,
            slabs: sum.slabs,
            active_slabs: sum.slabs.saturating_sub(sum.empty),
            at_hand,
        }
    }

    /// The cache as a whole. Context: any but NMI.
    pub(crate) fn about<P: Platform>(&self, platform: &P) -> Option<About> {
        Some(About {
            stats: self.stats(platform),
            flags: self.definition().flags(),
            users: self.users().load(Ordering::Relaxed),
            most_at_hand: self.shape()?.at_hand(),
        })
    }

    /// What it is called, unless somebody is just at that. Context: any.
    pub(crate) fn name_at_once<P: Platform>(&self, platform: &P) -> Name {
        self.definition().name_at_once(platform)
    }

    /// What one node has. Context: any but NMI.
    pub(crate) fn stats_of<P: Platform>(&self, platform: &P, node: NodeId) -> PartialStats {
        let lock = self.rooms().get().and_then(|rooms| rooms.node_with(node));
        lock.map_or_else(PartialStats::default, |node| node.lock(platform).stats())
    }

    /// What one CPU has at hand; stale when it arrives.
    pub(crate) fn at_hand_of(&self, cpu: CpuId) -> u32 {
        self.cell(cpu).map_or(0, |cell| cell.shared().count())
    }

    /// Which objects of a slab of this cache are free; `None` if it is no slab any more, or its list is damaged. Context: any
    /// but NMI.
    pub(crate) fn free_map<G: Ground>(&self, ground: &G, slab: SlabFrame<'_>) -> Option<FreeMap> {
        let rooms = self.rooms().get()?;
        let mut partial = rooms.node_with(slab.home.node)?.lock(ground.platform());
        self.free_map_of(ground, slab, &mut partial)
    }

    /// The same, under the lock of its list.
    pub(super) fn free_map_of<G: Ground>(
        &self,
        ground: &G,
        slab: SlabFrame<'_>,
        partial: &mut Partial,
    ) -> Option<FreeMap> {
        // It may have gone before the lock was ours.
        let slab = ground.frames().slab_at(slab.pfn)?;
        if slab.cache != self.id() {
            return None;
        }
        // As long as it has slabs, it is no other cache.
        let shape = self.shape()?.in_order(slab.order);
        let known = (&shape, self.code::<G>());
        let memory = slab.memory(ground.platform(), known, partial)?;
        let mut map = FreeMap {
            free: [0; WORDS],
            objects: shape.objects(),
        };
        let now = slab.frame.slab_use();
        memory.walk(now.free, |object| map.insert(object)).ok()?;
        // Those that never had an owner are on no list.
        (now.fresh..shape.objects()).for_each(|object| map.insert(object));
        Some(map)
    }
}
