//! Spin locks that own their data and mask interrupts while held.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use super::atomic::{AtomicBool, Ordering, spin_loop};
use crate::platform::{IrqState, LockClass, Platform};

/// A lock around `T`. Holding it masks interrupts on this CPU, so that an interrupt handler
/// that wants the same lock cannot spin on its own CPU for ever.
///
/// NMI handlers use [`SpinLock::try_lock`] only.
pub struct SpinLock<T> {
    locked: AtomicBool,
    class: LockClass,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out `&mut T` to one holder at a time, so sharing it needs `T: Send` only.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked lock of `class` around `value`.
    #[cfg(not(loom))]
    pub const fn new(class: LockClass, value: T) -> Self {
        Self {
            locked: AtomicBool::new(false),
            class,
            value: UnsafeCell::new(value),
        }
    }

    /// The same for models, whose flags have no constant constructors.
    #[cfg(loom)]
    pub fn new(class: LockClass, value: T) -> Self {
        Self {
            locked: AtomicBool::new(false),
            class,
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, spinning while another CPU has it. Context: task, atomic or irq; not NMI.
    #[inline]
    pub fn lock<'a, P: Platform>(&'a self, platform: &'a P) -> IrqGuard<'a, T, P> {
        let irq = platform.irq_save();
        while self
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.locked.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
        if P::PROFILE.is_debug() {
            platform.lock_acquired(self.class);
        }
        self.guard(platform, irq)
    }

    /// Takes the lock if it is free. Context: any.
    #[inline]
    pub fn try_lock<'a, P: Platform>(&'a self, platform: &'a P) -> Option<IrqGuard<'a, T, P>> {
        let irq = platform.irq_save();
        if self
            .locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            platform.irq_restore(irq);
            return None;
        }
        if P::PROFILE.is_debug() {
            platform.lock_tried(self.class);
        }
        Some(self.guard(platform, irq))
    }

    const fn guard<'a, P: Platform>(
        &'a self,
        platform: &'a P,
        irq: IrqState,
    ) -> IrqGuard<'a, T, P> {
        IrqGuard {
            lock: self,
            platform,
            irq,
            _not_send: PhantomData,
        }
    }

    /// The value, without locking: `&mut self` proves that nobody else is there.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock")
            .field("class", &self.class)
            .field("locked", &self.locked)
            .finish_non_exhaustive()
    }
}

/// The right to use what a [`SpinLock`] owns; interrupts are masked until it is dropped.
#[must_use = "the lock is let go when the guard is dropped"]
pub struct IrqGuard<'a, T, P: Platform> {
    lock: &'a SpinLock<T>,
    platform: &'a P,
    irq: IrqState,
    /// Interrupts are masked on this CPU, so the guard must not move to another.
    _not_send: PhantomData<*mut T>,
}

// SAFETY: sharing a guard shares `&T` and nothing else.
unsafe impl<T: Sync, P: Platform> Sync for IrqGuard<'_, T, P> {}

impl<T, P: Platform> Deref for IrqGuard<'_, T, P> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while `locked` is ours.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, P: Platform> DerefMut for IrqGuard<'_, T, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while `locked` is ours, and `&mut self` is unique.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, P: Platform> Drop for IrqGuard<'_, T, P> {
    #[inline]
    fn drop(&mut self) {
        if P::PROFILE.is_debug() {
            self.platform.lock_released(self.lock.class);
        }
        self.lock.locked.store(false, Ordering::Release);
        self.platform.irq_restore(self.irq);
    }
}

impl<T: fmt::Debug, P: Platform> fmt::Debug for IrqGuard<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
