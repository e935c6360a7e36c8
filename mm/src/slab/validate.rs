//! Recounting what a cache says of its slabs.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::ground::Ground;
use super::partial::Partial;
use crate::frame::SlabFrame;
use crate::report::{Check, Corruption};
use crate::sync::SpinLock;

impl Cache {
    /// Follows every list of slabs and of free objects, one node after the other; looks at the objects of a
    /// debugged cache, and puts right what is wrong there. Context: any but NMI.
    ///
    /// # Errors
    /// The first [`Corruption`].
    pub(crate) fn validate<G: Ground>(&self, ground: &G) -> Result<(), Corruption> {
        let mut nodes = self
            .rooms()
            .get()
            .into_iter()
            .flat_map(|rooms| rooms.nodes().iter());
        nodes.try_for_each(|node| self.validate_node(ground, node))
    }

    fn validate_node<G: Ground>(
        &self,
        ground: &G,
        node: &SpinLock<Partial>,
    ) -> Result<(), Corruption> {
        let mut partial = node.lock(ground.platform());
        let damage = self.check_all(ground, &mut partial);
        let stats = partial.stats();
        let (mut count, mut empty, mut taken) = (0_u64, 0_u64, 0_u64);
        let mut objects: u64 = 0;
        let (mut next, mut before) = (partial.first(), None);
        while let Some(pfn) = next {
            let slab = ground
                .frames()
                .slab_at(pfn)
                .filter(|slab| slab.cache == self.id());
            let (after, previous) = slab.map_or((None, None), |slab| slab.frame.slab_links());
            let Some(slab) = slab.filter(|_| previous == before && count <= stats.partial) else {
                return Err(Corruption::BadRecord {
                    pfn,
                    word: slab.map_or(0, |slab| slab.frame.word().bits()),
                    check: Check::Links,
                });
            };
            let its = u64::from(slab.frame.slab_use().taken);
            let (all, free) = self.free_objects(ground, slab, &mut partial)?;
            same(Check::SlabObjects, all, its.saturating_add(free))?;
            objects = objects.saturating_add(all);
            count = count.saturating_add(1);
            empty = empty.saturating_add(u64::from(its == 0));
            taken = taken.saturating_add(its);
            (next, before) = (after, Some(pfn));
        }
        let full = stats.objects.saturating_sub(objects);
        same(Check::Slabs, stats.partial, count)?;
        same(Check::Slabs, stats.empty, empty)?;
        // A damaged slab counts as full, but for its objects that nobody has.
        let counted = taken.saturating_add(full);
        if !ground.has_damage() || stats.taken > counted {
            same(Check::SlabObjects, stats.taken, counted)?;
        }
        damage.map_or(Ok(()), Err)
    }

    /// How many objects a slab has, and how many of them are free.
    fn free_objects<G: Ground>(
        &self,
        ground: &G,
        slab: SlabFrame<'_>,
        partial: &mut Partial,
    ) -> Result<(u64, u64), Corruption> {
        let lost = |object| Corruption::FreeObject {
            slab: slab.pfn,
            object,
            cache: self.id(),
        };
        // As long as it has slabs, it is no other cache.
        let shape = self.shape().ok_or(lost(0))?.in_order(slab.order);
        let known = (&shape, self.code::<G>());
        let memory = slab
            .memory(ground.platform(), known, partial)
            .ok_or(lost(0))?;
        let now = slab.frame.slab_use();
        let listed = memory
            .walk(now.free, drop)
            .map_err(|bad| lost(bad.object))?;
        let fresh = shape.objects().saturating_sub(now.fresh);
        let free = listed.saturating_add(u64::from(fresh));
        Ok((u64::from(shape.objects()), free))
    }
}

fn same(check: Check, recorded: u64, counted: u64) -> Result<(), Corruption> {
    if recorded == counted {
        return Ok(());
    }
    Err(Corruption::Miscount {
        check,
        recorded,
        counted,
    })
}
