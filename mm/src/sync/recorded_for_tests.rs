//! Flags and compiler fences that take note of what is done to them, for a model of what the compiler
//! may make of it (`loom_tests::nesting_tests`). Only in the models' build.
#![forbid(unsafe_code)]

use std::cell::RefCell;

use loom::sync::atomic::Ordering;

/// What a context did, in the order of its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It read a flag.
    Load(usize),
    /// It wrote a flag.
    Store(usize, bool),
    /// It passed a compiler fence.
    Fence,
    /// It read the value that the flags are about, …
    Read,
    /// … and wrote it.
    Write,
}

std::thread_local! {
    static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
}

/// Takes note of a step.
pub(crate) fn note(step: Step) {
    STEPS.with_borrow_mut(|steps| steps.push(step));
}

/// Takes the steps of this thread since the last time.
pub(crate) fn take() -> Vec<Step> {
    STEPS.with_borrow_mut(std::mem::take)
}

/// A fence for the compiler alone: to loom, which runs every context on a thread of its own, it is
/// nothing.
pub fn compiler_fence(_: Ordering) {
    note(Step::Fence);
}

/// Loom's, with notes.
#[derive(Debug)]
pub struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    /// A flag.
    pub fn new(value: bool) -> Self {
        Self(loom::sync::atomic::AtomicBool::new(value))
    }

    fn place(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Reads it.
    pub fn load(&self, order: Ordering) -> bool {
        note(Step::Load(self.place()));
        self.0.load(order)
    }

    /// Writes it.
    pub fn store(&self, value: bool, order: Ordering) {
        note(Step::Store(self.place(), value));
        self.0.store(value, order);
    }

    /// Exchanges it.
    pub fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }
    /// Exchanges it if it is as expected. No owner of a cell does that, so no note is taken.
    pub fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        self.0.compare_exchange(current, new, success, failure)
    }

    /// The same; it may fail for no reason.
    pub fn compare_exchange_weak(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        self.0.compare_exchange_weak(current, new, success, failure)
    }
}
