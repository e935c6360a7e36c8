//! A serial line out, and a way to end: all that this kernel has of devices.

use core::fmt;

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

/// Prints a line on COM1.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::console::print(format_args!("{}\r\n", format_args!($($text)*)))
    };
}
pub(crate) use say;

/// Prints on COM1.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    // `Com1` never fails.
    let _ = fmt::write(&mut Com1, text);
}

/// COM1 of a PC, which `boot` has set up.
struct Com1;

impl fmt::Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (mut data, mut status) = (Port::<u8>::new(0x3f8), Port::<u8>::new(0x3fd));
        for byte in text.bytes() {
            // SAFETY: reading the line status register changes no data; bit 5: ready to send.
            while unsafe { status.read() } & 0x20 == 0 {}
            // SAFETY: the port is COM1's, and this kernel uses it for nothing else.
            unsafe { data.write(byte) };
        }
        Ok(())
    }
}

/// What `isa-debug-exit` makes QEMU's exit status of, as twice the value and one.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Status {
    Passed = 0x10,
    Failed = 0x11,
    Panicked = 0x12,
}

/// Ends QEMU; a real PC stands still.
#[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
pub(crate) fn exit(status: Status) -> ! {
    // SAFETY: the device ends the machine; without it nobody listens at this port.
    unsafe { Port::<u8>::new(0xf4).write(status as u8) };
    loop {
        interrupts::disable();
        hlt();
    }
}
