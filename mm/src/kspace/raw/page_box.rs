//! A value in a page of its own.

use core::fmt;
use core::mem::{align_of, needs_drop, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::addr::to_index;
use crate::config::PAGE_SIZE;
use crate::mem::Exclusive;
use crate::platform::Platform;

/// One `T` in a page that this owns.
///
/// # Invariants
/// `value` points at an initialised `T` in `page`, which nobody else refers to.
pub(crate) struct PageBox<T> {
    value: NonNull<T>,
    page: Exclusive,
}

// SAFETY: it owns its value like a `Box` does.
unsafe impl<T: Send> Send for PageBox<T> {}
// SAFETY: sharing it shares the value and nothing else.
unsafe impl<T: Sync> Sync for PageBox<T> {}

impl<T> PageBox<T> {
    /// Puts the value that `make` makes into a page.
    ///
    /// # Errors
    /// The page, if the platform does not reach it.
    pub(crate) fn new<P: Platform>(
        platform: &P,
        page: Exclusive,
        make: impl FnOnce() -> T,
    ) -> Result<Self, Exclusive> {
        const {
            assert!(size_of::<T>() <= to_index(PAGE_SIZE) && align_of::<T>() <= 64);
            assert!(!needs_drop::<T>(), "values are forgotten, not dropped");
        }
        let Some(value) = page.as_ptr(platform).map(NonNull::cast::<T>) else {
            return Err(page);
        };
        // SAFETY: the token makes the page ours alone, the platform says it is RAM that can be written
        // (Platform 1), and a page is large and aligned enough (checked above).
        unsafe { value.write(make()) };
        // INVARIANT: just written; the token is kept.
        Ok(Self { value, page })
    }

    /// Takes the value out, and the page.
    pub(crate) const fn into_parts(self) -> (T, Exclusive) {
        // SAFETY: the invariant; the place is not used again.
        let value = unsafe { self.value.read() };
        (value, self.page)
    }
}

impl<T> Deref for PageBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for PageBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant; `&mut self` is unique.
        unsafe { self.value.as_mut() }
    }
}

impl<T> fmt::Debug for PageBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBox")
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}
