//! Isolation of pageblocks, and taking an exact range of frames.
//!
//! An isolated pageblock serves nobody: its free blocks stay counted but cannot be found.
//! Taking a range isolates its pageblocks, looks for frames in use, and cuts the range out.
//! Whatever fails is undone.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::{base_of, bit, block_index, count_down, count_up};
use super::free_areas::FreeAreas;
use super::index::Place;
use crate::addr::{Order, Pfn, PfnRange, to_index};
use crate::frame::{FrameState, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Why a range could not be isolated or taken. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// The range is empty.
    Empty,
    /// Part of the range is not memory of one zone.
    NotInZone {
        /// The first such frame.
        pfn: Pfn,
    },
    /// A frame is in use and stays where it is.
    Busy {
        /// First frame of the block in use.
        pfn: Pfn,
    },
    /// Part of the range is lent to movable pages by CMA, which alone takes it back; or CMA asked
    /// for what is not its own.
    Cma {
        /// First frame of the pageblock.
        pfn: Pfn,
    },
    /// Part of the range is isolated already.
    Isolated {
        /// First frame of the pageblock.
        pfn: Pfn,
    },
}

impl core::fmt::Display for RangeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("the range is empty"),
            Self::NotInZone { pfn } => write!(f, "frame {pfn} is not in the zone"),
            Self::Busy { pfn } => write!(f, "frame {pfn} is in use"),
            Self::Cma { pfn } => write!(f, "frame {pfn} is on the other side of a CMA area's edge"),
            Self::Isolated { pfn } => write!(f, "frame {pfn} is isolated already"),
        }
    }
}

impl core::error::Error for RangeError {}

impl FreeAreas {
    /// The first frames of all pageblocks that a range touches.
    pub(super) fn blocks_around(range: PfnRange) -> impl Iterator<Item = Pfn> {
        let first = range.first().align_down(Order::PAGEBLOCK);
        let count = range
            .end()
            .align_up(Order::PAGEBLOCK)
            .offset_from(first)
            .unwrap_or_default();
        let step = to_index(Order::PAGEBLOCK.frames());
        (0..count)
            .step_by(step)
            .map(move |offset| first.saturating_add(offset))
    }

    pub(super) fn place_of(&self, pfn: Pfn) -> Option<Place> {
        let slot = self.slot_of(pfn)?;
        Some(Place {
            slot,
            block: block_index(pfn.section_offset()),
        })
    }

    /// Whether the pageblocks around a range are the zone's and in use.
    pub(crate) fn check_blocks(&self, range: PfnRange) -> Result<(), RangeError> {
        for pfn in Self::blocks_around(range) {
            match self.kind_at(pfn) {
                None => return Err(RangeError::NotInZone { pfn }),
                Some(MigrateType::Isolate) => return Err(RangeError::Isolated { pfn }),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes the pageblocks around a range out of use (Linux: `start_isolate_page_range`).
    pub(crate) fn isolate(&mut self, range: PfnRange) -> Result<(), RangeError> {
        self.check_blocks(range)?;
        for pfn in Self::blocks_around(range) {
            let Some(place) = self.place_of(pfn) else {
                continue;
            };
            self.split_pair(place);
            if let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) {
                let block = &mut area.blocks[place.block];
                block.kept = block.kind;
            }
            self.retype(place, MigrateType::Isolate);
            self.isolated = self.isolated.wrapping_add(1);
        }
        Ok(())
    }

    /// Puts the pageblocks around a range back into use (Linux: `undo_isolate_page_range`).
    pub(crate) fn unisolate(&mut self, range: PfnRange) {
        for pfn in Self::blocks_around(range) {
            let Some(place) = self.place_of(pfn) else {
                continue;
            };
            let Some(Some(area)) = self.areas.get(to_index(place.slot)) else {
                continue;
            };
            let block = area.blocks[place.block];
            if block.kind != MigrateType::Isolate {
                continue;
            }
            self.split_pair(place);
            self.retype(place, block.kept);
            self.isolated = self.isolated.wrapping_sub(1);
            self.rejoin_pair(place);
        }
    }

    /// Halves the largest block if the pageblock is part of one, so that it stands alone.
    pub(super) fn split_pair(&mut self, place: Place) {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return;
        };
        let (lower, upper) = (place.block & !1, place.block | 1);
        if area.blocks[lower].largest() != Some(Order::MAX) {
            return;
        }
        let kind = area.blocks[lower].kind;
        area.unlink(base_of(lower), Order::MAX);
        count_down(&mut self.blocks, kind, Order::MAX);
        for block in [lower, upper] {
            area.push(base_of(block), Order::PAGEBLOCK);
            count_up(&mut self.blocks, kind, Order::PAGEBLOCK);
            let at = Place { block, ..place };
            let before = if block == lower { bit(Order::MAX) } else { 0 };
            self.index
                .update(area, at, kind, before, bit(Order::PAGEBLOCK));
        }
    }

    /// Merges a wholly free pageblock with the other one of its pair, if that is free too.
    pub(super) fn rejoin_pair(&mut self, place: Place) {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return;
        };
        let block = area.blocks[place.block];
        if block.largest() != Some(Order::PAGEBLOCK) || !Self::pair_merges(area, place.block) {
            return;
        }
        area.unlink(base_of(place.block), Order::PAGEBLOCK);
        count_down(&mut self.blocks, block.kind, Order::PAGEBLOCK);
        self.index
            .update(area, place, block.kind, bit(Order::PAGEBLOCK), 0);
        self.merge_pair(place, &mut ());
    }

