//! Data of one CPU that its owner uses without a lock.
//!
//! # Protocol
//!
//! The owner enters: pins itself, looks at `busy`, sets it, uses the value, clears it, and then
//! looks at `drain_wanted`. All of it with plain loads and stores, since a pin leaves only
//! contexts that *nest* on the same CPU (interrupts, NMI, exceptions): they come and are gone
//! again between two instructions of the owner, like a signal handler on a thread. Compiler fences
//! keep the use of the value between the two stores; the CPU sees its own stores in order. A
//! nested context that finds `busy` set does without the value.
//!
//! Other CPUs never touch the value while its owner runs. They set `drain_wanted` and have the
//! owner look; or they win the owner's [`Presence`](super::Presence) while it is away.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::atomic::{AtomicBool, Ordering, compiler_fence};
use super::cell::{MutPtr, UnsafeCell};

/// A value that belongs to one CPU, and `S` beside it, which everybody may look at.
///
/// # Invariants
/// While `busy` is set, one `Entered` exists, through which alone `value` is reached.
#[repr(C, align(64))]
pub(crate) struct OwnerCell<T, S = ()> {
    // First: what an index finds at its start is at a multiple from the start of the cell.
    value: UnsafeCell<T>,
    busy: AtomicBool,
    drain_wanted: AtomicBool,
    shared: S,
}

// SAFETY: the value is reached by one context at a time, on whatever CPU, so `T: Send` is enough.
unsafe impl<T: Send, S: Sync> Sync for OwnerCell<T, S> {}

impl<T, S> OwnerCell<T, S> {
    /// A cell around `value`.
    pub(crate) fn new(value: T, shared: S) -> Self {
        Self {
            busy: AtomicBool::new(false),
            drain_wanted: AtomicBool::new(false),
            shared,
            value: UnsafeCell::new(value),
        }
    }

    /// A cell that nobody gets into: it stands for none.
    #[cfg(not(loom))]
    pub(crate) const fn vacant(value: T, shared: S) -> Self {
        // INVARIANT: `busy` for ever, and no `Entered`: the value is out of reach.
        Self {
            busy: AtomicBool::new(true),
            drain_wanted: AtomicBool::new(false),
            shared,
            value: UnsafeCell::new(value),
        }
    }

    /// Enters, unless the code that this context interrupted is in there.
    ///
    /// # Safety
    ///
    /// Until the answer is dropped, the caller is pinned to the CPU that owns the cell; or it has
    /// won the hand-over of that CPU, which keeps away from the cell meanwhile. Either way it
    /// neither sleeps nor gives the answer to another thread.
    #[inline(always)]
    pub(crate) unsafe fn enter(&self) -> Option<Entered<'_, T, S>> {
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // INVARIANT: `busy` was clear, so nobody has a reference, and is set now: contexts that
        // nest on this CPU see that, and others stay away (the caller's word).
        Some(Entered {
            cell: self,
            value: ManuallyDrop::new(self.value.get_mut()),
            _not_send: PhantomData,
        })
    }

    /// What everybody may look at. Context: any CPU.
    #[inline]
    pub(crate) const fn shared(&self) -> &S {
        &self.shared
    }

    /// Asks the owner to drain. Context: any CPU.
    pub(crate) fn want_drain(&self) {
        // Not a store: what the caller did before (it closed the lists) must not be seen later than this.
        self.drain_wanted.swap(true, Ordering::AcqRel);
    }

    /// Whether somebody asked, and was not served yet. Context: any CPU.
    #[inline]
    pub(crate) fn is_drain_wanted(&self) -> bool {
        self.drain_wanted.load(Ordering::Relaxed)
    }

    /// Whether the drain that was asked for is done: what it did is visible then.
    pub(crate) fn is_drained(&self) -> bool {
        !self.drain_wanted.load(Ordering::Acquire)
    }

    /// Takes note that what was asked for is done. Only who just used the value says so.
    pub(crate) fn drained(&self) {
        // Not a store either: it must not wait in the CPU's store buffer until somebody asks anew, and
        // then wipe that out.
        self.drain_wanted.swap(false, Ordering::AcqRel);
    }
}

/// The right to use what an [`OwnerCell`] holds.
///
/// # Invariants
/// The cell's `busy` was set for this value.
#[derive(Debug)]
#[must_use = "the cell is left when this is dropped"]
pub(crate) struct Entered<'a, T, S> {
    cell: &'a OwnerCell<T, S>,
    value: ManuallyDrop<MutPtr<T>>,
    /// Whoever entered is bound to one CPU.
    _not_send: PhantomData<*mut T>,
}

impl<'a, T, S> Entered<'a, T, S> {
    /// The value, and what everybody may look at.
    #[inline(always)]
    pub(crate) fn parts(&mut self) -> (&mut T, &'a S) {
        // SAFETY: the invariants: while `busy` is set for us, nobody else has a reference; and
        // `&mut self` makes this one unique.
        let value = unsafe { self.value.deref() };
        (value, &self.cell.shared)
    }
}

impl<T, S> Drop for Entered<'_, T, S> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it is not used again. Its end must be noted before others are let in.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        compiler_fence(Ordering::SeqCst);
        self.cell.busy.store(false, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

impl<T, S: fmt::Debug> fmt::Debug for OwnerCell<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerCell")
            .field("busy", &self.busy)
            .field("drain_wanted", &self.drain_wanted)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_request_stays_open_until_it_is_done() {
        let cell = OwnerCell::new((), ());
        cell.want_drain();
        assert!(cell.is_drain_wanted() && !cell.is_drained());
        cell.drained();
        assert!(!cell.is_drain_wanted() && cell.is_drained());
    }

    #[test]
    fn a_nested_context_does_without() {
        let cell = OwnerCell::new(1, ());
        // SAFETY: one thread; that it enters twice is what is tested.
        let enter = || unsafe { cell.enter() };
        let mut outer = enter().unwrap();
        *outer.parts().0 += 1;
        assert!(enter().is_none());
        drop(outer);
        assert_eq!(enter().map(|mut entered| *entered.parts().0), Some(2));
    }
}
