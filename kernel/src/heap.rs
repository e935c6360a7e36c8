//! The early heap: `alloc`'s memory until `kmalloc` takes over.
//!
//! A first-fit list over a static area, behind a lock that keeps interrupts off. Out of memory is
//! a null pointer, which `try_reserve` turns into an error and `Vec::push` into an orderly panic.
#![expect(
    unsafe_code,
    reason = "`GlobalAlloc` is an unsafe trait: this is the one place that implements it"
)]

use crate::arch::lock::IrqLock;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use linked_list_allocator::Heap;

/// Size of the early heap.
pub const EARLY_HEAP_BYTES: usize = 2 * 1024 * 1024;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap {
    heap: IrqLock::new(Heap::empty()),
};

static AREA: Area = Area(UnsafeCell::new(MaybeUninit::uninit()));

/// The memory behind the early heap.
#[repr(C, align(4096))]
struct Area(UnsafeCell<MaybeUninit<[u8; EARLY_HEAP_BYTES]>>);

// SAFETY: only `KernelHeap::init` takes its address, once, and hands it to the heap for good.
unsafe impl Sync for Area {}

/// The allocator `alloc` uses.
struct KernelHeap {
    heap: IrqLock<Heap>,
}

/// How full the early heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes allocated, with what alignment costs.
    pub used_bytes: usize,
    /// Bytes there are.
    pub size_bytes: usize,
}

/// Gives the heap its memory. Before this, every allocation fails.
pub(crate) fn init() {
    let mut heap = HEAP.heap.lock();
    if !heap.bottom().is_null() {
        return;
    }
    // SAFETY: the heap is empty (checked above, under its lock), and the area is static and used
    // for nothing else.
    unsafe { heap.init(AREA.0.get().cast(), EARLY_HEAP_BYTES) };
}

/// How full the early heap is now.
#[must_use]
pub fn usage() -> Usage {
    let heap = HEAP.heap.lock();
    Usage {
        used_bytes: heap.used(),
        size_bytes: heap.size(),
    }
}

// SAFETY: blocks come from one `Heap` behind a lock, which gives out disjoint blocks that fit the
// layout; an allocator must not unwind, and this kernel never does.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.heap.lock().allocate_first_fit(layout);
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got `block` from `alloc` with this layout.
            unsafe { self.heap.lock().deallocate(block, layout) };
        }
    }
}