    /// Takes exactly the frames of `range`, if its pageblocks are isolated and all are free.
    /// The tokens of the pieces go to `each`, lowest first.
    pub(crate) fn take_range<P: Platform>(
        &mut self,
        range: PfnRange,
        mobility: MigrateType,
        mut each: impl FnMut(Exclusive),
    ) -> Result<(), RangeError> {
        let mut blocks = Self::blocks_around(range);
        if let Some(pfn) = blocks.find(|&pfn| self.kind_at(pfn) != Some(MigrateType::Isolate)) {
            return Err(RangeError::Busy { pfn });
        }
        self.check_frames(range)?;
        for pfn in Self::blocks_around(range) {
            let Some(place) = self.place_of(pfn) else {
                continue;
            };
            self.cut_out(place, range);
        }
        let word = |order| Word::unique(self.home, order, mobility.bits());
        for (pfn, order) in range.blocks(Order::PAGEBLOCK) {
            let Some(Some(area)) = self.slot_of(pfn).and_then(|slot| self.areas.at(slot)) else {
                continue;
            };
            if let Ok(block) = area
                .frames
                .take::<P>(pfn.section_offset(), order, word(order))
            {
                each(block);
            }
        }
        Ok(())
    }

    /// Whether the frames of a range could be taken right now, as far as they themselves go: the
    /// first reason why not is the error.
    pub(crate) fn check_frames(&self, range: PfnRange) -> Result<(), RangeError> {
        let obstacle = Self::blocks_around(range).find_map(|start| {
            let place = self.place_of(start)?;
            let area = self.areas.at(place.slot)?.as_deref()?;
            let look = |(at, word)| self.obstacle(area.frames.pfn(at), word, range);
            match area.covering_pair(place.block) {
                // A larger block covers all of the pageblock: nothing starts in it.
                Some(pair) => look(pair),
                None => area.walk(place.block).find_map(look),
            }
        });
        obstacle.map_or(Ok(()), Err)
    }

    /// Why what starts at `pfn` stands in the way of taking `range`, if it does.
    fn obstacle(&self, pfn: Pfn, word: Word, range: PfnRange) -> Option<RangeError> {
        let frames = match word.state() {
            Some(state) if state.starts_block() => PfnRange::block(pfn, word.order()),
            _ => PfnRange::block(pfn, Order::ZERO),
        };
        let wanted = frames.intersect(range);
        let ours = word.belongs_to(self.home);
        match word.state() {
            _ if wanted.is_empty() => None,
            Some(FrameState::Free) if ours => None,
            // Holes, and frames of other zones that lie among ours.
            Some(FrameState::Interior) => Some(RangeError::NotInZone { pfn }),
            Some(_) if !ours => Some(RangeError::NotInZone {
                pfn: wanted.first(),
            }),
            _ => Some(RangeError::Busy { pfn }),
        }
    }

    /// Removes the free blocks of a pageblock that touch `range`, and puts back what sticks out.
    /// What lies inside becomes free blocks on no list, in the pieces of `range.blocks()`.
    fn cut_out(&mut self, place: Place, range: PfnRange) {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return;
        };
        let kind = area.blocks[place.block].kind;
        let before = area.blocks[place.block].orders;
        let start = base_of(place.block);
        let end = start.saturating_add(Order::PAGEBLOCK.frames());
        let mut at = start;
        while at < end {
            let word = area.word(at);
            let order = word.order();
            let block = PfnRange::block(area.frames.pfn(at), order);
            let here = at;
            at = at.saturating_add(if word.is(FrameState::Interior) {
                1
            } else {
                order.frames()
            });
            let inside = block.intersect(range);
            if !word.is(FrameState::Free) || inside.is_empty() {
                continue;
            }
            area.unlink(here, order);
            area.absorb(here);
            count_down(&mut self.blocks, kind, order);
            let below = PfnRange::from_numbers(block.first().as_u64(), inside.first().as_u64());
            let above = PfnRange::from_numbers(inside.end().as_u64(), block.end().as_u64());
            for (pfn, order) in below.blocks(order).chain(above.blocks(order)) {
                area.push(pfn.section_offset(), order);
                count_up(&mut self.blocks, kind, order);
            }
        }
        let after = area.blocks[place.block].orders;
        self.index.update(area, place, kind, before, after);
        let whole = PfnRange::block(area.frames.pfn(start), Order::PAGEBLOCK);
        for (pfn, order) in range.intersect(whole).blocks(Order::PAGEBLOCK) {
            area.frames
                .at(pfn.section_offset())
                .publish(area.free_word(order));
        }
    }
}
