//! Pins: the running thread stays on this CPU, and no other thread runs on it, until the pin goes.
//!
//! Taking a pin is one `inc` of a word of the per-CPU area, letting it go one `dec`: a single
//! instruction on `gs:` acts on the CPU it runs on, so nothing needs to be known about which one
//! that is. A timer interrupt that finds the count above zero leaves the thread where it is, and
//! the switch is made up for when the last pin goes: the word is zero then. Interrupts still come. Linux counterpart:
//! `preempt_disable` and `preempt_enable`.

use super::local::{self, CpuLocal, NOT_DUE};
use core::arch::asm;
use core::marker::PhantomData;
use core::mem::offset_of;

/// Keeps the running thread on its CPU until it is dropped; nests.
///
/// Whoever holds one must not sleep: [`crate::sched::might_sleep`] tells.
#[derive(Debug)]
#[must_use = "the thread may move again when the pin is dropped"]
pub struct Pin {
    /// The count belongs to one CPU and is the thread's own: it must not be let go by another.
    _not_send: PhantomData<*mut ()>,
}

impl Pin {
    /// Pins the running thread.
    ///
    /// # Context
    /// Any.
    #[inline]
    pub fn new() -> Self {
        enter();
        Self {
            _not_send: PhantomData,
        }
    }

    /// The CPU that this thread is pinned to.
    #[inline]
    #[must_use]
    pub fn cpu(&self) -> &'static CpuLocal {
        local::current()
    }
}

impl Default for Pin {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        leave();
    }
}

/// Takes a pin that is not a value, for the `Platform` glue of `mm`, whose trait asks for the two
/// halves apart.
///
/// # Context
/// Any.
#[inline]
pub(crate) fn enter() {
    // SAFETY: counts in a word of this CPU's own area, which the GS base always names. Memory
    // is clobbered on purpose: what follows must not be read before.
    unsafe {
        asm!("inc dword ptr gs:[{}]", const offset_of!(CpuLocal, pins), options(nostack));
    }
}

/// Lets go what [`enter`] took.
///
/// # Context
/// The thread that took it.
#[inline]
pub(crate) fn leave() {
    // SAFETY: takes back what `enter` counted: the thread has not moved since. The label is jumped to
    // from here only.
    unsafe {
        asm!("dec dword ptr gs:[{}]", "jz {}", const offset_of!(CpuLocal, pins),
            label { crate::sched::switch::make_up(); }, options(nostack));
    }
}

/// Pins held on this CPU, which are those of the running thread and of what interrupted it.
///
/// # Context
/// Any. Zero means that the caller holds none; it may have moved since.
#[inline]
#[must_use]
pub fn depth() -> u32 {
    let depth: u32;
    // SAFETY: reads a word of this CPU's own area.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) depth, const offset_of!(CpuLocal, pins),
            options(nostack, preserves_flags, readonly));
    }
    depth & !NOT_DUE
}
