//! Crates for kernels. None has a lock of its own; each gets one arena of the host's memory.
//!
//! Two more were tried and are not here: `slab_allocator` 0.3.5 builds with nightly compilers of 2019 only, and
//! `osdk-heap-allocator` stands on OSTD, which needs a nightly compiler and is a kernel's start itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{NonNull, null_mut, slice_from_raw_parts_mut};

use crate::contestants::{Contestant, Kind, Locked, Ops};

/// What arenas are aligned to: nobody has less of one because of where it lies.
const ALIGN: usize = 4 << 20;

/// So many bytes that nobody else uses, zeroed, never given back to the host: few are made.
pub(crate) fn arena(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes + ALIGN, 1).unwrap();
    // SAFETY: the size is not zero.
    let first = NonNull::new(unsafe { System.alloc_zeroed(layout) }).expect("the host has memory");
    // SAFETY: as many bytes more were allocated.
    unsafe { first.add(first.align_offset(ALIGN)) }
}

/// `linked_list_allocator`: one list of holes, first fit.
pub(crate) struct LinkedList(linked_list_allocator::Heap);

impl Ops for LinkedList {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.allocate_first_fit(layout).ok()
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.0.deallocate(object, layout) };
    }
}

impl Contestant for LinkedList {
    const NAME: &'static str = "linked_list_allocator";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        // SAFETY: nobody else uses the arena.
        Self(unsafe { linked_list_allocator::Heap::new(arena(bytes).as_ptr(), bytes) })
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// `talc`: boundary tags, lists by size.
pub(crate) struct Talc(talc::base::Talc<talc::source::Manual, talc::DefaultBinning>);

impl Ops for Talc {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no size of a workload is 0.
        unsafe { self.0.allocate(layout) }
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.0.deallocate(object.as_ptr(), layout) };
    }

    #[inline]
    fn resize(&mut self, object: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above; no size is 0.
        if unsafe { self.0.try_realloc_in_place(object.as_ptr(), layout, size) } {
            return Some(object);
        }
        let moved = self.alloc(Layout::from_size_align(size, layout.align()).ok()?)?;
        // SAFETY: both are that large, and different objects.
        unsafe { moved.copy_from_nonoverlapping(object, layout.size()) };
        self.free(object, layout);
        Some(moved)
    }
}

impl Contestant for Talc {
    const NAME: &'static str = "talc";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let mut talc = talc::base::Talc::new(talc::source::Manual);
        // SAFETY: nobody else uses the arena.
        unsafe { talc.claim(arena(bytes).as_ptr(), bytes) }.unwrap();
        Self(talc)
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// `buddy_system_allocator::Heap`: powers of two.
pub(crate) struct Buddy(buddy_system_allocator::Heap<32>);

impl Ops for Buddy {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.alloc(layout).ok()
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.0.dealloc(object, layout) };
    }
}

impl Contestant for Buddy {
    const NAME: &'static str = "buddy_system_allocator";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let mut heap = buddy_system_allocator::Heap::empty();
        let start = arena(bytes).as_ptr().expose_provenance();
        // SAFETY: nobody else uses the arena.
        unsafe { heap.add_to_heap(start, start + bytes) };
        Self(heap)
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// `rlsf`: two-level segregated fit.
pub(crate) struct Tlsf(rlsf::Tlsf<'static, u32, u32, 24, 32>);

impl Ops for Tlsf {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.allocate(layout)
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.0.deallocate(object, layout.align()) };
    }

    #[inline]
    fn resize(&mut self, object: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(size, layout.align()).ok()?;
        // SAFETY: as above; the alignment is what it was.
        unsafe { self.0.reallocate(object, layout) }
    }
}

impl Contestant for Tlsf {
    const NAME: &'static str = "rlsf";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let mut tlsf = rlsf::Tlsf::new();
        let whole = slice_from_raw_parts_mut(arena(bytes).as_ptr(), bytes);
        // SAFETY: nobody else uses the arena, which is never given back.
        unsafe { tlsf.insert_free_block_ptr(NonNull::new(whole).unwrap()) }.unwrap();
        Self(tlsf)
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// The system of a `dlmalloc` with one arena: it gives all of it away at once.
struct OneArena(Cell<Option<(NonNull<u8>, usize)>>);

// SAFETY: whoever has it owns the arena.
unsafe impl Send for OneArena {}

// SAFETY: it gives one region that nobody else uses, and takes none back.
unsafe impl dlmalloc::Allocator for OneArena {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        match self.0.take() {
            Some((first, bytes)) if size <= bytes => (first.as_ptr(), bytes, 0),
            _ => (null_mut(), 0, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// `dlmalloc`: Doug Lea's, boundary tags and bins.
pub(crate) struct Dlmalloc(dlmalloc::Dlmalloc<OneArena>);

impl Ops for Dlmalloc {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: it is used by one CPU at a time.
        NonNull::new(unsafe { self.0.malloc(layout.size(), layout.align()) })
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.0.free(object.as_ptr(), layout.size(), layout.align()) };
    }

    #[inline]
    fn resize(&mut self, object: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let (old, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        NonNull::new(unsafe { self.0.realloc(object.as_ptr(), old, align, size) })
    }
}

impl Contestant for Dlmalloc {
    const NAME: &'static str = "dlmalloc";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let system = OneArena(Cell::new(Some((arena(bytes), bytes))));
        Self(dlmalloc::Dlmalloc::new_with_allocator(system))
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// `ax_slab_allocator`: lists of objects of seven sizes, the rest from `buddy_system_allocator`.
pub(crate) struct AxSlab(ax_slab_allocator::Heap);

impl Ops for AxSlab {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let address = self.0.allocate(layout).ok()?;
        NonNull::new(std::ptr::with_exposed_provenance_mut(address))
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        let address = object.as_ptr().expose_provenance();
        // SAFETY: what the workloads promise.
        unsafe { self.0.deallocate(address, layout) };
    }
}

impl Contestant for AxSlab {
    const NAME: &'static str = "ax_slab_allocator";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let start = arena(bytes).as_ptr().expose_provenance();
        // SAFETY: nobody else uses the arena.
        Self(unsafe { ax_slab_allocator::Heap::new(start, bytes) })
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}
