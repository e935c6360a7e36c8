//! Taking a block: which one, and splitting it.
#![forbid(unsafe_code)]

use super::area::{Area, ByOrder, bit, row, slot, smallest_from};
use super::free_areas::FreeAreas;
use super::index::{Place, set_of};
use super::trace::{Step, Trace};
use super::{MigrateType, Stats};
use crate::addr::{Order, to_index};
use crate::frame::Word;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;

/// Damaged blocks that one request gets past, at most.
pub(super) const ATTEMPTS: usize = 128;

impl FreeAreas {
    /// Takes the best free block of type `kind` for a request of `order`, splitting it as needed,
    /// and marks it with `word`. Damaged blocks are left out and reported to the platform.
    #[inline]
    pub(crate) fn take<P: Platform>(
        &mut self,
        order: Order,
        kind: MigrateType,
        word: Word,
        platform: &P,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        for _ in 0..ATTEMPTS {
            let largest = smallest_from(self.index.stock(kind), order)?;
            let place = self.lowest(kind, largest)?;
            match self.take_at::<P>(place, order, word, trace) {
                Ok(block) => return Some(block),
                // The block is off the lists already and stays out of circulation.
                Err(corruption) => platform.corruption(&corruption?),
            }
        }
        None
    }

    /// The lowest pageblock of a type whose largest free block has exactly `order`.
    #[inline]
    pub(super) fn lowest(&self, kind: MigrateType, order: Order) -> Option<Place> {
        let section = self.index.bank.first(set_of(kind, order))?;
        let area = self.areas.at(section)?.as_ref()?;
        let word = area.largest[row(kind)][slot(order)];
        Some(Place {
            slot: section,
            block: to_index(u64::from(word.trailing_zeros())) & 63,
        })
    }

    /// Takes a block of `order` out of a pageblock that has one. `Err(None)` where the index was
    /// wrong and it has none; damage found in a block that looked free is the other error.
    #[inline]
    pub(super) fn take_at<P: Platform>(
        &mut self,
        place: Place,
        order: Order,
        word: Word,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, Option<Corruption>> {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return Err(None);
        };
        let (kind, before) = (
            area.blocks[place.block].kind,
            area.blocks[place.block].orders,
        );
        let Some(from) = smallest_from(before, order) else {
            return Err(None);
        };
        let at = area.first(place.block, from);
        let counts = &mut self.blocks[row(kind)];
        trace.step(Step::Found {
            pfn: area.frames.pfn(at),
            order: from,
            kind,
        });

        // Judge the record before anything hangs on it.
        let intact = area.is_free(at, from);
        area.unlink(at, from);
        counts[slot(from)] = counts[slot(from)].wrapping_sub(1);
        let kept = if intact { order } else { from };
        self.free = self.free.wrapping_sub(kept.frames());
        if from != kept {
            split(area, counts, &mut self.stats, at, (from, kept), trace);
        }
        let after = area.blocks[place.block].orders;
        self.index.update(area, place, kind, before, after);
        if from == Order::MAX && kept != Order::MAX {
            // The upper pageblock of a pair became a block of its own.
            let upper = Place {
                block: place.block ^ 1,
                ..place
            };
            self.index
                .update(area, upper, kind, 0, bit(Order::PAGEBLOCK));
        }
        if !intact {
            // Off the lists, and out of circulation for good.
            let word = area.word(at).bits();
            return Err(Some(Corruption::NotFree {
                pfn: area.frames.pfn(at),
                word,
            }));
        }
        area.frames.take::<P>(at, order, word).map_err(Some)
    }
}

/// Halves the block at `at`, which is on no list, from one order down to another; the upper
/// halves stay free.
///
/// The block was the smallest of its pageblock that fits, so all lists below it are empty.
#[inline]
fn split(
    area: &mut Area,
    counts: &mut ByOrder<u64>,
    stats: &mut Stats,
    at: u64,
    (from, order): (Order, Order),
    trace: &mut impl Trace,
) {
    let mut half = from;
    while half > order {
        half = half.half();
        let upper = at | half.frames();
        if half >= Order::PAGEBLOCK {
            area.push(upper, half);
        } else {
            area.push_alone(upper, half);
        }
        counts[slot(half)] = counts[slot(half)].wrapping_add(1);
        trace.step(Step::Split {
            upper: area.frames.pfn(upper),
            order: half,
        });
    }
    let below_pageblock = from.min(Order::PAGEBLOCK);
    let fresh = bit(below_pageblock).wrapping_sub(bit(order.min(Order::PAGEBLOCK)));
    area.blocks[super::area::block_index(at)].orders |= fresh;
    let splits = u64::from(from.as_u8().wrapping_sub(order.as_u8()));
    stats.splits = stats.splits.wrapping_add(splits);
}
