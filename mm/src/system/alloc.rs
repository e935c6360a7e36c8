//! Page allocation and freeing: the way from a request to a zone and back.
#![forbid(unsafe_code)]

use core::fmt;

use super::policy::Place;
use super::{Block, Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, GfpError, List, Mixing, Request, Step, Told, Trace};
use crate::mem::Exclusive;
use crate::platform::{NodeId, PageAccess, Platform};
use crate::report::Corruption;
use crate::sync::Pin;
use crate::zone::watermark::AllocFlags;
use crate::zone::{NumaEvent, Pages, Zone};

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
    /// Zeroes are asked for where objects hold what their constructor wrote.
    Constructed,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags(error) => write!(f, "bad flags: {error}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::NoSuchNode => f.write_str("no such node"),
            Self::WouldBlock => f.write_str("would block"),
            Self::Constructed => f.write_str("objects of this cache are constructed, not zeroed"),
        }
    }
}

impl core::error::Error for AllocError {}

impl From<GfpError> for AllocError {
    fn from(error: GfpError) -> Self {
        Self::Flags(error)
    }
}

/// A result that comes back in two registers: a caller that has what it wants from elsewhere does not have to put it
/// into memory for the sake of the long way.
#[derive(Clone, Copy)]
pub(super) struct InRegisters<T> {
    value: T,
    error: Option<AllocError>,
}

impl<T> InRegisters<T> {
    /// `nothing` stands in the place of the value beside an error.
    #[inline(always)]
    pub(super) fn new(result: Result<T, AllocError>, nothing: T) -> Self {
        match result {
            Ok(value) => Self { value, error: None },
            Err(error) => Self {
                value: nothing,
                error: Some(error),
            },
        }
    }

    #[inline(always)]
    pub(super) fn into_result(self) -> Result<T, AllocError> {
        match self.error {
            None => Ok(self.value),
            Some(error) => Err(error),
        }
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
        match self.alloc_at_hand(request, &mut Told(&self.platform)) {
            Some(block) if !request.gfp().contains(Gfp::ZERO) => Ok(block.leak().first()),
            None => self.page_from_zones(request).into_result(),
            found => self.prepared_page(request, found),
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
    #[track_caller]
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
    #[track_caller]
    pub fn alloc_pages_node(
        &self,
        node: NodeId,
        gfp: Gfp,
        order: Order,
    ) -> Result<Pfn, AllocError> {
        let block = self.alloc_on_node(node, gfp, order)?;
        Ok(block.leak().first())
    }

    #[track_caller]
    fn alloc_on_node(&self, node: NodeId, gfp: Gfp, order: Order) -> Result<Exclusive, AllocError> {
        let request = Request::new(gfp, order)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        let node = core.node(node).ok_or(AllocError::NoSuchNode)?;
        self.alloc_at(core, node.into(), request, &mut Told(&self.platform))
    }

    #[inline(never)]
    fn prepared_page(&self, request: Request, found: Option<Exclusive>) -> Result<Pfn, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        let block = self.prepare_or_else(core, request, found, &mut Told(&self.platform))?;
        Ok(block.leak().first())
    }

    #[inline(never)]
    pub(super) fn page_from_zones(&self, request: Request) -> InRegisters<Pfn> {
        InRegisters::new(self.page_from_zones_or(request), Pfn::ZERO)
    }

    #[inline(always)]
    fn page_from_zones_or(&self, request: Request) -> Result<Pfn, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        // Nothing else is in this function, so that it needs few registers.
        if !core.treats(request)
            && let Some(block) = self.alloc_latest(core, request, &mut Told(&self.platform))
        {
            return Ok(block.leak().first());
        }
        self.prepared_page(request, None)
    }

    /// Serves a checked request: from this CPU's own list of the nearest zone, which asks nobody
    /// (what is there was taken from the zone before), or else from the zones.
    #[inline(always)]
    pub(crate) fn alloc_request(
        &self,
        request: &Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        // By value: constant flags and orders stay constants then.
        let request = *request;
        match self.alloc_at_hand(request, trace) {
            Some(block) if !request.gfp().contains(Gfp::ZERO) => Ok(block),
            found => self.prepared_block(request, found, trace),
        }
    }

