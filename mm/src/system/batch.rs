//! Single pages that go back together, under one hold of a zone's lock.
#![forbid(unsafe_code)]

use super::Memory;
use crate::addr::{Order, Pfn};
use crate::frame::{FrameTable, FreeError, ZoneId};
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Pages that go back under one hold of the zone lock, at most.
const PAGES: usize = 64;

/// Single pages of one zone on their way back.
struct Batch {
    /// The zone of all.
    home: Option<ZoneId>,
    pages: [Option<Exclusive>; PAGES],
    len: usize,
}

impl Batch {
    const fn new() -> Self {
        Self {
            home: None,
            pages: [const { None }; PAGES],
            len: 0,
        }
    }

    /// Whether a page of `home` fits: the batch is not full, and of no other zone.
    fn has_room(&self, home: ZoneId) -> bool {
        self.len < PAGES && self.home.is_none_or(|ours| ours == home)
    }

    /// Adds a page whose record names `home`, for which there [is room](Self::has_room).
    fn push(&mut self, home: ZoneId, page: Exclusive) {
        if let Some(place) = self.pages.get_mut(self.len) {
            *place = Some(page);
            self.home = Some(home);
            self.len = self.len.wrapping_add(1);
        }
    }

    /// Takes pages back by `reclaim` until the batch is full. Answers how many places were dealt
    /// with, and what is wrong with the next one, if that is why it stopped.
    fn fill(
        &mut self,
        table: &FrameTable,
        pages: &[Option<Pfn>],
        reclaim: impl Fn(&FrameTable, Pfn) -> Result<Exclusive, FreeError>,
    ) -> (usize, Result<(), FreeError>) {
        for (place, page) in pages.iter().enumerate() {
            let Some(pfn) = *page else { continue };
            let Some(frame) = table.frame(pfn) else {
                return (place, Err(FreeError::NotPresent));
            };
            let home = frame.word().zone_id();
            if !self.has_room(home) {
                return (place, Ok(()));
            }
            match reclaim(table, pfn) {
                Ok(page) => self.push(home, page),
                Err(error) => return (place, Err(error)),
            }
        }
        (pages.len(), Ok(()))
    }
}

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
        let Some(table) = self.frames() else {
            let place = pages.iter().position(Option::is_some);
            return place.map_or(Ok(()), |place| Err((place, FreeError::NotPresent)));
        };
        let mut start: usize = 0;
        while start < pages.len() {
            let rest = &mut pages[start..];
            let mut batch = Batch::new();
            let (count, stopped) = batch.fill(table, rest, &reclaim);
            let freed = self.release_batch(batch);

            let places = rest.iter_mut().enumerate().take(count);
            let mut places = places.filter(|(_, page)| page.is_some());
            for (_, page) in places.by_ref().take(freed) {
                *page = None;
            }
            if let Some((twice, _)) = places.next() {
                return Err((start.saturating_add(twice), FreeError::AlreadyFree));
            }
            start = start.saturating_add(count);
            stopped.map_err(|error| (start, error))?;
        }
        Ok(())
    }

    /// Gives a batch back under one hold of its zone's lock, up to the first page that is in it
    /// a second time. Answers how many pages went back. Context: any but NMI.
    fn release_batch(&self, batch: Batch) -> usize {
        let Some((core, home)) = self.core().zip(batch.home) else {
            return 0;
        };
        let mut pages = batch.pages;
        for page in pages.iter_mut().flatten() {
            core.wipe(&self.platform, page);
        }
        let pages = pages.into_iter().flatten();
        match core.zone(home) {
            Some(zone) => zone.free_bulk(&self.platform, pages),
            None => {
                let lost = |page: Exclusive| self.lose(page.leak().first(), Order::ZERO);
                pages.map(lost).count()
            }
        }
    }
}
