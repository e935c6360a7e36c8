//! When a type has no block left: whose is taken, and how much of it.
//!
//! First whole pageblocks are claimed, largest free block first, so that the types stay apart;
//! only when none may be claimed is a single block taken out of a foreign pageblock, smallest
//! first. See [`policy`] for the rules.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::{base_of, bit, row, slot};
use super::free_areas::{FreeAreas, Note};
use super::index::Place;
use super::policy::{self, Survey};
use super::take::ATTEMPTS;
use super::trace::{Step, Trace};
use crate::addr::{Order, to_count, to_index};
use crate::frame::{FrameState, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Pageblocks that one request looks through for one to take over. The largest free blocks come
/// first, so what the first few do not allow the others hardly will.
const SURVEYS: usize = 4;

impl FreeAreas {
    /// Serves a request of type `wanted` from pageblocks of other types.
    #[cold]
    pub(crate) fn take_fallback<P: Platform>(
        &mut self,
        order: Order,
        wanted: MigrateType,
        word: Word,
        platform: &P,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        if self.claim(order, wanted, trace) {
            return self.take(order, wanted, word, platform, trace);
        }
        for _ in 0..ATTEMPTS {
            let (place, from) = self.to_steal(order, wanted)?;
            trace.step(Step::Steal { from });
            self.stats.steals = self.stats.steals.wrapping_add(1);
            self.note(Note::FRAGMENTED);
            match self.take_at::<P>(place, order, word, trace) {
                Ok(block) => return Some(block),
                Err(corruption) => platform.corruption(&corruption?),
            }
        }
        None
    }

    /// Takes over a pageblock with a free block of at least `order`, largest first. Answers
    /// whether there was one.
    fn claim(&mut self, order: Order, wanted: MigrateType, trace: &mut impl Trace) -> bool {
        let mut surveys: usize = 0;
        for size in order.and_above().rev() {
            if !policy::worth_claiming(size, wanted) {
                return false;
            }
            for &owner in wanted.fallbacks() {
                let Some(place) = self.lowest(owner, size) else {
                    continue;
                };
                if size < Order::PAGEBLOCK {
                    if surveys == SURVEYS {
                        return false;
                    }
                    surveys = surveys.wrapping_add(1);
                    if !policy::may_claim(self.survey(place), owner, wanted) {
                        continue;
                    }
                    self.note(Note::FRAGMENTED);
                }
                self.claim_at(place, size, wanted, trace);
                return true;
            }
        }
        false
    }

    /// Gives a pageblock, or both of a wholly free pair, to another type.
    fn claim_at(&mut self, place: Place, size: Order, wanted: MigrateType, trace: &mut impl Trace) {
        if let Some(Some(area)) = self.areas.get(to_index(place.slot)) {
            let pfn = area.frames.pfn(base_of(place.block));
            let from = area.blocks[place.block].kind;
            trace.step(Step::Claim {
                pfn,
                from,
                to: wanted,
            });
        }
        self.stats.claims = self.stats.claims.wrapping_add(1);
        self.retype(place, wanted);
        if size == Order::MAX {
            let upper = place.block.wrapping_add(1) & 63;
            self.retype(
                Place {
                    block: upper,
                    ..place
                },
                wanted,
            );
        }
    }

    /// The smallest sufficient block of the first fallback type that has one.
    fn to_steal(&self, order: Order, wanted: MigrateType) -> Option<(Place, MigrateType)> {
        order.and_above().find_map(|size| {
            let owners = wanted.fallbacks().iter();
            owners
                .copied()
                .find_map(|owner| Some((self.lowest(owner, size)?, owner)))
        })
    }

    /// What a pageblock holds. At most 512 records are read.
    fn survey(&self, place: Place) -> Survey {
        let mut survey = Survey::default();
        let Some(Some(area)) = self.areas.get(to_index(place.slot)) else {
            return survey;
        };
        for (_, word) in area.walk(place.block) {
            let frames = word.order().frames();
            match word.state() {
                Some(FrameState::Free) => survey.free = survey.free.saturating_add(frames),
                Some(FrameState::Unique | FrameState::Shared | FrameState::Cached)
                    if MigrateType::from_bits(word.mobility()) == MigrateType::Movable =>
                {
                    survey.movable = survey.movable.saturating_add(frames);
                }
                _ => {}
            }
        }
        survey
    }

    /// Changes the type of a pageblock; its free blocks count for the new type from now on.
    pub(super) fn retype(&mut self, place: Place, to: MigrateType) {
        let Some(Some(area)) = self.areas.get_mut(to_index(place.slot)) else {
            return;
        };
        let from = area.blocks[place.block].kind;
        if from == to {
            return;
        }
        let orders = area.blocks[place.block].orders;
        self.index.update(area, place, from, orders, 0);
        area.blocks[place.block].kind = to;
        self.index.update(area, place, to, 0, orders);

        let mut frames: u64 = 0;
        for order in Order::all() {
            if orders & bit(order) == 0 {
                continue;
            }
            let count = to_count(area.list(place.block, order).count());
            frames = frames.saturating_add(count.saturating_mul(order.frames()));
            let old = &mut self.blocks[row(from)][slot(order)];
            *old = old.saturating_sub(count);
            let new = &mut self.blocks[row(to)][slot(order)];
            *new = new.saturating_add(count);
        }
        if from == MigrateType::Isolate {
            self.free = self.free.saturating_add(frames);
        }
        if to == MigrateType::Isolate {
            self.free = self.free.saturating_sub(frames);
        }
    }
}
