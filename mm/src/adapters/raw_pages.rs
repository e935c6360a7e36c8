//! Pages by number and by address (Linux: `free_pages`, `__get_free_pages`, …).

use core::fmt;
use core::ptr::NonNull;

use crate::addr::{Order, Pfn, VirtAddr};
use crate::buddy::{Gfp, Told, Trace};
use crate::frame::{FreeError, PutOutcome, Reference};
use crate::platform::Platform;
use crate::report::Corruption;
use crate::system::{AllocError, Block, Home, Memory};

/// Why pages could not be had by address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GetPagesError {
    /// The allocation itself failed.
    Alloc(AllocError),
    /// The platform does not reach the pages; they were given back.
    Unreachable,
}

impl fmt::Display for GetPagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => error.fmt(f),
            Self::Unreachable => f.write_str("the platform does not reach the pages"),
        }
    }
}

impl core::error::Error for GetPagesError {}

impl<P: Platform> Memory<P> {
    /// Gives back what [`Memory::alloc_pages`] gave out (Linux: `__free_pages`). Context: any but NMI.
    ///
    /// # Errors
    /// [`FreeError`] says what the number stands for instead; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the block as a raw number and nobody uses its bytes any more. (What is refused is diagnosis: a
    /// block that was handed out again meanwhile is not told from the one meant, and of two CPUs that free one block at
    /// the same moment one is sure to be refused in the profile `debug` only.)
    #[inline(always)]
    pub unsafe fn free_pages(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        // SAFETY: the caller's word, passed on.
        unsafe { self.free_pages_traced(pfn, order, &mut Told(self.platform())) }
    }

    /// As [`Memory::free_pages`], telling `trace` every step. Context: any but NMI.
    ///
    /// # Errors
    /// As [`Memory::free_pages`].
    ///
    /// # Safety
    /// As [`Memory::free_pages`].
    #[inline(always)]
    pub unsafe fn free_pages_traced(
        &self,
        pfn: Pfn,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller owns the block and gives it up.
        self.release_offer(|frames| unsafe { frames.offer::<P>(pfn) }, order, trace)
    }

    /// As [`Memory::free_pages`], for pages that are not likely to be in this CPU's cache (Linux 2.6:
    /// `free_cold_page`). It makes a difference with `percpu_pagelists=classic` only. Context:
    /// any but NMI.
    ///
    /// # Errors
    /// As [`Memory::free_pages`].
    ///
    /// # Safety
    /// As [`Memory::free_pages`].
    pub unsafe fn free_pages_cold(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let core = self.core().ok_or(FreeError::NotPresent)?;
        // SAFETY: the caller owns the block and gives it up.
        let offer = unsafe { core.frames.offer_by_section(pfn) }.ok_or(FreeError::NotPresent)?;
        self.release_cold(core, offer, order)
    }

    /// As [`Memory::free_pages`] without waiting for anybody (Linux: `free_pages_nolock`): where the
    /// lists of this CPU are in use and the zone is locked, the block is left for whoever may wait. Context: any, NMI
    /// included.
    ///
    /// # Errors
    /// As [`Memory::free_pages`].
    ///
    /// # Safety
    /// As [`Memory::free_pages`].
    pub unsafe fn free_pages_nolock(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let core = self.core().ok_or(FreeError::NotPresent)?;
        // SAFETY: the caller owns the block and gives it up.
        let offer = unsafe { core.frames.offer_by_section(pfn) }.ok_or(FreeError::NotPresent)?;
        self.release_nolock(core, offer, order)
    }

    /// Gives back every page in `pages` and empties the places (Linux: `free_pages_bulk`). They go
    /// onto this CPU's lists all at once; without lists, under one hold of the zone's lock for as
    /// many neighbours in the list as are of one zone, 64 at most. Context: any but NMI.
    ///
    /// # Errors
    /// The first [`FreeError`] with its place; the pages before it were freed.
    ///
    /// # Safety
    /// As [`Memory::free_pages`], for each.
    pub unsafe fn free_pages_bulk(
        &self,
        pages: &mut [Option<Pfn>],
    ) -> Result<(), (usize, FreeError)> {
        // SAFETY: the caller's word, passed on; that a page is in the list twice is found out
        // before it is free twice.
        self.free_list(pages, |table, pfn| unsafe { table.offer::<P>(pfn) })
    }

