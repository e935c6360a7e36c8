//! Waiting for keys at the prompt.
//!
//! The terminal is polled: often while somebody types, so that the port's sixteen bytes do not run over
//! when a text is pasted, and 25 times a second otherwise, so that an idle machine is idle.

use super::interrupt;
use crate::arch::time;
use crate::sched;

/// Milliseconds between two looks while somebody types: the port takes a dozen bytes meanwhile.
const BUSY_MS: u64 = 1;
/// … and while nobody does.
const QUIET_MS: u64 = 40;
/// Nobody types who has not for so long.
const PAUSE_NS: u64 = 500_000_000;

/// The keys of the terminal, one after the other.
#[derive(Debug, Default)]
pub struct Keys {
    /// Until when somebody is taken to type.
    busy_until: u64,
}

impl Keys {
    /// Waits for a key until `deadline` on the clock. `None`: there was none.
    ///
    /// # Context
    /// Task. Where sleeping is not allowed this spins.
    pub fn next_before(&mut self, deadline: u64) -> Option<u8> {
        loop {
            let key = interrupt::next_key();
            let now = time::now_ns();
            if key.is_some() {
                self.busy_until = now.saturating_add(PAUSE_NS);
                return key;
            }
            if now >= deadline {
                return None;
            }
            let is_busy = now < self.busy_until;
            let _ = sched::sleep_ms(if is_busy { BUSY_MS } else { QUIET_MS });
        }
    }
}
