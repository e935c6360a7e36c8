//! Text to the terminal: `kprint!` and `kprintln!`, also for a kernel that is dying.

use crate::arch::serial;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// Set once by the first fatal report: from then on the terminal's lock is taken by force.
static DYING: AtomicBool = AtomicBool::new(false);

/// Prints to the terminal.
#[macro_export]
macro_rules! kprint {
    ($($arg:tt)*) => { $crate::console::print(::core::format_args!($($arg)*)) };
}

/// Prints to the terminal, with a newline.
#[macro_export]
macro_rules! kprintln {
    () => { $crate::kprint!("\n") };
    ($($arg:tt)*) => { $crate::kprint!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Adapts the locked serial port to `fmt`.
struct Terminal<'a>(&'a mut serial::Serial);

impl Write for Terminal<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Prints one formatted text without another's between its parts.
///
/// # Context
/// Task or interrupt; in NMI, #DB and #MC only after `enter_last_words`.
pub fn print(text: fmt::Arguments<'_>) {
    let mut serial = if DYING.load(Ordering::Acquire) {
        serial::lock_dying()
    } else {
        serial::lock()
    };
    // A `Display` that fails leaves half a line; the terminal itself cannot fail.
    let _ = Terminal(&mut serial).write_fmt(text);
}

/// Takes one byte from the terminal, if somebody typed.
#[must_use]
pub fn read() -> Option<u8> {
    serial::lock().read()
}

/// Declares that the kernel is dying: printing works from here on whoever held the terminal.
pub(crate) fn enter_last_words() {
    DYING.store(true, Ordering::Release);
}

/// A `fmt::Write` that prints, for code that is given its output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print(format_args!("{text}"));
        Ok(())
    }
}
