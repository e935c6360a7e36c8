//! Whether a CPU is busy with its own data, as one atomic word that others may win.
//!
//! What a CPU has of its own (page lists, say) is its own without locks, so nobody else may touch
//! it while the CPU runs. A CPU that has nothing to do says so: it marks itself as away
//! by one swap, and leaves that state by one compare-exchange before it runs anything again,
//! the next interrupt handler included. Whoever wants to act for it in between wins the word first
//! ([`Presence::claim`]); the CPU then waits at its exit until the claim is dropped. The word is
//! the memory core's ([`mm::sync::Presence`]); before memory is up every CPU runs.

use super::irq::IrqGuard;
use crate::memory::{self, MEMORY};
use mm::platform::CpuId;
use mm::sync::Seized;

/// One CPU's place among those that run or are away.
#[derive(Debug)]
pub struct Presence {
    cpu: CpuId,
}

impl Presence {
    /// That of the CPU with number `id`.
    pub(super) const fn new(id: u32) -> Self {
        Self { cpu: CpuId(id) }
    }

    /// Marks the CPU as away. From here on others may act for it; what is checked next (is there
    /// work?) is not read before others can see that this CPU needs to be woken.
    ///
    /// # Context
    /// The CPU itself, in its idle thread, interrupts off; it touches nothing of its own until
    /// it has left the state.
    pub(crate) fn enter(&self) {
        memory::cpu_leaves();
    }

    /// Makes the CPU run again, after whoever acts for it. Does nothing where it runs already.
    ///
    /// # Context
    /// The CPU itself; any but NMI and #MC, which must not wait: see [`Presence::is_running`].
    #[inline]
    pub(crate) fn leave(&self) {
        memory::cpu_returns();
    }

    /// Whether the CPU runs. An NMI handler that finds its own CPU away leaves the CPU's data
    /// alone.
    ///
    /// # Context
    /// Any; the answer may be old at once, unless it is the own CPU that asks.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let presence = MEMORY.presence();
        presence.is_none_or(|presence| presence.is_present(self.cpu))
    }

    /// Wins the right to act for a CPU that is away; `None` where it runs, or somebody else won.
    ///
    /// # Context
    /// Any but NMI. Interrupts stay off until the claim is dropped, soon: the CPU may be waiting.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        let irq = IrqGuard::new();
        let seized = MEMORY.presence()?.seize(self.cpu)?;
        Some(Claim {
            _seized: seized,
            _irq: irq,
        })
    }
}

/// The right to act for a CPU that is away, until it is dropped.
#[derive(Debug)]
#[must_use = "the CPU is free to come back when the claim is dropped"]
pub struct Claim {
    // Fields are dropped in this order: the place is given up before interrupts come.
    _seized: Seized<'static>,
    _irq: IrqGuard,
}
