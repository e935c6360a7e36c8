//! What each CPU has at hand: the shortest ways to its lists of the zones near to it.
//!
//! A request goes straight to the lists of the zone that it would ask first, by the highest zone
//! that it may use. A block that comes back goes to the lists of its zone by eight bits of its state
//! word: zone, compound flag and mobility stand there side by side. One comparison of that word with
//! the one that blocks of the list have tells everything else: that the block has an owner, and is of
//! the right node, zone and order.
//!
//! Whatever is not as expected here goes the longer way, which finds out why.
#![forbid(unsafe_code)]

use super::listed::report;
use super::{Node, Zone, ZoneKind};
use crate::addr::{Order, Pfn};
use crate::buddy::pageset::Gauges;
use crate::buddy::{List, PageSet, Request, Step, Taken, Trace, tell, tell_block};
use crate::frame::{FrameTable, Offer};
use crate::mem::{Array, Exclusive};
use crate::platform::{CpuId, Platform};
use crate::report::{Event, EventKind};
use crate::sync::{self, Pin, Resident, Row, Shortcuts, Vacant};
use core::ptr::NonNull;

/// Ways by the highest zone of a request, …
const HIGHEST: usize = 8;
/// … the same for pages that somebody touches before they are handed out, …
const TREATED: usize = HIGHEST;
/// … and by bits 8 to 15 of a state word.
const BY_WORD: usize = TREATED + HIGHEST;
const WAYS: usize = BY_WORD + 256;

/// Lists that stand for none.
static NO_LISTS: Vacant<PageSet, Gauges> = Vacant::new(PageSet::NONE, Gauges::new());

impl Resident<Gauges> for PageSet {
    const VACANT: &'static Vacant<Self, Gauges> = &NO_LISTS;
}

/// The ways of one CPU, and `R`, which other parts of the library have for it.
pub(crate) type Ways<R> = Row<PageSet, Gauges, (FrameTable, R), WAYS>;
/// Those of this CPU by what its platform keeps for it.
pub(crate) type Anchors<R> = sync::Anchors<PageSet, Gauges, (FrameTable, R), WAYS>;
/// Those of all CPUs, by number.
pub(crate) type AllWays<R> = Shortcuts<PageSet, Gauges, (FrameTable, R), WAYS>;

/// The ways of all CPUs.
#[derive(Debug)]
pub(crate) struct AtHand<R: 'static> {
    ways: AllWays<R>,
}

/// The ways of the CPU that the caller is pinned to.
pub(crate) struct Here<'a, R>(HereWays<'a, R>);
type HereWays<'a, R> = sync::Here<'a, PageSet, Gauges, (FrameTable, R), WAYS>;

/// How pages leave: the machine's options say which of the two has ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// As they are.
    AsTheyAre,
    /// Zeroed or checked before, or noted down.
    Treated,
}

impl Pages {
    #[inline(always)]
    const fn slot(self, highest: ZoneKind) -> usize {
        let slot = highest.index() & (HIGHEST - 1);
        match self {
            Self::AsTheyAre => slot,
            Self::Treated => TREATED | slot,
        }
    }
}

impl<R: Sync> AtHand<R> {
    /// No ways yet.
    pub(crate) const fn new(rows: Array<Ways<R>>) -> Self {
        Self {
            ways: Shortcuts::new(rows),
        }
    }

    /// Makes a CPU's way for requests: `first` is the zone to ask first.
    pub(crate) fn set_first(&self, cpu: CpuId, highest: ZoneKind, kind: Pages, first: &Zone) {
        self.ways.set(cpu, kind.slot(highest), &first.pagesets);
    }

    /// Makes the ways of a CPU for blocks of its node that come back.
    pub(crate) fn set_own(&self, cpu: CpuId, node: &Node) {
        for zone in node.zones().iter().filter(|zone| zone.is_populated()) {
            let row = usize::from(zone.home.zone & 15).wrapping_shl(4);
            for bits in 0..8 {
                self.ways
                    .set(cpu, BY_WORD.wrapping_add(row | bits), &zone.pagesets);
            }
        }
    }

    /// The ways of this CPU.
    #[inline]
    pub(crate) fn here<'a, P: Platform>(&'a self, pin: &'a Pin<'_, P>) -> Option<Here<'a, R>> {
        self.ways.here(pin).map(Here)
    }

    /// All of it.
    pub(crate) const fn ways(&self) -> &AllWays<R> {
        &self.ways
    }

    /// What a platform keeps for a CPU.
    pub(crate) fn anchor(&self, cpu: CpuId) -> Option<NonNull<()>> {
        self.ways.anchor(cpu)
    }
}

impl<'a, R> Here<'a, R> {
    /// Ways that were found.
    #[inline(always)]
    pub(crate) const fn new(ways: HereWays<'a, R>) -> Self {
        Self(ways)
    }

