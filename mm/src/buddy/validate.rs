//! The allocator proves itself: everything is recounted from the frame records.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::{Area, base_of, bit, row, slot};
use super::free_areas::FreeAreas;
use super::index::{Place, set_of};
use crate::addr::{Order, to_count};
use crate::config::{ORDERS, PAGEBLOCK_FRAMES, SECTION_PAGEBLOCKS};
use crate::frame::{FrameState, Word};
use crate::report::{Check, Corruption};

/// Frames of a zone by what they are in, counted from their records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// In free blocks that can be handed out.
    pub free: u64,
    /// In free blocks of isolated pageblocks.
    pub isolated: u64,
    /// In blocks that somebody owns.
    pub live: u64,
    /// In blocks on the lists of CPUs.
    pub cached: u64,
    /// Reserved.
    pub reserved: u64,
}

impl Census {
    /// Frames that the zone manages.
    #[must_use]
    pub const fn managed(&self) -> u64 {
        self.free
            .saturating_add(self.isolated)
            .saturating_add(self.live)
            .saturating_add(self.cached)
    }
}

/// A running recount.
#[derive(Default)]
struct Recount {
    census: Census,
    blocks: [[u64; ORDERS]; MigrateType::COUNT],
    high_atomic: u64,
    cma: u64,
}

