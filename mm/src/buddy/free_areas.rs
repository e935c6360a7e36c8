//! The free areas of a zone: split on the way out, merge on the way in.
//!
//! # Which block is chosen
//!
//! A request takes the pageblock whose *largest* free block is the smallest that still fits, and
//! of several such the lowest. Pageblocks that are nearly full are filled first and those that
//! are nearly empty are left to drain, so free memory gathers in whole pageblocks. A plain
//! last-in-first-out buddy scatters it instead.
//!
//! Everything is bounded: a look-up touches one word per index level, a split or merge at most
//! ten records, a change of a pageblock's type at most 512.
#![forbid(unsafe_code)]

use super::area::{Area, base_of, bit, block_index};
use super::trace::{Step, Trace};
use super::{MigrateType, Stats};
use crate::addr::{Order, Pfn, PfnRange, to_count, to_index};
use crate::collections::{Members, SetBank};
use crate::config::ORDERS;
use crate::frame::{SectionFrames, Word, ZoneId};
use crate::mem::{Array, CarveError, EarlyBox, EarlyRam, Exclusive};
use crate::platform::Platform;
use crate::report::Corruption;

/// Sets in the index of a zone: one per type and order.
pub(super) const SETS: u64 = to_count(ORDERS * MigrateType::COUNT);

#[inline]
pub(super) const fn set_of(kind: MigrateType, order: Order) -> u64 {
    to_count(
        kind.index()
            .wrapping_mul(ORDERS)
            .wrapping_add(order.index()),
    )
}

/// Which sections have a pageblock of a type whose largest free block has an order.
///
/// # Invariants
/// Section `s` is in set `(t, o)` exactly if the area of `s` has a bit in `largest[t][o]`; bit
/// `o` of `stock[t]` is set exactly if set `(t, o)` has members.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) bank: SetBank,
    pub(super) stock: [u16; MigrateType::COUNT],
}

impl Index {
    /// Takes note that the largest free block of a pageblock changed.
    #[inline]
    pub(super) fn update(
        &mut self,
        area: &mut Area,
        slot: u64,
        block: usize,
        kind: MigrateType,
        change: (Option<Order>, Option<Order>),
    ) {
        let (before, after) = change;
        if before == after {
            return;
        }
        let mask = 1 << block;
        if let Some(order) = before {
            let word = &mut area.largest[kind.index()][order.index()];
            *word &= !mask;
            if *word == 0 && self.bank.remove(set_of(kind, order), slot) == Members::None {
                self.stock[kind.index()] &= !bit(order);
            }
        }
        if let Some(order) = after {
            let word = &mut area.largest[kind.index()][order.index()];
            if *word == 0 {
                self.bank.insert(set_of(kind, order), slot);
                self.stock[kind.index()] |= bit(order);
            }
            *word |= mask;
        }
    }
}

/// One slot for each section that a zone spans.
pub(crate) type AreaSlots = Array<Option<EarlyBox<Area>>>;

/// Free blocks of a zone.
#[derive(Debug)]
pub(crate) struct FreeAreas {
    pub(super) home: ZoneId,
    pub(super) first_section: u64,
    pub(super) areas: AreaSlots,
    pub(super) index: Index,
    /// Free blocks by type and order (Linux: `free_area[order].nr_free`, kept per type).
    pub(super) blocks: [[u64; ORDERS]; MigrateType::COUNT],
    /// Free frames outside isolated pageblocks.
    pub(super) free: u64,
    pub(super) stats: Stats,
}

/// Where a block was found, before it is taken.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) slot: u64,
    pub(super) block: usize,
}

impl FreeAreas {
    /// No areas yet.
    pub(crate) const fn empty(home: ZoneId) -> Self {
        Self {
            home,
            first_section: 0,
            areas: Array::empty(),
            index: Index {
                bank: SetBank::empty(),
                stock: [0; MigrateType::COUNT],
            },
            blocks: [[0; ORDERS]; MigrateType::COUNT],
            free: 0,
            stats: Stats::ZERO,
        }
    }

