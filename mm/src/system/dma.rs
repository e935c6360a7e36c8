//! Memory that devices can reach (Linux: `dma_alloc_coherent`, without an IOMMU: what a device sees are physical
//! addresses).
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::run::{Origin, PageRun};
use super::{AllocError, Core, Home, Memory};
use crate::addr::{Order, Pfn, PfnRange, PhysAddr, to_index};
use crate::buddy::{Gfp, Request, Told};
use crate::config::PAGE_SIZE;
use crate::frame::FrameState;
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Free blocks that are tried one after the other where a zone gives none below a mask.
const TRIES: usize = 16;
/// The last address of the DMA32 zone, …
const DMA32_MASK: u64 = (1 << 32) - 1;
/// … and of the DMA zone.
const DMA_MASK: u64 = (1 << 24) - 1;

/// A buffer as a device wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaRequest {
    bytes: u64,
    mask: u64,
    align: u64,
    boundary: u64,
}

impl DmaRequest {
    /// So many bytes, anywhere. Context: any.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self {
            bytes,
            mask: u64::MAX,
            align: 1,
            boundary: 0,
        }
    }

    /// The device reaches addresses of so many bits (Linux: `DMA_BIT_MASK`). Context: any.
    #[must_use]
    pub const fn bits(mut self, bits: u32) -> Self {
        self.mask = match 1_u64.checked_shl(bits) {
            Some(size) => size.wrapping_sub(1),
            None => u64::MAX,
        };
        self
    }

    /// The buffer starts at a multiple of so many bytes. Context: any.
    #[must_use]
    pub const fn align(mut self, bytes: u64) -> Self {
        self.align = bytes;
        self
    }

    /// The buffer does not lie across a multiple of so many bytes. Context: any.
    #[must_use]
    pub const fn boundary(mut self, bytes: u64) -> Self {
        self.boundary = bytes;
        self
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn boundary_bytes(&self) -> u64 {
        self.boundary
    }

    /// The alignment that was asked for.
    pub(crate) const fn align_bytes(&self) -> u64 {
        self.align
    }

    /// The highest address that the device reaches.
    pub(crate) const fn mask(&self) -> u64 {
        self.mask
    }

    /// The order of a block that can hold it. Blocks lie at multiples of their size, so no such block lies
    /// across a boundary that is no smaller than the buffer.
    fn order(&self) -> Result<Order, DmaError> {
        if self.bytes == 0 {
            return Err(DmaError::Empty);
        }
        if !self.align.is_power_of_two() {
            return Err(DmaError::Align);
        }
        if self.boundary != 0 && (!self.boundary.is_power_of_two() || self.boundary < self.bytes) {
            return Err(DmaError::Boundary);
        }
        Order::for_bytes(self.bytes.max(self.align)).ok_or(DmaError::TooLarge)
    }
}

/// Why there is no such buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaError {
    /// Nothing was asked for.
    Empty,
    /// It would be larger than the largest block of pages, or start at multiples of more than that.
    TooLarge,
    /// The alignment is no power of two.
    Align,
    /// The boundary is no power of two, or smaller than the buffer.
    Boundary,
    /// There is no memory that the device reaches.
    Alloc(AllocError),
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing was asked for"),
            Self::TooLarge => f.write_str("larger than the largest block"),
            Self::Align => f.write_str("the alignment is no power of two"),
            Self::Boundary => f.write_str("the boundary is no power of two from the size on"),
            Self::Alloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DmaError {}

impl From<AllocError> for DmaError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

/// A buffer that a device can reach; dropping it frees it (Linux: `dma_free_coherent`). The device must be done with
/// it by then. While the device writes, look at it through [`Self::as_ptr`], volatile: the slice is for when it
/// does not.
#[must_use = "dropping a buffer frees it"]
pub struct DmaBuffer<H: Home> {
    run: PageRun<H>,
    bytes: usize,
}

impl<H: Home> DmaBuffer<H> {
    /// Allocates a buffer, zeroed. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn alloc(home: H, request: DmaRequest, gfp: Gfp) -> Result<Self, DmaError> {
        let memory = home.memory();
        let core = memory.core().ok_or(AllocError::NotUp)?;
        let order = request.order()?;
        let block = memory.alloc_below(core, (gfp | Gfp::ZERO, order), request.mask)?;
        let pages = request.bytes.div_ceil(PAGE_SIZE);
        let end = block.frames().first().saturating_add(pages);
        let mut used = block;
        if pages < order.frames() {
            // Alignment may ask for more than is needed.
            let (first, spare) = core.frames.carve_up(used, end);
            drop(PageRun::new(spare, home, Origin::Zone));
            used = first;
        }
        Ok(Self {
            run: PageRun::new(used, home, Origin::Zone),
            bytes: to_index(request.bytes),
        })
    }

    /// Where the device finds it. Context: any.
    #[must_use]
    pub fn addr(&self) -> PhysAddr {
        self.run.frames().addrs().start()
    }

    /// Where the kernel reaches the first byte. Context: any.
    #[must_use]
    pub fn as_ptr(&self) -> Option<NonNull<u8>> {
        self.run.as_ptr()
    }
}

