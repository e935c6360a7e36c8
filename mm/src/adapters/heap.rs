//! Rust's `alloc` on `kmalloc`: a `#[global_allocator]` for kernels.
//!
//! Before memory is up, blocks come from a few pages that the heap brings with it; afterwards from caches and
//! pages. A block is where it is, so what is early is known by its address, and goes back to where it came
//! from whenever that is. The early pages that no block is in can be
//! [given to the page allocator](KernelHeap::give_back_early).

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};

use crate::addr::{PhysAddr, PhysRange, VirtAddr, to_count, to_index};
use crate::buddy::Gfp;
use crate::collections::Granules;
use crate::config::PAGE_SIZE;
use crate::platform::Platform;
use crate::slab::size_for;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{SpinLock, rank};
use crate::system::{FreeEarlyError, Home, Memory};

const PAGE: usize = to_index(PAGE_SIZE);

/// One of [`EarlyPages`].
#[repr(C, align(4096))]
struct EarlyPage(UnsafeCell<MaybeUninit<[u8; PAGE]>>);

/// Pages that a [`KernelHeap`] uses until memory is up: a static of its own, so that it takes no room in the
/// kernel's file. They serve the first heap that asks for them.
#[repr(C)]
pub struct EarlyPages<const PAGES: usize> {
    pages: [EarlyPage; PAGES],
    has_owner: AtomicBool,
}

// SAFETY: the pages' bytes are reached by the owners of blocks only, which the one heap that the pages serve
// keeps apart under a lock.
unsafe impl<const PAGES: usize> Sync for EarlyPages<PAGES> {}

impl<const PAGES: usize> EarlyPages<PAGES> {
    /// Pages that nobody uses. Context: any.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is a static")]
    pub const fn new() -> Self {
        Self {
            pages: [const { EarlyPage(UnsafeCell::new(MaybeUninit::uninit())) }; PAGES],
            has_owner: AtomicBool::new(false),
        }
    }
}

impl<const PAGES: usize> fmt::Debug for EarlyPages<PAGES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyPages")
            .field("has_owner", &self.has_owner)
            .finish_non_exhaustive()
    }
}

/// Which granules of the early pages are taken, by the heap that they serve.
#[derive(Debug)]
struct Early<const PAGES: usize> {
    granules: Granules<PAGES>,
    is_owner: bool,
}

/// How full the early heap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EarlyHeapUsage {
    /// Bytes in blocks, each rounded up to 64.
    pub used_bytes: usize,
    /// Bytes that were given to the page allocator.
    pub returned_bytes: usize,
    /// Bytes there were in the beginning.
    pub size_bytes: usize,
}

/// The memory behind `Box`, `Vec` and their kin: `kmalloc` of a kernel's [`Memory`], and [`EarlyPages`] until that
/// is up.
///
/// ```ignore
/// static EARLY: EarlyPages<512> = EarlyPages::new(); // 2 MiB until memory is up
/// #[global_allocator]
/// static HEAP: KernelHeap<Kernel, 512> = KernelHeap::new(Kernel, &EARLY);
/// ```
///
/// Out of memory is a null pointer: `try_reserve` and its kin make an error of it, everything else calls the handler
/// of allocation errors. Whoever may sleep ([`Platform::may_sleep`]) waits for reclaim first; what is larger than a page is made
/// of pages from anywhere then, where no contiguous ones are free ([`Memory::vmalloc`]). Alignments
/// up to 4 MiB are honoured (up to a page before memory is up). Nothing may be allocated or freed in an NMI.
///
/// # Invariants
/// The bytes of a granule that is taken belong to whoever has the block that it was taken for.
pub struct KernelHeap<H: Home, const EARLY_PAGES: usize> {
    pages: &'static EarlyPages<EARLY_PAGES>,
    early: SpinLock<Early<EARLY_PAGES>>,
    home: H,
}

impl<H: Home, const EARLY_PAGES: usize> KernelHeap<H, EARLY_PAGES> {
    /// A heap on the memory of `home`, which need not be up yet. Context: any.
    pub const fn new(home: H, pages: &'static EarlyPages<EARLY_PAGES>) -> Self {
        let early = Early {
            granules: Granules::new(),
            is_owner: false,
        };
        Self {
            pages,
            early: SpinLock::new(rank::EARLY_HEAP, early),
            home,
        }
    }

    /// Uses the early pages, if they are this heap's.
    fn with_early<R>(&self, f: impl FnOnce(&mut Granules<EARLY_PAGES>) -> R) -> Option<R> {
        let mut early = self.early.lock(self.platform());
        if !early.is_owner {
            early.is_owner = !self.pages.has_owner.swap(true, Ordering::Relaxed);
        }
        early.is_owner.then(|| f(&mut early.granules))
    }

