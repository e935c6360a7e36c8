//! Giving a block back: merging it with its free buddies.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::{Area, base_of, bit, block_index, count_down, count_up, row, slot};
use super::free_areas::FreeAreas;
use super::index::Place;
use super::trace::{Step, Trace};
use crate::addr::{Order, to_index};
use crate::frame::Event;
use crate::mem::Exclusive;

impl FreeAreas {
    /// Gives a block of `order` back: merges it with its free buddies and puts the result on its
    /// list. A block that is not of this zone comes back as the error.
    #[inline]
    pub(crate) fn give(
        &mut self,
        block: Exclusive,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), Exclusive> {
        let first = block.frames().first();
        let section = first.section().wrapping_sub(self.first_section);
        let Some(Some(_)) = self.areas.at(section) else {
            return Err(block);
        };
        trace.step(Step::Given { pfn: first, order });
        let start = block.leak().first().section_offset();
        if order == Order::MAX && !self.pair_is_whole(section, start) {
            // Half of it, or all, was isolated while it was in use: each half goes its own way.
            self.insert(section, start, Order::PAGEBLOCK, trace);
            let upper = start | Order::PAGEBLOCK.frames();
            self.insert(section, upper, Order::PAGEBLOCK, trace);
        } else {
            self.insert(section, start, order, trace);
        }
        Ok(())
    }

    /// Gives back a single page that may be in a list twice: if its record does not say that it
    /// has an owner who may free it, or names another zone, it comes back.
    #[inline]
    pub(crate) fn give_page(
        &mut self,
        page: Exclusive,
        trace: &mut impl Trace,
    ) -> Result<(), Exclusive> {
        let pfn = page.frames().first();
        let section = pfn.section().wrapping_sub(self.first_section);
        let Some(Some(area)) = self.areas.at(section) else {
            return Err(page);
        };
        let word = area.word(pfn.section_offset());
        let owned = word.order() == Order::ZERO && word.after(Event::Release).is_some();
        if !owned || !word.belongs_to(self.home) {
            return Err(page);
        }
        let (start, order) = (page.leak().first().section_offset(), Order::ZERO);
        trace.step(Step::Given { pfn, order });
        self.insert(section, start, order, trace);
        Ok(())
    }

    /// Whether both pageblocks under a block of the largest order have one type that may stay
    /// together.
    fn pair_is_whole(&self, section: u64, start: u64) -> bool {
        let lower = block_index(start);
        let area = self.areas.at(section).and_then(Option::as_deref);
        area.is_none_or(|area| {
            let kind = area.blocks[lower].kind;
            kind == area.blocks[lower | 1].kind && kind != MigrateType::Isolate
        })
    }

    /// Puts the frames at `at` of a section's area onto the lists.
    #[inline]
    pub(super) fn insert(
        &mut self,
        section: u64,
        start: u64,
        order: Order,
        trace: &mut impl Trace,
    ) {
        let Some(Some(area)) = self.areas.get_mut(to_index(section)) else {
            return;
        };
        let block = block_index(start);
        let (kind, before) = (area.blocks[block].kind, area.blocks[block].orders);
        let counts = &mut self.blocks[row(kind)];
        if kind != MigrateType::Isolate {
            self.free = self.free.wrapping_add(order.frames());
        }

        let (mut at, mut merged) = (start, order);
        while merged < Order::PAGEBLOCK {
            let buddy = at ^ merged.frames();
            if !area.is_free(buddy, merged) {
                break;
            }
            area.unlink(buddy, merged);
            area.absorb(buddy);
            counts[slot(merged)] = counts[slot(merged)].wrapping_sub(1);
            at &= !merged.frames();
            merged = merged.double();
            trace.step(Step::Merge {
                pfn: area.frames.pfn(at),
                order: merged,
            });
        }
        if at != start {
            area.absorb(start);
        }
        let merges = u64::from(merged.as_u8().wrapping_sub(order.as_u8()));
        self.stats.merges = self.stats.merges.wrapping_add(merges);

        let place = Place {
            slot: section,
            block,
        };
        if merged == Order::PAGEBLOCK && Self::pair_merges(area, block) {
            self.index.update(area, place, kind, before, 0);
            self.merge_pair(place, trace);
            return;
        }
        area.push(at, merged);
        counts[slot(merged)] = counts[slot(merged)].wrapping_add(1);
        let after = area.blocks[block].orders;
        self.index.update(area, place, kind, before, after);
    }

    /// Whether the other pageblock of a pair is free as a whole and may merge with this one.
    #[inline]
    pub(super) fn pair_merges(area: &Area, block: usize) -> bool {
        let other = block ^ 1;
        let (kind, its) = (area.blocks[block & 63].kind, area.blocks[other & 63].kind);
        // Isolated pageblocks stay apart: each may be put back into use by itself.
        let alike = kind == its && kind != MigrateType::Isolate;
        let compatible = alike || (kind.is_mergeable() && its.is_mergeable());
        compatible && area.is_free(base_of(other), Order::PAGEBLOCK)
    }

    /// Merges a wholly free pageblock, which is on no list, with the other one of its pair.
    /// The other takes on its type: nothing is in it that could mind.
    #[inline]
    pub(super) fn merge_pair(&mut self, place: Place, trace: &mut impl Trace) {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return;
        };
        let kind = area.blocks[place.block & 63].kind;
        let other = Place {
            block: (place.block ^ 1) & 63,
            ..place
        };
        let its = area.blocks[other.block].kind;
        area.unlink(base_of(other.block), Order::PAGEBLOCK);
        count_down(&mut self.blocks, its, Order::PAGEBLOCK);
        self.index
            .update(area, other, its, bit(Order::PAGEBLOCK), 0);

        let lower = Place {
            block: place.block & 62,
            ..place
        };
        area.absorb(base_of(lower.block | 1));
        area.blocks[other.block].kind = kind;
        area.push(base_of(lower.block), Order::MAX);
        count_up(&mut self.blocks, kind, Order::MAX);
        self.index.update(area, lower, kind, 0, bit(Order::MAX));
        self.stats.merges = self.stats.merges.wrapping_add(1);
        trace.step(Step::Merge {
            pfn: area.frames.pfn(base_of(lower.block)),
            order: Order::MAX,
        });
    }
}
