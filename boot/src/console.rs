//! A line out and a way to end, for kernels that have neither of their own: COM1, and QEMU's `isa-debug-exit`.

use core::fmt;

use crate::serial::{self, Serial};

/// Prints a line on COM1, as `println!` does: `say!("{free} pages are free")`.
///
/// For a kernel that has no driver of its own for COM1.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::print(::core::format_args!("{}\n", ::core::format_args!($($text)*)))
    };
}

/// Prints on COM1, which `boot` has set up: [`say!`](crate::say!) adds the end of the line.
pub fn print(text: fmt::Arguments<'_>) {
    // A line without a UART never fails: it waits for a while, and goes on.
    let _ = fmt::write(&mut Serial::set_up(), text);
}

/// How a kernel ended, for who started QEMU with `-device isa-debug-exit,iobase=0xf4,iosize=4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well: QEMU's status is 33.
    Passed,
    /// Something did not: 35.
    Failed,
    /// The kernel panicked: 37.
    Panicked,
}

/// Ends QEMU with a status. A PC, or a QEMU without that device, stands still with interrupts off.
pub fn exit(how: Exit) -> ! {
    // QEMU makes `2v + 1` of a value.
    serial::exit(match how {
        Exit::Passed => 0x10,
        Exit::Failed => 0x11,
        Exit::Panicked => 0x12,
    })
}
