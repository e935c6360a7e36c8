//! Proof that the TSC counts instructions, before any figure is believed.

use super::{BenchError, ROUNDS};
use crate::arch::{irq, probe};
use crate::kprintln;

/// What 1,000 `nop`s must read.
const NOPS: u64 = 1_000;
/// What a loop of 1,000 times `dec; jnz` must read: two each, and one to set the counter.
const LOOP: u64 = 2_001;

/// Measures two known instruction sequences and prints what they read.
///
/// # Errors
///
/// `counting` (the runner says that the emulator counts) and a reading is off.
pub(super) fn calibrate(counting: bool) -> Result<(), BenchError> {
    let nothing = least(probe::nothing);
    let nops = least(probe::thousand_nops).saturating_sub(nothing);
    let dec_jnz = least(probe::thousand_loops).saturating_sub(nothing);
    if !counting {
        kprintln!(
            "BENCH-CALIBRATION 1000 nops = {nops}, dec/jnz loop of 1000 = {dec_jnz}: \
             TSC ticks (not instructions; run with --icount to count those)"
        );
        return Ok(());
    }

    kprintln!(
        "BENCH-CALIBRATION 1000 nops = {nops}, dec/jnz loop of 1000 = {dec_jnz}: instructions"
    );
    let readings = [
        ("1000 nops", NOPS, nops),
        ("a dec/jnz loop of 1000", LOOP, dec_jnz),
    ];
    for (what, expected, measured) in readings {
        if measured != expected {
            return Err(BenchError::NotCalibrated {
                what,
                expected,
                measured,
            });
        }
    }
    Ok(())
}

fn least(measure: fn() -> u64) -> u64 {
    let _irq = irq::IrqGuard::new();
    (0..ROUNDS).map(|_| measure()).min().unwrap_or(0)
}
