//! The memory policy of a thread: which nodes' memory its requests want.
//!
//! A thread that is made inherits the policy of the one that makes it. Requests ask a flag of the
//! per-CPU area, which says whether the running thread has a policy at all; it is set anew with
//! each switch. Handlers of interrupts have none. Linux counterpart: `current->mempolicy`.

use super::{Atomic, may_sleep};
use crate::arch::lock::IrqLock;
use crate::arch::running;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::numa::Policy;

/// A thread's policy.
#[derive(Debug)]
pub(crate) struct OwnPolicy {
    is_set: AtomicBool,
    policy: IrqLock<Option<Policy>>,
}

impl OwnPolicy {
    pub(super) const fn new(policy: Option<Policy>) -> Self {
        Self {
            is_set: AtomicBool::new(policy.is_some()),
            policy: IrqLock::new(policy),
        }
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Sets it; answers the one before.
    pub(crate) fn replace(&self, policy: Option<Policy>) -> Option<Policy> {
        let before = core::mem::replace(&mut *self.policy.lock(), policy);
        self.is_set.store(policy.is_some(), Ordering::Relaxed);
        before
    }
}

/// The policy of the running thread.
#[must_use]
pub fn current() -> Option<Policy> {
    running::with(|thread| *thread.policy().policy.lock()).flatten()
}

/// Shows the running thread's policy to `apply`, if it has one; not in a handler of an interrupt.
///
/// # Context
/// Any but NMI.
pub(crate) fn with_current(apply: &mut dyn FnMut(&mut Policy)) {
    if may_sleep() == Err(Atomic::InInterrupt) {
        return;
    }
    running::with(|thread| {
        if let Some(policy) = thread.policy().policy.lock().as_mut() {
            apply(policy);
        }
    });
}

/// The running thread has another policy until this is dropped.
#[derive(Debug)]
#[must_use = "the policy before comes back when this is dropped"]
pub struct Changed {
    before: Option<Policy>,
}

impl Changed {
    /// Gives the running thread a policy, or takes its own away.
    ///
    /// # Context
    /// Task.
    pub fn to(policy: Option<Policy>) -> Self {
        Self {
            before: running::set_policy(policy),
        }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = running::set_policy(self.before);
    }
}
