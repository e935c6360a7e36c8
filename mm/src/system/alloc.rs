//! Page allocation and freeing: the way from a request to a zone and back.
#![forbid(unsafe_code)]

use core::fmt;

use super::policy::Place;
use super::{Block, Core, Memory, PageLists};
use crate::addr::{Order, Pfn};
use crate::buddy::pageset::classic::Temperature;
use crate::buddy::{Gfp, GfpError, Mixing, Request, Step, Trace};
use crate::frame::{Frame, FreeError, Offer, Word};
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;
use crate::sync::Pin;
use crate::sync::atomic::Ordering;
use crate::zone::watermark::AllocFlags;
use crate::zone::{Chores, Kept, NumaEvent, Pages, Zone};

/// Why there are no pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// The flags contradict each other.
    Flags(GfpError),
    /// No zone that may serve the request has a block.
    OutOfMemory,
    /// Memory is not up yet.
    NotUp,
    /// There is no such node.
    NoSuchNode,
    /// Somebody is at the free pages, and the caller must not wait.
    WouldBlock,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags(error) => write!(f, "bad flags: {error}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::NoSuchNode => f.write_str("no such node"),
            Self::WouldBlock => f.write_str("would block"),
        }
    }
}

impl core::error::Error for AllocError {}

impl From<GfpError> for AllocError {
    fn from(error: GfpError) -> Self {
        Self::Flags(error)
    }
}

