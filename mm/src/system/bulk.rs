//! Many single pages at once.
#![forbid(unsafe_code)]

use super::{AllocError, Core, Memory};
use crate::addr::{Order, Pfn, to_index};
use crate::buddy::{Gfp, Request};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::sync::Pin;
use crate::zone::Zone;

/// Pages taken under one hold of the zone lock, at most.
const BULK: usize = 64;

impl<P: Platform> Memory<P> {
    /// Allocates single pages into every empty place of `pages`, from this CPU's lists or under one
    /// hold of a zone's lock where it can (Linux: `alloc_pages_bulk`). Answers how many places are
    /// filled now, which is less than all when memory runs out. Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`] other than out of memory.
    #[inline]
    #[track_caller]
    pub fn alloc_pages_bulk(
        &self,
        gfp: Gfp,
        pages: &mut [Option<Pfn>],
    ) -> Result<usize, AllocError> {
        let request = Request::new(gfp, Order::ZERO)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        if !core.is_treated(request) {
            self.fill_at_hand(core, request, pages);
        }
        if pages.iter().all(Option::is_some) {
            return Ok(pages.len());
        }
        self.fill_from_zones(core, &request, pages)?;
        Ok(pages.iter().flatten().count())
    }

    /// Fills places from this CPU's own list of the nearest zone.
    #[inline]
    fn fill_at_hand(&self, core: &Core, request: Request, pages: &mut [Option<Pfn>]) {
        let pin = Pin::new(&self.platform);
        let Some(zone) = core.nearest_zone(pin.cpu(), &request) else {
            return;
        };
        let floor = zone.low_floor(&request);
        let wanted = pages.iter().filter(|place| place.is_none()).count();
        let mut places = pages.iter_mut().filter(|place| place.is_none());
        let fill = |block: Exclusive| {
            if let Some(place) = places.next() {
                *place = Some(block.leak().first());
            }
        };
        zone.alloc_listed_bulk(&pin, &core.frames, request, (wanted, floor), fill);
    }

    /// Fills places from whichever zones have something to spare, best first.
    #[inline(never)]
    #[track_caller]
    fn fill_from_zones(
        &self,
        core: &Core,
        request: &Request,
        pages: &mut [Option<Pfn>],
    ) -> Result<(), AllocError> {
        let node = core
            .near_node(&self.platform)
            .ok_or(AllocError::NoSuchNode)?;
        if core.strikes(request) {
            return Ok(());
        }
        let mut wanted = pages.iter().filter(|place| place.is_none()).count();
        let mut places = pages.iter_mut().filter(|place| place.is_none());
        for zone in core.zones_for(node, request) {
            while wanted > 0 {
                // Pages are collected first, and prepared (zeroed, checked) without lock or lists.
                let (batch, taken) = self.take_spare(core, zone, request, wanted.min(BULK));
                if taken == 0 {
                    break;
                }
                for block in batch.into_iter().flatten() {
                    let Some(block) = self.prepare(core, request, block) else {
                        continue;
                    };
                    core.note_origin(block.frames());
                    if let Some(place) = places.next() {
                        *place = Some(block.leak().first());
                        wanted = wanted.saturating_sub(1);
                    }
                }
            }
        }
        // What no zone had to spare is asked for page by page, down to the reserves.
        for place in places {
            let Ok(block) = self.alloc_slow(core, node, request, &mut ()) else {
                break;
            };
            core.note_origin(block.frames());
            *place = Some(block.leak().first());
        }
        Ok(())
    }

    /// Up to `count` pages of what a zone has above its `low` mark.
    fn take_spare(
        &self,
        core: &Core,
        zone: &Zone,
        request: &Request,
        count: usize,
    ) -> ([Option<Exclusive>; BULK], usize) {
        let mut batch = [const { None }; BULK];
        let floor = zone.low_floor(request);
        let spare = to_index(zone.free_frames().saturating_sub(floor));
        if spare == 0 {
            return (batch, 0);
        }
        let mut slots = batch.iter_mut();
        let mut collect = |block| {
            if let Some(slot) = slots.next() {
                *slot = Some(block);
            }
        };
        let pin = Pin::new(&self.platform);
        let (frames, count) = (&core.frames, count.min(spare));
        let mut taken =
            zone.alloc_listed_bulk(&pin, frames, *request, (count, floor), &mut collect);
        drop(pin);
        if taken == 0 {
            taken = zone.alloc_bulk(&self.platform, request, count, collect);
        }
        (batch, taken)
    }
}
