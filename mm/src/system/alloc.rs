//! Page allocation and freeing: the way from a request to a zone and back.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Block, Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, GfpError, Request, Trace};
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;
use crate::sync::atomic::Ordering;

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
    pub fn alloc_block(&self, gfp: Gfp, order: Order) -> Result<Block<&Self>, AllocError> {
        Block::alloc(self, gfp, order)
    }

    /// Allocates `2^order` pages as a plain frame number (Linux: `alloc_pages`); the caller gives
    /// them back with [`Self::free_pages`]. Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline]
    pub fn alloc_pages(&self, gfp: Gfp, order: Order) -> Result<Pfn, AllocError> {
        let request = Request::new(gfp, order)?;
        Ok(self.alloc_request(&request, &mut ())?.leak().first())
    }

    /// Allocates one page (Linux: `alloc_page`). Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline]
    pub fn alloc_page(&self, gfp: Gfp) -> Result<Pfn, AllocError> {
        self.alloc_pages(gfp, Order::ZERO)
    }

    /// Allocates single pages into every empty place of `pages`, under one hold of a zone's lock
    /// where it can (Linux: `alloc_pages_bulk`). Answers how many places are filled now, which
    /// is less than all when memory runs out. Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`AllocError`] other than out of memory.
    pub fn alloc_pages_bulk(
        &self,
        gfp: Gfp,
        pages: &mut [Option<Pfn>],
    ) -> Result<usize, AllocError> {
        let request = Request::new(gfp, Order::ZERO)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        let node = core.node(NodeId(0)).ok_or(AllocError::NoSuchNode)?;
        let mut wanted = pages.iter().filter(|place| place.is_none()).count();
        let mut places = pages.iter_mut().filter(|place| place.is_none());
        let (near, far) = (core::iter::once(node), core.other_nodes(node, &request));
        for zone in near
            .chain(far)
            .flat_map(|node| node.zonelist(request.highest()))
        {
            while wanted > 0 {
                // Pages are collected under the lock and prepared (zeroed, checked) outside it.
                let mut batch = [const { None }; BULK];
                let mut slots = batch.iter_mut();
                let collect = |block| {
                    if let Some(slot) = slots.next() {
                        *slot = Some(block);
                    }
                };
                let taken = zone.alloc_bulk(&self.platform, &request, wanted.min(BULK), collect);
                for block in batch.into_iter().flatten() {
                    let Some(block) = self.prepare(core, &request, block) else {
                        continue;
                    };
                    if let Some(place) = places.next() {
                        *place = Some(block.leak().first());
                        wanted = wanted.saturating_sub(1);
                    }
                }
                if taken == 0 {
                    break;
                }
            }
        }
        Ok(pages.iter().flatten().count())
    }

    /// Serves a checked request: each zone that may, best first (Linux: `get_page_from_freelist`).
    pub(crate) fn alloc_request(
        &self,
        request: &Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        let node = core.node(NodeId(0)).ok_or(AllocError::NoSuchNode)?;
        let (near, far) = (core::iter::once(node), core.other_nodes(node, request));
        for zone in near
            .chain(far)
            .flat_map(|node| node.zonelist(request.highest()))
        {
            while let Some(block) = zone.alloc(&self.platform, request, trace) {
                if let Some(block) = self.prepare(core, request, block) {
                    return Ok(block);
                }
            }
        }
        Err(AllocError::OutOfMemory)
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

    pub(crate) fn release_traced(&self, mut block: Exclusive, trace: &mut impl Trace) {
        let (pfn, order) = (block.frames().first(), block.order());
        let Some(core) = self.core() else {
            return self.lose(pfn, order);
        };
        core.wipe(&self.platform, &mut block);
        let zone = core
            .frames
            .frame(pfn)
            .and_then(|frame| core.zone(frame.word().zone_id()));
        let Some(zone) = zone else {
            return self.lose(pfn, order);
        };
        if zone.free(&self.platform, block, trace).is_err() {
            self.lose(pfn, order);
        }
    }

    /// Reports a block that belongs nowhere: its record names no zone, or a wrong one.
    #[cold]
    pub(super) fn lose(&self, pfn: Pfn, order: Order) {
        self.platform
            .corruption(&Corruption::LostBlock { pfn, order });
    }
}

/// Pages taken under one hold of the zone lock by the bulk interface, at most.
const BULK: usize = 64;

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
