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

use crate::addr::{PhysAddr, PhysRange, to_count, to_index};
use crate::buddy::Gfp;
use crate::collections::Granules;
use crate::config::PAGE_SIZE;
use crate::platform::Platform;
use crate::slab::size_for;
use crate::sync::{SpinLock, rank};
use crate::system::{AllocError, FreeEarlyError, Home, Memory};

const PAGE: usize = to_index(PAGE_SIZE);

/// A page of the early heap.
#[repr(C, align(4096))]
struct EarlyPage(UnsafeCell<MaybeUninit<[u8; PAGE]>>);

impl EarlyPage {
    const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }
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

/// The memory behind `Box`, `Vec` and their kin: `kmalloc` of a kernel's [`Memory`], and `EARLY_PAGES` pages
/// of its own until that is up.
///
/// ```ignore
/// #[global_allocator]
/// static HEAP: KernelHeap<Kernel, 512> = KernelHeap::new(Kernel); // 2 MiB until memory is up
/// ```
///
/// Out of memory is a null pointer: `try_reserve` and its kin make an error of it, everything else calls the handler
/// of allocation errors. Whoever may sleep ([`Platform::may_sleep`]) waits for reclaim first. Alignments
/// up to 4 MiB are honoured (up to a page before memory is up). Nothing may be allocated or freed in an NMI.
///
/// # Invariants
/// The bytes of a granule that is taken belong to whoever has the block that it was taken for.
pub struct KernelHeap<H: Home, const EARLY_PAGES: usize> {
    pages: [EarlyPage; EARLY_PAGES],
    early: SpinLock<Granules<EARLY_PAGES>>,
    home: H,
}

// SAFETY: the bytes of the pages are reached by the owners of blocks only (the invariant); which those are is
// known under a lock.
unsafe impl<H: Home + Sync, const EARLY_PAGES: usize> Sync for KernelHeap<H, EARLY_PAGES> {}

impl<H: Home, const EARLY_PAGES: usize> KernelHeap<H, EARLY_PAGES> {
    /// A heap on the memory of `home`, which need not be up yet. Context: any.
    pub const fn new(home: H) -> Self {
        Self {
            pages: [const { EarlyPage::new() }; EARLY_PAGES],
            early: SpinLock::new(rank::EARLY_HEAP, Granules::new()),
            home,
        }
    }

    fn platform(&self) -> &H::P {
        self.home.memory().platform()
    }

    /// Where the kernel sees the early pages, which lie one after the other. Context: any.
    #[must_use]
    pub const fn early_pages(&self) -> NonNull<u8> {
        NonNull::from_ref(&self.pages).cast()
    }

    /// How full the early pages are. Context: any but NMI.
    #[must_use]
    pub fn early_usage(&self) -> EarlyHeapUsage {
        let (used_bytes, returned_bytes) = self.early.lock(self.platform()).used();
        EarlyHeapUsage {
            used_bytes,
            returned_bytes,
            size_bytes: EARLY_PAGES.saturating_mul(PAGE),
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
            let empty = self.early.lock(self.platform()).take_pages();
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
        offset.filter(|&offset| offset < EARLY_PAGES.saturating_mul(PAGE))
    }

    fn alloc_early(&self, layout: Layout) -> Option<NonNull<u8>> {
        let offset = self
            .early
            .lock(self.platform())
            .take(layout.size(), layout.align())?;
        // SAFETY: within the pages.
        Some(unsafe { self.early_pages().add(offset) })
    }

    fn give_early(&self, offset: Option<usize>, block: NonNull<u8>, layout: Layout) {
        let given = |offset| self.early.lock(self.platform()).give(offset, layout.size());
        if !offset.is_some_and(given) {
            self.home.memory().lose_object(block);
        }
    }

    /// Asks the way that the caller may: before memory is up, or where it is short.
    #[cold]
    #[inline(never)]
    fn alloc_again(&self, layout: Layout, wish: Gfp) -> *mut u8 {
        let memory = self.home.memory();
        let block = match memory.kmalloc_layout(layout, gfp_here(memory) | wish, None) {
            Err(AllocError::NotUp) => self.alloc_early(layout).inspect(|block| {
                if wish.contains(Gfp::ZERO) {
                    // SAFETY: the block was taken just now, and has that many bytes.
                    unsafe { block.write_bytes(0, layout.size()) };
                }
            }),
            found => found.ok(),
        };
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    #[cold]
    #[inline(never)]
    fn dealloc_early(&self, block: NonNull<u8>, layout: Layout) {
        self.give_early(self.early_offset(block), block, layout);
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
        let offset = self.early_offset(block);
        if let Some(offset) = offset {
            let sizes = (layout.size(), new_size);
            if self.early.lock(self.platform()).resize(offset, sizes) {
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

// SAFETY: blocks are what `kmalloc` hands out, or granules of the early pages: disjoint, as large and aligned as
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
            self.dealloc_early(block, layout);
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
        if self.early_offset(block).is_none() {
            let memory = self.home.memory();
            for gfp in [Gfp::NOWAIT, gfp_here(memory)] {
                let sizes = (layout.size(), size);
                // SAFETY: the caller owns the block, which has that many bytes.
                if let Ok(moved) = unsafe { memory.krealloc(block, sizes, gfp) } {
                    return moved.as_ptr();
                }
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
