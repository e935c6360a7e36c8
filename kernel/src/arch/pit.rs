//! The programmable interval timer, used once: to measure the TSC's rate.

use super::port::{read, write};
use super::time::tsc;

/// Input clock of the PIT.
const PIT_HZ: u64 = 1_193_182;
/// How long to measure: 5 ms of PIT ticks.
const WINDOW_TICKS: u16 = 5_966;
/// Gate and output of channel 2 live in this system control port.
const CONTROL: u16 = 0x61;
const CHANNEL_2: u16 = 0x42;
const COMMAND: u16 = 0x43;
/// Gate of channel 2 on, speaker off.
const GATE: u8 = 0x01;
/// Output of channel 2: high once the count is down.
const OUTPUT: u8 = 0x20;
/// Polls after which a PIT that never finishes is taken for absent.
const PATIENCE: u32 = 2_000_000;

/// Counts TSC ticks while channel 2 counts down once.
///
/// Returns `None` where there is no PIT: its output never rises, or is up at once.
pub(super) fn measure_tsc() -> Option<u64> {
    // Channel 2, low then high byte, mode 0 (output rises at zero), binary.
    let [low, high] = WINDOW_TICKS.to_le_bytes();
    poke(CONTROL, GATE);
    poke(COMMAND, 0xb0);
    poke(CHANNEL_2, low);
    poke(CHANNEL_2, high);

    let start = tsc();
    if output_is_high() {
        return None;
    }
    let ended = (0..PATIENCE).any(|_| output_is_high());
    let ticks = tsc().wrapping_sub(start);
    poke(CONTROL, 0);

    if !ended {
        return None;
    }
    ticks
        .checked_mul(PIT_HZ)?
        .checked_div(u64::from(WINDOW_TICKS))
}

fn output_is_high() -> bool {
    // SAFETY: reading the system control port changes nothing.
    unsafe { read(CONTROL) & OUTPUT != 0 }
}

fn poke(port: u16, value: u8) {
    // SAFETY: only this module uses channel 2, which drives nothing but the (switched off)
    // speaker.
    unsafe { write(port, value) };
}
