//! Interrupts of the current CPU: off for a while, then as they were.
//!
//! Code holds an [`IrqGuard`]; only the `Platform` glue of `mm`, whose trait asks for the two
//! halves apart, uses [`save`] and [`restore`].

use core::marker::PhantomData;
use x86_64::instructions::interrupts;

/// Whether interrupts were enabled when they were switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "pass this to `restore`"]
pub struct IrqFlags(bool);

impl IrqFlags {
    /// True where interrupts were on.
    #[must_use]
    pub const fn were_enabled(self) -> bool {
        self.0
    }
}

/// Switches interrupts off and says how they were.
///
/// # Context
/// Any.
#[inline]
pub fn save() -> IrqFlags {
    let flags = IrqFlags(interrupts::are_enabled());
    interrupts::disable();
    flags
}

/// Puts interrupts back to what [`save`] found; nested pairs end in reverse order.
#[inline]
pub fn restore(flags: IrqFlags) {
    if flags.0 {
        interrupts::enable();
    }
}

/// Keeps interrupts off on this CPU until it is dropped; nests.
#[derive(Debug)]
#[must_use = "interrupts come back when the guard is dropped"]
pub struct IrqGuard {
    flags: IrqFlags,
    /// What is held belongs to one CPU, so the guard must not move to another.
    _not_send: PhantomData<*mut ()>,
}

impl IrqGuard {
    /// Switches interrupts off.
    #[inline]
    pub fn new() -> Self {
        Self {
            flags: save(),
            _not_send: PhantomData,
        }
    }
}

impl Default for IrqGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        restore(self.flags);
    }
}

/// Runs `body` with interrupts off.
pub fn without<R>(body: impl FnOnce() -> R) -> R {
    let _guard = IrqGuard::new();
    body()
}
