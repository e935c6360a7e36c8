//! Whether a CPU is busy with its own data, as one atomic word that others may win.
//!
//! What a CPU has of its own (page lists, say) is its own without locks, so nobody else may touch
//! it while the CPU runs. A CPU that has nothing to do says so: it marks itself idle or offline
//! by one swap, and leaves that state by one compare-exchange before it runs anything again,
//! the next interrupt handler included. Whoever wants to act for it in between wins the word by a
//! compare-exchange first ([`Presence::claim`]); the CPU then waits at its exit until the claim is
//! dropped. Acquire and release on the word hand the data over and back.

use super::irq::IrqGuard;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

const RUNNING: u32 = 0;
const IDLE: u32 = 1;
const OFFLINE: u32 = 2;
/// Set beside the state while somebody acts for the CPU.
const CLAIMED: u32 = 1 << 8;

/// How a CPU is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It has nothing to run.
    Idle,
    /// It was taken offline.
    Offline,
}

impl Away {
    const fn word(self) -> u32 {
        match self {
            Self::Idle => IDLE,
            Self::Offline => OFFLINE,
        }
    }
}

/// The word of one CPU.
#[derive(Debug)]
pub struct Presence {
    word: AtomicU32,
}

impl Presence {
    /// Running.
    pub(super) const fn new() -> Self {
        Self {
            word: AtomicU32::new(RUNNING),
        }
    }

    /// Marks the CPU as away. From here on others may act for it.
    ///
    /// # Context
    /// The word's own CPU, in its idle thread, interrupts off; it touches nothing of its own until
    /// it has left the state.
    pub(crate) fn enter(&self, away: Away) {
        crate::memory::cpu_leaves();
        // Sequentially consistent: what is checked next (is there work?) must not have been read
        // before others can see that this CPU needs to be woken.
        self.word.swap(away.word(), Ordering::SeqCst);
    }

    /// Makes the CPU run again, after whoever acts for it. Does nothing where it runs already.
    ///
    /// # Context
    /// The word's own CPU; any but NMI and #MC, which must not wait: see [`Presence::is_running`].
    #[inline]
    pub(crate) fn leave(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word != RUNNING {
            let free = word & !CLAIMED;
            let won =
                self.word
                    .compare_exchange(free, RUNNING, Ordering::Acquire, Ordering::Relaxed);
            match won {
                Ok(_) => return crate::memory::cpu_returns(),
                Err(now) => word = now,
            }
            spin_loop();
        }
    }

    /// Whether the CPU runs. An NMI handler that finds its own CPU away leaves the CPU's data
    /// alone.
    ///
    /// # Context
    /// Any; the answer may be old at once, unless it is the own CPU that asks.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.word.load(Ordering::SeqCst) == RUNNING
    }

    /// Whether the CPU is idle, and nobody acts for it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.word.load(Ordering::SeqCst) == IDLE
    }

    /// Wins the right to act for a CPU that is away; `None` where it runs, or somebody else won.
    ///
    /// # Context
    /// Any but NMI. Interrupts stay off until the claim is dropped, soon: the CPU may be waiting.
    #[must_use]
    pub fn claim(&self) -> Option<Claim<'_>> {
        let irq = IrqGuard::new();
        let word = self.word.load(Ordering::Relaxed);
        if word == RUNNING || word & CLAIMED != 0 {
            return None;
        }
        self.word
            .compare_exchange(word, word | CLAIMED, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Claim {
            of: self,
            back: word,
            _irq: irq,
        })
    }
}

/// The right to act for a CPU that is away, until it is dropped.
#[derive(Debug)]
#[must_use = "the CPU is free to come back when the claim is dropped"]
pub struct Claim<'a> {
    of: &'a Presence,
    back: u32,
    _irq: IrqGuard,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.of.word.store(self.back, Ordering::Release);
    }
}
