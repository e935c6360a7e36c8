//! Single pages that go back together, under one hold of a zone's lock.
#![forbid(unsafe_code)]

use super::Memory;
use crate::addr::{Order, Pfn};
use crate::frame::ZoneId;
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Pages that go back under one hold of the zone lock, at most.
const PAGES: usize = 64;

/// Single pages of one zone on their way back.
pub(crate) struct Batch {
    /// The zone of all.
    home: Option<ZoneId>,
    blocks: [Option<Exclusive>; PAGES],
    len: usize,
}

impl Batch {
    /// No pages.
    pub(crate) const fn new() -> Self {
        Self {
            home: None,
            blocks: [const { None }; PAGES],
            len: 0,
        }
    }

    /// Whether a page of `home` fits: the batch is not full, and of no other zone.
    pub(crate) fn has_room(&self, home: ZoneId) -> bool {
        self.len < PAGES && self.home.is_none_or(|ours| ours == home)
    }

    /// Adds a page whose record names `home`, for which there [is room](Self::has_room).
    pub(crate) fn push(&mut self, home: ZoneId, page: Exclusive) {
        if let Some(place) = self.blocks.get_mut(self.len) {
            *place = Some(page);
            self.home = Some(home);
            self.len = self.len.wrapping_add(1);
        }
    }
}

impl<P: Platform> Memory<P> {
    /// The zone that the record of a block's first frame names.
    pub(crate) fn home_of(&self, pfn: Pfn) -> Option<ZoneId> {
        Some(self.frames()?.frame(pfn)?.word().zone_id())
    }

    /// Gives a batch back under one hold of its zone's lock, up to the first page that is in it
    /// a second time. Answers how many pages went back. Context: any but NMI.
    pub(crate) fn release_batch(&self, batch: Batch) -> usize {
        let Some((core, home)) = self.core().zip(batch.home) else {
            return 0;
        };
        let mut pages = batch.blocks;
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