    /// Makes room for areas from section `first_section` on, one slot for each section of the
    /// index. For a zone without areas.
    pub(crate) fn install(&mut self, first_section: u64, areas: AreaSlots, bank: SetBank) {
        self.first_section = first_section;
        self.areas = areas;
        self.index.bank = bank;
    }

    /// Sets in a zone's index, for [`SetBank::bytes_for`].
    pub(crate) const INDEX_SETS: u64 = SETS;

    /// Free frames outside isolated pageblocks.
    #[inline]
    pub(crate) const fn free_frames(&self) -> u64 {
        self.free
    }

    /// What was done so far.
    pub(crate) const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Notes that a block was handed out.
    #[inline]
    pub(crate) fn note_alloc(&mut self, order: Order) {
        self.note_alloc_frames(order.frames());
    }

    /// Notes that frames were handed out.
    #[inline]
    pub(crate) fn note_alloc_frames(&mut self, frames: u64) {
        self.stats.allocated = self.stats.allocated.wrapping_add(frames);
    }

    /// Notes that frames were given back by an owner.
    #[inline]
    pub(crate) fn note_free(&mut self, frames: u64) {
        self.stats.freed = self.stats.freed.wrapping_add(frames);
    }

    /// Adds room for the free blocks of a section, whose pageblocks start out as `kind`.
    ///
    /// # Errors
    /// [`CarveError`] if `ram` cannot hold it; [`CarveError::Unreachable`] also for a section
    /// outside the zone.
    pub(crate) fn add_area<P: Platform>(
        &mut self,
        platform: &P,
        frames: SectionFrames,
        ram: EarlyRam,
        kind: MigrateType,
    ) -> Result<(), CarveError> {
        let slot = frames.pfn(0).section().checked_sub(self.first_section);
        let range = ram.range();
        let slot = slot.and_then(|slot| self.areas.get_mut(to_index(slot)));
        let slot = slot.ok_or(CarveError::Unreachable(range))?;
        *slot = Some(EarlyBox::carve(platform, ram, || {
            Area::new(frames, self.home, kind)
        })?);
        Ok(())
    }

    /// Pageblocks of present sections within `span`, by type.
    pub(crate) fn pageblocks(&self, span: PfnRange) -> [u64; MigrateType::COUNT] {
        let mut counts = [0_u64; MigrateType::COUNT];
        for area in self.areas.iter().flatten() {
            for (block, pageblock) in area.blocks.iter().enumerate() {
                let frames = PfnRange::block(area.frames.pfn(base_of(block)), Order::PAGEBLOCK);
                let inside = u64::from(!frames.intersect(span).is_empty());
                let count = &mut counts[pageblock.kind.index()];
                *count = count.saturating_add(inside);
            }
        }
        counts
    }

    /// Free blocks of a type and order.
    pub(crate) const fn free_blocks(&self, kind: MigrateType, order: Order) -> u64 {
        self.blocks[kind.index()][order.index()]
    }

    /// The slot and section offset of a frame, if the zone has an area there.
    #[inline]
    pub(super) fn slot_of(&self, pfn: Pfn) -> Option<u64> {
        let slot = pfn.section().checked_sub(self.first_section)?;
        self.areas.at(slot)?.as_ref().map(|_| slot)
    }

    /// The pageblock type at a frame, if the zone has an area there.
    pub(crate) fn kind_at(&self, pfn: Pfn) -> Option<MigrateType> {
        let slot = self.slot_of(pfn)?;
        let area = self.areas.at(slot)?.as_deref()?;
        Some(area.block_of(pfn.section_offset()).kind)
    }

    /// Takes the best free block of type `kind` for a request of `order`, splitting it as needed,
    /// and marks it with `word`. Damaged blocks are left out and reported to `bad`.
    #[inline]
    pub(crate) fn take<P: Platform>(
        &mut self,
        order: Order,
        kind: MigrateType,
        word: Word,
        platform: &P,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        loop {
            let place = self.best(order, kind)?;
            match self.take_at::<P>(place, order, word, trace) {
                Ok(block) => return Some(block),
                // The block is off the lists already and stays out of circulation.
                Err(corruption) => platform.corruption(&corruption),
            }
        }
    }

