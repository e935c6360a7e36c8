//! A zone seen from one CPU: its own lists first, the free areas behind the lock only for many
//! blocks at once. The shortest ways, which need not even find the zone, are in `at_hand`.
#![forbid(unsafe_code)]

use super::Zone;
use super::lists::Lists;
use crate::addr::{Order, to_index};
use crate::buddy::pageset::Gauges;
use crate::buddy::pageset::classic::Temperature;
use crate::buddy::{
    FreeAreas, Gfp, List, Mixing, PageSet, Request, Step, Taken, Told, Trace, tell_block,
};
use crate::frame::FrameTable;
use crate::mem::Exclusive;
use crate::platform::{CpuId, Platform};
use crate::report::{Corruption, EventKind};
use crate::sync::{OwnerCell, PerCpu, Pin, Seized};

/// What became of a block that its owner gave back.
pub(crate) enum Kept {
    /// It is on a list.
    Listed,
    /// There is no room for it, or no list: it goes to the zone.
    Refused(Exclusive),
}

impl Taken {
    /// Turns a block of `order` that was on a list into one for a request. A damaged one is reported and stays
    /// out of circulation.
    #[inline(always)]
    pub(crate) fn hand_out<P: Platform>(
        self,
        platform: &P,
        order: Order,
        is_compound: bool,
    ) -> Option<Exclusive> {
        let (cached, word) = self.words;
        let word = if is_compound { word.compound() } else { word };
        match self.record.uncache::<P>((self.pfn, order), cached, word) {
            Ok(block) => Some(block),
            Err(corruption) => {
                report(platform, &corruption);
                None
            }
        }
    }
}

/// Reports damage from a hot path.
#[cold]
#[inline(never)]
pub(super) fn report<P: Platform>(platform: &P, corruption: &Corruption) {
    platform.corruption(corruption);
}

/// The list that a request wants to be served from.
fn temperature_of(request: &Request) -> Temperature {
    match request.gfp().contains(Gfp::COLD) {
        true => Temperature::Cold,
        false => Temperature::Hot,
    }
}

