//! A zone seen from one CPU: its own lists first, the free areas behind the lock only for many
//! blocks at once.
#![forbid(unsafe_code)]

use super::Zone;
use crate::addr::{Order, Pfn};
use crate::buddy::pageset::Gauges;
use crate::buddy::{FreeAreas, List, PageSet, Request, Step, Trace};
use crate::frame::{CachedWord, Claimed, FrameTable, Word};
use crate::mem::Exclusive;
use crate::platform::{CpuId, Platform};
use crate::report::Corruption;
use crate::sync::atomic::Ordering;
use crate::sync::{OwnerCell, Pin, Seized};

/// Blocks given back under one hold of the zone lock.
const HOLD: usize = 64;
/// Blocks fetched under one hold of the zone lock.
const FETCH: u32 = 256;

/// In [`Zone::paused`]: pageblocks are isolated, …
const ISOLATED: u32 = 1;
/// … and this for each [`Pause`].
const PAUSE: u32 = 2;

/// What became of a block that its owner gave back.
pub(crate) enum Kept {
    /// It is on a list.
    Listed,
    /// There is no room for it, or no list: it goes to the zone.
    Refused(Exclusive),
}

impl Zone {
    /// Takes a block from this CPU's lists if there is one at hand. Context: any but NMI.
    #[inline(always)]
    pub(crate) fn take_listed<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let order = request.order();
        let list = List::serving(request)?;
        let mut own = self.pagesets.enter(pin)?;
        let (set, gauges) = own.parts();
        let taken = set.take(list, order, gauges);
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        let (pfn, cached) = taken?;
        trace.step(Step::Listed { pfn, order });
        Self::uncache(pin.platform(), frames, (pfn, cached), request.is_compound())
    }

    /// As [`Self::take_listed`], but fills the list from the zone when it is empty.
    pub(crate) fn alloc_listed<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        request: &Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let order = request.order();
        let list = List::serving(*request)?;
        let platform = pin.platform();
        let mut own = self.pagesets.enter(pin)?;
        let (set, gauges) = own.parts();
        set.rise(list, frames);
        let mut taken = set.take(list, order, gauges);
        if taken.is_none() && self.refill(set, gauges, list, frames, platform, trace) {
            taken = set.take(list, order, gauges);
        }
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        let (pfn, cached) = taken?;
        trace.step(Step::Listed { pfn, order });
        Self::uncache(platform, frames, (pfn, cached), request.is_compound())
    }

    /// Turns a block that was on a list into one for a request. A damaged one stays out of
    /// circulation.
    #[inline(always)]
    pub(super) fn uncache<P: Platform>(
        platform: &P,
        frames: &FrameTable,
        (pfn, cached): (Pfn, CachedWord),
        is_compound: bool,
    ) -> Option<Exclusive> {
        let word = cached.unique();
        let word = if is_compound { word.compound() } else { word };
        match frames.uncache::<P>(pfn, cached, word) {
            Ok(block) => Some(block),
            Err(corruption) => {
                report(platform, &corruption);
                None
            }
        }
    }

    /// Puts a block of `order` that its owner gave back on this CPU's lists. Context: any but NMI.
    #[inline(always)]
    pub(crate) fn free_listed<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        claimed: Claimed<'_>,
        order: Order,
        trace: &mut impl Trace,
    ) -> Kept {
        let Some(list) = List::of(claimed.word()) else {
            return Kept::Refused(claimed.into_block());
        };
        let Some(mut own) = self.pagesets.enter(pin) else {
            return Kept::Refused(claimed.into_block());
        };
        let (set, gauges) = own.parts();
        // Large blocks do not drive small ones out.
        if self.is_paused() || (order > Order::ZERO && !set.has_room(order, gauges)) {
            return Kept::Refused(claimed.into_block());
        }
        let pfn = claimed.cache(set.word(list));
        trace.step(Step::Kept { pfn, order });
        if set.put(list, order, pfn, (frames, gauges)) {
            self.drain_surplus(set, gauges, list, frames, pin.platform(), trace);
        }
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        Kept::Listed
    }

    /// Takes up to `count` single pages from this CPU's lists, which are filled from the zone while
    /// it has more than `floor` to spare; each goes to `sink`. Answers how many there were. Context:
    /// any but NMI.
    #[inline(always)]
    pub(crate) fn alloc_listed_bulk<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        request: Request,
        (count, floor): (usize, u64),
        mut sink: impl FnMut(Exclusive),
    ) -> usize {
        let Some((list, mut own)) = List::serving(request).zip(self.pagesets.enter(pin)) else {
            return 0;
        };
        let (set, gauges) = own.parts();
        let platform = pin.platform();
        let mut taken: usize = 0;
        while taken < count {
            let Some(page) = set.take(list, Order::ZERO, gauges) else {
                set.rise(list, frames);
                let filled = set.has_at_hand(list)
                    || (self.spares(Order::ZERO, floor)
                        && self.refill(set, gauges, list, frames, platform, &mut ()));
                if filled {
                    continue;
                }
                break;
            };
            if let Some(block) = Self::uncache(platform, frames, page, false) {
                sink(block);
                taken = taken.wrapping_add(1);
            }
        }
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        taken
    }

    /// Puts single pages on this CPU's lists, up to the first that `claim` does not answer, that is
    /// of another zone or has no list; their places are emptied. Answers how many places were dealt
    /// with, empty ones included. Context: any but NMI.
    #[inline(always)]
    pub(crate) fn free_listed_bulk<'f, P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        pages: &mut [Option<Pfn>],
        mut claim: impl FnMut(Pfn) -> Option<Claimed<'f>>,
    ) -> usize {
        let Some(mut own) = self.pagesets.enter(pin) else {
            return 0;
        };
        if self.is_paused() {
            return 0;
        }
        let (set, gauges) = own.parts();
        let mut dealt: usize = 0;
        // Most pages of a list are of one kind.
        let mut known: Option<(Word, List, CachedWord)> = None;
        for place in pages {
            if let Some(pfn) = *place {
                let Some(claimed) = claim(pfn) else { break };
                let word = claimed.word();
                let (list, cached) = match known {
                    Some((same, list, cached)) if same == word => (list, cached),
                    _ => {
                        let list = List::of(word).filter(|_| word.belongs_to(self.home));
                        // Not taken, the page stays its owner's.
                        let Some(list) = list else { break };
                        let cached = set.word(list);
                        known = Some((word, list, cached));
                        (list, cached)
                    }
                };
                let pfn = claimed.cache(cached);
                if set.put(list, Order::ZERO, pfn, (frames, gauges)) {
                    self.drain_surplus(set, gauges, list, frames, pin.platform(), &mut ());
                }
                *place = None;
            }
            dealt = dealt.wrapping_add(1);
        }
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        dealt
    }

    /// Fetches blocks for an empty list. Answers whether there were any.
    #[cold]
    #[inline(never)]
    fn refill<P: Platform>(
        &self,
        set: &mut PageSet,
        gauges: &Gauges,
        list: List,
        frames: &FrameTable,
        platform: &P,
        trace: &mut impl Trace,
    ) -> bool {
        if self.is_paused() {
            return false;
        }
        let wanted = set.wanted(list, self.list_limits.get(), self.is_short(), gauges);
        let mut got: u32 = 0;
        while got < wanted {
            let most = wanted.wrapping_sub(got).min(FETCH);
            let mut areas = self.areas.lock(platform);
            let put = |pfn| set.stock(list, pfn, frames);
            let fetched = areas.fetch(list, most, frames, platform, trace, put);
            self.unlock(areas);
            got = got.wrapping_add(fetched);
            if fetched < most {
                break;
            }
        }
        if got == 0 {
            return false;
        }
        PageSet::note_refill(list, got, gauges);
        let order = list.order();
        trace.step(Step::Refilled { blocks: got, order });
        true
    }

    /// Gives some blocks back because there are too many, those of `list` first.
    #[cold]
    #[inline(never)]
    fn drain_surplus<P: Platform>(
        &self,
        set: &mut PageSet,
        gauges: &Gauges,
        list: List,
        frames: &FrameTable,
        platform: &P,
        trace: &mut impl Trace,
    ) {
        let surplus = set.surplus(self.list_limits.get(), self.is_short(), gauges);
        let most = gauges.count().saturating_sub(surplus);
        for list in core::iter::once(list).chain(List::all()) {
            let over = gauges.count().saturating_sub(most);
            self.drain_list(set, gauges, (list, over), frames, platform, trace);
        }
        PageSet::note_drain(gauges);
        trace.step(Step::Drained { frames: surplus });
    }

    /// Gives everything back.
    #[cold]
    #[inline(never)]
    fn drain_set<P: Platform>(
        &self,
        set: &mut PageSet,
        gauges: &Gauges,
        frames: &FrameTable,
        platform: &P,
    ) {
        for list in List::all() {
            self.drain_list(set, gauges, (list, u32::MAX), frames, platform, &mut ());
        }
        PageSet::note_drain(gauges);
    }

    /// Gives up to `most` frames of a list back, a few at a time.
    fn drain_list<P: Platform>(
        &self,
        set: &mut PageSet,
        gauges: &Gauges,
        (list, most): (List, u32),
        frames: &FrameTable,
        platform: &P,
        trace: &mut impl Trace,
    ) {
        let least = gauges.count().saturating_sub(most);
        let mut batch = [Pfn::ZERO; HOLD];
        while gauges.count() > least {
            let over = gauges.count().saturating_sub(least);
            let taken = set.take_old(list, over, &mut batch, frames, gauges);
            let Some(sorted) = batch.get_mut(..taken).filter(|taken| !taken.is_empty()) else {
                return;
            };
            sorted.sort_unstable();
            let mut areas = self.areas.lock(platform);
            areas.give_back(list, sorted, frames, platform, trace);
            self.unlock(areas);
        }
    }

    /// Gives everything back that this CPU has. `false` if the code that was interrupted is using
    /// the lists; it gives them back when it is done. Context: any but NMI.
    pub(crate) fn drain_here<P: Platform>(&self, pin: &Pin<'_, P>, frames: &FrameTable) -> bool {
        let Some(cell) = self.pagesets.cell(pin.cpu()) else {
            return true;
        };
        cell.want_drain();
        self.serve_drain(pin, frames);
        cell.is_drained()
    }

    /// Gives everything back that this CPU has, if somebody asked for it. Context: any but NMI.
    #[cold]
    #[inline(never)]
    pub(crate) fn serve_drain<P: Platform>(&self, pin: &Pin<'_, P>, frames: &FrameTable) {
        self.pagesets.serve(pin, |set, gauges| {
            self.drain_set(set, gauges, frames, pin.platform());
        });
    }

    /// Gives everything back that a CPU left behind.
    pub(crate) fn drain_seized<P: Platform>(
        &self,
        seized: &Seized<'_>,
        frames: &FrameTable,
        platform: &P,
    ) {
        let _ = self.pagesets.with_seized(seized, |set, gauges| {
            self.drain_set(set, gauges, frames, platform);
        });
    }

    /// Whether a CPU has anything on its lists. Stale when it arrives.
    pub(crate) fn has_listed(&self, cpu: CpuId) -> bool {
        let cell = self.pagesets.cell(cpu);
        cell.is_some_and(|cell| cell.shared().count() > 0)
    }

    /// Marks a CPU's lists to be drained.
    pub(crate) fn want_drain(&self, cpu: CpuId) {
        if let Some(cell) = self.pagesets.cell(cpu) {
            cell.want_drain();
        }
    }

    /// Takes back what was asked of a CPU that cannot be reached, if it has nothing anyway.
    pub(crate) fn unless_listed_forget_drain(&self, cpu: CpuId) {
        if let Some(cell) = self.pagesets.cell(cpu)
            && cell.shared().count() == 0
        {
            cell.drained();
        }
    }

    /// Whether a CPU did what was last asked of it.
    pub(crate) fn is_drained(&self, cpu: CpuId) -> bool {
        self.pagesets.cell(cpu).is_none_or(OwnerCell::is_drained)
    }

    /// Whether blocks are kept from the lists for now.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed) != 0
    }

    /// Keeps blocks off the lists while pageblocks are isolated: what comes back to one of those
    /// must not be handed out from a list. Context: zone lock held.
    pub(super) fn note_isolation(&self, areas: &FreeAreas) {
        if areas.has_isolated() {
            self.paused.fetch_or(ISOLATED, Ordering::SeqCst);
        } else {
            self.paused.fetch_and(!ISOLATED, Ordering::SeqCst);
        }
    }

    /// Whether there is less than the high mark.
    fn is_short(&self) -> bool {
        self.free_frames() < self.watermarks.marks().high
    }
}

/// Reports damage from a hot path.
#[cold]
#[inline(never)]
fn report<P: Platform>(platform: &P, corruption: &Corruption) {
    platform.corruption(corruption);
}

/// Keeps blocks of a zone off all lists until it is dropped (Linux: `zone_pcp_disable`).
#[derive(Debug)]
#[must_use = "the lists are used again when this is dropped"]
pub(crate) struct Pause<'a>(&'a Zone);

impl<'a> Pause<'a> {
    /// Begins. What is on the lists stays there until it is drained.
    pub(crate) fn new(zone: &'a Zone) -> Self {
        zone.paused.fetch_add(PAUSE, Ordering::SeqCst);
        Self(zone)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.paused.fetch_sub(PAUSE, Ordering::SeqCst);
    }
}
