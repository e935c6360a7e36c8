//! What wakes a thread that has work now and then.
//!
//! The thread [answers](Bell::answer) first and looks for work then; whoever makes work rings
//! afterwards. So work that the thread's look missed has rung since, and a thread that sleeps only
//! while [`Bell::is_rung`] says no misses none.
#![forbid(unsafe_code)]

use super::atomic::{AtomicBool, Ordering};

/// Whether there is work, as far as anybody said.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicBool,
}

impl Bell {
    /// Nobody has rung.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rung: AtomicBool::new(false),
        }
    }

    /// Nobody has rung.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            rung: AtomicBool::new(false),
        }
    }

    /// There is work, which was made before. Answers whether the thread must be woken: otherwise
    /// somebody has, and it has not answered yet. Context: any.
    #[must_use = "whoever rings first wakes the thread"]
    pub fn ring(&self) -> bool {
        !self.rung.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody has rung since the last answer. Context: any.
    #[must_use]
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// The thread is about to look for work: it will see what was there when the bell rang.
    pub fn answer(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}
