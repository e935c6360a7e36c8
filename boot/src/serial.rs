//! The first serial line, and the way out of QEMU: what `boot` reports with before a kernel runs.

use core::fmt;

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

const COM1: u16 = 0x3f8;
const DEBUG_EXIT: u16 = 0xf4;
/// What QEMU's `isa-debug-exit` is told on a [`BootError`](crate::BootError): status 41.
pub const EXIT_BOOT_ERROR: u32 = 0x14;
/// Enough for a line at 115,200 baud; without a UART, boot must still go on.
const PATIENCE: u32 = 100_000;

/// COM1, at 115,200 baud, 8N1, polled.
#[derive(Debug)]
pub(crate) struct Serial(());

impl Serial {
    /// Sets the line up.
    ///
    /// # Safety
    ///
    /// Nothing else may drive COM1 while the value is in use.
    pub(crate) unsafe fn new() -> Self {
        // Interrupts off; divisor 1; 8N1; FIFO on and cleared; DTR, RTS, OUT2.
        let settings = [
            (1, 0),
            (3, 0x80),
            (0, 1),
            (1, 0),
            (3, 3),
            (2, 0xc7),
            (4, 0xb),
        ];
        for (register, value) in settings {
            let mut port = Port::<u8>::new(COM1 | register);
            // SAFETY: these are the UART's registers, and nobody else drives it.
            unsafe { port.write(value) };
        }
        Self(())
    }

    /// The line as [`Self::new`] has left it. Who drives it beside another one mixes characters, no more.
    pub(crate) const fn set_up() -> Self {
        Self(())
    }

    fn send(byte: u8) {
        let mut status = Port::<u8>::new(COM1 | 5);
        for _ in 0..PATIENCE {
            // SAFETY: reading the line status changes nothing that matters to a polled driver.
            let ready = unsafe { status.read() } & 0x20 != 0;
            if ready {
                break;
            }
        }
        let mut data = Port::<u8>::new(COM1);
        // SAFETY: this is the UART's data register: what is written to it is sent.
        unsafe { data.write(byte) };
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::send(b'\r');
            }
            Self::send(byte);
        }
        Ok(())
    }
}

/// Ends QEMU with status `value << 1 | 1` where it has an `isa-debug-exit` at 0xf4; stops the
/// CPU for good everywhere else.
pub(crate) fn exit(value: u32) -> ! {
    let mut port = Port::<u32>::new(DEBUG_EXIT);
    // SAFETY: on a PC nothing answers at 0xf4; under QEMU it is the way out.
    unsafe { port.write(value) };
    loop {
        interrupts::disable();
        hlt();
    }
}
