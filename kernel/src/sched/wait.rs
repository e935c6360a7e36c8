//! Waiting for events.
//!
//! Who waits announces that it will leave its CPU, puts itself on the event's list, looks whether
//! the event has come, and only then leaves. Who makes the event come changes what is looked at
//! first and wakes the list then. So whichever comes first, no wake is missed: a thread that is woken
//! between its announcement and its leaving does not leave. A waiter looks again whenever it was
//! woken; to be woken too often is harmless.

use super::list::{Kind, ThreadList};
use super::thread::{Thread, deadline_in};
use super::{Atomic, may_sleep, might_sleep, switch, tick};
use crate::arch::irq::IrqGuard;
use crate::arch::lock::IrqLock;
use crate::arch::{apic, running, time};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

/// How a wait with a deadline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The condition holds.
    Met,
    /// It did not hold in time.
    TimedOut,
}

/// Threads that wait for the same event. Linux counterpart: `wait_queue_head`.
#[derive(Debug)]
pub struct WaitQueue {
    waiters: IrqLock<ThreadList>,
}

impl WaitQueue {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiters: IrqLock::new(ThreadList::new(Kind::Wait)),
        }
    }

    /// Sleeps until `condition` holds. It is looked at first, and after each wake.
    ///
    /// # Errors
    /// The caller may not sleep.
    ///
    /// # Context
    /// Task; `condition` does not sleep.
    #[track_caller]
    pub fn wait_until(&self, condition: impl FnMut() -> bool) -> Result<(), Atomic> {
        might_sleep()?;
        self.wait(None, condition);
        Ok(())
    }

    /// The same for `ms` milliseconds at most.
    ///
    /// # Errors
    /// The caller may not sleep.
    ///
    /// # Context
    /// As [`WaitQueue::wait_until`].
    #[track_caller]
    pub fn wait_until_timeout(
        &self,
        ms: u64,
        condition: impl FnMut() -> bool,
    ) -> Result<Waited, Atomic> {
        might_sleep()?;
        let deadline = deadline_in(ms.saturating_mul(1_000_000));
        Ok(self.wait(Some(deadline), condition))
    }

    fn wait(&self, deadline: Option<u64>, mut condition: impl FnMut() -> bool) -> Waited {
        if condition() {
            return Waited::Met;
        }
        let Some(me) = running::get() else {
            return Waited::TimedOut;
        };
        // On the list or off it, as far as this thread knows; only a waker takes it off else.
        let join = || {
            let mut waiters = self.waiters.lock();
            waiters.remove(&me);
            waiters.push(alloc::sync::Arc::clone(&me));
        };
        let waited = park_until(deadline, || {
            join();
            condition()
        });
        let was_woken = !self.waiters.lock().remove(&me);
        if waited == Waited::TimedOut && was_woken && condition() {
            // It was just in time: nobody else was woken for this.
            return Waited::Met;
        }
        waited
    }

    /// Wakes who has waited longest; answers whether anybody had.
    ///
    /// # Context
    /// Any but NMI.
    pub fn wake_one(&self) -> bool {
        let first = self.waiters.lock().pop();
        first.is_some_and(|thread| {
            thread.wake();
            true
        })
    }

    /// Wakes all; answers how many there were.
    ///
    /// # Context
    /// Any but NMI.
    pub fn wake_all(&self) -> u32 {
        // Those who come back to wait again while this goes on are not woken again.
        let count = self.waiters.lock().len();
        (0..count).fold(0, |woken, _| woken.wrapping_add(u32::from(self.wake_one())))
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.waiters.lock().len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Leaves the CPU until `condition` holds or the deadline, in nanoseconds of the clock, has
/// passed. The condition is looked at first and after each [`Thread::wake`].
///
/// # Context
/// Task that may sleep; `condition` does not sleep.
pub(super) fn park_until(deadline: Option<u64>, mut condition: impl FnMut() -> bool) -> Waited {
    let Some(me) = running::get() else {
        return Waited::TimedOut;
    };
    // Without a timer nobody would wake it in time.
    let has_timer = apic::is_in_use();
    let waited = loop {
        me.announce_parking();
        if condition() {
            break Waited::Met;
        }
        match deadline {
            Some(deadline) if time::now_ns() >= deadline => break Waited::TimedOut,
            Some(deadline) if has_timer => tick::wake_at(&me, deadline),
            Some(_) => {
                me.stay();
                switch::give_way();
                spin_loop();
                continue;
            }
            None => {}
        }
        let _irq = IrqGuard::new();
        switch::schedule(switch::Leaving::Parked);
    };
    me.stay();
    if deadline.is_some() {
        tick::forget(&me);
    }
    waited
}

/// Something that happens once, or a number of times, and is waited for. Linux counterpart:
/// `completion`.
#[derive(Debug)]
pub struct Completion {
    /// How many times it must still happen.
    missing: AtomicU32,
    queue: WaitQueue,
}

impl Completion {
    /// To be completed `count` times.
    #[must_use]
    pub const fn new(count: u32) -> Self {
        Self {
            missing: AtomicU32::new(count),
            queue: WaitQueue::new(),
        }
    }

    /// It has happened, once more. Once too often is as good as often enough.
    ///
    /// # Context
    /// Any but NMI.
    pub fn complete(&self) {
        let less = |missing: u32| missing.checked_sub(1);
        let before = self
            .missing
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if before == Ok(1) {
            self.queue.wake_all();
        }
    }

    /// Whether it has happened often enough.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }

    /// Sleeps until it has happened often enough.
    ///
    /// # Errors
    /// The caller may not sleep.
    ///
    /// # Context
    /// Task.
    #[track_caller]
    pub fn wait(&self) -> Result<(), Atomic> {
        self.queue.wait_until(|| self.is_complete())
    }

    /// The same for `ms` milliseconds at most.
    ///
    /// # Errors
    /// The caller may not sleep.
    ///
    /// # Context
    /// Task.
    #[track_caller]
    pub fn wait_timeout(&self, ms: u64) -> Result<Waited, Atomic> {
        self.queue.wait_until_timeout(ms, || self.is_complete())
    }
}

/// Waits for `condition`, asleep where that is allowed and somebody wakes `me`, spinning elsewhere.
pub(crate) fn park_or_spin(mut condition: impl FnMut() -> bool) {
    if may_sleep().is_ok() {
        park_until(None, condition);
        return;
    }
    while !condition() {
        spin_loop();
    }
}

/// Whoever waits by [`park_or_spin`]: to be woken by whoever makes its condition come true.
pub(crate) fn waiter() -> Option<alloc::sync::Arc<Thread>> {
    running::get()
}