    #[inline(never)]
    fn prepared_block(
        &self,
        request: Request,
        found: Option<Exclusive>,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        if found.is_none()
            && !core.treats(request)
            && let Some(block) = self.alloc_latest(core, request, trace)
        {
            return Ok(block);
        }
        self.prepare_or_else(core, request, found, trace)
    }

    /// The block that came back last to the nearest zone, if the request wants one like it.
    #[inline(always)]
    fn alloc_latest(
        &self,
        core: &Core,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let is_special = request.gfp().contains(Gfp::THISNODE) || core.faults.is_some();
        if is_special || self.platform.has_policy() {
            return None;
        }
        let cpu = self.platform.current_cpu();
        let zone = core.cpus.first_zone(cpu, request.highest())?;
        let zone = core.zone(zone)?;
        zone.alloc_latest(&self.platform, cpu, request, trace)
    }

    /// Prepares a block, or finds another one if there is none or it is damaged.
    #[inline(always)]
    fn prepare_or_else(
        &self,
        core: &Core,
        request: Request,
        found: Option<Exclusive>,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let found = match found {
            None if core.treats(request) => self
                .take_at_hand(request, Pages::Treated, trace)
                .or_else(|| self.alloc_latest(core, request, trace)),
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
    pub(super) fn alloc_at_hand(
        &self,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        self.take_at_hand(request, Pages::AsTheyAre, trace)
    }

    #[inline(always)]
    fn take_at_hand(
        &self,
        request: Request,
        kind: Pages,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        // The nearest zone may be on another node than the CPU.
        let list = List::serving(request)?;
        if request.gfp().contains(Gfp::THISNODE) {
            return None;
        }
        let pin = Pin::new(&self.platform);
        let here = self.here_for_request(&pin)?;
        let taken = here.take(&self.platform, (request, list, kind), trace);
        // Each way lets the pin go by itself: nothing needs to be looked at twice.
        match taken {
            Ok((block, is_drain_wanted)) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                Some(block)
            }
            Err(is_drain_wanted) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                None
            }
        }
    }

    /// Does what another CPU asked for while this one used its lists. The caller is pinned.
    #[cold]
    #[inline(never)]
    pub(super) fn serve_drains_here(&self) {
        self.drain_wanted();
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

    /// What happens to a block on its way out: it comes within reach, the poison of free memory is checked, and the
    /// pages are zeroed if the request or the system says so, and it is noted who asked. A damaged
    /// block is reported and stays out of circulation.
    #[inline]
    pub(super) fn prepare(
        &self,
        core: &Core,
        request: &Request,
        block: Exclusive,
    ) -> Option<Exclusive> {
        self.prepared(core, request, block).ok()
    }

    /// As [`Self::prepare`], for who wants to know the damage.
    #[inline]
    pub(super) fn prepared(
        &self,
        core: &Core,
        request: &Request,
        mut block: Exclusive,
    ) -> Result<Exclusive, Corruption> {
        if core.options.debug_pagealloc.is_on() {
            let platform = &self.platform;
            platform.protect_free_pages(block.frames(), PageAccess::ReadWrite);
        }
        if core.options.page_poison
            && let Err(corruption) = block.check_poison(&self.platform)
        {
            core.quarantine(&self.platform, block, &corruption);
            return Err(corruption);
        }
        let zeroed_when_freed = core.options.init_on_free && !core.options.page_poison;
        let wanted = core.options.init_on_alloc || request.gfp().contains(Gfp::ZERO);
        if wanted && !zeroed_when_freed {
            block.zero(&self.platform);
        }
        core.note_origin(request, block.frames());
        Ok(block)
    }
}

impl Core {
    /// Whether somebody touches the pages of a request on their way out.
    #[inline]
    fn treats(&self, request: Request) -> bool {
        self.treats_new_pages || request.gfp().contains(Gfp::ZERO)
    }
}
