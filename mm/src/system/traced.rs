//! `kmalloc` that tells what it does.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::{AllocError, Memory};
use crate::buddy::{Gfp, Trace};
use crate::platform::Platform;
use crate::slab::Ask;

impl<P: Platform> Memory<P> {
    /// Allocates as [`Self::kmalloc`] does, and tells `trace` every step, some of them with a zone's lock held:
    /// the tracer must not come back here. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn kmalloc_traced(
        &self,
        size: usize,
        gfp: Gfp,
        trace: &mut impl Trace,
    ) -> Result<NonNull<u8>, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        match core.caches.kmalloc(size, gfp) {
            Some(cache) => self.alloc_object(core, cache, (gfp, None), (Ask::bytes(size), trace)),
            None => self.kmalloc_pages(core, size, (gfp, None), trace),
        }
    }
}
