//! Grace periods of a machine: who reads, who waits, and what is done afterwards.
//!
//! A kernel calls [`GracePeriods::quiescent`] whenever a CPU switches to another task (or, without
//! tasks, once in a while between two pieces of work), or [`GracePeriods::note_quiescent`] where there
//! is no stack for more, such as in the midst of a switch; has CPUs that go idle or offline
//! [leave](Memory::leave_cpu), and calls [`GracePeriods::tend`] now and then while it answers that
//! there is something to do.
#![forbid(unsafe_code)]

use core::fmt;

use super::defer::{CALLS, Call};
use super::{Block, Core, Home, Memory};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;
use crate::sync::Pin;
use crate::sync::grace::{Cookie, Guard};

/// Rounds of waiting after which a late CPU is reminded.
const REMIND: u32 = 64;

/// Why a grace period was not waited for to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GraceError {
    /// The caller may not sleep.
    Atomic,
    /// The caller, or what it interrupted, is a reader: it would wait for itself.
    InReader,
    /// A CPU took longer than the platform waits. The grace period goes on: poll it.
    Late(Cookie),
}

impl fmt::Display for GraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atomic => f.write_str("the caller may not sleep"),
            Self::InReader => f.write_str("the caller is a reader itself"),
            Self::Late(cookie) => write!(f, "grace period {} is not over", cookie.number()),
        }
    }
}

impl core::error::Error for GraceError {}

/// No room for another call on this CPU: 32 wait already ([`GracePeriods::MAX_CALLS`]), or the caller has
/// interrupted code that is at them. A task can [wait](GracePeriods::synchronize) instead, and do what the
/// call would. Who may not sleep has to keep it for later; to free memory it uses [`Block::defer_free`],
/// which needs no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueFull;

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many calls wait for grace periods on this CPU")
    }
}

impl core::error::Error for QueueFull {}

/// Grace periods of a machine ([`Memory::grace`]). Before memory is up nobody reads, and all are over.
pub struct GracePeriods<'m, P: Platform> {
    memory: &'m Memory<P>,
}

impl<P: Platform> Clone for GracePeriods<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for GracePeriods<'_, P> {}

impl<P: Platform> fmt::Debug for GracePeriods<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grace = self.core().map(|core| &core.grace);
        f.debug_tuple("GracePeriods").field(&grace).finish()
    }
}

impl<P: Platform> Memory<P> {
    /// Readers, and those who wait for them (Linux: RCU). Context: any.
    pub const fn grace(&self) -> GracePeriods<'_, P> {
        GracePeriods { memory: self }
    }
}

