//! Single pages that go back together, under few holds of a zone's lock.
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::addr::{Order, Pfn};
use crate::frame::{Event, Frame, FrameTable, FreeError};
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Pages that go back under one hold of the zone lock, at most.
const PAGES: usize = 64;

impl<P: Platform> Memory<P> {
    /// Frees every page in `pages`, which `reclaim` makes tokens of, and empties the places.
    ///
    /// # Errors
    /// The first [`FreeError`] with its place; the pages before it were freed.
    pub(crate) fn free_list(
        &self,
        pages: &mut [Option<Pfn>],
        reclaim: impl Fn(&FrameTable, Pfn) -> Result<Exclusive, FreeError>,
    ) -> Result<(), (usize, FreeError)> {
        let Some(core) = self.core() else {
            let place = pages.iter().position(Option::is_some);
            return place.map_or(Ok(()), |place| Err((place, FreeError::NotPresent)));
        };
        let mut start: usize = 0;
        for part in pages.chunks_mut(PAGES) {
            let mut batch = [const { None }; PAGES];
            let mut stopped = None;
            for (place, (page, token)) in part.iter().zip(&mut batch).enumerate() {
                let Some(pfn) = *page else { continue };
                match reclaim(&core.frames, pfn) {
                    Ok(page) => *token = Some(page),
                    Err(error) => {
                        stopped = Some((place, error));
                        break;
                    }
                }
            }
            let outcome = self.release_batch(core, &mut batch);
            let first = outcome.map_or_else(Some, |()| stopped);
            let freed = first.map_or(part.len(), |(place, _)| place);
            for page in part.iter_mut().take(freed) {
                *page = None;
            }
            if let Some((place, error)) = first {
                return Err((start.saturating_add(place), error));
            }
            start = start.saturating_add(freed);
        }
        Ok(())
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
        if core.options.page_poison || core.options.init_on_free {
            for page in batch.iter_mut().flatten() {
                core.wipe(&self.platform, page);
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
