//! `kmalloc` for collections that take an allocator, by the `allocator-api2` crate.

use core::alloc::Layout;
use core::ptr::{NonNull, slice_from_raw_parts_mut};

use allocator_api2::alloc::{AllocError, Allocator};

use crate::buddy::Gfp;
use crate::platform::NodeId;
use crate::slab::size_for;
use crate::system::Home;

/// Allocates by `kmalloc`, with a request of its own choice, and if need be from a node: for
/// `allocator_api2::vec::Vec`, `hashbrown::HashMap` and whatever else takes an allocator.
///
/// ```ignore
/// let atomic = KmallocIn::new(Kernel, Gfp::ATOMIC);
/// let mut names = hashbrown::HashMap::with_hasher_in(hasher, atomic);
/// let near = allocator_api2::vec::Vec::<u64, _>::new_in(KmallocIn::new(Kernel, Gfp::KERNEL).on(NodeId(1)));
/// ```
///
/// What was allocated by one value may be freed by another one of the same home.
#[derive(Clone, Copy, Debug)]
pub struct KmallocIn<H: Home> {
    home: H,
    gfp: Gfp,
    node: Option<NodeId>,
}

impl<H: Home> KmallocIn<H> {
    /// Requests to the memory of `home` are made with `gfp`. Context: any.
    pub const fn new(home: H, gfp: Gfp) -> Self {
        Self {
            home,
            gfp,
            node: None,
        }
    }

    /// The same, from a node's memory: if there is any, or only there with [`Gfp::THISNODE`]. Context: any.
    #[must_use]
    pub const fn on(self, node: NodeId) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    fn request(&self, layout: Layout, wish: Gfp) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(NonNull::slice_from_raw_parts(layout.dangling_ptr(), 0));
        }
        let memory = self.home.memory();
        let block = memory.kmalloc_layout(layout, self.gfp | wish, self.node);
        let block = block.map_err(|_| AllocError)?;
        sized(block, layout.size())
    }

    /// Changes how many bytes a block has.
    ///
    /// # Safety
    ///
    /// As [`Allocator::grow`] or [`Allocator::shrink`].
    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        (old, new): (Layout, Layout),
        wish: Gfp,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // `krealloc` knows neither alignments nor nodes: what it moves has those that `size_for` brings.
        let stays = old.size() > 0 && new.size() > 0 && self.node.is_none();
        let stays = stays && block.addr().get().is_multiple_of(new.align());
        if let Some(size) = size_for(new).filter(|_| stays) {
            let (memory, sizes) = (self.home.memory(), (old.size(), size));
            // SAFETY: the caller owns the block, which has that many bytes.
            let moved = unsafe { memory.krealloc(block, sizes, self.gfp | wish) };
            return sized(moved.map_err(|_| AllocError)?, new.size());
        }
        let moved = self.request(new, wish)?;
        let bytes = old.size().min(new.size());
        // SAFETY: both are that large, and different blocks, or nothing is copied.
        unsafe { moved.cast::<u8>().copy_from_nonoverlapping(block, bytes) };
        // SAFETY: the caller gives it up.
        unsafe { self.deallocate(block, old) };
        Ok(moved)
    }
}

/// A block of which the caller may use so many bytes.
fn sized(block: NonNull<u8>, size: usize) -> Result<NonNull<[u8]>, AllocError> {
    NonNull::new(slice_from_raw_parts_mut(block.as_ptr(), size)).ok_or(AllocError)
}

// SAFETY: blocks are what `kmalloc` hands out, as large and aligned as the layout says, until they are freed; copies
// of the value have the same home.
unsafe impl<H: Home> Allocator for KmallocIn<H> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.request(layout, Gfp::empty())
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.request(layout, Gfp::ZERO)
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        let memory = self.home.memory();
        // SAFETY: the caller owns the block, and gives it up.
        if layout.size() > 0 && unsafe { memory.kfree(block) }.is_err() {
            memory.lose_object(block);
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's word, passed on.
        unsafe { self.resize(block, (old, new), Gfp::empty()) }
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's word, passed on.
        unsafe { self.resize(block, (old, new), Gfp::ZERO) }
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's word, passed on.
        unsafe { self.resize(block, (old, new), Gfp::empty()) }
    }
}
