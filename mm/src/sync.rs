//! Locks, one-time cells, counters, and what each CPU has of its own.
//!
//! Lock order is drawn in [`rank`]. Everything here is usable before memory is up: const
//! constructors, no allocation.

mod once;
mod owner;
mod percpu;
mod presence;
pub mod rank;
mod refcount;
mod spin;

pub use once::{AlreadySet, Once};
pub use owner::OwnerCell;
pub use percpu::{PerCpu, Pin, Row, Shortcuts, Vacant};
pub use presence::{Presence, Seized, State as PresenceState};
pub use refcount::{Dropped, RefCount};
pub use spin::{IrqGuard, SpinLock};

/// The atomics that the algorithms use: `core`'s, or loom's when a model checker runs them.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence, fence,
    };
    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence,
    };

    /// Loom runs every context on a thread of its own and has no compiler fences.
    #[cfg(loom)]
    pub const fn compiler_fence(_: Ordering) {}
}
