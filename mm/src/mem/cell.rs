//! Single values in RAM from early allocation.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::{Array, CarveError, EarlyRam};
use crate::platform::Platform;

/// One `T` in RAM that early allocation handed out; it owns that RAM.
///
/// # Invariants
/// Points at an initialised `T` that nobody else refers to.
pub struct EarlyBox<T: 'static>(NonNull<T>);

// SAFETY: an `EarlyBox` owns its value like a `Box` does.
unsafe impl<T: Send> Send for EarlyBox<T> {}
// SAFETY: sharing an `EarlyBox` shares its value and nothing else.
unsafe impl<T: Sync> Sync for EarlyBox<T> {}

impl<T: 'static> EarlyBox<T> {
    /// Puts the value that `init` makes into `ram`. Context: boot or task.
    ///
    /// # Errors
    /// [`CarveError`] if the memory cannot hold it.
    pub(crate) fn carve<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        mut init: impl FnMut() -> T,
    ) -> Result<Self, CarveError> {
        let mut array = Array::carve(platform, ram, 1, |_| init())?;
        // INVARIANT: the array's only element; its memory is never given back, since the array
        // itself is forgotten here (it has no destructor).
        Ok(Self(NonNull::from(&mut array[0])))
    }
}

impl<T> Deref for EarlyBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `EarlyBox`'s invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for EarlyBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `EarlyBox`'s invariant; `&mut self` makes this the only reference.
        unsafe { self.0.as_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for EarlyBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
