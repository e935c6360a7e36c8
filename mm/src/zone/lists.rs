//! One CPU's lists of a zone together with the zone: what is fetched from it and given back, many
//! blocks under one hold of its lock.
#![forbid(unsafe_code)]

use super::Zone;
use super::listed::Kept;
use crate::addr::{Order, Pfn};
use crate::buddy::pageset::Gauges;
use crate::buddy::{List, Mixing, PageSet, Step, Told, Trace};
use crate::frame::{FrameTable, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::{Check, Corruption};

/// Blocks given back under one hold of the zone lock.
const HOLD: usize = 64;
/// Blocks fetched under one hold of the zone lock.
const FETCH: u32 = 256;

/// The lists of a CPU, entered, and what they are filled from.
pub(super) struct Lists<'a, P> {
    pub(super) zone: &'a Zone,
    pub(super) set: &'a mut PageSet,
    pub(super) gauges: &'a Gauges,
    pub(super) frames: &'a FrameTable,
    pub(super) platform: &'a P,
}

impl<P: Platform> Lists<'_, P> {
    /// Fetches blocks for an empty list. Answers whether there were any.
    #[cold]
    #[inline(never)]
    pub(super) fn refill(
        &mut self,
        (list, mixing): (List, Mixing),
        trace: &mut impl Trace,
    ) -> bool {
        if self.gauges.are_closed() {
            return false;
        }
        let limits = self.zone.list_limits.get();
        let wanted = self
            .set
            .wanted(list, limits, self.zone.is_short(), self.gauges);
        let mut got: u32 = 0;
        while got < wanted {
            let most = wanted.wrapping_sub(got).min(FETCH);
            let mut areas = self.zone.lock_traced(self.platform, trace);
            let wanted = (list, (most, mixing));
            let (frames, platform) = (self.frames, self.platform);
            let fetched = self.set.fetch(&mut areas, wanted, frames, platform, trace);
            PageSet::note_came(list, fetched, self.gauges);
            self.zone.unlock(areas);
            got = got.wrapping_add(fetched);
            if fetched < most {
                break;
            }
        }
        if got == 0 {
            return false;
        }
        PageSet::note_refill(self.gauges);
        let order = list.order();
        trace.step(Step::Refilled { blocks: got, order });
        true
    }

    /// Brings blocks up from below, for a list that has none at hand.
    #[inline]
    pub(super) fn rise(&mut self, list: List) {
        self.set.rise(list, self.frames);
        self.report_broken(list);
    }

    /// Whether blocks should be fetched before one is taken.
    #[inline]
    pub(super) fn is_low(&self, list: List) -> bool {
        let limits = self.zone.list_limits.get();
        self.set.is_low(list, limits, self.gauges)
    }

    /// Reports a list that was found damaged.
    fn report_broken(&mut self, list: List) {
        if let Some(pfn) = self.set.take_broken(list, self.gauges) {
            let word = self.frames.record(pfn).map(|record| record.get().word());
            self.platform.corruption(&Corruption::BadRecord {
                pfn,
                word: word.unwrap_or(Word::INTERIOR).bits(),
                check: Check::Links,
            });
        }
    }

    /// Puts a block that its owner gave back on a list, where there is room for it.
    pub(super) fn keep(
        &mut self,
        (list, order): (List, Order),
        block: Exclusive,
        trace: &mut impl Trace,
    ) -> Kept {
        let limits = self.zone.list_limits.get();
        if self.set.is_full(limits, self.gauges) {
            self.drain_surplus(list, trace);
        }
        let block = match self.frames.cache(block, self.set.words(list).0) {
            Ok(block) => block,
            Err(block) => return Kept::Refused(block),
        };
        trace.step(Step::Kept {
            pfn: block.0,
            order,
        });
        if self.set.put_anyway(list, order, block, self.gauges) {
            self.drain_surplus(list, trace);
        }
        Kept::Listed
    }

    /// Gives some blocks back because there are too many, those of `list` first.
    #[cold]
    #[inline(never)]
    pub(super) fn drain_surplus(&mut self, list: List, trace: &mut impl Trace) {
        let limits = self.zone.list_limits.get();
        let surplus = self.set.surplus(limits, self.zone.is_short(), self.gauges);
        let most = self.gauges.count().saturating_sub(surplus);
        for list in core::iter::once(list).chain(List::all()) {
            let over = self.gauges.count().saturating_sub(most);
            self.drain_list(list, over, trace);
        }
        PageSet::note_drain(self.gauges);
        trace.step(Step::Drained { frames: surplus });
    }

    /// Gives everything back.
    #[cold]
    #[inline(never)]
    pub(super) fn drain(&mut self) {
        for list in List::all() {
            self.drain_list(list, u32::MAX, &mut Told(self.platform));
        }
        PageSet::note_drain(self.gauges);
    }

    /// Gives up to `most` frames of a list back, a few at a time.
    fn drain_list(&mut self, list: List, most: u32, trace: &mut impl Trace) {
        let least = self.gauges.count().saturating_sub(most);
        let mut batch = [Pfn::ZERO; HOLD];
        while self.gauges.count() > least {
            let over = self.gauges.count().saturating_sub(least);
            let taken = self.set.take_old(list, over, &mut batch, self.frames);
            self.report_broken(list);
            let Some(sorted) = batch.get_mut(..taken).filter(|taken| !taken.is_empty()) else {
                return;
            };
            sorted.sort_unstable();
            let mut areas = self.zone.lock_traced(self.platform, trace);
            areas.give_back(list, sorted, self.frames, self.platform, trace);
            self.zone.unlock(areas);
            PageSet::note_went(list, taken, self.gauges);
        }
    }
}