impl<H: Home> Deref for DmaBuffer<H> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.run.bytes().get(..self.bytes).unwrap_or_default()
    }
}

impl<H: Home> DerefMut for DmaBuffer<H> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = self.run.bytes_mut();
        bytes.get_mut(..self.bytes).unwrap_or_default()
    }
}

impl<H: Home> fmt::Debug for DmaBuffer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuffer")
            .field("addr", &self.addr())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Memory<P> {
    /// Allocates a buffer that a device can reach, zeroed (Linux: `dma_alloc_coherent`). With
    /// [`Gfp::DIRECT_RECLAIM`], free memory that the device reaches is found wherever it is; without, only if the
    /// zones give it. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn dma_alloc(&self, request: DmaRequest, gfp: Gfp) -> Result<DmaBuffer<&Self>, DmaError> {
        DmaBuffer::alloc(self, request, gfp)
    }

    /// A block whose last byte is not above `mask`. The widest zone that may have one is asked first, so that
    /// the narrow ones are left to those who need them (Linux: `dma_direct_alloc`).
    pub(super) fn alloc_below(
        &self,
        core: &Core,
        (gfp, order): (Gfp, Order),
        mask: u64,
    ) -> Result<Exclusive, AllocError> {
        let place = Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::ACCOUNT;
        let plain = gfp.difference(place | Gfp::ZERO | Gfp::NOFAIL) | Gfp::NOWARN;
        let mut block = self.block_below(core, (plain, order), mask)?;
        if gfp.contains(Gfp::ZERO) {
            block.zero(&self.platform);
        }
        Ok(block)
    }

    fn block_below(
        &self,
        core: &Core,
        (gfp, order): (Gfp, Order),
        mask: u64,
    ) -> Result<Exclusive, AllocError> {
        let ends = self.zones().filter(|zone| zone.is_managed());
        let end = ends.map(|zone| zone.span().end()).max();
        let reaches_all = end.unwrap_or_default().addr().as_u64() <= mask;
        let asks = [
            (reaches_all || mask > DMA32_MASK, Gfp::empty()),
            (!reaches_all && mask > DMA_MASK, Gfp::DMA32),
            (!reaches_all, Gfp::DMA),
        ];
        let mut error = AllocError::OutOfMemory;
        for (_, zone) in asks.into_iter().filter(|(is_useful, _)| *is_useful) {
            let request = Request::new(gfp | zone, order)?;
            match self.alloc_request(&request, &mut Told(&self.platform)) {
                Ok(block) if is_below(block.frames(), mask) => return Ok(block),
                Ok(block) => self.release(block),
                Err(found) => error = found,
            }
        }
        let may_wait = gfp.contains(Gfp::DIRECT_RECLAIM) && self.platform.may_sleep();
        let found = (may_wait && !reaches_all).then(|| self.search_below(core, (gfp, order), mask));
        found.flatten().ok_or(error)
    }

    /// Looks for a free block below an address, from there downwards, and takes it. Context: task.
    #[cold]
    fn search_below(
        &self,
        core: &Core,
        (gfp, order): (Gfp, Order),
        mask: u64,
    ) -> Option<Exclusive> {
        // What CPUs have at hand is not seen as free.
        self.drain_all_pages();
        let top = Pfn::new(mask.checked_add(1).map_or(u64::MAX, |end| end / PAGE_SIZE));
        let mut tries = TRIES;
        let mut zones = self.zones().filter(|zone| zone.is_managed());
        zones.find_map(|zone| {
            let span = zone.span();
            let mut end = span.end().min(top).align_down(order);
            while let Some(first) = end.as_u64().checked_sub(order.frames()).map(Pfn::new) {
                if first < span.first() || tries == 0 {
                    return None;
                }
                end = first;
                let range = PfnRange::block(first, order);
                if !is_free(core, range) && !self.is_latent(first) {
                    continue;
                }
                tries = tries.saturating_sub(1);
                let found = self.alloc_contig_range(range, gfp).ok();
                if let Some(frames) = found.and_then(PageRun::into_frames) {
                    return Some(frames);
                }
            }
            None
        })
    }
}

/// Whether a block reaches no further than a mask.
fn is_below(frames: PfnRange, mask: u64) -> bool {
    let end = frames.end().addr().as_u64();
    end.saturating_sub(1) <= mask
}

/// Whether a range is a part of a free block, or was when it was looked at.
fn is_free(core: &Core, range: PfnRange) -> bool {
    let head = core.frames.head(range.first());
    head.is_some_and(|head| {
        let word = head.frame().word();
        let block = PfnRange::block(head.pfn(), word.order());
        word.is(FrameState::Free) && block.covers(range)
    })
}