    /// Bytes of the early pages.
    pub const EARLY_BYTES: usize = EARLY_PAGES.saturating_mul(PAGE);

    fn platform(&self) -> &H::P {
        self.home.memory().platform()
    }

    /// Where the kernel sees the early pages, which lie one after the other. Context: any.
    #[must_use]
    pub const fn early_pages(&self) -> NonNull<u8> {
        NonNull::from_ref(&self.pages.pages).cast()
    }

    /// How full the early pages are. Context: any but NMI.
    #[must_use]
    pub fn early_usage(&self) -> EarlyHeapUsage {
        let (used_bytes, returned_bytes) = self.early.lock(self.platform()).granules.used();
        EarlyHeapUsage {
            used_bytes,
            returned_bytes,
            size_bytes: Self::EARLY_BYTES,
        }
    }

    /// Gives the early pages that no block is in to the page allocator, and answers what is left. To be called
    /// once memory is up; and again when it is likely that more blocks are back. Context: task.
    ///
    /// # Errors
    /// [`FreeEarlyError`]; the pages that it is about are lost then, others may be left.
    ///
    /// # Safety
    ///
    /// 1. `first` is the physical address of [`Self::early_pages`], whose pages lie one after the other there too.
    /// 2. They were reserved when memory came up, and nobody else gives them away.
    pub unsafe fn give_back_early(
        &self,
        first: PhysAddr,
    ) -> Result<EarlyHeapUsage, FreeEarlyError> {
        let memory = self.home.memory();
        if !memory.is_up() {
            return Err(FreeEarlyError::NotUp);
        }
        loop {
            let empty = self.with_early(Granules::take_pages).flatten();
            let Some(empty) = empty else {
                return Ok(self.early_usage());
            };
            let bytes = |pages: usize| to_count(pages).saturating_mul(PAGE_SIZE);
            let start = first.saturating_add(bytes(empty.start));
            let range = PhysRange::from_size(start, bytes(empty.len()));
            // SAFETY: the caller's word (1, 2); no block is in them, nor will be.
            unsafe { memory.free_reserved_area(range) }?;
        }
    }

    /// Where in the early pages an address is.
    fn early_offset(&self, block: NonNull<u8>) -> Option<usize> {
        let offset = block
            .addr()
            .get()
            .checked_sub(self.early_pages().addr().get());
        offset.filter(|&offset| offset < Self::EARLY_BYTES)
    }

    /// The same of a block that is an early one. Pages that went to the page allocator may hold blocks of `kmalloc` at the
    /// same addresses, where the early pages are seen through the direct map.
    fn early_block(&self, block: NonNull<u8>) -> Option<usize> {
        let offset = self.early_offset(block)?;
        self.home.memory().ksize(block).is_none().then_some(offset)
    }

    fn alloc_early(&self, layout: Layout) -> Option<NonNull<u8>> {
        let take = |granules: &mut Granules<_>| granules.take(layout.size(), layout.align());
        let offset = self.with_early(take).flatten()?;
        // SAFETY: within the pages.
        Some(unsafe { self.early_pages().add(offset) })
    }

    fn give_early(&self, offset: Option<usize>, block: NonNull<u8>, layout: Layout) {
        let give = |offset| self.with_early(|granules| granules.give(offset, layout.size()));
        if offset.and_then(give) != Some(true) {
            self.home.memory().lose_object(block);
        }
    }

    /// Asks the way that the caller may: before memory is up, or where it is short.
    #[cold]
    #[inline(never)]
    fn alloc_again(&self, layout: Layout, wish: Gfp) -> *mut u8 {
        let memory = self.home.memory();
        let block = match memory.is_up() {
            true => memory
                .kmalloc_layout(layout, gfp_of(memory, layout.size()) | wish, None)
                .ok()
                .or_else(|| map_pages(memory, layout, wish)),
            false => self.alloc_early(layout).inspect(|block| {
                if wish.contains(Gfp::ZERO) {
                    // SAFETY: the block was taken just now, and has that many bytes.
                    unsafe { block.write_bytes(0, layout.size()) };
                }
            }),
        };
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    #[cold]
    #[inline(never)]
    fn dealloc_other(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller owned the block, and has given it up; what is no area is refused.
        if unsafe { self.home.memory().vfree(block) }.is_err() {
            self.give_early(self.early_offset(block), block, layout);
        }
    }

    /// Changes how many bytes a block has by moving it.
    ///
    /// # Safety
    ///
    /// As [`GlobalAlloc::realloc`].
    #[cold]
    #[inline(never)]
    unsafe fn move_block(&self, block: NonNull<u8>, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return null_mut();
        };
        if let Some(offset) = self.early_block(block) {
            let sizes = (layout.size(), new_size);
            if self.with_early(|granules| granules.resize(offset, sizes)) == Some(true) {
                return block.as_ptr();
            }
        }
        // SAFETY: the caller's word: the size is not zero.
        let Some(moved) = NonNull::new(unsafe { self.alloc(new) }) else {
            return null_mut();
        };
        let bytes = layout.size().min(new_size);
        // SAFETY: both are that large, and different blocks.
        unsafe { moved.copy_from_nonoverlapping(block, bytes) };
        // SAFETY: the caller gives it up.
        unsafe { self.dealloc(block.as_ptr(), layout) };
        moved.as_ptr()
    }
}

