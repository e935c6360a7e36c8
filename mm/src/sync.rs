//! Locks, one-time cells, counters, and what each CPU has of its own.
//!
//! Lock order is drawn in [`rank`]. Everything here is usable before memory is up: const
//! constructors, no allocation.
//!
//! With `--cfg loom` the protocols between CPUs are built over loom's atomics and cells, to be
//! checked in every order that the memory model allows (`loom_tests`, run by `cargo test`). Cells that are filled
//! once are left out then.

mod bell;
pub mod grace;
#[cfg(not(loom))]
mod once;
mod owner;
mod percpu;
mod presence;
pub mod rank;
#[cfg(all(test, loom))]
pub(crate) mod recorded_for_tests;
mod refcount;
pub mod shootdown;
mod spin;
mod under_way;

pub use bell::Bell;
#[cfg(not(loom))]
pub use once::{AlreadySet, Once};
pub(crate) use owner::OwnerCell;
pub use percpu::Pin;
pub(crate) use percpu::{Anchors, Here, Owned, PerCpu, Resident, Row, Shortcuts, Vacant};
pub use presence::{Presence, Seized, State as PresenceState};
pub use refcount::{Dropped, RefCount};
pub use spin::{IrqGuard, SpinLock};
pub(crate) use under_way::{Line, Turns, UnderWay};

/// The atomics that the algorithms use: `core`'s, or loom's when a model checker runs them.
pub mod atomic {
    #[cfg(not(loom))]
    pub(crate) use core::hint::spin_loop;
    #[cfg(not(loom))]
    pub use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence, fence,
    };
    #[cfg(loom)]
    pub(crate) use loom::hint::spin_loop;
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

    #[cfg(all(test, loom))]
    pub use super::recorded_for_tests::{AtomicBool, compiler_fence};
}

/// The cell behind values that one context at a time uses: `core`'s, or loom's, which finds out
/// when two do.
pub(crate) mod cell {
    #[cfg(loom)]
    pub(crate) use loom::cell::{MutPtr, UnsafeCell};

    #[cfg(not(loom))]
    pub(crate) use self::plain::{MutPtr, UnsafeCell};

    #[cfg(not(loom))]
    mod plain {
        /// As `core`'s, by loom's names.
        pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

        /// A pointer into the cell.
        #[derive(Debug)]
        pub(crate) struct MutPtr<T>(*mut T);

        impl<T> UnsafeCell<T> {
            pub(crate) const fn new(value: T) -> Self {
                Self(core::cell::UnsafeCell::new(value))
            }

            /// A pointer to be written through, for as long as nobody else has one.
            #[inline(always)]
            pub(crate) const fn get_mut(&self) -> MutPtr<T> {
                MutPtr(self.0.get())
            }
        }

        impl<T> MutPtr<T> {
            /// The value.
            ///
            /// # Safety
            ///
            /// The cell lives, and nobody else has a reference to its value.
            #[inline(always)]
            #[expect(clippy::mut_from_ref, reason = "the caller's word; loom's signature")]
            pub(crate) const unsafe fn deref(&self) -> &mut T {
                // SAFETY: the caller's word.
                unsafe { &mut *self.0 }
            }
        }
    }
}
