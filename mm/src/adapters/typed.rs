//! Caches of values: objects as owning handles.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{self, ManuallyDrop};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::buddy::Gfp;
use crate::slab::{CacheError, CacheStats, SlabFlags};
use crate::system::{AllocError, Home, KmemCache};

/// A cache for values of one type (Linux: `KMEM_CACHE`). Values are handed out as [`CacheBox`]es, which know
/// their way back: they may outlive this handle.
pub struct TypedCache<T, H: Home> {
    raw: KmemCache<H>,
    home: H,
    values: PhantomData<fn() -> T>,
}

/// There is no object for a value.
pub struct NoRoom<T> {
    /// Why.
    pub error: AllocError,
    /// The value.
    pub value: T,
}

impl<T> fmt::Debug for NoRoom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoRoom")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for NoRoom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> core::error::Error for NoRoom<T> {}

impl<T, H: Home> TypedCache<T, H> {
    /// A cache for values of type `T`, with its size and alignment. Context: task.
    ///
    /// # Errors
    /// [`CacheError`]: for types without size, too.
    ///
    /// # Panics
    /// Instead, with [`SlabFlags::PANIC`].
    pub fn create(home: H, name: &str, flags: SlabFlags) -> Result<Self, CacheError> {
        let layout = (size_of::<T>(), align_of::<T>());
        Ok(Self {
            raw: KmemCache::create(home, name, layout, flags)?,
            home,
            values: PhantomData,
        })
    }

    /// Puts a value into an object of the cache. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`NoRoom`], with the value.
    #[track_caller]
    pub fn try_new(&self, value: T, gfp: Gfp) -> Result<CacheBox<T, H>, NoRoom<T>> {
        match self.raw.alloc(gfp.difference(Gfp::ZERO)) {
            Ok(object) => Ok(self.filled(object, value)),
            Err(error) => Err(NoRoom { error, value }),
        }
    }

    /// The same with a value that is made only if there is an object for it. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn try_new_with(
        &self,
        gfp: Gfp,
        make: impl FnOnce() -> T,
    ) -> Result<CacheBox<T, H>, AllocError> {
        let object = self.raw.alloc(gfp.difference(Gfp::ZERO))?;
        // If `make` unwinds, the object stays taken: nothing is freed that may be used.
        Ok(self.filled(object, make()))
    }

    #[inline]
    fn filled(&self, object: NonNull<u8>, value: T) -> CacheBox<T, H> {
        let value_at = object.cast::<T>();
        // SAFETY: the cache was made for values of this size and alignment, and the object is ours.
        unsafe { value_at.write(value) };
        // INVARIANT: just written.
        CacheBox {
            value: value_at,
            home: self.home,
            owns: PhantomData,
        }
    }

    /// The cache in numbers. Context: any but NMI.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.raw.stats()
    }

    /// Gives empty slabs to the page allocator: see [`KmemCache::shrink`]. Context: task.
    pub fn shrink(&self) -> u64 {
        self.raw.shrink()
    }

    /// Ends the cache: see [`KmemCache::destroy`]. Context: task.
    ///
    /// # Errors
    /// How many values are alive; the cache goes on as before.
    pub fn destroy(self) -> Result<(), (u64, Self)> {
        let home = self.home;
        let values = PhantomData;
        self.raw.destroy().map_err(|refused| {
            let raw = refused.cache;
            (refused.objects, Self { raw, home, values })
        })
    }
}

impl<T, H: Home> fmt::Debug for TypedCache<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedCache").field(&self.raw).finish()
    }
}

/// A value in an object of a cache; dropping it drops the value and frees the object. It is as large as a
/// pointer where its home is a kernel's static.
///
/// # Invariants
/// `value` is in an object that a cache of `home`'s memory handed out for values of this type, and nobody else has.
pub struct CacheBox<T, H: Home> {
    value: NonNull<T>,
    home: H,
    owns: PhantomData<T>,
}

// SAFETY: it owns its value, and any CPU may free the object.
unsafe impl<T: Send, H: Home + Send> Send for CacheBox<T, H> {}
// SAFETY: sharing it shares the value.
unsafe impl<T: Sync, H: Home + Sync> Sync for CacheBox<T, H> {}

impl<T, H: Home> CacheBox<T, H> {
    /// Takes the value out, and frees the object. Context: any but NMI.
    pub fn into_inner(self) -> T {
        let this = ManuallyDrop::new(self);
        // SAFETY: the invariant; it is not used again.
        let value = unsafe { this.value.read() };
        this.free();
        value
    }

    /// Gives up the handle for a pointer, to be given back with [`Self::from_raw`]. Context: any.
    #[must_use = "the value leaks unless it is made a handle again"]
    pub fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).value
    }

    /// The handle again. Context: any.
    ///
    /// # Safety
    ///
    /// `value` came from [`Self::into_raw`] of a handle with the same home, and nobody made it a handle since.
    pub const unsafe fn from_raw(home: H, value: NonNull<T>) -> Self {
        // INVARIANT: the caller's word.
        Self {
            value,
            home,
            owns: PhantomData,
        }
    }

    /// Frees the object, whose value is gone.
    fn free(&self) {
        let (memory, object) = (self.home.memory(), self.value.cast());
        // SAFETY: the invariant; the handle is not used after this.
        if unsafe { memory.kfree(object) }.is_err() {
            memory.lose_object(object);
        }
    }
}

impl<T, H: Home> Deref for CacheBox<T, H> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { self.value.as_ref() }
    }
}

impl<T, H: Home> DerefMut for CacheBox<T, H> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant; `&mut self` is unique.
        unsafe { self.value.as_mut() }
    }
}

impl<T, H: Home> Drop for CacheBox<T, H> {
    fn drop(&mut self) {
        if mem::needs_drop::<T>() {
            // SAFETY: the invariant; the value is not used again.
            unsafe { self.value.drop_in_place() };
        }
        self.free();
    }
}

impl<T: fmt::Debug, H: Home> fmt::Debug for CacheBox<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