impl<'m, P: Platform> GracePeriods<'m, P> {
    fn core(self) -> Option<&'m Core> {
        self.memory.core()
    }

    /// Begins a reader (Linux: `rcu_read_lock`). `None` before memory is up, and on a CPU beyond
    /// [`Platform::cpus`]. Context: any, but for handlers on a CPU that is away.
    #[inline]
    pub fn pin(self) -> Option<Guard<'m, P>> {
        self.core()?.grace.pin(&self.memory.platform)
    }

    /// A quiescent state of this CPU: each reader that began before has ended, by the type of its
    /// guard, unless the caller interrupted it; then this is ignored. Answers whether it counted. Does
    /// a little of what the CPU has put off, if it may be done. Context: any but NMI, on a CPU that is not
    /// away.
    #[inline]
    pub fn quiescent(self) -> bool {
        let Some(core) = self.core() else { return true };
        let pin = Pin::new(&self.memory.platform);
        let counted = core.grace.quiescent(&pin);
        if counted {
            let _ = self.memory.do_deferred_here(core, &pin);
        }
        counted
    }

    /// As [`Self::quiescent`], and does nothing of what the CPU has put off: for places where a task
    /// that did not ask for it lends its stack. Context: any but NMI, on a CPU that is not away.
    #[inline]
    pub fn note_quiescent(self) -> bool {
        let Some(core) = self.core() else { return true };
        core.grace.quiescent(&Pin::new(&self.memory.platform))
    }

    /// Begins a grace period: what was unlinked before, nobody sees any more when it is over (Linux:
    /// `start_poll_synchronize_rcu`). Context: any.
    #[must_use]
    pub fn start(self) -> Cookie {
        self.core()
            .map_or_else(Cookie::default, |core| core.grace.start())
    }

    /// Whether a grace period is over (Linux: `poll_state_synchronize_rcu`). Context: any but NMI.
    #[must_use]
    pub fn poll(self, cookie: Cookie) -> bool {
        let platform = &self.memory.platform;
        self.core()
            .is_none_or(|core| core.grace.poll(platform, &core.cpus.presence, cookie))
    }

    /// Waits for a grace period that begins now (Linux: `synchronize_rcu`), as long as the
    /// platform [waits](Platform::relax). Context: task.
    ///
    /// # Errors
    /// [`GraceError`].
    pub fn synchronize(self) -> Result<(), GraceError> {
        self.wait(self.start())
    }

    /// Waits until a grace period is over. Context: task.
    ///
    /// # Errors
    /// [`GraceError`].
    pub fn wait(self, cookie: Cookie) -> Result<(), GraceError> {
        self.wait_until(|| self.poll(cookie), cookie)
    }

    /// Waits until everything is done that was put off so far, and sees what that did (Linux:
    /// `rcu_barrier`); what comes meanwhile does not hold it up. Context: task.
    ///
    /// # Errors
    /// [`GraceError`].
    pub fn barrier(self) -> Result<(), GraceError> {
        let Some(core) = self.core() else {
            return Ok(());
        };
        let mut wait = None;
        let mine = || {
            wait = wait.take().or_else(|| core.backlogs.turns.wait());
            wait.is_some()
        };
        self.wait_until(mine, Cookie::default())?;
        for _ in 0..2 {
            let Some(wait) = &wait else { break };
            let line = wait.turn();
            let is_done = || {
                let _ = self.tend();
                core.backlogs.are_empty(line)
            };
            self.wait_until(is_done, Cookie::default())?;
        }
        Ok(())
    }

    fn wait_until(self, mut is_so: impl FnMut() -> bool, cookie: Cookie) -> Result<(), GraceError> {
        let platform = &self.memory.platform;
        // A reader may not sleep either, but is told what it is.
        if !self.quiescent() {
            return Err(GraceError::InReader);
        }
        if !platform.may_sleep() {
            return Err(GraceError::Atomic);
        }
        let mut rounds: u32 = 0;
        loop {
            if !self.quiescent() {
                return Err(GraceError::InReader);
            }
            if is_so() {
                return Ok(());
            }
            if rounds.checked_rem(REMIND) == Some(0) {
                self.remind();
            }
            if !platform.relax(rounds) {
                return Err(GraceError::Late(cookie));
            }
            platform.reschedule();
            rounds = rounds.saturating_add(1);
        }
    }

    /// Has late CPUs pass a quiescent state, and tells of those that have been late for long.
    pub(super) fn remind(self) {
        let Some(core) = self.core() else { return };
        let platform = &self.memory.platform;
        core.grace.poll_late(platform, &core.cpus.presence, |late| {
            platform.resched_cpu(late.cpu);
            if let Some(stall) = late.stall {
                platform.grace_stalled(&stall);
            }
        });
    }

    /// Calls that wait on one CPU, at most.
    pub const MAX_CALLS: usize = CALLS;

    /// Calls `run` with `data` when a grace period is over that begins after this (Linux: `call_rcu`): on
    /// this CPU in [`Self::quiescent`], or on another one if it is away; so it may not sleep, and should be short.
    /// Context: any but NMI.
    ///
    /// # Errors
    /// [`QueueFull`], also where the code that was interrupted is in the midst of this.
    pub fn call(self, run: fn(u64), data: u64) -> Result<(), QueueFull> {
        let Some(core) = self.core() else {
            run(data);
            return Ok(());
        };
        if !self.memory.call_later(core, Call { run, data }) {
            return Err(QueueFull);
        }
        self.memory.platform.wake_grace();
        Ok(())
    }

    /// Looks at all CPUs, does what may be done now, and reminds those that are late: all of it where the
    /// caller may sleep; otherwise for each CPU 32 calls and 32 blocks, or a 128th of what waits if that is more. Answers
    /// whether there is something left: then it wants to be called again, soon. Areas whose addresses were given up by code
    /// that may not sleep are purged, if the caller may. Context: task or irq, with interrupts on where
    /// [`Platform::resched_cpu`] needs that.
    pub fn tend(self) -> bool {
        let Some(core) = self.core() else {
            return false;
        };
        // First gathers, then looks, then does what that has shown to be over.
        let _ = self.quiescent();
        let _ = self.note_quiescent();
        self.remind();
        let is_reading = !self.quiescent();
        let platform = &self.memory.platform;
        let may_wait = platform.may_sleep() && !is_reading;
        while may_wait && self.memory.do_deferred_here(core, &Pin::new(platform)) {
            platform.reschedule();
        }
        self.memory.do_deferred_elsewhere(core, may_wait);
        if may_wait {
            self.memory.purge_as_wanted();
        }
        core.deferred() > 0 || self.memory.is_purge_wanted()
    }

    /// Blocks and calls that are put off. Context: any; stale when it arrives.
    #[must_use]
    pub fn pending(self) -> u64 {
        self.core().map_or(0, Core::deferred)
    }

    /// After how many looks that find a CPU late the platform is told
    /// ([`Platform::grace_stalled`]); 1,000 to begin with. Context: any.
    pub fn set_patience(self, looks: u32) {
        if let Some(core) = self.core() {
            core.grace.set_patience(looks);
        }
    }

    /// Checks what is known of grace periods and of what is put off. Context: nothing else runs.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn validate(self) -> Result<(), Corruption> {
        let Some(core) = self.core() else {
            return Ok(());
        };
        core.grace.validate()?;
        core.validate_deferred()
    }
}

impl<H: Home> Block<H> {
    /// Frees the block when a grace period is over that begins after this: until then, readers that
    /// found it before it was unlinked may read it (Linux: `call_rcu` with a function that frees).
    /// Context: any but NMI.
    pub fn defer_free(self) {
        let (frames, home) = self.into_parts();
        let memory = home.memory();
        let (Some(frames), Some(core)) = (frames, memory.core()) else {
            return;
        };
        memory.free_block_after_grace(core, frames);
    }
}

impl<P: Platform> Memory<P> {
    /// Frees a block when a grace period is over that begins after this; one that has no record is lost,
    /// and reported. Context: any but NMI.
    pub(super) fn free_block_after_grace(&self, core: &Core, frames: Exclusive) {
        match self.free_after_grace(core, frames) {
            Ok(()) => {
                self.platform.wake_grace();
            }
            Err(frames) => {
                let (pfn, order) = (frames.frames().first(), frames.order());
                let _ = frames.leak();
                self.lose(pfn, order);
            }
        }
    }
}
