//! The serial port COM1: the kernel's terminal. Polled, in and out.

use super::lock::{IrqLock, IrqLockGuard};
use super::time;
use core::hint::spin_loop;
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, InitError, Uart16550};

/// The port every PC and every QEMU machine has it at.
const COM1: u16 = 0x3f8;

/// A transmitter that takes nothing for this many TSC ticks (seconds) is taken for dead.
const PATIENCE_TICKS: u64 = 1 << 35;

/// COM1, once [`init`] has found it.
static SERIAL: IrqLock<Serial> = IrqLock::new(Serial::new());

/// The UART and what is known of it.
#[derive(Debug)]
pub struct Serial {
    uart: Uart16550<PioBackend>,
    /// False before `init`, where no device answers, and after the transmitter got stuck.
    usable: bool,
}

impl Serial {
    const fn new() -> Self {
        // SAFETY: 0x3f8..=0x3ff belong to COM1 on a PC, and `SERIAL` is its only user.
        let uart = match unsafe { Uart16550::new_port(COM1) } {
            Ok(uart) => uart,
            Err(_) => unreachable!(),
        };
        Self {
            uart,
            usable: false,
        }
    }

    /// Sends all bytes, each newline as carriage return and newline, as terminals want it.
    ///
    /// Without a device this does nothing.
    pub fn write(&mut self, text: &[u8]) {
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            match line.split_last() {
                Some((b'\n', head)) => {
                    self.send(head);
                    self.send(b"\r\n");
                }
                _ => self.send(line),
            }
        }
    }

    /// Takes one received byte, if there is one.
    pub fn read(&mut self) -> Option<u8> {
        if !self.usable {
            return None;
        }
        self.uart.try_receive_byte().ok()
    }

    fn send(&mut self, mut bytes: &[u8]) {
        let mut since = None;
        while self.usable && !bytes.is_empty() {
            let sent = self.uart.send_bytes(bytes);
            bytes = bytes.get(sent..).unwrap_or_default();
            if sent > 0 {
                since = None;
                continue;
            }

            let now = time::tsc();
            let start = *since.get_or_insert(now);
            self.usable = now.wrapping_sub(start) < PATIENCE_TICKS;
            spin_loop();
        }
    }
}

/// Sets COM1 up: 115200 baud, eight data bits, no parity, no interrupts.
///
/// # Errors
///
/// No UART answers at COM1, which leaves the kernel without a terminal.
pub(super) fn init() -> Result<(), InitError> {
    let config = Config {
        baud_rate: BaudRate::Baud115200,
        ..Config::DEFAULT
    };
    let mut serial = SERIAL.lock();
    serial.uart.init(config)?;
    serial.usable = true;
    Ok(())
}

/// The serial port, waited for.
pub fn lock() -> IrqLockGuard<'static, Serial> {
    SERIAL.lock()
}

/// The serial port for the last words of a dying kernel.
pub(crate) fn lock_dying() -> IrqLockGuard<'static, Serial> {
    // SAFETY: (1) only the panic and fault reports call this, and they never return to what they
    // interrupted; (2) a UART has no state that half a write leaves unusable.
    unsafe { SERIAL.steal() }
}
