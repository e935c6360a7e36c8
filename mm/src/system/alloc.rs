//! Page allocation and freeing: the way from a request to a zone and back.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Block, Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, GfpError, Request, Step, Trace};
use crate::frame::Claimed;
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;
use crate::sync::Pin;
use crate::sync::atomic::Ordering;
use crate::zone::watermark::AllocFlags;
use crate::zone::{Kept, Node, Zone};

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
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags(error) => write!(f, "bad flags: {error}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::NoSuchNode => f.write_str("no such node"),
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
            Some(block) if !core.is_treated(request) => Ok(block.leak().first()),
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
        self.alloc_near(core, node, request, &mut ())
    }

    #[inline(never)]
    #[track_caller]
    fn prepared_page(
        &self,
        core: &Core,
        request: Request,
        block: Exclusive,
    ) -> Result<Pfn, AllocError> {
        let block = self.prepare_or_else(core, request, block, &mut ())?;
        core.note_origin(block.frames());
        Ok(block.leak().first())
    }

    #[inline(never)]
    #[track_caller]
    fn page_from_zones(&self, core: &Core, request: Request) -> Result<Pfn, AllocError> {
        let block = self.alloc_from_zones(core, request, &mut ())?;
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
            None => self.alloc_from_zones(core, request, trace),
            Some(block) if !core.is_treated(request) => return Ok(block),
            Some(block) => self.prepare_or_else(core, request, block, trace),
        };
        if let Ok(block) = &found {
            core.note_origin(block.frames());
        }
        found
    }

    /// Prepares a block, or finds another one if it is damaged.
    #[inline(never)]
    fn prepare_or_else(
        &self,
        core: &Core,
        request: Request,
        block: Exclusive,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        match self.prepare(core, &request, block) {
            Some(block) => Ok(block),
            None => self.alloc_from_zones(core, request, trace),
        }
    }

    /// A block from this CPU's own list of the nearest zone, if there is one.
    #[inline(always)]
    fn alloc_at_hand(
        &self,
        core: &Core,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let pin = Pin::new(&self.platform);
        let zone = core.nearest_zone(pin.cpu(), &request)?;
        zone.take_listed(&pin, &core.frames, request, trace)
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
        let node = core
            .near_node(&self.platform)
            .ok_or(AllocError::NoSuchNode)?;
        self.alloc_near(core, node, request, trace)
    }

    /// Serves a request with memory of a node, or of those that it falls back to.
    fn alloc_near(
        &self,
        core: &Core,
        node: &Node,
        request: Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let request = &request;
        if core.strikes(request) {
            return Err(AllocError::OutOfMemory);
        }
        let low = |zone: &Zone| zone.low_floor(request);
        match self.alloc_above(core, node, request, (AllocFlags::empty(), low), trace) {
            Some(block) => Ok(block),
            None => self.alloc_slow(core, node, request, trace),
        }
    }

    /// One round over the zones, best first; each must be left with `floor` frames, but for what
    /// `flags` say.
    #[inline]
    pub(super) fn alloc_above(
        &self,
        core: &Core,
        node: &Node,
        request: &Request,
        (flags, floor): (AllocFlags, impl Fn(&Zone) -> u64),
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        for zone in core.zones_for(node, request) {
            let (home, floor) = (zone.id(), floor(zone));
            loop {
                if !zone.spares(request.order(), floor) {
                    let free = zone.free_frames();
                    trace.step(Step::Short { home, free, floor });
                    break;
                }
                trace.step(Step::Zone { home });
                let pin = Pin::new(&self.platform);
                let listed = zone.alloc_listed(&pin, &core.frames, request, trace);
                drop(pin);
                let block = match listed {
                    Some(block) => Some(block),
                    None => zone.alloc(&self.platform, request, flags, trace),
                };
                if zone.is_boosted() {
                    self.tell_of_boost(zone, request);
                }
                let Some(block) = block else { break };
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
        let core = self.core();
        let claimed = core.and_then(|core| Some((core, core.frames.claimed(block)?)));
        match claimed {
            Some((core, claimed)) => self.release_claimed(core, claimed, order, trace),
            None => self.lose(pfn, order),
        }
    }

    /// Gives a block of `order` back.
    #[inline(always)]
    pub(crate) fn release_claimed(
        &self,
        core: &Core,
        claimed: Claimed<'_>,
        order: Order,
        trace: &mut impl Trace,
    ) {
        let claimed = if core.treats_free_pages {
            claimed.map(|block| self.treat_free(core, block))
        } else {
            claimed
        };
        let word = claimed.word();
        let Some(zone) = core.zone(word.zone_id()) else {
            return self.lose(claimed.into_block().leak().first(), order);
        };
        let pin = Pin::new(&self.platform);
        let kept = zone.free_listed(&pin, &core.frames, claimed, order, trace);
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

    /// Poisons or zeroes pages on their way in.
    #[cold]
    #[inline(never)]
    pub(super) fn treat_free(&self, core: &Core, mut block: Exclusive) -> Exclusive {
        core.wipe(&self.platform, &mut block);
        block
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
