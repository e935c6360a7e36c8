//! The clock: nanoseconds since the kernel's first instruction, read from the TSC.
//!
//! Where the rate comes from, best first: instruction counting (`icount` on the command line,
//! where a tick is a nanosecond by definition), CPUID, the PIT. A machine with none of these
//! gets an assumed rate and a log line that says so.

use super::{cpu, pit};
use core::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds in a second.
pub const NS_PER_SECOND: u64 = 1_000_000_000;

/// TSC at the start of the kernel.
static START: AtomicU64 = AtomicU64::new(0);
/// Ticks per second; zero until calibrated.
static RATE: AtomicU64 = AtomicU64::new(0);

/// Where the TSC's rate was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// The emulator counts instructions, one nanosecond each.
    InstructionCount,
    /// CPUID leaf 0x15, or the hypervisor's leaf 0x4000_0010.
    Cpuid,
    /// Measured against the PIT.
    Pit,
    /// Nobody knows; one gigahertz was assumed.
    Assumed,
}

/// Reads the time stamp counter.
#[inline]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is unprivileged here (ring 0) and every x86_64 CPU has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Marks time zero.
pub(crate) fn start() {
    START.store(tsc(), Ordering::Relaxed);
}

/// The TSC when the kernel was entered.
#[must_use]
pub fn start_tsc() -> u64 {
    START.load(Ordering::Relaxed)
}

/// Learns the TSC's rate and returns where from.
pub(crate) fn calibrate(counting_instructions: bool) -> RateSource {
    let (rate, source) = if counting_instructions {
        (NS_PER_SECOND, RateSource::InstructionCount)
    } else if let Some(rate) = cpu::tsc_rate() {
        (rate, RateSource::Cpuid)
    } else if let Some(rate) = pit::measure_tsc() {
        (rate, RateSource::Pit)
    } else {
        (NS_PER_SECOND, RateSource::Assumed)
    };
    RATE.store(rate, Ordering::Relaxed);
    source
}

/// Ticks of the TSC per second; `None` until calibrated.
#[must_use]
pub fn rate() -> Option<u64> {
    match RATE.load(Ordering::Relaxed) {
        0 => None,
        rate => Some(rate),
    }
}

/// Nanoseconds since the kernel started; zero until the clock is calibrated.
///
/// # Context
/// Any: two loads, `rdtsc` and one division.
#[must_use]
pub fn now_ns() -> u64 {
    let Some(rate) = rate() else { return 0 };
    let ticks = tsc().saturating_sub(START.load(Ordering::Relaxed));
    ticks_to_ns(ticks, rate)
}

/// Spins for `ns` nanoseconds; for a moment only, as long as the clock is not calibrated.
///
/// # Context
/// Any.
pub fn wait_ns(ns: u64) {
    let start = now_ns();
    loop {
        core::hint::spin_loop();
        if rate().is_none() || now_ns().saturating_sub(start) >= ns {
            return;
        }
    }
}

/// Converts ticks at a rate without overflow for any uptime: whole seconds and rest apart.
#[must_use]
pub(crate) fn ticks_to_ns(ticks: u64, rate: u64) -> u64 {
    let seconds = ticks.checked_div(rate).unwrap_or(0);
    let rest = u128::from(ticks.checked_rem(rate).unwrap_or(0));
    let rest_ns = rest
        .saturating_mul(u128::from(NS_PER_SECOND))
        .checked_div(u128::from(rate))
        .unwrap_or(0);
    seconds
        .saturating_mul(NS_PER_SECOND)
        .saturating_add(u64::try_from(rest_ns).unwrap_or(0))
}
