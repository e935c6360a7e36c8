//! Pageblocks kept for large requests that cannot wait (Linux: `MIGRATE_HIGHATOMIC`).
//!
//! A request for several pages that cannot reclaim finds none when memory is scattered. Where one
//! is served in spite of that, its pageblock is kept for others of its sort: memory that was of use
//! to them once will be again. Ordinary requests take nothing from there; when they have reclaimed
//! in vain, the pageblocks go back to them, one by one.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::{row, slot};
use super::free_areas::{FreeAreas, Note};
use crate::addr::{Order, Pfn, to_index};
use crate::config::PAGEBLOCK_FRAMES;

/// What is kept of a zone when its pageblocks are given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// The last pageblock: memory is short, but something may come yet.
    One,
    /// Nothing: there is no memory left.
    Nothing,
}

impl FreeAreas {
    /// Frames in pageblocks that are kept for large requests that cannot wait.
    pub(crate) const fn high_atomic_frames(&self) -> u64 {
        self.high_atomic
    }

    /// Free frames in pageblocks of a type.
    pub(crate) fn free_frames_of(&self, kind: MigrateType) -> u64 {
        Order::all().fold(0, |frames: u64, order| {
            let blocks = self.blocks[row(kind)][slot(order)];
            frames.saturating_add(blocks.saturating_mul(order.frames()))
        })
    }

    /// Keeps the pageblock around a block in use, if no more than `most` frames are kept then and
    /// the pageblock's type is one of those that requests have (Linux:
    /// `reserve_highatomic_pageblock`).
    pub(crate) fn keep_high_atomic(&mut self, pfn: Pfn, most: u64) {
        let kept = self.high_atomic.saturating_add(PAGEBLOCK_FRAMES);
        let Some(place) = self.place_of(pfn).filter(|_| kept <= most) else {
            return;
        };
        let Some(Some(area)) = self.areas.get(to_index(place.slot)) else {
            return;
        };
        if area.blocks[place.block & 63].kind.is_mergeable() {
            // Part of it is in use, so no larger block covers it.
            self.retype(place, MigrateType::HighAtomic);
            self.high_atomic = kept;
            self.note(Note::SPECIAL);
        }
    }

    /// Gives a pageblock that is kept and has something free to requests of type `wanted` (Linux:
    /// `unreserve_highatomic_pageblock`). Answers whether there was one.
    pub(crate) fn give_up_high_atomic(&mut self, wanted: MigrateType, keep: Keep) -> bool {
        let least = match keep {
            Keep::One => PAGEBLOCK_FRAMES,
            Keep::Nothing => 0,
        };
        if self.high_atomic <= least {
            return false;
        }
        let kept = MigrateType::HighAtomic;
        let Some(place) = Order::all().find_map(|order| self.lowest(kept, order)) else {
            return false;
        };
        self.split_pair(place);
        self.retype(place, wanted);
        self.high_atomic = self.high_atomic.saturating_sub(PAGEBLOCK_FRAMES);
        self.rejoin_pair(place);
        true
    }
}