    /// The pageblock whose largest free block is the smallest that fits; the lowest of several.
    #[inline]
    fn best(&self, order: Order, kind: MigrateType) -> Option<Place> {
        let fitting = self.index.stock[kind.index()] >> order.as_u8() << order.as_u8();
        if fitting == 0 {
            return None;
        }
        let largest = Order::new(u8::try_from(fitting.trailing_zeros()).unwrap_or_default())?;
        self.lowest(kind, largest)
    }

    /// The lowest pageblock of a type whose largest free block has exactly `order`.
    #[inline]
    pub(super) fn lowest(&self, kind: MigrateType, order: Order) -> Option<Place> {
        let slot = self.index.bank.first(set_of(kind, order))?;
        let area = self.areas.at(slot)?.as_deref()?;
        let word = area.largest[kind.index()][order.index()];
        Some(Place {
            slot,
            block: to_index(u64::from(word.trailing_zeros())) & 63,
        })
    }

    /// Takes a block of `order` out of a pageblock that has one.
    pub(super) fn take_at<P: Platform>(
        &mut self,
        place: Place,
        order: Order,
        word: Word,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, Corruption> {
        let missing = Corruption::NotFree {
            pfn: Pfn::ZERO,
            word: 0,
        };
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return Err(missing);
        };
        let block = area.blocks[place.block];
        let Some(from) = block.smallest_from(order) else {
            return Err(missing);
        };
        let at = area.first(place.block, from);
        let pfn = area.frames.pfn(at);
        trace.step(Step::Found {
            pfn,
            order: from,
            kind: block.kind,
        });

        // Judge the record before anything hangs on it.
        let found = area.word(at);
        let intact = found.is_free_block(area.home, from);
        area.unlink(at, from);
        drop_one(&mut self.blocks[block.kind.index()], from);
        let kept = if intact { order } else { from };
        self.free = self.free.saturating_sub(kept.frames());
        self.split(place, at, from, kept, trace);

        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return Err(missing);
        };
        let after = area.blocks[place.block].largest();
        self.index.update(
            area,
            place.slot,
            place.block,
            block.kind,
            (block.largest(), after),
        );
        if from == Order::MAX && kept < Order::MAX {
            // The upper pageblock of a pair became a block of its own.
            let upper = place.block.wrapping_add(1) & 63;
            let change = (None, area.blocks[upper].largest());
            self.index
                .update(area, place.slot, upper, block.kind, change);
        }
        if !intact {
            return Err(Corruption::NotFree {
                pfn,
                word: found.bits(),
            });
        }
        area.frames.take::<P>(at, order, word)
    }

    /// Halves the block at `at`, which is on no list, down to `order`; the upper halves stay free.
    #[inline]
    fn split(&mut self, place: Place, at: u64, from: Order, order: Order, trace: &mut impl Trace) {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return;
        };
        let counts = &mut self.blocks[area.blocks[place.block].kind.index()];
        let mut half = from;
        while half > order {
            half = half.down().unwrap_or(order);
            let upper = at.wrapping_add(half.frames());
            area.push(upper, half);
            add_one(counts, half);
            self.stats.splits = self.stats.splits.wrapping_add(1);
            trace.step(Step::Split {
                upper: area.frames.pfn(upper),
                order: half,
            });
        }
    }

    /// Gives a block back: merges it with its free buddies and puts the result on its list.
    /// A block that is not of this zone comes back as the error.
    #[inline]
    pub(crate) fn give(
        &mut self,
        block: Exclusive,
        trace: &mut impl Trace,
    ) -> Result<(), Exclusive> {
        let frames = block.frames();
        let order = Order::at_most(frames.frames(), Order::MAX);
        let Some(slot) = self.slot_of(frames.first()) else {
            return Err(block);
        };
        let start = block.leak().first().section_offset();
        if order == Order::MAX && !self.pair_is_whole(slot, start) {
            // Half of it, or all, was isolated while it was in use: each half goes its own way.
            self.insert(slot, start, Order::PAGEBLOCK, trace);
            let upper = start.wrapping_add(Order::PAGEBLOCK.frames());
            self.insert(slot, upper, Order::PAGEBLOCK, trace);
        } else {
            self.insert(slot, start, order, trace);
        }
        Ok(())
    }

    /// Puts the frames at `at` of a section's area onto the lists.
    pub(super) fn insert(&mut self, slot: u64, start: u64, order: Order, trace: &mut impl Trace) {
        let Some(Some(area)) = self.areas.get_mut(to_index(slot)) else {
            return;
        };
        let block = block_index(start);
        let kind = area.blocks[block].kind;
        let before = area.blocks[block].largest();
        if kind != MigrateType::Isolate {
            self.free = self.free.saturating_add(order.frames());
        }

        let (mut at, mut order) = (start, order);
        while order < Order::PAGEBLOCK {
            let buddy = at ^ order.frames();
            if !area.word(buddy).is_free_block(area.home, order) {
                break;
            }
            area.unlink(buddy, order);
            area.absorb(buddy);
            drop_one(&mut self.blocks[kind.index()], order);
            at &= !order.frames();
            order = order.up().unwrap_or(order);
            self.stats.merges = self.stats.merges.wrapping_add(1);
            trace.step(Step::Merge {
                pfn: area.frames.pfn(at),
                order,
            });
        }
        if at != start {
            area.absorb(start);
        }
        if order == Order::PAGEBLOCK && Self::pair_merges(area, block) {
            self.index.update(area, slot, block, kind, (before, None));
            self.merge_pair(slot, block, trace);
            return;
        }
        area.push(at, order);
        add_one(&mut self.blocks[kind.index()], order);
        let after = area.blocks[block].largest();
        self.index.update(area, slot, block, kind, (before, after));
    }

    /// Whether both pageblocks under a block of the largest order have one type that may stay
    /// together.
    fn pair_is_whole(&self, slot: u64, start: u64) -> bool {
        let lower = block_index(start);
        let area = self.areas.at(slot).and_then(Option::as_deref);
        area.is_none_or(|area| {
            let kind = area.blocks[lower].kind;
            kind == area.blocks[lower | 1].kind && kind != MigrateType::Isolate
        })
    }

    /// Whether the other pageblock of a pair is free as a whole and may merge with this one.
    pub(super) fn pair_merges(area: &Area, block: usize) -> bool {
        let other = block ^ 1;
        let (kind, its) = (area.blocks[block].kind, area.blocks[other].kind);
        // Isolated pageblocks stay apart: each may be put back into use by itself.
        let alike = kind == its && kind != MigrateType::Isolate;
        let compatible = alike || (kind.is_mergeable() && its.is_mergeable());
        compatible
            && area
                .word(base_of(other))
                .is_free_block(area.home, Order::PAGEBLOCK)
    }

    /// Merges a wholly free pageblock, which is on no list, with the other one of its pair.
    /// The other takes on its type: nothing is in it that could mind.
    pub(super) fn merge_pair(&mut self, slot: u64, block: usize, trace: &mut impl Trace) {
        let Some(Some(area)) = self.areas.get_mut(to_index(slot)) else {
            return;
        };
        let (other, lower) = (block ^ 1, block & !1);
        let kind = area.blocks[block].kind;
        let its = area.blocks[other].kind;
        let before = area.blocks[other].largest();
        area.unlink(base_of(other), Order::PAGEBLOCK);
        drop_one(&mut self.blocks[its.index()], Order::PAGEBLOCK);
        self.index.update(area, slot, other, its, (before, None));
        area.absorb(base_of(lower ^ 1));
        area.blocks[other].kind = kind;
        area.push(base_of(lower), Order::MAX);
        add_one(&mut self.blocks[kind.index()], Order::MAX);
        let after = area.blocks[lower].largest();
        self.index.update(area, slot, lower, kind, (None, after));
        self.stats.merges = self.stats.merges.wrapping_add(1);
        trace.step(Step::Merge {
            pfn: area.frames.pfn(base_of(lower)),
            order: Order::MAX,
        });
    }
}

#[inline]
pub(super) fn add_one(counts: &mut [u64; ORDERS], order: Order) {
    let count = &mut counts[order.index()];
    *count = count.wrapping_add(1);
}

#[inline]
pub(super) fn drop_one(counts: &mut [u64; ORDERS], order: Order) {
    let count = &mut counts[order.index()];
    *count = count.wrapping_sub(1);
}
