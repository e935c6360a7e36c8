//! The programmable interval timer, used once: to measure the TSC's rate.
//!
//! Channel 0 is read, not channel 2 as is common: channel 2 needs the system control port 0x61,
//! which QEMU's `microvm` has not. The PIC masks channel 0's interrupt.

use super::port::{read, write};
use super::time::tsc;

/// Input clock of the PIT.
const PIT_HZ: u64 = 1_193_182;
/// How long to measure: 5 ms of PIT ticks.
const WINDOW_TICKS: u16 = 5_966;
const CHANNEL_0: u16 = 0x40;
const COMMAND: u16 = 0x43;
/// Channel 0, low then high byte, mode 2 (count down and start over), binary.
const RATE_GENERATOR: u8 = 0x34;
/// Readings without any change after which the PIT is taken for absent.
const PATIENCE: u32 = 1_000;

/// Counts TSC ticks while channel 0 counts down; `None` where there is no PIT.
pub(super) fn measure_tsc() -> Option<u64> {
    poke(COMMAND, RATE_GENERATOR);
    // Zero means 65,536: the longest period.
    poke(CHANNEL_0, 0);
    poke(CHANNEL_0, 0);

    let (first, start) = (count(), tsc());
    let mut last = first;
    let mut unchanged: u32 = 0;
    loop {
        let (now, end) = (count(), tsc());
        let elapsed = first.wrapping_sub(now);
        if elapsed >= WINDOW_TICKS {
            return end
                .wrapping_sub(start)
                .checked_mul(PIT_HZ)?
                .checked_div(u64::from(elapsed));
        }
        unchanged = if now == last {
            unchanged.saturating_add(1)
        } else {
            0
        };
        last = now;
        if unchanged > PATIENCE {
            return None;
        }
    }
}

/// The current count, latched so that its two bytes belong together.
fn count() -> u16 {
    poke(COMMAND, 0);
    u16::from_le_bytes([peek(CHANNEL_0), peek(CHANNEL_0)])
}

fn peek(port: u16) -> u8 {
    // SAFETY: only this module uses the PIT, and reading its count harms nothing.
    unsafe { read(port) }
}

fn poke(port: u16, value: u8) {
    // SAFETY: only this module uses the PIT, whose interrupt the PIC masks.
    unsafe { write(port, value) };
}
