//! Areas by address (Linux: `vmalloc`, `vfree`), and as owning handles.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::slice;

use crate::addr::{VirtAddr, to_index};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;
use crate::kspace::{Area, AreaKind};
use crate::platform::{NodeId, Platform};
use crate::system::{Ask, Home, Memory, VmallocError};

/// An address is not that of an area of this kind that somebody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadVfree(pub VirtAddr);

impl fmt::Display for BadVfree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no area starts at {:?} that could be freed", self.0)
    }
}

impl core::error::Error for BadVfree {}

/// The usual request.
#[track_caller]
const fn ask(size: usize, gfp: Gfp) -> Ask {
    Ask {
        size,
        align: to_index(PAGE_SIZE),
        gfp,
        node: None,
        huge: false,
        kind: AreaKind::Vmalloc,
        place: Location::caller(),
    }
}

/// Where an area starts.
pub(super) fn start(area: &Area) -> Option<NonNull<u8>> {
    let start = to_index(area.start().as_u64());
    NonNull::new(with_exposed_provenance_mut(start))
}

impl<P: Platform> Memory<P> {
    /// Allocates `size` bytes that are contiguous in the kernel's addresses, in pages from anywhere, with a page behind
    /// them that is never mapped (Linux: `__vmalloc`). They hold anything, or zeroes with [`Gfp::ZERO`], and go back by
    /// [`Self::vfree`]. Context: task.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing is changed then.
    #[track_caller]
    pub fn vmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, VmallocError> {
        self.vmalloc_by(ask(size, gfp))
    }

    /// The same with zeroes (Linux: `vzalloc`). Context: task.
    ///
    /// # Errors
    /// As [`Self::vmalloc`].
    #[track_caller]
    pub fn vzalloc(&self, size: usize) -> Result<NonNull<u8>, VmallocError> {
        self.vmalloc_by(ask(size, Gfp::KERNEL.union(Gfp::ZERO)))
    }

    /// As [`Self::vmalloc`], with pages of a node, if it has any (Linux: `vmalloc_node`). Context: task.
    ///
    /// # Errors
    /// As [`Self::vmalloc`].
    #[track_caller]
    pub fn vmalloc_node(
        &self,
        size: usize,
        gfp: Gfp,
        node: NodeId,
    ) -> Result<NonNull<u8>, VmallocError> {
        let node = Some(node);
        self.vmalloc_by(Ask {
            node,
            ..ask(size, gfp)
        })
    }

    /// As [`Self::vmalloc`], in blocks of 2 MiB that are mapped as a whole, where there are any (Linux:
    /// `vmalloc_huge`). The area starts at a multiple of 2 MiB then. Context: task.
    ///
    /// # Errors
    /// As [`Self::vmalloc`].
    #[track_caller]
    pub fn vmalloc_huge(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, VmallocError> {
        let huge = true;
        self.vmalloc_by(Ask {
            huge,
            ..ask(size, gfp)
        })
    }

    /// As [`Self::vmalloc`], starting at a multiple of `align`, a power of two (Linux: `__vmalloc_node`). Context: task.
    ///
    /// # Errors
    /// As [`Self::vmalloc`].
    #[track_caller]
    pub fn vmalloc_align(
        &self,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, VmallocError> {
        self.vmalloc_by(Ask {
            align,
            ..ask(size, gfp)
        })
    }

    fn vmalloc_by(&self, ask: Ask) -> Result<NonNull<u8>, VmallocError> {
        let area = self.alloc_area(&ask)?;
        start(area).ok_or(VmallocError::NotUp)
    }

    /// Gives back what [`Self::vmalloc`] and its kin handed out (Linux: `vfree`, `vfree_atomic`). It is unmapped when this
    /// returns, or by the next purge if the caller may not sleep; its pages go back with that purge. Context: any but NMI.
    ///
    /// # Errors
    /// [`BadVfree`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the area, and nobody uses its bytes any more.
    pub unsafe fn vfree(&self, first: NonNull<u8>) -> Result<(), BadVfree> {
        self.end_by_address(first, AreaKind::Vmalloc)
    }
}

/// Bytes of `vmalloc` with an owner; they go back when the value is dropped.
///
/// # Invariants
/// It has the area, of `len` bytes at least, of `home`'s memory.
pub struct Vmalloc<H: Home> {
    area: &'static Area,
    first: NonNull<u8>,
    len: usize,
    home: H,
}

// SAFETY: it owns its bytes, and any CPU may give them back.
unsafe impl<H: Home + Send> Send for Vmalloc<H> {}
// SAFETY: sharing it shares the bytes, to be read.
unsafe impl<H: Home + Sync> Sync for Vmalloc<H> {}

impl<H: Home> Vmalloc<H> {
    /// Allocates `len` bytes: see [`Memory::vmalloc`]. Context: task.
    ///
    /// # Errors
    /// [`VmallocError`].
    #[track_caller]
    pub fn alloc(home: H, len: usize, gfp: Gfp) -> Result<Self, VmallocError> {
        Self::by(home, ask(len, gfp))
    }

    /// The same in blocks of 2 MiB: see [`Memory::vmalloc_huge`]. Context: task.
    ///
    /// # Errors
    /// [`VmallocError`].
    #[track_caller]
    pub fn alloc_huge(home: H, len: usize, gfp: Gfp) -> Result<Self, VmallocError> {
        let huge = true;
        Self::by(
            home,
            Ask {
                huge,
                ..ask(len, gfp)
            },
        )
    }

    fn by(home: H, ask: Ask) -> Result<Self, VmallocError> {
        let memory = home.memory();
        let area = memory.alloc_area(&ask)?;
        let first = start(area).ok_or(VmallocError::NotUp)?;
        let len = ask.size;
        // INVARIANT: it was made just now, and is mapped.
        Ok(Self {
            area,
            first,
            len,
            home,
        })
    }

    /// Where the first byte is. Context: any.
    #[must_use]
    pub const fn as_non_null(&self) -> NonNull<u8> {
        self.first
    }

    /// How many bytes there are. Context: any.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.len
    }

    /// Gives up the handle for an address, to be freed with [`Memory::vfree`]. Context: any.
    #[must_use = "the area leaks unless it is freed by address"]
    pub fn into_raw(self) -> NonNull<u8> {
        let first = self.first;
        core::mem::forget(self);
        first
    }
}

impl<H: Home> Deref for Vmalloc<H> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the invariant: the kernel's page tables lead from these addresses to RAM that is the area's
        // (the word of `adopt_kernel_space`).
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<H: Home> DerefMut for Vmalloc<H> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` is unique.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<H: Home> Drop for Vmalloc<H> {
    fn drop(&mut self) {
        // The area is this value's, so nobody else ends it.
        let _ = self.home.memory().end(self.area, AreaKind::Vmalloc);
    }
}

impl<H: Home> fmt::Debug for Vmalloc<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmalloc")
            .field("first", &self.first)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