/// What a request may do where it comes from.
fn gfp_here<P: Platform>(memory: &Memory<P>) -> Gfp {
    match memory.platform().may_sleep() {
        true => Gfp::KERNEL,
        false => Gfp::ATOMIC,
    }
}

/// The same for a request that has another way: no need to reclaim for it, or to complain.
fn gfp_of<P: Platform>(memory: &Memory<P>, size: usize) -> Gfp {
    match can_map(memory, size) {
        true => Gfp::NOWAIT | Gfp::NOWARN,
        false => gfp_here(memory),
    }
}

/// Whether pages from anywhere would do for so many bytes.
fn can_map<P: Platform>(memory: &Memory<P>, size: usize) -> bool {
    size > PAGE && memory.has_areas() && memory.platform().may_sleep()
}

/// Pages from anywhere, for who may wait for them.
#[track_caller]
fn map_pages<P: Platform>(memory: &Memory<P>, layout: Layout, wish: Gfp) -> Option<NonNull<u8>> {
    let mapped = can_map(memory, layout.size())
        .then(|| memory.vmalloc_align(layout.size(), layout.align(), Gfp::KERNEL | wish));
    mapped?.ok()
}

// SAFETY: blocks are what `kmalloc` or `vmalloc` hand out, or granules of the early pages: disjoint, as large and aligned as
// the layout says. Nothing here unwinds.
unsafe impl<H: Home, const EARLY_PAGES: usize> GlobalAlloc for KernelHeap<H, EARLY_PAGES> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = self.home.memory();
        // What is at hand needs no answer to what the caller may do.
        match memory.kmalloc_layout(layout, Gfp::NOWAIT, None) {
            Ok(block) => block.as_ptr(),
            Err(_) => self.alloc_again(layout, Gfp::empty()),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: the caller owns the block, and gives it up; an early one is refused.
        if unsafe { self.home.memory().kfree(block) }.is_err() {
            self.dealloc_other(block, layout);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let memory = self.home.memory();
        match memory.kmalloc_layout(layout, Gfp::NOWAIT.union(Gfp::ZERO), None) {
            Ok(block) => block.as_ptr(),
            Err(_) => self.alloc_again(layout, Gfp::ZERO),
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(block) = NonNull::new(block) else {
            return null_mut();
        };
        let new = Layout::from_size_align(new_size, layout.align()).ok();
        let Some(size) = new.and_then(size_for) else {
            // SAFETY: the caller's word, passed on.
            return unsafe { self.move_block(block, layout, new_size) };
        };
        if self.early_block(block).is_none() {
            let memory = self.home.memory();
            let sizes = (layout.size(), size);
            let is_area = memory.is_vmalloc_addr(VirtAddr::from_ptr(block.as_ptr()));
            let ways = [Gfp::NOWAIT, gfp_of(memory, size)];
            for gfp in ways.into_iter().filter(|_| !is_area) {
                // SAFETY: the caller owns the block, which has that many bytes.
                if let Ok(moved) = unsafe { memory.krealloc(block, sizes, gfp) } {
                    return moved.as_ptr();
                }
            }
            if is_area || can_map(memory, size) {
                // SAFETY: as above.
                let moved = unsafe { memory.kvrealloc(block, sizes, gfp_here(memory)) };
                return moved.map_or(null_mut(), NonNull::as_ptr);
            }
            return null_mut();
        }
        // SAFETY: the caller's word, passed on.
        unsafe { self.move_block(block, layout, new_size) }
    }
}

impl<H: Home, const EARLY_PAGES: usize> fmt::Debug for KernelHeap<H, EARLY_PAGES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelHeap")
            .field("early", &self.early)
            .finish_non_exhaustive()
    }
}
