//! Many single pages at once.
#![forbid(unsafe_code)]

use super::policy::Place;
use super::{AllocError, Core, Memory};
use crate::addr::{Order, Pfn, to_count, to_index};
use crate::buddy::{Gfp, Mixing, Request, Told};
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
        let mut full: usize = 0;
        let has_policy = self.platform.has_policy();
        if !has_policy && !request.gfp().intersects(Gfp::ZERO.union(Gfp::THISNODE)) {
            full = self.fill_at_hand(core, request, pages);
        }
        let rest = pages.get_mut(full..).unwrap_or_default();
        if !rest.is_empty() {
            if has_policy {
                self.fill_by_task(request, rest)?;
            } else {
                self.fill_from_zones(core, &request, rest)?;
            }
            return Ok(pages.iter().flatten().count());
        }
        Ok(full)
    }

    /// Fills places by the policy of the running task, which may want each page from another node.
    #[cold]
    #[inline(never)]
    fn fill_by_task(&self, request: Request, pages: &mut [Option<Pfn>]) -> Result<(), AllocError> {
        for place in pages.iter_mut().filter(|place| place.is_none()) {
            match self.page_from_zones(request).into_result() {
                Ok(pfn) => *place = Some(pfn),
                Err(AllocError::OutOfMemory) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills places from this CPU's own list of the nearest zone, which is filled up from there when
    /// it is empty. Answers how many places are full, those before the first that is not.
    #[inline]
    fn fill_at_hand(&self, core: &Core, request: Request, pages: &mut [Option<Pfn>]) -> usize {
        let pin = Pin::new(&self.platform);
        let Some(here) = self.here(&pin) else {
            return 0;
        };
        let (full, is_drain_wanted) = here.take_pages(&self.platform, request, pages);
        if is_drain_wanted {
            self.serve_drains_here();
        }
        let rest = pages.get_mut(full..).unwrap_or_default();
        if rest.is_empty() || core.treats_new_pages || !core.has_ways() {
            return full;
        }
        full.wrapping_add(self.fill_from_nearest(core, &pin, request, rest))
    }

    /// Fills places from this CPU's list of the nearest zone, which is filled up from there. Answers
    /// how many are full, those before the first that is not.
    #[inline(never)]
    fn fill_from_nearest(
        &self,
        core: &Core,
        pin: &Pin<'_, P>,
        request: Request,
        pages: &mut [Option<Pfn>],
    ) -> usize {
        let near = core.node(core.cpus.node(pin.cpu()));
        let Some(zone) = near.and_then(|near| core.zones_for(near.into(), &request).next()) else {
            return 0;
        };
        let spare = zone.spare_for_now(zone.low_floor(&request));
        let floor = zone.populated_free().saturating_sub(spare);
        let wanted = pages.iter().filter(|place| place.is_none()).count();
        let mut places = pages.iter_mut().filter(|place| place.is_none());
        let fill = |page: Exclusive| {
            if let Some(place) = places.next() {
                *place = Some(page.leak().first());
            }
        };
        zone.alloc_listed_bulk(pin, &core.frames, request, (wanted, floor), fill);
        let first_empty = pages.iter().position(Option::is_none);
        first_empty.unwrap_or(pages.len())
    }

    /// Fills places from whichever zones have something to spare, best first.
    #[inline(never)]
    fn fill_from_zones(
        &self,
        core: &Core,
        request: &Request,
        pages: &mut [Option<Pfn>],
    ) -> Result<(), AllocError> {
        let place: Place<'_> = core
            .near_node(&self.platform)
            .ok_or(AllocError::NoSuchNode)?
            .into();
        if core.strikes(&self.platform, request) {
            return Ok(());
        }
        let mut wanted = pages.iter().filter(|place| place.is_none()).count();
        let mut places = pages.iter_mut().filter(|place| place.is_none());
        let mut first = None;
        for zone in core.zones_for(place, request) {
            let first = *first.get_or_insert(zone);
            while wanted > 0 {
                // Pages are collected first, and prepared (zeroed, checked) without lock or lists.
                let (batch, taken) = self.take_spare(core, zone, request, wanted.min(BULK));
                if taken == 0 {
                    if zone.mixing(request) == Mixing::Avoided {
                        self.populate_for(core, zone, &mut Told(&self.platform));
                        continue;
                    }
                    break;
                }
                self.note_numa(first, zone, to_count(taken));
                for block in batch.into_iter().flatten() {
                    let Some(block) = self.prepare(core, request, block) else {
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
        for page in places {
            let Ok(block) = self.alloc_slow(core, place, request, &mut Told(&self.platform)) else {
                break;
            };
            *page = Some(block.leak().first());
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
        let spare = to_index(zone.spare_for_now(zone.low_floor(request)));
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
        let floor = zone.populated_free().saturating_sub(to_count(spare));
        let mut taken =
            zone.alloc_listed_bulk(&pin, frames, *request, (count, floor), &mut collect);
        drop(pin);
        if taken == 0 {
            let wanted = (request, zone.mixing(request));
            taken = zone.alloc_bulk(&self.platform, wanted, count, collect);
        }
        (batch, taken)
    }
}
