//! Single pages that go back together: onto this CPU's lists under one entry, or to their zone under
//! few holds of its lock.
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::Told;
use crate::frame::{Event, Frame, FrameTable, FreeError, Offer};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::sync::Pin;

/// Pages that go back under one hold of the zone lock, at most.
const PAGES: usize = 64;

impl<P: Platform> Memory<P> {
    /// Frees every page in `pages`, which `offer` gives up, and empties the places.
    ///
    /// # Errors
    /// The first [`FreeError`] with its place; the pages before it were freed.
    #[inline(always)]
    pub(crate) fn free_list(
        &self,
        pages: &mut [Option<Pfn>],
        offer: impl Fn(&FrameTable, Pfn) -> Option<Offer>,
    ) -> Result<(), (usize, FreeError)> {
        let mut start: usize = 0;
        while let Some(ahead) = pages.iter().skip(start).position(Option::is_some) {
            start = start.saturating_add(ahead);
            let rest = &mut pages[start..];
            let dealt = match self.free_at_hand(rest, &offer) {
                // The lists do not take the first one.
                0 => self.free_to_zones(rest, &offer),
                dealt => Ok(dealt),
            };
            let dealt = dealt.map_err(|(place, error)| (start.saturating_add(place), error))?;
            start = start.saturating_add(dealt);
        }
        Ok(())
    }

    /// Puts up to [`PAGES`] pages on this CPU's lists, up to the first that they do not take. Answers
    /// how many places are empty now.
    #[inline(always)]
    fn free_at_hand(
        &self,
        pages: &mut [Option<Pfn>],
        offer: &impl Fn(&FrameTable, Pfn) -> Option<Offer>,
    ) -> usize {
        let count = pages.len().min(PAGES);
        let part = &mut pages[..count];
        let pin = Pin::new(&self.platform);
        let Some(here) = self.here(&pin) else {
            return 0;
        };
        let (dealt, is_drain_wanted) = here.put_pages(&self.platform, part, offer);
        if is_drain_wanted {
            self.serve_drains_here();
        }
        dealt
    }

    /// Gives up to [`PAGES`] pages back to their zones, or page by page to the lists if they have
    /// to be treated. Answers how many places are empty now.
    #[cold]
    #[inline(never)]
    fn free_to_zones(
        &self,
        pages: &mut [Option<Pfn>],
        offer: &impl Fn(&FrameTable, Pfn) -> Option<Offer>,
    ) -> Result<usize, (usize, FreeError)> {
        let core = self.core().ok_or((0, FreeError::NotPresent))?;
        let count = pages.len().min(PAGES);
        let part = &mut pages[..count];
        if core.options.page_lists.are_on() {
            for (place, page) in part.iter_mut().enumerate() {
                let Some(pfn) = *page else { continue };
                let freed = self.release_offer(
                    |frames| offer(frames, pfn),
                    Order::ZERO,
                    &mut Told(&self.platform),
                );
                freed.map_err(|error| (place, error))?;
                *page = None;
            }
            return Ok(count);
        }
        let mut batch = [const { None }; PAGES];
        let mut stopped = None;
        for (place, (page, token)) in part.iter().zip(&mut batch).enumerate() {
            let Some(pfn) = *page else { continue };
            let accepted = offer(&core.frames, pfn)
                .ok_or(FreeError::NotPresent)
                .and_then(|offer| offer.accept(&core.frames, Order::ZERO));
            match accepted {
                Ok(page) => *token = Some(page),
                Err(error) => {
                    stopped = Some((place, error));
                    break;
                }
            }
        }
        let outcome = self.release_batch(core, &mut batch);
        let first = outcome.map_or_else(Some, |()| stopped);
        let freed = first.map_or(count, |(place, _)| place);
        for page in part.iter_mut().take(freed) {
            *page = None;
        }
        first.map_or(Ok(count), Err)
    }

    /// Gives a batch back, all neighbours of one zone under one hold of its lock.
    ///
    /// # Errors
    /// The place of the first page that is in the batch a second time; those before it went back.
    fn release_batch(
        &self,
        core: &Core,
        batch: &mut [Option<Exclusive>],
    ) -> Result<(), (usize, FreeError)> {
        if core.treats_free_pages {
            for page in batch.iter_mut() {
                *page = page.take().and_then(|page| core.wipe(&self.platform, page));
            }
        }
        let mut place: usize = 0;
        while let Some(ahead) = batch.iter().skip(place).position(Option::is_some) {
            place = place.saturating_add(ahead);
            let rest = &mut batch[place..];
            let Some(Some(page)) = rest.first() else {
                break;
            };
            let pfn = page.frames().first();
            let word = core.frames.frame(pfn).map(Frame::word);
            let owned = word.filter(|word| word.after(Event::Release).is_some());
            let Some(word) = owned else {
                return Err((place, FreeError::AlreadyFree));
            };
            let zone = core.zone(word.zone_id());
            let dealt = zone.map_or(0, |zone| zone.free_bulk(&self.platform, rest));
            if dealt == 0 {
                // Its record names no zone, or one that it does not belong to.
                self.lose(pfn, Order::ZERO);
                rest[0] = None;
            }
            place = place.saturating_add(dealt);
        }
        Ok(())
    }
}
