//! A spin lock that keeps interrupts off while it is held.
//!
//! Whatever an interrupt handler may also take must be behind such a lock, or the handler would
//! spin on the CPU that holds it. Reports of a dying kernel use [`IrqLock::steal`]: a lock whose
//! holder will never run again must not silence them.

use super::irq::IrqGuard;
use super::local;
use core::fmt;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};
use spin::mutex::spin::{SpinMutex, SpinMutexGuard};

/// How often [`IrqLock::steal`] tries before it takes the lock from its holder.
const PATIENCE: u32 = 1_000_000;
/// No CPU has this number.
const NOBODY: u32 = u32::MAX;

/// A value behind a spin lock, held with interrupts off.
pub struct IrqLock<T> {
    inner: SpinMutex<T>,
    /// The CPU that has it; [`NOBODY`] if none has.
    holder: AtomicU32,
}

/// Access to the value of an [`IrqLock`].
#[must_use = "the lock is released when the guard is dropped"]
pub struct IrqLockGuard<'a, T> {
    // Field order is drop order: nobody is noted as holder when the lock gets free, and it is
    // free before interrupts can come back.
    _holder: Holder<'a>,
    value: SpinMutexGuard<'a, T>,
    _irq: IrqGuard,
}

/// Strikes the holder out.
struct Holder<'a>(&'a AtomicU32);

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        self.0.store(NOBODY, Ordering::Relaxed);
    }
}

impl<T> IrqLock<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
            holder: AtomicU32::new(NOBODY),
        }
    }

    /// Waits for the lock.
    ///
    /// # Context
    /// Task or interrupt; never from NMI, #DB or #MC, which may have interrupted the holder.
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let irq = IrqGuard::new();
        self.guard(self.inner.lock(), irq)
    }

    /// Waits for the lock, unless the code that was interrupted on this very CPU holds it.
    ///
    /// # Context
    /// Any but NMI and #MC.
    pub fn lock_unless_mine(&self) -> Option<IrqLockGuard<'_, T>> {
        let irq = IrqGuard::new();
        loop {
            if let Some(value) = self.inner.try_lock() {
                return Some(self.guard(value, irq));
            }
            // The holder notes itself after it has the lock and with interrupts off, so what is
            // read here is this CPU's number only if this CPU has it.
            if self.holder.load(Ordering::Relaxed) == local::current_id() {
                return None;
            }
            spin_loop();
        }
    }

    fn guard<'a>(&'a self, value: SpinMutexGuard<'a, T>, irq: IrqGuard) -> IrqLockGuard<'a, T> {
        self.holder.store(local::current_id(), Ordering::Relaxed);
        IrqLockGuard {
            _holder: Holder(&self.holder),
            value,
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
        Some(self.guard(value, irq))
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