impl Zone {
    fn lists<'a, P: Platform>(
        &'a self,
        set: &'a mut PageSet,
        gauges: &'a Gauges,
        frames: &'a FrameTable,
        platform: &'a P,
    ) -> Lists<'a, P> {
        Lists {
            zone: self,
            set,
            gauges,
            frames,
            platform,
        }
    }

    /// Takes a block from this CPU's lists, which are filled from the zone when they are empty.
    /// Context: any but NMI.
    pub(crate) fn alloc_listed<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        (request, mixing): (&Request, Mixing),
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let order = request.order();
        let list = List::serving(*request)?;
        let platform = pin.platform();
        let mut own = self.sets(temperature_of(request)).enter(pin)?;
        let (set, gauges) = own.parts();
        let mut taken = None;
        if set.has_lists(order) {
            let mut lists = self.lists(set, gauges, frames, platform);
            lists.rise(list);
            if lists.is_low(list) {
                let _ = lists.refill((list, mixing), trace);
            }
            taken = set.take(list, order, gauges);
        }
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        let taken = taken?;
        let pfn = taken.pfn;
        trace.step(Step::Listed { pfn, order });
        taken.hand_out(platform, order, request.is_compound())
    }

    /// Puts a block that its owner gave back on this CPU's list for blocks like it. Context: any but NMI.
    pub(crate) fn free_listed<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        (block, list): (Exclusive, List),
        temperature: Temperature,
        trace: &mut impl Trace,
    ) -> Kept {
        let order = list.order();
        let Some(mut own) = self.sets(temperature).enter(pin) else {
            return Kept::Refused(block);
        };
        let (set, gauges) = own.parts();
        let kept = match set.refuses(order, gauges) {
            true => Kept::Refused(block),
            false => {
                let mut lists = self.lists(set, gauges, frames, pin.platform());
                lists.keep((list, order), block, trace)
            }
        };
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        kept
    }

    /// Takes up to `count` single pages from this CPU's lists, which are filled from the zone while it has
    /// more than `floor` to spare; each goes to `sink`. Answers how many there were. It is one stay at
    /// the lists: what interrupts do in between cannot keep it from getting on. Context: any but NMI.
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
        let mut taken: u32 = 0;
        while to_index(u64::from(taken)) < count {
            let Some(page) = set.take_page(list) else {
                let mut lists = self.lists(set, gauges, frames, platform);
                lists.rise(list);
                let filled = lists.set.has_at_hand(list)
                    || (self.spares(Order::ZERO, floor)
                        && lists.refill((list, self.mixing(&request)), &mut Told(platform)));
                if filled {
                    continue;
                }
                break;
            };
            PageSet::note_taken(1, gauges);
            taken = taken.wrapping_add(1);
            if let Some(page) = page.hand_out(platform, Order::ZERO, false) {
                tell_block(platform, EventKind::Alloc, &page);
                sink(page);
            }
        }
        if own.leave() {
            self.serve_drain(pin, frames);
        }
        to_index(u64::from(taken))
    }

    /// The lists of all CPUs: cold ones are there with `percpu_pagelists=classic` only, and then only
    /// for who asks for them.
    fn sets(&self, temperature: Temperature) -> &PerCpu<PageSet, Gauges> {
        match temperature {
            Temperature::Cold if !self.cold.is_empty() => &self.cold,
            _ => &self.pagesets,
        }
    }

    fn all_sets(&self) -> [&PerCpu<PageSet, Gauges>; 2] {
        [&self.pagesets, &self.cold]
    }

    /// The lists of one CPU.
    fn cells(&self, cpu: CpuId) -> impl Iterator<Item = &OwnerCell<PageSet, Gauges>> {
        self.all_sets()
            .into_iter()
            .filter_map(move |sets| sets.cell(cpu))
    }

    fn all_gauges(&self) -> impl Iterator<Item = &Gauges> {
        self.all_sets().into_iter().flat_map(PerCpu::shared)
    }

    /// Gives everything back that this CPU has. `false` if the code that was interrupted is using
    /// the lists; it gives them back when it is done. Context: any but NMI.
    pub(crate) fn drain_here<P: Platform>(&self, pin: &Pin<'_, P>, frames: &FrameTable) -> bool {
        self.want_drain(pin.cpu());
        self.serve_drain(pin, frames);
        self.is_drained(pin.cpu())
    }

    /// Gives everything back that this CPU has, if somebody asked for it. Context: any but NMI.
    #[cold]
    #[inline(never)]
    pub(crate) fn serve_drain<P: Platform>(&self, pin: &Pin<'_, P>, frames: &FrameTable) {
        for sets in self.all_sets() {
            sets.serve(pin, |set, gauges| {
                self.lists(set, gauges, frames, pin.platform()).drain();
            });
        }
    }

    /// Gives everything back that a CPU left behind.
    pub(crate) fn drain_seized<P: Platform>(
        &self,
        seized: &Seized<'_>,
        frames: &FrameTable,
        platform: &P,
    ) {
        for sets in self.all_sets() {
            let _ = sets.with_seized(seized, |set, gauges| {
                self.lists(set, gauges, frames, platform).drain();
            });
        }
    }

    /// Whether a CPU has anything on its lists. Stale when it arrives.
    pub(crate) fn has_listed(&self, cpu: CpuId) -> bool {
        self.cells(cpu).any(|cell| cell.shared().count() > 0)
    }

    /// Marks a CPU's lists to be drained.
    pub(crate) fn want_drain(&self, cpu: CpuId) {
        self.cells(cpu).for_each(OwnerCell::want_drain);
    }

    /// Takes back what was asked of a CPU that cannot be reached, if it has nothing anyway.
    pub(crate) fn unless_listed_forget_drain(&self, cpu: CpuId) {
        let empty = self.cells(cpu).filter(|cell| cell.shared().count() == 0);
        empty.for_each(OwnerCell::drained);
    }

    /// Whether a CPU did what was last asked of it.
    pub(crate) fn is_drained(&self, cpu: CpuId) -> bool {
        self.cells(cpu).all(OwnerCell::is_drained)
    }

    /// Keeps blocks off the lists while pageblocks are isolated: what comes back to one of those
    /// must not be handed out from a list. Context: zone lock held.
    pub(super) fn note_isolation(&self, areas: &FreeAreas) {
        for gauges in self.all_gauges() {
            gauges.close_for_isolation(areas.has_isolated());
        }
    }

    /// Whether there is less than the high mark.
    pub(super) fn is_short(&self) -> bool {
        self.free_frames() < self.watermarks.marks().high
    }
}

/// Keeps blocks of a zone off all lists until it is dropped (Linux: `zone_pcp_disable`).
#[derive(Debug)]
#[must_use = "the lists are used again when this is dropped"]
pub(crate) struct Pause<'a>(&'a Zone);

impl<'a> Pause<'a> {
    /// Begins. What is on the lists stays there until it is drained.
    pub(crate) fn new(zone: &'a Zone) -> Self {
        zone.all_gauges().for_each(Gauges::close);
        Self(zone)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.all_gauges().for_each(Gauges::reopen);
    }
}