impl FreeAreas {
    /// Recounts everything and compares it with what is maintained: alignment, home and links of
    /// every free block, unmerged buddies, the index, and all counters (oracles O1, O3 and O4).
    /// Context: zone lock held; takes time in proportion to the zone.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub(crate) fn validate(&self) -> Result<Census, Corruption> {
        let mut recount = Recount::default();
        for (slot, area) in self.areas.iter().enumerate() {
            let slot = to_count(slot);
            let Some(area) = area.as_deref() else {
                continue;
            };
            for block in 0..SECTION_PAGEBLOCKS {
                self.check_block(area, block, &mut recount)?;
                self.check_index(area, Place { slot, block })?;
            }
        }
        self.check_totals(&recount)?;
        Ok(recount.census)
    }

    fn check_block(
        &self,
        area: &Area,
        block: usize,
        recount: &mut Recount,
    ) -> Result<(), Corruption> {
        let (kind, kept) = (area.blocks[block].kind, area.blocks[block].kept);
        let own = if kind == MigrateType::Isolate {
            kept
        } else {
            kind
        };
        let special = match own {
            MigrateType::HighAtomic => Some(&mut recount.high_atomic),
            MigrateType::Cma => Some(&mut recount.cma),
            _ => None,
        };
        if let Some(frames) = special {
            *frames = frames.saturating_add(PAGEBLOCK_FRAMES);
        }
        let mut found = [0_u64; ORDERS];
        for (at, word) in area.walk(block) {
            let bad = |check| Corruption::BadRecord {
                pfn: area.frames.pfn(at),
                word: word.bits(),
                check,
            };
            let Some(state) = word.state() else {
                return Err(bad(Check::State));
            };
            if state == FrameState::Interior || !word.belongs_to(self.home) {
                continue;
            }
            let (order, frames) = (word.order(), word.order().frames());
            if !area.frames.pfn(at).is_aligned(order) {
                return Err(bad(Check::Alignment));
            }
            let tally = match state {
                FrameState::Free if kind == MigrateType::Isolate => &mut recount.census.isolated,
                FrameState::Free => &mut recount.census.free,
                FrameState::Unique | FrameState::Shared => &mut recount.census.live,
                FrameState::Cached => &mut recount.census.cached,
                FrameState::Reserved | FrameState::Interior => &mut recount.census.reserved,
            };
            *tally = tally.saturating_add(frames);
            if state == FrameState::Free {
                Self::check_buddy(area, at, word)?;
                let count = &mut found[order.index()];
                *count = count.saturating_add(1);
            }
        }
        self.check_lists(area, block, &found)?;
        for (total, found) in recount.blocks[kind.index()].iter_mut().zip(found) {
            *total = total.saturating_add(found);
        }
        Ok(())
    }

    /// A free block's buddy of the same order must not be free as well.
    fn check_buddy(area: &Area, at: u64, word: Word) -> Result<(), Corruption> {
        let order = word.order();
        let pfn = area.frames.pfn(at);
        let unmerged = match order {
            Order::MAX => false,
            Order::PAGEBLOCK => Self::pair_merges(area, super::area::block_index(at)),
            _ => area.is_free(at ^ order.frames(), order),
        };
        if unmerged {
            Err(Corruption::Unmerged { pfn, order })
        } else {
            Ok(())
        }
    }

    /// The lists hold exactly the free blocks that a walk found.
    fn check_lists(
        &self,
        area: &Area,
        block: usize,
        found: &[u64; ORDERS],
    ) -> Result<(), Corruption> {
        for (order, &count) in Order::all().zip(found) {
            let mut listed: u64 = 0;
            for at in area.list(block, order) {
                let word = area.word(at);
                if !area.is_free(at, order) {
                    let pfn = area.frames.pfn(at);
                    return Err(Corruption::BadRecord {
                        pfn,
                        word: word.bits(),
                        check: Check::Links,
                    });
                }
                listed = listed.saturating_add(1);
            }
            let marked = area.blocks[block].orders & bit(order) != 0;
            if listed != count || marked != (count > 0) {
                return Err(Corruption::Miscount {
                    check: Check::Links,
                    recorded: listed,
                    counted: count,
                });
            }
            if !area.links_are_mutual(block, order) {
                let pfn = area.frames.pfn(base_of(block));
                return Err(Corruption::BadRecord {
                    pfn,
                    word: 0,
                    check: Check::Links,
                });
            }
        }
        Ok(())
    }

    /// A pageblock is in the one set that its type and largest free block say, and in no other.
    fn check_index(&self, area: &Area, place: Place) -> Result<(), Corruption> {
        let block = &area.blocks[place.block];
        for kind in MigrateType::ALL {
            for order in Order::all() {
                let expected = kind == block.kind && block.largest() == Some(order);
                let word = area.largest[row(kind)][slot(order)];
                let present = word >> place.block & 1 == 1;
                let listed = self.index.bank.contains(set_of(kind, order), place.slot);
                if present != expected || listed != (word != 0) {
                    let pfn = area.frames.pfn(base_of(place.block));
                    return Err(Corruption::BadRecord {
                        pfn,
                        word,
                        check: Check::Index,
                    });
                }
            }
        }
        Ok(())
    }

    fn check_totals(&self, recount: &Recount) -> Result<(), Corruption> {
        for kind in MigrateType::ALL {
            for order in Order::all() {
                let recorded = self.blocks[row(kind)][slot(order)];
                let counted = recount.blocks[kind.index()][order.index()];
                if recorded != counted {
                    return Err(Corruption::Miscount {
                        check: Check::FreeBlocks,
                        recorded,
                        counted,
                    });
                }
                let set = set_of(kind, order);
                let stocked = self.index.stock(kind) & bit(order) != 0;
                if stocked != self.index.bank.first(set).is_some()
                    || !self.index.bank.is_consistent(set)
                {
                    let counted = u64::from(!stocked);
                    return Err(Corruption::Miscount {
                        check: Check::Index,
                        recorded: u64::from(stocked),
                        counted,
                    });
                }
            }
        }
        for (check, recorded, counted) in [
            (Check::FreeFrames, self.free, recount.census.free),
            (Check::HighAtomic, self.high_atomic, recount.high_atomic),
            (Check::Cma, self.cma, recount.cma),
        ] {
            if recorded != counted {
                return Err(Corruption::Miscount {
                    check,
                    recorded,
                    counted,
                });
            }
        }
        Ok(())
    }
}
