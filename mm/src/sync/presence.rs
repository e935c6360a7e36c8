//! Which CPUs are there, and who acts for those that are not.
//!
//! A CPU that goes idle, parks or goes offline says so by one exchange ([`Presence::leave`]); from
//! then on it keeps away from everything that is its own, interrupt handlers included, until it
//! is back. Whoever wants what it left behind takes its place for a moment ([`Presence::seize`]).
//! Acquire and Release on the state hand the data over in both directions.

use super::atomic::{AtomicU8, Ordering};
use crate::mem::Array;
use crate::platform::CpuId;

const PRESENT: u8 = 0;
const AWAY: u8 = 1;
const SEIZED: u8 = 2;

/// One CPU's state, in a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct State(AtomicU8);

impl State {
    /// A CPU that is there.
    #[must_use]
    pub fn present() -> Self {
        Self(AtomicU8::new(PRESENT))
    }

    /// A CPU that is away.
    #[must_use]
    pub fn away() -> Self {
        Self(AtomicU8::new(AWAY))
    }

    /// The CPU goes away. What it looks at next is read after others can see that: whoever has left
    /// something for it, and then finds it away, wakes it.
    pub fn leave(&self) {
        self.0.swap(AWAY, Ordering::SeqCst);
    }

    /// The CPU is back: answers whether it is, or somebody acts for it right now.
    pub fn try_return(&self) -> bool {
        let was = self
            .0
            .compare_exchange(AWAY, PRESENT, Ordering::Acquire, Ordering::Relaxed);
        // Coming back without having left is no fault.
        !matches!(was, Err(SEIZED))
    }

    /// Takes the place of a CPU that is away.
    pub fn try_seize(&self) -> bool {
        self.0
            .compare_exchange(AWAY, SEIZED, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives up the place taken.
    pub fn release(&self) {
        self.0.store(AWAY, Ordering::Release);
    }

    /// Whether the CPU says that it is there.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PRESENT
    }
}

/// The states of all CPUs.
#[derive(Debug)]
pub struct Presence {
    cpus: Array<State>,
}

impl Presence {
    /// The states of as many CPUs as there are elements.
    #[must_use]
    pub const fn new(cpus: Array<State>) -> Self {
        Self { cpus }
    }

    fn state(&self, cpu: CpuId) -> Option<&State> {
        self.cpus.at(u64::from(cpu.0))
    }

    /// All CPUs.
    pub fn cpus(&self) -> impl Iterator<Item = CpuId> + use<> {
        let count = u32::try_from(self.cpus.len()).unwrap_or(u32::MAX);
        (0..count).map(CpuId)
    }

    /// Whether a CPU says that it is there. Context: any; stale when it arrives.
    #[must_use]
    pub fn is_present(&self, cpu: CpuId) -> bool {
        self.state(cpu).is_some_and(State::is_present)
    }

    /// The calling CPU goes away.
    ///
    /// # Safety
    ///
    /// The caller runs on `cpu` and keeps its interrupts off, or has its interrupt handlers call
    /// [`Self::return_from`] first; until then nothing on that CPU uses an
    /// `OwnerCell`.
    pub unsafe fn leave(&self, cpu: CpuId) {
        if let Some(state) = self.state(cpu) {
            state.leave();
        }
    }

    /// The calling CPU is back; waits while somebody acts for it. Context: that CPU, or whoever
    /// starts it before it runs.
    pub fn return_from(&self, cpu: CpuId) {
        let Some(state) = self.state(cpu) else { return };
        // Nobody else changes a state that says so.
        if state.is_present() {
            return;
        }
        while !state.try_return() {
            core::hint::spin_loop();
        }
    }

    /// Takes the place of a CPU that is away, until the value is dropped. Context: any CPU, with
    /// interrupts off: the CPU may be waiting to come back.
    #[must_use]
    pub fn seize(&self, cpu: CpuId) -> Option<Seized<'_>> {
        let state = self.state(cpu)?;
        // Made only if it was won: dropping it gives the place up.
        state.try_seize().then(|| Seized { state, cpu })
    }
}

/// The place of a CPU that is away.
#[derive(Debug)]
#[must_use = "the place is given up when this is dropped"]
pub struct Seized<'a> {
    state: &'a State,
    cpu: CpuId,
}

impl Seized<'_> {
    /// Whose place it is.
    #[must_use]
    pub const fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        self.state.release();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_one_acts_for_a_cpu_and_only_while_it_is_away() {
        let state = State::present();
        assert!(!state.try_seize());
        state.leave();
        assert!(state.try_seize() && !state.try_seize());
        assert!(!state.try_return());
        state.release();
        assert!(state.try_return() && state.is_present());
        assert!(!state.try_seize());
    }
}
