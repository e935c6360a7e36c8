//! A lock whose waiters sleep.

use super::wait::WaitQueue;
use super::{Atomic, might_sleep};
use core::fmt;
use core::ops::{Deref, DerefMut};
use spin::mutex::spin::{SpinMutex, SpinMutexGuard};

/// A value for one thread at a time, which may sleep while it has it.
///
/// A thread that takes it twice waits for itself. Linux counterpart: `struct mutex`.
pub struct Mutex<T> {
    inner: SpinMutex<T>,
    waiters: WaitQueue,
}

/// Access to the value of a [`Mutex`].
#[must_use = "the mutex is let go when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    // Field order is drop order: it is free before the next one is woken.
    value: SpinMutexGuard<'a, T>,
    _next: WakeNext<'a>,
}

/// Wakes who has waited longest.
struct WakeNext<'a>(&'a WaitQueue);

impl Drop for WakeNext<'_> {
    fn drop(&mut self) {
        self.0.wake_one();
    }
}

impl<T> Mutex<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
            waiters: WaitQueue::new(),
        }
    }

    /// Takes it, asleep while another thread has it.
    ///
    /// # Errors
    /// The caller may not sleep.
    ///
    /// # Context
    /// Task.
    #[track_caller]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, Atomic> {
        might_sleep()?;
        loop {
            if let Some(guard) = self.try_lock() {
                return Ok(guard);
            }
            self.waiters.wait_until(|| !self.inner.is_locked())?;
        }
    }

    /// Takes it if it is free.
    ///
    /// # Context
    /// Task.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard {
            value: self.inner.try_lock()?,
            _next: WakeNext(&self.waiters),
        })
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("held", &self.inner.is_locked())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard").finish_non_exhaustive()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
