//! A cell that is filled once and read without a lock ever after.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;

use super::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const FILLING: u8 = 1;
const READY: u8 = 2;

/// The cell was filled before; the value comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadySet<T>(pub T);

/// A cell that is filled at most once.
///
/// # Invariants
/// `state == READY` exactly if `value` is initialised and will never change again.
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: readers share `&T` (`T: Sync`), and the value may be filled from another thread (`T: Send`).
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: AtomicU8::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if the cell was filled. Context: any.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        // SAFETY: READY is stored only after the value was written, and never left again.
        let value = unsafe { &*self.value.get() };
        // SAFETY: `Once`'s invariant.
        Some(unsafe { value.assume_init_ref() })
    }

    /// Fills the cell. Context: any.
    ///
    /// # Errors
    /// [`AlreadySet`] with the value if the cell is full, or somebody is filling it right now.
    pub fn set(&self, value: T) -> Result<&T, AlreadySet<T>> {
        if !self.begin() {
            return Err(AlreadySet(value));
        }
        Ok(self.fill(value))
    }

    /// Fills the cell with what `make` makes, if it makes anything; `make` is called by one at a time, and not any more when
    /// the cell is full. Answers what is there then: nothing, if somebody else is filling it. Context: any.
    pub fn get_or_make(&self, make: impl FnOnce() -> Option<T>) -> Option<&T> {
        if !self.begin() {
            return self.get();
        }
        let made = make();
        if made.is_none() {
            self.state.store(EMPTY, Ordering::Release);
        }
        made.map(|value| self.fill(value))
    }

    /// Whether it is this caller's to fill the cell.
    fn begin(&self) -> bool {
        self.state
            .compare_exchange(EMPTY, FILLING, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Fills the cell. Context: after [`Self::begin`] said so.
    fn fill(&self, value: T) -> &T {
        // SAFETY: FILLING is reached by one at a time, so we are the only ones at the value.
        let slot = unsafe { &mut *self.value.get() };
        let value = slot.write(value);
        // INVARIANT: the value was written just above.
        self.state.store(READY, Ordering::Release);
        value
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Acquire) == READY {
            // SAFETY: READY means initialised, and `&mut self` means nobody reads any more.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Once<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Once").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_value_comes_back() {
        let once = Once::new();
        assert_eq!(once.get(), None);
        assert_eq!(once.set(1), Ok(&1));
        assert_eq!(once.set(2), Err(AlreadySet(2)));
        assert_eq!(once.get(), Some(&1));
    }
}
