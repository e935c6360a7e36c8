//! `kmalloc` beyond caches: blocks of pages, and above the largest order runs of them (Linux:
//! `kmalloc_large`, `alloc_contig_pages`).
//!
//! A run is looked for among pageblocks that are free as a whole: whoever asks for that much makes no
//! room by moving others. What its last pageblock has too many stays free. The records say how
//! long it is, so [`Memory::kfree`] and [`Memory::ksize`] need the address only.
#![forbid(unsafe_code)]

use core::alloc::Layout;
use core::iter;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use super::drain::Ask;
use super::policy::Place;
use super::sections::frames_of;
use super::{AllocError, Core, Memory};
use crate::addr::{Order, Pfn, to_count, to_index};
use crate::buddy::{Gfp, MigrateType, Request, Told, Trace};
use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::slab::size_for;
use crate::zone::watermark::policy;
use crate::zone::watermark::{Limit, Mark};
use crate::zone::{Pause, Zone};

/// The least that whole pages are: what one page has for a record does not say that it is `kmalloc`'s.
const LEAST: u64 = PAGE_SIZE << 1;
/// What a block at hand cannot be had with.
const SPECIAL: Gfp = Gfp::ZERO.union(Gfp::THISNODE);
/// Rounds of reclaim for one run, if each brings something.
const ROUNDS: u32 = 16;

/// A run that somebody wants.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    request: &'a Request,
    frames: u64,
    /// Its first frame is a multiple of so many.
    align: u64,
    may_wait: bool,
}

/// The request for a block of at least so many bytes, if a block can be that large.
#[inline(always)]
pub(super) fn pages_request(size: usize, gfp: Gfp) -> Option<Request> {
    let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::MOVABLE | Gfp::HIGHMEM) | Gfp::COMP;
    Request::new(gfp, Order::for_bytes(to_count(size).max(LEAST))?).ok()
}

impl<P: Platform> Memory<P> {
    /// A block of pages that this CPU has at hand, by its address: where that is plain to see.
    #[inline(always)]
    pub(super) fn pages_at_hand(&self, request: Request) -> Option<NonNull<u8>> {
        if request.gfp().intersects(SPECIAL) || request.migrate() != MigrateType::Unmovable {
            return None;
        }
        match request.order().as_u8() {
            1 => self.block_at_hand::<1>(request),
            2 => self.block_at_hand::<2>(request),
            3 => self.block_at_hand::<3>(request),
            _ => None,
        }
    }

    /// The same for blocks of one order: a function for each, whose list is known when it is compiled.
    #[inline(never)]
    fn block_at_hand<const ORDER: u8>(&self, request: Request) -> Option<NonNull<u8>> {
        let base = self.platform.direct_map_base()?.as_u64();
        let request = request.known(SPECIAL, const { Order::new_or_max(ORDER) });
        let block = self.alloc_at_hand(request, &mut Told(&self.platform))?;
        // Nothing is lost: it is a frame of RAM, which is mapped from there on.
        let offset = block.leak().first().as_u64().wrapping_shl(PAGE_SHIFT);
        NonNull::new(with_exposed_provenance_mut(to_index(
            base.wrapping_add(offset),
        )))
    }

