//! Many single pages at once.
#![forbid(unsafe_code)]

use super::{AllocError, Memory};
use crate::addr::{Order, Pfn, to_index};
use crate::buddy::{Gfp, Request};
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::zone::Zone;

/// Pages taken under one hold of the zone lock, at most.
const BULK: usize = 64;

impl<P: Platform> Memory<P> {
    /// Allocates single pages into every empty place of `pages`, under one hold of a zone's lock
    /// where it can (Linux: `alloc_pages_bulk`). Answers how many places are filled now, which
    /// is less than all when memory runs out. Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`] other than out of memory.
    pub fn alloc_pages_bulk(
        &self,
        gfp: Gfp,
        pages: &mut [Option<Pfn>],
    ) -> Result<usize, AllocError> {
        let request = Request::new(gfp, Order::ZERO)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        let node = core.node(NodeId(0)).ok_or(AllocError::NoSuchNode)?;
        let mut wanted = pages.iter().filter(|place| place.is_none()).count();
        let mut places = pages.iter_mut().filter(|place| place.is_none());
        for zone in core.zones_for(node, &request) {
            while wanted > 0 {
                // Pages are collected under the lock and prepared (zeroed, checked) outside it.
                let (batch, taken) = self.take_spare(zone, &request, wanted.min(BULK));
                if taken == 0 {
                    break;
                }
                for block in batch.into_iter().flatten() {
                    let Some(block) = self.prepare(core, &request, block) else {
                        continue;
                    };
                    if let Some(place) = places.next() {
                        *place = Some(block.leak().first());
                        wanted = wanted.saturating_sub(1);
                    }
                }
            }
        }
        // What no zone had to spare is asked for page by page, down to the reserves.
        for place in places {
            let Ok(block) = self.alloc_slow(core, node, &request, &mut ()) else {
                break;
            };
            *place = Some(block.leak().first());
        }
        Ok(pages.iter().flatten().count())
    }

    /// Up to `count` pages of what a zone has above its `low` mark.
    fn take_spare(
        &self,
        zone: &Zone,
        request: &Request,
        count: usize,
    ) -> ([Option<Exclusive>; BULK], usize) {
        let mut batch = [const { None }; BULK];
        let floor = zone.watermarks().low_floor(request.highest());
        let spare = to_index(zone.free_frames().saturating_sub(floor));
        if spare == 0 {
            return (batch, 0);
        }
        let mut slots = batch.iter_mut();
        let collect = |block| {
            if let Some(slot) = slots.next() {
                *slot = Some(block);
            }
        };
        let taken = zone.alloc_bulk(&self.platform, request, count.min(spare), collect);
        (batch, taken)
    }
}