impl<P: Platform> Memory<P> {
    /// Allocates `2^order` contiguous, naturally aligned pages as an owning handle; see
    /// [`Block::alloc`] for a handle with another home. Context: as the flags say: with
    /// [`Gfp::DIRECT_RECLAIM`] task, otherwise any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn alloc_block(&self, gfp: Gfp, order: Order) -> Result<Block<&Self>, AllocError> {
        Block::alloc(self, gfp, order)
    }

    /// Allocates `2^order` pages as a plain frame number (Linux: `alloc_pages`); the caller gives
    /// them back with [`Self::free_pages`]. Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    #[track_caller]
    pub fn alloc_pages(&self, gfp: Gfp, order: Order) -> Result<Pfn, AllocError> {
        let request = Request::new(gfp, order)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        match self.alloc_at_hand(core, request, &mut ()) {
            Some(block) if !request.gfp().contains(Gfp::ZERO) => Ok(block.leak().first()),
            Some(block) => self.prepared_page(core, request, block),
            None => self.page_from_zones(core, request),
        }
    }

    /// Allocates one page (Linux: `alloc_page`). Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline]
    #[track_caller]
    pub fn alloc_page(&self, gfp: Gfp) -> Result<Pfn, AllocError> {
        self.alloc_pages(gfp, Order::ZERO)
    }

    /// As [`Self::alloc_block`], but asks a node first, and only that one with [`Gfp::THISNODE`].
    /// Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc_block_node(
        &self,
        node: NodeId,
        gfp: Gfp,
        order: Order,
    ) -> Result<Block<&Self>, AllocError> {
        Ok(Block::new(self.alloc_on_node(node, gfp, order)?, self))
    }

    /// As [`Self::alloc_pages`], but asks a node first, and only that one with [`Gfp::THISNODE`]
    /// (Linux: `alloc_pages_node`). Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc_pages_node(
        &self,
        node: NodeId,
        gfp: Gfp,
        order: Order,
    ) -> Result<Pfn, AllocError> {
        let block = self.alloc_on_node(node, gfp, order)?;
        Ok(block.leak().first())
    }

    fn alloc_on_node(&self, node: NodeId, gfp: Gfp, order: Order) -> Result<Exclusive, AllocError> {
        let request = Request::new(gfp, order)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        let node = core.node(node).ok_or(AllocError::NoSuchNode)?;
        self.alloc_at(core, node.into(), request, &mut ())
    }

    #[inline(never)]
    #[track_caller]
    fn prepared_page(
        &self,
        core: &Core,
        request: Request,
        block: Exclusive,
    ) -> Result<Pfn, AllocError> {
        let block = self.prepare_or_else(core, request, Some(block), &mut ())?;
        core.note_origin(block.frames());
        Ok(block.leak().first())
    }

    #[inline(never)]
    #[track_caller]
    pub(super) fn page_from_zones(&self, core: &Core, request: Request) -> Result<Pfn, AllocError> {
        let block = self.prepare_or_else(core, request, None, &mut ())?;
        core.note_origin(block.frames());
        Ok(block.leak().first())
    }

    /// Serves a checked request: from this CPU's own list of the nearest zone, which asks nobody
    /// (what is there was taken from the zone before), or else from the zones.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn alloc_request(
        &self,
        request: &Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        // By value: constant flags and orders stay constants then.
        let request = *request;
        let found = match self.alloc_at_hand(core, request, trace) {
            Some(block) if !request.gfp().contains(Gfp::ZERO) => return Ok(block),
            found => self.prepare_or_else(core, request, found, trace),
        };
        if let Ok(block) = &found {
            core.note_origin(block.frames());
        }
        found
    }

    /// Prepares a block, or finds another one if there is none or it is damaged.
    #[inline(never)]
    fn prepare_or_else(
        &self,
        core: &Core,
        request: Request,
        found: Option<Exclusive>,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let found = match found {
            None if core.treats_new_pages => {
                self.take_at_hand(core, request, Pages::Treated, trace)
            }
            found => found,
        };
        let prepared = found.and_then(|block| self.prepare(core, &request, block));
        match prepared {
            Some(block) => Ok(block),
            None => self.alloc_from_zones(core, request, trace),
        }
    }

    /// A block from this CPU's own list of the nearest zone, if there is one, pages need not be touched
    /// before they are handed out, and the task has no policy that may want another.
    #[inline(always)]
    fn alloc_at_hand(
        &self,
        core: &Core,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        self.take_at_hand(core, request, Pages::AsTheyAre, trace)
    }

    #[inline(always)]
    fn take_at_hand(
        &self,
        core: &Core,
        request: Request,
        kind: Pages,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        // The nearest zone may be on another node than the CPU.
        if request.gfp().contains(Gfp::THISNODE) || self.platform.has_policy() {
            return None;
        }
        let pin = Pin::new(&self.platform);
        let taken = core.cpus.at_hand.take(&pin, request, kind, trace);
        // Each way lets the pin go by itself: nothing needs to be looked at twice.
        match taken {
            Ok((block, chores)) => {
                if chores.are_any() {
                    self.see_to(core, chores, Pfn::ZERO);
                }
                drop(pin);
                Some(block)
            }
            Err(chores) => {
                if chores.are_any() {
                    self.see_to(core, chores, Pfn::ZERO);
                }
                drop(pin);
                None
            }
        }
    }

    /// Does what there is to do after the lists were used: for the zone of `pfn`, or what another CPU
    /// asked for. The caller is pinned.
    #[cold]
    #[inline(never)]
    pub(super) fn see_to(&self, core: &Core, chores: Chores, pfn: Pfn) {
        let pin = Pin::new(&self.platform);
        if chores.trim {
            let word = core.frames.frame(pfn).map(Frame::word);
            if let Some((word, zone)) =
                word.and_then(|word| Some((word, core.zone(word.zone_id())?)))
            {
                zone.trim_lists(&pin, &core.frames, word, &mut ());
            }
        }
        core.serve_drains(&pin);
    }

    /// Serves a request from the best zone that stays above its `low`
    /// mark (Linux: `get_page_from_freelist`), or the slow way.
    #[inline(never)]
    fn alloc_from_zones(
        &self,
        core: &Core,
        request: Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        self.free_deferred_here(core);
        if self.platform.has_policy()
            && let Some(found) = self.alloc_by_task(core, request, trace)
        {
            return found;
        }
        let node = core
            .near_node(&self.platform)
            .ok_or(AllocError::NoSuchNode)?;
        self.alloc_near(core, node.into(), request, trace)
    }

    /// Serves a request with memory of a place.
    #[inline(never)]
    pub(super) fn alloc_at(
        &self,
        core: &Core,
        place: Place<'_>,
        request: Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        self.alloc_near(core, place, request, trace)
    }

    /// The same, for the usual place: that it is one whole machine is known then.
    #[inline(always)]
    fn alloc_near(
        &self,
        core: &Core,
        place: Place<'_>,
        request: Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let request = &request;
        if core.strikes(&self.platform, request) {
            return Err(AllocError::OutOfMemory);
        }
        let low = |zone: &Zone| zone.low_floor(request);
        match self.alloc_above(core, place, request, (AllocFlags::empty(), low), trace) {
            Some(block) => Ok(block),
            None => self.alloc_slow(core, place, request, trace),
        }
    }

    /// One round over the zones, best first; each must be left with `floor` frames, but for what
    /// `flags` say.
    #[inline(always)]
    pub(super) fn alloc_above(
        &self,
        core: &Core,
        place: Place<'_>,
        request: &Request,
        (flags, floor): (AllocFlags, impl Fn(&Zone) -> u64),
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let mut wanted = None;
        for zone in core.zones_for(place, request) {
            let wanted = *wanted.get_or_insert(zone);
            let (home, floor) = (zone.id(), floor(zone));
            loop {
                let mixing = zone.mixing(request);
                if !zone.spares(request.order(), floor) {
                    let waits = mixing == Mixing::Avoided;
                    if waits && !zone.spares_for_now(request.order(), floor) {
                        self.populate_for(core, zone, trace);
                        continue;
                    }
                    // Who cannot have memory populated lives on what is, but for what urgent ones
                    // need until there is more.
                    if !waits && !zone.spares_here(request.order(), floor, flags) {
                        let free = zone.free_frames();
                        trace.step(Step::Short { home, free, floor });
                        break;
                    }
                }
                trace.step(Step::Zone { home });
                let pin = Pin::new(&self.platform);
                let listed = zone.alloc_listed(&pin, &core.frames, (request, mixing), trace);
                drop(pin);
                let block = match listed {
                    Some(block) => Some(block),
                    None => zone.alloc(&self.platform, (request, mixing), flags, trace),
                };
                if zone.is_boosted() {
                    self.tell_of_boost(zone, request);
                }
                let Some(block) = block else {
                    if mixing == Mixing::Avoided {
                        self.populate_for(core, zone, trace);
                        continue;
                    }
                    break;
                };
                self.keep_ahead(zone);
                self.note_numa(wanted, zone, 1);
                if flags.contains(AllocFlags::HARDER) && request.order() > Order::ZERO {
                    zone.keep_high_atomic(&self.platform, block.frames().first());
                }
                let block = self.prepare(core, request, block);
                if block.is_some() {
                    return block;
                }
            }
        }
        None
    }

    /// Counts blocks that came from `zone` for who wanted them from `wanted`, if that is on another
    /// node: other ones count by themselves.
    #[inline]
    pub(super) fn note_numa(&self, wanted: &Zone, zone: &Zone, blocks: u64) {
        if wanted.id().node != zone.id().node {
            self.note_miss(wanted, zone, blocks);
        }
    }

    #[cold]
    fn note_miss(&self, wanted: &Zone, zone: &Zone, blocks: u64) {
        let cpu = Pin::new(&self.platform).cpu();
        zone.note_numa(cpu, NumaEvent::Miss, blocks);
        wanted.note_numa(cpu, NumaEvent::Foreign, blocks);
    }

    /// What happens to a block on its way out: the poison of free memory is checked, and the
    /// pages are zeroed if the request or the system says so. A damaged block is reported and
    /// stays out of circulation.
    #[inline]
    pub(super) fn prepare(
        &self,
        core: &Core,
        request: &Request,
        mut block: Exclusive,
    ) -> Option<Exclusive> {
        if core.options.page_poison
            && let Err(corruption) = block.check_poison(&self.platform)
        {
            self.quarantine(core, block, &corruption);
            return None;
        }
        let zeroed_when_freed = core.options.init_on_free && !core.options.page_poison;
        let wanted = core.options.init_on_alloc || request.gfp().contains(Gfp::ZERO);
        if wanted && !zeroed_when_freed {
            block.zero(&self.platform);
        }
        Some(block)
    }

    /// Reports damage found in frames that were free, and keeps them from everybody.
    #[cold]
    pub(super) fn quarantine(&self, core: &Core, block: Exclusive, corruption: &Corruption) {
        self.platform.corruption(corruption);
        let frames = block.leak().frames();
        core.quarantined.fetch_add(frames, Ordering::Relaxed);
    }

    /// Gives frames back to their zone. Context: any but NMI.
    #[inline]
    pub(crate) fn release(&self, block: Exclusive) {
        self.release_traced(block, &mut ());
    }

    pub(crate) fn release_traced(&self, block: Exclusive, trace: &mut impl Trace) {
        let (pfn, order) = (block.frames().first(), block.order());
        let Some(core) = self.core() else {
            return self.lose(pfn, order);
        };
        let released = match core.frames.offered(block) {
            Ok(offer) => self.release_offer(core, offer, order, trace).is_ok(),
            Err(_) => false,
        };
        if !released {
            self.lose(pfn, order);
        }
    }

    /// Gives a block of `order` back.
    ///
    /// # Errors
    /// Why it is none.
    #[inline(always)]
    pub(crate) fn release_offer(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), FreeError> {
        let pin = Pin::new(&self.platform);
        let pfn = offer.pfn();
        match core.cpus.at_hand.put(&pin, offer, order, trace) {
            Ok(chores) => {
                if chores.are_any() {
                    self.see_to(core, chores, pfn);
                }
                Ok(())
            }
            Err(offer) => {
                drop(pin);
                self.release_unusual(core, offer, order, Temperature::Hot, trace)
            }
        }
    }

    /// Gives a block back that is none of those that CPUs have at hand.
    #[inline(never)]
    fn release_unusual(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
        temperature: Temperature,
        trace: &mut impl Trace,
    ) -> Result<(), FreeError> {
        let word = offer.word();
        let block = offer.accept(&core.frames, order)?;
        self.release_block(core, block, word, temperature, trace);
        Ok(())
    }

    /// Gives a block of `order` back that nobody has looked at lately.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn release_cold(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
    ) -> Result<(), FreeError> {
        match core.options.page_lists {
            PageLists::Classic => {
                self.release_unusual(core, offer, order, Temperature::Cold, &mut ())
            }
            PageLists::Off | PageLists::Tuned => self.release_offer(core, offer, order, &mut ()),
        }
    }

    /// Gives a block back whose record says `word`.
    fn release_block(
        &self,
        core: &Core,
        mut block: Exclusive,
        word: Word,
        temperature: Temperature,
        trace: &mut impl Trace,
    ) {
        let order = block.order();
        core.wipe(&self.platform, &mut block);
        let Some(zone) = core.zone(word.zone_id()) else {
            return self.lose(block.leak().first(), order);
        };
        let pin = Pin::new(&self.platform);
        let kept = zone.free_listed(&pin, &core.frames, (block, word), temperature, trace);
        drop(pin);
        if let Kept::Refused(block) = kept {
            self.release_to_zone(zone, block, order, trace);
        }
    }

    #[inline(never)]
    pub(super) fn release_to_zone(
        &self,
        zone: &Zone,
        block: Exclusive,
        order: Order,
        trace: &mut impl Trace,
    ) {
        if let Err(block) = zone.free(&self.platform, block, trace) {
            self.lose(block.leak().first(), order);
        }
    }

    /// Reports a block that belongs nowhere: its record names no zone, or a wrong one.
    #[cold]
    pub(super) fn lose(&self, pfn: Pfn, order: Order) {
        self.platform
            .corruption(&Corruption::LostBlock { pfn, order });
    }
}

impl Core {
    /// What happens to the bytes of a block on its way in, before the zone's lock is taken.
    #[inline]
    pub(super) fn wipe<P: Platform>(&self, platform: &P, block: &mut Exclusive) {
        if self.options.page_poison {
            block.poison(platform);
        } else if self.options.init_on_free {
            block.zero(platform);
        }
    }
}
