//! The block that came back last: it is merged when anything else happens, not before.
//!
//! Who frees a block often wants one like it next. Halving a large block for that, and merging it again,
//! takes as many steps as there are orders between. A lazy buddy system puts the merging off (Barkley
//! and Lee, "A Lazy Buddy System Bounded by Two Coalescing Delays per Class", SOSP 1989). Here it is put
//! off for one block of a zone, and only until somebody wants another one, gives one back, or looks:
//! free memory gathers in large blocks as well as without.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::block_index;
use super::free_areas::FreeAreas;
use super::trace::{Step, Trace};
use crate::addr::{Order, Pfn};
use crate::frame::{Offer, Record, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;

/// A free block that is on no list; its record says that it is free, and it counts as that.
///
/// # Invariants
/// There is a record while `word` is that of a block.
#[derive(Debug)]
pub(super) struct Latest {
    /// What the record said while the block had an owner, the compound flag apart.
    word: Word,
    pfn: Pfn,
    record: Option<Record>,
}

impl Latest {
    pub(super) const NONE: Self = Self {
        word: Word::INTERIOR,
        pfn: Pfn::ZERO,
        record: None,
    };
}

impl FreeAreas {
    /// The state word of the block that came back last while it had an owner, the compound flag apart; if
    /// there is none, [`Word::INTERIOR`].
    #[inline]
    pub(crate) const fn latest(&self) -> Word {
        self.latest.word
    }

    /// Gives a block of `order` back, to be merged later; the one before is merged instead.
    ///
    /// # Errors
    /// The offer: it is no block, or its pageblock is of another type than the block.
    #[inline(always)]
    pub(crate) fn give_latest(
        &mut self,
        offer: Offer,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), Offer> {
        self.settle(trace);
        let (first, word) = (offer.pfn(), offer.word());
        let section = first.section().wrapping_sub(self.first_section);
        let Some(Some(area)) = self.areas.at(section) else {
            return Err(offer);
        };
        let block = block_index(first.section_offset());
        // What is free in other pageblocks is counted by itself, on their lists.
        let is_usual = word.mobility() <= MigrateType::Reclaimable.bits();
        let is_alike = |block: usize| area.blocks[block & 63].kind.bits() == word.mobility();
        if !is_usual || !is_alike(block) || (order == Order::MAX && !is_alike(block | 1)) {
            return Err(offer);
        }
        let (pfn, record) = offer.set_free(order)?;
        self.free = self.free.wrapping_add(order.frames());
        // INVARIANT: with its record.
        self.latest = Latest {
            word: word.owned(),
            pfn,
            record: Some(record),
        };
        trace.step(Step::Unmerged { pfn, order });
        Ok(())
    }

    /// Takes the block that came back last, if it is as one marked with `word`.
    #[inline(always)]
    pub(crate) fn take_latest<P: Platform>(
        &mut self,
        order: Order,
        word: Word,
        platform: &P,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        if self.latest.word != word.owned() {
            return None;
        }
        self.latest.word = Word::INTERIOR;
        let (pfn, record) = (self.latest.pfn, self.latest.record?);
        self.free = self.free.wrapping_sub(order.frames());
        trace.step(Step::Latest { pfn, order });
        // Damaged, it stays out of circulation.
        let taken = record.take_free::<P>((pfn, order), word);
        taken.map_err(|damage| platform.corruption(&damage)).ok()
    }

    /// Merges the block that came back last with its buddies: now it is on a list like any other.
    #[inline]
    pub(crate) fn settle(&mut self, trace: &mut impl Trace) {
        if self.latest.word != Word::INTERIOR {
            self.settle_block(trace);
        }
    }

    #[inline(never)]
    fn settle_block(&mut self, trace: &mut impl Trace) {
        let Latest { word, pfn, .. } = core::mem::replace(&mut self.latest, Latest::NONE);
        let order = word.order();
        self.free = self.free.wrapping_sub(order.frames());
        let section = pfn.section().wrapping_sub(self.first_section);
        self.insert(section, pfn.section_offset(), order, trace);
    }
}

const _: () = {
    let least = MigrateType::Reclaimable.bits();
    assert!(MigrateType::Unmovable.bits() <= least && MigrateType::Movable.bits() <= least);
    assert!(MigrateType::HighAtomic.bits() > least && MigrateType::Cma.bits() > least);
    assert!(MigrateType::Isolate.bits() > least);
};
