//! Ctrl-C while a command runs, and what is typed ahead of the next prompt.
//!
//! The terminal is polled, so a command that takes long asks now and then: [`check`] looks at the
//! terminal and fails once Ctrl-C was typed, until the next line begins. What else was typed
//! meanwhile is kept for the line editor. A command passes the error on, and its handles give
//! back what it held.

use crate::arch::lock::IrqLock;
use crate::console;
use crate::kprintln;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// What Ctrl-C sends.
pub const CTRL_C: u8 = 0x03;

/// Keys kept for the next prompt; more are lost.
const MAX_AHEAD: usize = 256;

/// Ctrl-C was typed and the line that it stops has not ended.
static PENDING: AtomicBool = AtomicBool::new(false);

static AHEAD: IrqLock<Ahead> = IrqLock::new(Ahead {
    keys: [0; MAX_AHEAD],
    start: 0,
    len: 0,
});

/// Somebody typed Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl core::error::Error for Interrupted {}

/// Keys in the order they came: a ring.
struct Ahead {
    keys: [u8; MAX_AHEAD],
    start: usize,
    len: usize,
}

impl Ahead {
    fn push(&mut self, key: u8) {
        let place = self.start.wrapping_add(self.len) % MAX_AHEAD;
        if let Some(free) = self.keys.get_mut(place)
            && self.len < MAX_AHEAD
        {
            *free = key;
            self.len = self.len.saturating_add(1);
        }
    }

    fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        let key = self.keys.get(self.start).copied();
        self.start = self.start.wrapping_add(1) % MAX_AHEAD;
        key
    }
}

/// Looks at the terminal.
///
/// # Context
/// Task. Costs a few port accesses: not for every turn of a short loop.
///
/// # Errors
///
/// Ctrl-C was typed since the line began.
pub fn check() -> Result<(), Interrupted> {
    while let Some(key) = console::read() {
        take_in(key);
    }
    if pending() { Err(Interrupted) } else { Ok(()) }
}

/// Whether the current line is to stop, as far as [`check`] has seen.
#[must_use]
pub fn pending() -> bool {
    PENDING.load(Ordering::Relaxed)
}

/// Deals with a key that came while a command runs. Ctrl-C also forgets what was typed before it,
/// as on any terminal.
pub(crate) fn take_in(key: u8) {
    let mut ahead = AHEAD.lock();
    if key != CTRL_C {
        ahead.push(key);
        return;
    }
    ahead.len = 0;
    drop(ahead);
    if !PENDING.swap(true, Ordering::Relaxed) {
        kprintln!("^C");
    }
}

/// A new line begins: what stopped the one before is over.
pub(crate) fn begin() {
    PENDING.store(false, Ordering::Relaxed);
}

/// The next key for the line editor.
pub(crate) fn next_key() -> Option<u8> {
    let ahead = AHEAD.lock().pop();
    ahead.or_else(console::read)
}

/// The terminal as a command's output; Ctrl-C makes it fail, which ends the printing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output;

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::print(format_args!("{text}"));
        check().map_err(|Interrupted| fmt::Error)
    }
}
