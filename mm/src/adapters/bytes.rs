//! Bytes with an owner: the safe way to `kmalloc`.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use crate::buddy::{Gfp, Trace};
use crate::system::{AllocError, Home, KmemCache};

/// Bytes of `kmalloc` or of a cache, which go back when the value is dropped, on whatever CPU.
///
/// # Invariants
/// `len` bytes start at `first`, which `kmalloc` or a cache of `home`'s memory handed out, and nobody else has.
pub struct KBytes<H: Home> {
    first: NonNull<u8>,
    len: usize,
    home: H,
}

// SAFETY: it owns its bytes, and any CPU may free them.
unsafe impl<H: Home + Send> Send for KBytes<H> {}
// SAFETY: sharing it shares the bytes, to be read.
unsafe impl<H: Home + Sync> Sync for KBytes<H> {}

impl<H: Home> KBytes<H> {
    /// Allocates `len` bytes (see [`Memory::kmalloc`](crate::system::Memory::kmalloc)). They hold anything, or
    /// zeroes with [`Gfp::ZERO`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc(home: H, len: usize, gfp: Gfp) -> Result<Self, AllocError> {
        let first = home.memory().kmalloc(len, gfp)?;
        Ok(Self { first, len, home })
    }

    /// Allocates as [`Self::alloc`], and tells `trace` every step (see
    /// [`Memory::kmalloc_traced`](crate::system::Memory::kmalloc_traced)). Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn alloc_traced(
        home: H,
        len: usize,
        gfp: Gfp,
        trace: &mut impl Trace,
    ) -> Result<Self, AllocError> {
        let first = home.memory().kmalloc_traced(len, gfp, trace)?;
        Ok(Self { first, len, home })
    }

    /// Where it goes back to.
    pub(super) const fn home(&self) -> H {
        self.home
    }

    /// Where the first byte is. Context: any.
    #[must_use]
    pub const fn as_non_null(&self) -> NonNull<u8> {
        self.first
    }

    /// How many bytes there really are (Linux: `ksize`). Context: any but NMI.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.home.memory().ksize(self.first).unwrap_or(self.len)
    }
}

impl<H: Home> KmemCache<H> {
    /// Allocates an object as bytes with an owner: the safe way to a cache of its own. They hold anything, or zeroes
    /// with [`Gfp::ZERO`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn alloc_bytes(&self, gfp: Gfp) -> Result<KBytes<H>, AllocError> {
        let cache = self.memory().caches().and_then(|all| all.get(self.id()));
        let shape = cache.and_then(|cache| cache.shape());
        let len = shape.ok_or(AllocError::NotUp)?.size();
        let first = self.alloc(gfp)?;
        let home = self.home();
        // INVARIANT: the cache handed it out just now, and that is how large its objects are.
        Ok(KBytes { first, len, home })
    }
}

impl<H: Home> Deref for KBytes<H> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the invariant; RAM always holds some byte values.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<H: Home> DerefMut for KBytes<H> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` is unique.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<H: Home> Drop for KBytes<H> {
    fn drop(&mut self) {
        let memory = self.home.memory();
        // SAFETY: the invariant; the value is gone after this.
        if unsafe { memory.kfree(self.first) }.is_err() {
            memory.lose_object(self.first);
        }
    }
}

impl<H: Home> fmt::Debug for KBytes<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KBytes")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
