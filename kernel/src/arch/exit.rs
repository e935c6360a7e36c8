//! Ways to end: an exit status for the host, power-off, reset, and standing still.

use super::port;
use crate::kprintln;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use x86_64::instructions::{hlt, interrupts};

/// QEMU's `isa-debug-exit` device: writing `v` ends QEMU with status `(v << 1) | 1`.
const DEBUG_EXIT_PORT: u16 = 0xf4;

/// What the kernel tells the host when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Powered off, and every command of `exec=` succeeded.
    Pass,
    /// A command of `exec=` failed.
    CommandFailed,
    /// The kernel panicked.
    Panic,
    /// This CPU lacks something the kernel cannot do without.
    CpuUnsupported,
    /// What firmware or boot loader handed over is unusable.
    BadBootData,
    /// The CPU raised an exception nobody expected.
    Exception,
}

impl Status {
    /// The byte for the debug-exit port; the runner knows these numbers.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Pass => 0x10,
            Self::CommandFailed => 0x11,
            Self::Panic => 0x12,
            Self::CpuUnsupported => 0x13,
            Self::BadBootData => 0x14,
            Self::Exception => 0x15,
        }
    }
}

/// The status that [`decide`] was called with first; zero is none.
static DECIDED: AtomicU8 = AtomicU8::new(0);

/// Fixes the status to end with: what goes wrong later, in the report itself, does not change it.
pub(crate) fn decide(status: Status) {
    // Fails where the status is decided already, which is as good.
    let _ = DECIDED.compare_exchange(0, status.code(), Ordering::Relaxed, Ordering::Relaxed);
}

/// Ends the machine with a status where the host gave us a way to, else stands still.
///
/// On a real PC the write goes to no device, and the machine stops here with its last words on
/// the terminal.
pub fn exit(status: Status) -> ! {
    interrupts::disable();
    decide(status);
    let code = DECIDED.load(Ordering::Relaxed);
    // SAFETY: with the device present this ends the virtual machine; without it nobody listens
    // at this port.
    unsafe { port::write(DEBUG_EXIT_PORT, code) };

    // Still here. Said once: the terminal may be what failed.
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        kprintln!("The kernel has ended; the machine can be switched off.");
    }
    halt()
}

/// Stands still for good.
pub fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Restarts the machine: keyboard controller, then chipset reset, then triple fault.
pub fn reboot() -> ! {
    interrupts::disable();
    // SAFETY: pulses the CPU's reset line on machines with an 8042; nobody listens elsewhere.
    unsafe { port::write(0x64, 0xfe) };
    wait_a_little();
    // SAFETY: the reset control register of PCI chipsets: hard reset.
    unsafe { port::write(0xcf9, 0x06) };
    wait_a_little();
    triple_fault()
}

fn wait_a_little() {
    for _ in 0..10_000 {
        port::pause();
    }
}

/// Raises an exception with an empty IDT, which resets the CPU whatever the chipset.
fn triple_fault() -> ! {
    let empty: [u8; 10] = [0; 10];
    // SAFETY: the machine ends here, so losing the IDT harms nobody.
    unsafe {
        asm!("lidt [{}]", "ud2", in(reg) &raw const empty, options(noreturn, nostack));
    }
}
