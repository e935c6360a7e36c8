//! Elements of pools with a reserve.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use crate::system::{Elements, Mempool};

/// An element of a [`Mempool`], which gets it back when this is dropped (Linux: `mempool_free`).
pub struct Pooled<'p, E: Elements, const N: usize> {
    /// It is there until this is dropped.
    element: ManuallyDrop<E::Element>,
    pool: &'p Mempool<E, N>,
}

impl<'p, E: Elements, const N: usize> Pooled<'p, E, N> {
    pub(crate) const fn new(element: E::Element, pool: &'p Mempool<E, N>) -> Self {
        Self {
            element: ManuallyDrop::new(element),
            pool,
        }
    }
}

impl<E: Elements, const N: usize> Deref for Pooled<'_, E, N> {
    type Target = E::Element;

    fn deref(&self) -> &E::Element {
        &self.element
    }
}

impl<E: Elements, const N: usize> DerefMut for Pooled<'_, E, N> {
    fn deref_mut(&mut self) -> &mut E::Element {
        &mut self.element
    }
}

impl<E: Elements, const N: usize> Drop for Pooled<'_, E, N> {
    fn drop(&mut self) {
        // SAFETY: only here, and it is not used again.
        let element = unsafe { ManuallyDrop::take(&mut self.element) };
        self.pool.put(element);
    }
}

impl<E: Elements<Element: fmt::Debug>, const N: usize> fmt::Debug for Pooled<'_, E, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&*self.element).finish()
    }
}