    /// The ways.
    #[inline(always)]
    pub(crate) const fn ways(&self) -> &HereWays<'a, R> {
        &self.0
    }

    /// The machine's frames.
    #[inline(always)]
    pub(crate) const fn frames(&self) -> &'a FrameTable {
        &self.0.beside().0
    }

    /// Takes a block for a request from this CPU's list, which serves it, of the zone that it asks first. Context: any
    /// but NMI.
    ///
    /// # Errors
    /// There is none. Either way it is told whether somebody wants the lists drained.
    #[inline(always)]
    pub(crate) fn take<P: Platform>(
        &self,
        platform: &P,
        (request, list, kind): (Request, List, Pages),
        trace: &mut impl Trace,
    ) -> Result<(Exclusive, bool), bool> {
        let order = request.order();
        let Some(mut own) = self.0.enter(kind.slot(request.highest())) else {
            return Err(false);
        };
        let (set, gauges) = own.parts();
        let wanted = (order, request.is_compound());
        match set.take_intact::<P>(list, wanted, gauges) {
            Ok((pfn, block)) => {
                let is_drain_wanted = own.leave();
                trace.step(Step::Listed { pfn, order });
                Ok((block, is_drain_wanted))
            }
            Err(None) => Err(own.leave()),
            Err(Some(corruption)) => {
                let is_drain_wanted = own.leave();
                report(platform, &corruption);
                Err(is_drain_wanted)
            }
        }
    }

    /// Puts a block of `order` that its owner gives up on this CPU's list of its zone. Context: any
    /// but NMI.
    ///
    /// # Errors
    /// The offer, if it is not a block for these lists, or there is no room. Either way it is told whether
    /// somebody wants the lists drained.
    #[inline(always)]
    pub(crate) fn put(
        &self,
        offer: Offer,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<bool, (Offer, bool)> {
        let (slot, mobility) = offer.word().ways();
        let Some(list) = List::of(mobility, order) else {
            return Err((offer, false));
        };
        let Some(mut own) = self.0.enter(BY_WORD.wrapping_add(slot)) else {
            return Err((offer, false));
        };
        let (set, gauges) = own.parts();
        // One comparison tells both: that there is room, and that the lists are not closed.
        let offered = match gauges.may_have(order) {
            false => Err(offer),
            true => offer.cache(set.words(list)),
        };
        let block = match offered {
            Ok(kept) => kept,
            Err(offer) => return Err((offer, own.leave())),
        };
        trace.step(Step::Kept {
            pfn: block.0,
            order,
        });
        set.put(list, order, block, gauges);
        Ok(own.leave())
    }

    /// Fills empty places with single pages, as long as there are any at hand. Answers how many places
    /// are full, those before the first that is not, and whether somebody wants the lists drained. Context:
    /// any but NMI.
    #[inline(always)]
    pub(crate) fn take_pages<P: Platform>(
        &self,
        platform: &P,
        request: Request,
        places: &mut [Option<Pfn>],
    ) -> (usize, bool) {
        let own = self.0.enter(Pages::AsTheyAre.slot(request.highest()));
        let Some((list, mut own)) = List::serving(request).zip(own) else {
            return (0, false);
        };
        let (set, gauges) = own.parts();
        let hand_out = |page: Taken| {
            let page = page.hand_out(platform, Order::ZERO, false)?;
            tell_block(platform, EventKind::Alloc, &page);
            Some(page.leak().first())
        };
        let full = set.take_pages(list, places, hand_out, gauges);
        (full, own.leave())
    }

    /// Puts single pages on this CPU's list for the first of them, up to the first that does not belong
    /// there, or that there is no room for; their places are emptied. Answers how many places were dealt
    /// with, empty ones included, and whether somebody wants the lists drained. Context: any but NMI.
    #[inline(always)]
    pub(crate) fn put_pages<P: Platform>(
        &self,
        platform: &P,
        pages: &mut [Option<Pfn>],
        offer: impl Fn(&FrameTable, Pfn) -> Option<Offer>,
    ) -> (usize, bool) {
        let nothing = (0, false);
        let first = pages.iter().flatten().next();
        let frames = self.frames();
        let Some(first) = first.and_then(|pfn| offer(frames, *pfn)) else {
            return nothing;
        };
        let (slot, mobility) = first.word().ways();
        let own = self.0.enter(BY_WORD.wrapping_add(slot));
        let Some((list, mut own)) = List::of(mobility, Order::ZERO).zip(own) else {
            return nothing;
        };
        let (set, gauges) = own.parts();
        let words = set.words(list);
        let room = gauges.room().min(pages.len());
        let (mut dealt, mut put): (usize, u32) = (0, 0);
        for place in &mut pages[..room] {
            if let Some(pfn) = *place {
                // Not taken, the page stays its owner's.
                let offer = offer(frames, pfn);
                let block = offer.and_then(|offer| offer.cache(words).ok());
                let Some(block) = block else { break };
                tell(platform, || Event::block(EventKind::Free, pfn, Order::ZERO));
                set.put_page(list, block);
                put = put.wrapping_add(1);
                *place = None;
            }
            dealt = dealt.wrapping_add(1);
        }
        PageSet::note_put(put, gauges);
        (dealt, own.leave())
    }
}
