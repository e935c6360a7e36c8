//! Pageblocks that belong to a device in the end and are lent to movable pages until then (Linux:
//! `MIGRATE_CMA`).
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::smallest_from;
use super::contig::RangeError;
use super::free_areas::{FreeAreas, Note};
use super::trace::Trace;
use crate::addr::{Order, PfnRange};
use crate::frame::Word;
use crate::mem::Exclusive;
use crate::platform::Platform;

impl FreeAreas {
    /// Makes the pageblocks of a range, which nothing is in yet, ones of CMA.
    pub(crate) fn lend_to_movable(&mut self, range: PfnRange) {
        for pfn in Self::blocks_around(range) {
            let Some(place) = self.place_of(pfn) else {
                continue;
            };
            self.retype(place, MigrateType::Cma);
            self.cma = self.cma.saturating_add(Order::PAGEBLOCK.frames());
        }
        self.note(Note::SPECIAL);
    }

    /// Frames in pageblocks of CMA.
    pub(crate) const fn cma_frames(&self) -> u64 {
        self.cma
    }

    /// Whether a range may be taken for `kind`: CMA serves its own only, and has nothing but that.
    pub(crate) fn check_cma(&self, range: PfnRange, kind: MigrateType) -> Result<(), RangeError> {
        if self.cma == 0 && kind != MigrateType::Cma {
            return Ok(());
        }
        let foreign = |found: Option<MigrateType>| {
            let is_cma = found == Some(MigrateType::Cma);
            is_cma != (kind == MigrateType::Cma)
        };
        let mut blocks = Self::blocks_around(range);
        let other = blocks.find(|&pfn| foreign(self.kind_at(pfn)));
        other.map_or(Ok(()), |pfn| Err(RangeError::Cma { pfn }))
    }

    /// Whose pageblocks serve a request of type `kind` now, its own or those of CMA, and with how
    /// large a block. CMA comes first for movable pages when it has more than half of what is free:
    /// so the rest is not used up by those who could do without (Linux: `__rmqueue`).
    #[inline]
    pub(super) fn source(&self, kind: MigrateType, order: Order) -> Option<(MigrateType, Order)> {
        let stock = |kind| {
            let size = smallest_from(self.index.stock(kind), order)?;
            Some((kind, size))
        };
        if self.cma == 0 || kind != MigrateType::Movable {
            return stock(kind);
        }
        let lent = MigrateType::Cma;
        if self.free_frames_of(lent) > self.free_frames().div_euclid(2) {
            stock(lent).or_else(|| stock(kind))
        } else {
            stock(kind).or_else(|| stock(lent))
        }
    }

    /// Takes a block for a request of type `kind` from its own pageblocks, those of CMA, or those
    /// of other types.
    #[inline]
    pub(crate) fn take_for<P: Platform>(
        &mut self,
        order: Order,
        kind: MigrateType,
        word: Word,
        platform: &P,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let (source, _) = self.source(kind, order).unwrap_or((kind, order));
        match self.take(order, source, word, platform, trace) {
            Some(block) => Some(block),
            None => self.take_fallback(order, kind, word, platform, trace),
        }
    }
}
