//! A spin lock that keeps interrupts off while it is held.
//!
//! Whatever an interrupt handler may also take must be behind such a lock, or the handler would
//! spin on the CPU that holds it. Reports of a dying kernel use [`IrqLock::steal`]: a lock whose
//! holder will never run again must not silence them.

use super::irq::IrqGuard;
use core::fmt;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use spin::mutex::spin::{SpinMutex, SpinMutexGuard};

/// How often [`IrqLock::steal`] tries before it takes the lock from its holder.
const PATIENCE: u32 = 1_000_000;

/// A value behind a spin lock, held with interrupts off.
pub struct IrqLock<T> {
    inner: SpinMutex<T>,
}

/// Access to the value of an [`IrqLock`].
#[must_use = "the lock is released when the guard is dropped"]
pub struct IrqLockGuard<'a, T> {
    // Field order is drop order: the lock is free before interrupts can come back.
    value: SpinMutexGuard<'a, T>,
    _irq: IrqGuard,
}

impl<T> IrqLock<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
        }
    }

    /// Waits for the lock.
    ///
    /// # Context
    /// Task or interrupt; never from NMI, #DB or #MC, which may have interrupted the holder.
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let irq = IrqGuard::new();
        IrqLockGuard {
            value: self.inner.lock(),
            _irq: irq,
        }
    }

    /// Takes the lock if it is free.
    ///
    /// # Context
    /// Any.
    pub fn try_lock(&self) -> Option<IrqLockGuard<'_, T>> {
        let irq = IrqGuard::new();
        let value = self.inner.try_lock()?;
        Some(IrqLockGuard { value, _irq: irq })
    }

    /// Takes the lock, from its holder if need be.
    ///
    /// # Safety
    ///
    /// 1. The kernel is dying: a holder that the lock is taken from never runs on. (A holder on
    ///    another CPU gets a million tries' time to finish first.)
    /// 2. The value is usable in whatever state its holder left it.
    pub unsafe fn steal(&self) -> IrqLockGuard<'_, T> {
        for _ in 0..PATIENCE {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            spin_loop();
        }

        // SAFETY: the caller vouches that the holder never runs on (1).
        unsafe { self.inner.force_unlock() };
        self.lock()
    }
}

impl<T> fmt::Debug for IrqLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqLock")
            .field("held", &self.inner.is_locked())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for IrqLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqLockGuard").finish_non_exhaustive()
    }
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