    /// Allocates pages and answers their address (Linux: `__get_free_pages`). Pages that the
    /// kernel does not reach directly are never asked for. Context: as [`Memory::alloc_block`].
    ///
    /// # Errors
    /// [`GetPagesError`].
    #[track_caller]
    pub fn get_free_pages(&self, gfp: Gfp, order: Order) -> Result<NonNull<u8>, GetPagesError> {
        let gfp = gfp.difference(Gfp::HIGHMEM);
        let block = self.alloc_block(gfp, order).map_err(GetPagesError::Alloc)?;
        let address = block.as_ptr().ok_or(GetPagesError::Unreachable)?;
        let _ = block.into_raw();
        Ok(address)
    }

    /// Allocates one zeroed page and answers its address (Linux: `get_zeroed_page`).
    /// Context: as [`Memory::alloc_block`].
    ///
    /// # Errors
    /// [`GetPagesError`].
    #[track_caller]
    pub fn get_zeroed_page(&self, gfp: Gfp) -> Result<NonNull<u8>, GetPagesError> {
        self.get_free_pages(gfp.union(Gfp::ZERO), Order::ZERO)
    }

    /// Allocates pages below 16 MiB and answers their address (Linux: `__get_dma_pages`).
    /// Context: as [`Memory::alloc_block`].
    ///
    /// # Errors
    /// [`GetPagesError`].
    #[track_caller]
    pub fn get_dma_pages(&self, gfp: Gfp, order: Order) -> Result<NonNull<u8>, GetPagesError> {
        self.get_free_pages(gfp.union(Gfp::DMA), order)
    }

    /// Gives back pages by address (Linux: `free_pages`). Context: any but NMI.
    ///
    /// # Errors
    /// As [`Memory::free_pages`]; an address outside the direct map is not present.
    ///
    /// # Safety
    /// As [`Memory::free_pages`].
    pub unsafe fn free_pages_at(
        &self,
        address: NonNull<u8>,
        order: Order,
    ) -> Result<(), FreeError> {
        let address = VirtAddr::from_ptr(address.as_ptr());
        let phys = self
            .platform()
            .virt_to_phys(address)
            .ok_or(FreeError::NotPresent)?;
        if !phys.is_aligned(order.bytes()) {
            return Err(FreeError::Misaligned);
        }
        // SAFETY: the caller's word, passed on.
        unsafe { self.free_pages(phys.frame(), order) }
    }

    /// Takes a reference to a shared block, found by any of its frames (Linux:
    /// `get_page_unless_zero`). Answers the block's first frame, which stands for the reference,
    /// or `None` if it is not shared or going away. Context: any.
    #[must_use = "the reference leaks unless it is put"]
    pub fn get_page(&self, pfn: Pfn) -> Option<Pfn> {
        Some(self.frames()?.try_get(pfn)?.into_raw())
    }

    /// Drops a reference by number; the last one frees the block (Linux: `put_page`). Context: any but NMI.
    ///
    /// # Errors
    /// [`Corruption`] if the block is not shared; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller holds a reference to the block that starts at `pfn`, as a number.
    pub unsafe fn put_page(&self, pfn: Pfn) -> Result<(), Corruption> {
        let missing = Corruption::BadRecord {
            pfn,
            word: 0,
            check: crate::report::Check::State,
        };
        let table = self.frames().ok_or(missing)?;
        // SAFETY: the caller's word, passed on.
        let reference = unsafe { Reference::from_raw(pfn) };
        match table.put(reference)? {
            PutOutcome::Shared => {}
            PutOutcome::Last(block) => self.release(block),
        }
        Ok(())
    }
}

impl<H: Home> Block<H> {
    /// Turns the raw number of a block back into an owning handle: the counterpart of
    /// [`Block::into_raw`]. Context: any.
    ///
    /// # Errors
    /// As [`Memory::free_pages`].
    ///
    /// # Safety
    /// The caller owns the block of the home's memory as a raw number, and gives that up.
    pub unsafe fn from_raw(home: H, pfn: Pfn, order: Order) -> Result<Self, FreeError> {
        let table = home.memory().frames().ok_or(FreeError::NotPresent)?;
        // SAFETY: the caller's word, passed on.
        let block = unsafe { table.reclaim(pfn, order) }?;
        Ok(Self::new(block, home))
    }
}