    /// As [`Memory::kmalloc`](Memory::kmalloc), with any alignment. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    #[track_caller]
    pub(crate) fn kmalloc_layout(
        &self,
        layout: Layout,
        gfp: Gfp,
        node: Option<NodeId>,
    ) -> Result<NonNull<u8>, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        match (size_for(layout), node) {
            (Some(size), None) => self.kmalloc(size, gfp),
            (Some(size), Some(node)) => self.kmalloc_node(size, gfp, node),
            (None, node) => {
                self.kmalloc_large(core, layout, (gfp, node), &mut Told(&self.platform))
            }
        }
    }

    /// Whole pages, at a multiple of the layout's alignment.
    #[inline(never)]
    pub(super) fn kmalloc_large(
        &self,
        core: &Core,
        layout: Layout,
        (gfp, node): (Gfp, Option<NodeId>),
        trace: &mut impl Trace,
    ) -> Result<NonNull<u8>, AllocError> {
        let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::MOVABLE | Gfp::HIGHMEM) | Gfp::COMP;
        let node = match node {
            Some(node) => Some(core.node(node).ok_or(AllocError::NoSuchNode)?),
            None => None,
        };
        let align = to_count(layout.align());
        let Some(order) = Order::for_bytes(to_count(layout.size()).max(align).max(LEAST)) else {
            let near = node.or_else(|| core.near_node(&self.platform));
            let near = near.ok_or(AllocError::NoSuchNode)?;
            return self.alloc_run(core, near.into(), layout, gfp);
        };
        let request = Request::new(gfp, order)?;
        let block = match node {
            Some(node) => self.alloc_at(core, node.into(), request, trace),
            None => self.alloc_request(&request, trace),
        }?;
        let first = block.as_ptr(&self.platform);
        // The platform may reach pages at an offset that is no multiple of every alignment.
        match first.filter(|first| to_count(first.addr().get()) & align.wrapping_sub(1) == 0) {
            Some(first) => {
                let _ = block.leak();
                Ok(first)
            }
            None => {
                self.release(block);
                Err(AllocError::OutOfMemory)
            }
        }
    }

    /// A run of pages, as its owner knows it.
    fn alloc_run(
        &self,
        core: &Core,
        place: Place<'_>,
        layout: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let request = Request::new(gfp, Order::ZERO)?;
        if core.strikes(&self.platform, &request) {
            return Err(AllocError::OutOfMemory);
        }
        let align = to_count(layout.align());
        let wanted = Wanted {
            request: &request,
            frames: to_count(layout.size()).div_ceil(PAGE_SIZE),
            align: align >> PAGE_SHIFT,
            may_wait: self.may_wait(&request),
        };
        let run = self.find_run(core, place, wanted)?;
        let first = run.as_ptr(&self.platform);
        let first = first.filter(|first| to_count(first.addr().get()) & align.wrapping_sub(1) == 0);
        let failed = match first {
            Some(first) => match core.frames.make_run(run) {
                Ok(()) => return Ok(first),
                Err(run) => run,
            },
            None => run,
        };
        self.release_run(core, failed);
        Err(AllocError::OutOfMemory)
    }

    /// Looks for a run, and reclaims for as long as that brings anything.
    fn find_run(
        &self,
        core: &Core,
        place: Place<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Exclusive, AllocError> {
        let may_reclaim = wanted.may_wait && !self.is_reclaiming();
        let mut rounds: u32 = 0;
        loop {
            let mut zones = core.zones_for(place, wanted.request);
            if let Some(run) = zones.find_map(|zone| self.run_of(core, zone, wanted)) {
                return Ok(run);
            }
            let may_help = may_reclaim && rounds < ROUNDS;
            if !may_help || self.direct_reclaim(core, place, wanted.request) == 0 {
                return Err(AllocError::OutOfMemory);
            }
            rounds = rounds.saturating_add(1);
            self.platform.reschedule();
        }
    }

    /// A run of one zone, if that has it to spare.
    fn run_of(&self, core: &Core, zone: &Zone, wanted: Wanted<'_>) -> Option<Exclusive> {
        let floor = zone.floor(Limit {
            mark: Mark::Min,
            flags: policy::alloc_flags(wanted.request.gfp()),
            highest: wanted.request.highest(),
            order: Order::ZERO,
        });
        if zone.free_frames() < floor.saturating_add(wanted.frames) {
            return None;
        }
        // Free pages on the lists of CPUs keep pageblocks from being whole.
        let _pause = Pause::new(zone);
        let ask = match wanted.may_wait {
            true => Ask::Everybody,
            false => Ask::Nobody,
        };
        let _ = self.drain_zones(core, || iter::once(zone), ask);
        let mut from = zone.span().first();
        loop {
            let shape = (wanted.frames, wanted.align);
            while let Some(range) = zone.find_run(&self.platform, shape, from) {
                let kind = wanted.request.migrate();
                if let Ok(run) = self.take_range_of(zone, range, kind)
                    && let Some(run) = self.prepare(core, wanted.request, run)
                {
                    return Some(run);
                }
                from = range.first().saturating_add(Order::PAGEBLOCK.frames());
            }
            if zone.latent_frames() == 0 {
                return None;
            }
            // Whatever could not be had before that section stays so, but for what ends with it.
            let next = zone.lowest_latent(&self.platform);
            self.populate_for(core, zone, &mut Told(&self.platform));
            let section = next.map_or(0, |next| frames_of(next).first().as_u64());
            from = Pfn::new(section.saturating_sub(wanted.frames.max(wanted.align)));
        }
    }

    /// Gives the blocks of a run back.
    pub(crate) fn release_run(&self, core: &Core, run: Exclusive) {
        let mut rest = Some(run);
        while let Some(run) = rest {
            let (block, more) = core.frames.first_block(run);
            self.release(block);
            rest = more;
        }
    }
}
