//! Locks, one-time cells and counters that know about interrupts and saturation.
//!
//! Lock order is drawn in [`rank`]. Everything here is usable before memory is up: const
//! constructors, no allocation.

mod once;
pub mod rank;
mod refcount;
mod spin;

pub use once::{AlreadySet, Once};
pub use refcount::{Dropped, RefCount};
pub use spin::{IrqGuard, SpinLock};

/// The atomics that the algorithms use: `core`'s, or loom's when a model checker runs them.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence,
    };
    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence,
    };
}
