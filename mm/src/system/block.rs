//! An owned block of pages.
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::held::Held;
use super::{AllocError, Destructor, Home, SharedBlock};
use crate::addr::{Order, Pfn, PfnRange};
use crate::buddy::{Gfp, Request, Told, Trace};
use crate::frame::{Frame, PageFlags};
use crate::mem::Exclusive;

/// An exclusively owned, naturally aligned run of `1 << order` frames; dropping it returns them
/// to `home`.
///
/// ```compile_fail
/// fn clone<H: mm::system::Home>(block: mm::system::Block<H>) {
///     let twin = block.clone(); // a right to memory cannot be copied
/// }
/// ```
#[must_use = "dropping a block returns it to its zone"]
pub struct Block<H: Home> {
    held: Held<H>,
}

impl<H: Home> Block<H> {
    pub(crate) const fn new(frames: Exclusive, home: H) -> Self {
        Self {
            held: Held::new(frames, home),
        }
    }

    /// Allocates `2^order` contiguous, naturally aligned pages from the memory of `home`.
    /// Context: as [`Memory::alloc_block`](super::Memory::alloc_block).
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn alloc(home: H, gfp: Gfp, order: Order) -> Result<Self, AllocError> {
        Self::alloc_traced(home, gfp, order, &mut Told(home.memory().platform()))
    }

    /// Allocates as [`Self::alloc`], and tells `trace` every step, some of them with a zone's
    /// lock held: the tracer must not come back here.
    /// Context: as [`Memory::alloc_block`](super::Memory::alloc_block).
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn alloc_traced(
        home: H,
        gfp: Gfp,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<Self, AllocError> {
        let request = Request::new(gfp, order)?;
        let frames = home.memory().alloc_request(&request, trace)?;
        Ok(Self::new(frames, home))
    }

    /// Sets flags; answers those that were set before. Context: any.
    pub fn set_flags(&self, flags: PageFlags) -> PageFlags {
        self.record()
            .map_or(PageFlags::empty(), |frame| frame.set_flags(flags))
    }

    /// Clears flags; answers those that were set before. Context: any.
    pub fn clear_flags(&self, flags: PageFlags) -> PageFlags {
        self.record()
            .map_or(PageFlags::empty(), |frame| frame.clear_flags(flags))
    }

    /// Sets one flag; answers whether it was set before. Context: any.
    pub fn test_and_set(&self, flag: PageFlags) -> bool {
        self.record().is_some_and(|frame| frame.test_and_set(flag))
    }

    /// Whether all of `flags` are set. Context: any.
    #[must_use]
    pub fn test(&self, flags: PageFlags) -> bool {
        self.record().is_some_and(|frame| frame.test(flags))
    }

    /// Stores the owner's word (Linux: `set_page_private`). Context: any.
    pub fn set_private(&self, value: u64) {
        if let Some(frame) = self.record() {
            frame.set_private(value);
        }
    }

    /// The block's record.
    fn record(&self) -> Option<&Frame> {
        self.held.home.memory().frames()?.frame(self.pfn())
    }

    /// Which frames. Context: any.
    #[must_use]
    pub fn frames(&self) -> PfnRange {
        self.held.frames()
    }

    /// The first frame. Context: any.
    #[must_use]
    pub fn pfn(&self) -> Pfn {
        self.frames().first()
    }

    /// log2 of the number of frames. Context: any.
    #[must_use]
    pub fn order(&self) -> Order {
        Order::at_most(self.frames().frames(), Order::MAX)
    }

    /// Where the kernel reaches the first byte. Writing through it is the caller's affair, as
    /// long as the block lives. Context: any.
    #[must_use]
    pub fn as_ptr(&self) -> Option<NonNull<u8>> {
        self.held.as_ptr()
    }

    /// The bytes; empty if the platform does not reach them. Context: any.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.held.bytes()
    }

    /// The bytes, to be written; empty if the platform does not reach them. Context: any.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.held.bytes_mut()
    }

    /// Gives up the handle for a plain frame number, to be freed with
    /// [`Memory::free_pages`](super::Memory::free_pages). Context: any.
    #[must_use = "the pages leak unless they are freed by number"]
    pub fn into_raw(mut self) -> Pfn {
        self.held
            .take()
            .map_or(Pfn::ZERO, |frames| frames.leak().first())
    }

    /// Takes the handle apart.
    pub(crate) fn into_parts(mut self) -> (Option<Exclusive>, H) {
        (self.held.take(), self.held.home)
    }

    /// Makes the block reference-counted (Linux: what `get_page` presumes). Context: any.
    ///
    /// # Errors
    /// The block, if its record was damaged.
    pub fn share(self) -> Result<SharedBlock<H>, Self> {
        self.share_with()
    }

    /// As [`Self::share`], with another destructor: `D` gets the block back when the last reference
    /// is dropped. (A reference that is dropped [by number](super::Memory::put_page) knows of none.)
    /// Context: any.
    ///
    /// # Errors
    /// The block, if its record was damaged.
    pub fn share_with<D: Destructor<H>>(mut self) -> Result<SharedBlock<H, D>, Self> {
        let home = self.held.home;
        let order = self.order();
        let (Some(frames), Some(table)) = (self.held.take(), home.memory().frames()) else {
            return Err(self);
        };
        match table.share(frames) {
            Ok(reference) => Ok(SharedBlock::new(reference, order, home)),
            Err(frames) => Err(Self::new(frames, home)),
        }
    }
}

impl<H: Home> Drop for Block<H> {
    fn drop(&mut self) {
        if let Some(frames) = self.held.take() {
            self.held.home.memory().release(frames);
        }
    }
}

impl<H: Home> fmt::Debug for Block<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("pfn", &self.pfn())
            .field("order", &self.order())
            .finish_non_exhaustive()
    }
}
