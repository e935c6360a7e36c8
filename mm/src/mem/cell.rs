//! Single values in RAM from early allocation.

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::{Array, CarveError, EarlyRam};
use crate::platform::Platform;

/// One `T` in RAM that early allocation handed out; it owns that RAM.
pub struct EarlyBox<T: 'static>(Array<T>);

impl<T: 'static> EarlyBox<T> {
    /// Puts the value that `init` makes into `ram`. Context: boot or task.
    ///
    /// # Errors
    /// [`CarveError`] if the memory cannot hold it.
    pub fn carve<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        mut init: impl FnMut() -> T,
    ) -> Result<Self, CarveError> {
        Array::carve(platform, ram, 1, |_| init()).map(Self)
    }
}

impl<T> Deref for EarlyBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0[0]
    }
}

impl<T> DerefMut for EarlyBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

impl<T: fmt::Debug> fmt::Debug for EarlyBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
