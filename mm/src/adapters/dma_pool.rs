//! Pools of small buffers for devices (Linux: `dma_pool`).
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::KBytes;
use crate::addr::{PhysAddr, VirtAddr, to_count, to_index};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;
use crate::platform::Platform;
use crate::slab::{CacheError, CacheStats, Reach, ShapeError, SlabFlags, Wish};
use crate::system::{AllocError, DmaRequest, Home, KmemCache};

/// Buffers of one size that a device can reach, and that are smaller than pages: a cache of its own, whose slabs lie where
/// the device reaches them.
pub struct DmaPool<H: Home> {
    cache: KmemCache<H>,
}

impl<H: Home> DmaPool<H> {
    /// A pool of buffers that are all as `request` says (Linux: `dma_pool_create`), aligned to 8 bytes at least, and to
    /// a page at most. The name is for people; 31 bytes of it are kept. Context: task.
    ///
    /// # Errors
    /// [`CacheError`]: [`ShapeError::Align`] also for a boundary that is no power of two, and
    /// [`ShapeError::TooLarge`] for one that is smaller than a buffer.
    pub fn create(home: H, name: &str, request: DmaRequest) -> Result<Self, CacheError> {
        let (size, boundary) = (to_index(request.bytes()), request.boundary_bytes());
        if boundary != 0 && !boundary.is_power_of_two() {
            return Err(CacheError::Shape(ShapeError::Align));
        }
        if boundary != 0 && boundary < request.bytes() {
            return Err(CacheError::Shape(ShapeError::TooLarge));
        }
        let mut align = to_index(request.align_bytes());
        if boundary != 0 && boundary < PAGE_SIZE {
            // Each in a cell of its own, of which a whole number lies between two boundaries.
            align = align.max(size.next_power_of_two());
        }
        let mut wish = Wish::new(name, (size, align), SlabFlags::NO_MERGE);
        wish.reach = Reach {
            mask: request.mask(),
            boundary,
        };
        let cache = KmemCache::made(home, wish)?;
        Ok(Self { cache })
    }

    /// Allocates a buffer (Linux: `dma_pool_alloc`, and `dma_pool_zalloc` with [`Gfp::ZERO`]). Context: as the flags
    /// say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc(&self, gfp: Gfp) -> Result<DmaBytes<H>, AllocError> {
        let bytes = self.cache.alloc_bytes(gfp)?;
        Ok(DmaBytes { bytes })
    }

    /// The pool in numbers. Context: any but NMI.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Ends the pool (Linux: `dma_pool_destroy`). Context: task.
    ///
    /// # Errors
    /// How many buffers are in use; the pool goes on as before.
    pub fn destroy(self) -> Result<(), (u64, Self)> {
        self.cache.destroy().map_err(|refused| {
            let cache = refused.cache;
            (refused.objects, Self { cache })
        })
    }
}

impl<H: Home> fmt::Debug for DmaPool<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DmaPool").field(&self.cache).finish()
    }
}

/// A buffer of a pool; dropping it frees it. The device must be done with it by then.
pub struct DmaBytes<H: Home> {
    bytes: KBytes<H>,
}

impl<H: Home> DmaBytes<H> {
    /// Where the device finds it. Context: any.
    #[must_use]
    pub fn addr(&self) -> PhysAddr {
        let first = VirtAddr::from_ptr(self.bytes.as_non_null().as_ptr());
        let home = self.bytes.home();
        let platform = home.memory().platform();
        platform.virt_to_phys(first).unwrap_or_default()
    }
}

impl<H: Home> Deref for DmaBytes<H> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<H: Home> DerefMut for DmaBytes<H> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl<H: Home> fmt::Debug for DmaBytes<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBytes")
            .field("addr", &self.addr())
            .field("len", &to_count(self.len()))
            .finish_non_exhaustive()
    }
}
