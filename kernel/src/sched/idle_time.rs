//! How long a CPU has been idle, up to now.
//!
//! One word, so that who reads it from another CPU sees no half of a change: the time so far; or, while the
//! CPU sleeps, that less the time at which it fell asleep, marked by the highest bit. It sleeps from just before
//! `hlt` to the interrupt that ends it, whatever runs then.

use crate::arch::time;
use core::sync::atomic::{AtomicU64, Ordering};

/// The CPU sleeps.
const ASLEEP: u64 = 1 << 63;

/// A CPU's idle time.
#[derive(Debug)]
pub(crate) struct IdleTime(AtomicU64);

impl IdleTime {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The CPU falls asleep. For the CPU itself, with interrupts off.
    pub(super) fn begin(&self) {
        let so_far = self.0.load(Ordering::Relaxed) & !ASLEEP;
        let asleep = so_far.wrapping_sub(time::now_ns()) | ASLEEP;
        self.0.store(asleep, Ordering::Relaxed);
    }

    /// The CPU is awake, if it was not. For the CPU itself, with interrupts off.
    #[inline]
    pub(crate) fn end(&self) {
        if self.0.load(Ordering::Relaxed) & ASLEEP != 0 {
            self.0.store(self.ns(), Ordering::Relaxed);
        }
    }

    /// Nanoseconds, those of a sleep that has not ended included.
    pub(crate) fn ns(&self) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        match word & ASLEEP {
            0 => word,
            _ => word.wrapping_add(time::now_ns()) & !ASLEEP,
        }
    }
}
