//! Grace periods of the memory core: a thread that sees to what waits for them (Linux: `rcu_sched`).
//!
//! CPUs report quiescent states when they switch threads and at the end of interrupts; idle and offline
//! ones say so by their presence. The thread looks at them, a thousand times a second, only while
//! something waits.

use super::MEMORY;
use super::attendant::Attendant;
use crate::arch::smp;
use crate::params;
use crate::sched::{queue, sleep_ms};
use core::sync::atomic::{AtomicU64, Ordering};
use mm::platform::CpuId;
use mm::report::GraceStall;

/// Milliseconds between two looks.
const INTERVAL_MS: u64 = 1;
/// Looks that find a CPU late before that is reported: 21 seconds, as Linux waits.
pub(crate) const PATIENCE: u32 = 21_000;

static THREAD: Attendant = Attendant::new();
/// Reports of CPUs that were late, since boot.
static STALLS: AtomicU64 = AtomicU64::new(0);

/// Makes the thread, unless the command line says `grace=off`: whoever waits sees to it then.
pub(crate) fn start() {
    MEMORY.grace().set_patience(PATIENCE);
    if params::get("grace") == Some("off") {
        log::info!("no grace thread");
        return;
    }
    let work = || while MEMORY.grace().tend() && sleep_ms(INTERVAL_MS).is_ok() {};
    if let Err(error) = THREAD.engage("grace", work) {
        log::warn!("nobody sees to grace periods: {error}");
    }
}

/// Wakes the thread; answers whether there is one.
///
/// # Context
/// Any but NMI, without locks of the scheduler held.
pub(super) fn wake() -> bool {
    THREAD.ring()
}

/// Interrupts a CPU; it passes a quiescent state at the end of that, if it is not in a reader.
pub(super) fn hurry(cpu: CpuId) {
    if let Some(cpu) = smp::cpu(cpu.0) {
        queue::notify(cpu);
    }
}

/// Says that a CPU has been late for long.
pub(super) fn report(stall: &GraceStall) {
    STALLS.fetch_add(1, Ordering::Relaxed);
    log::warn!("{stall}");
}

/// How often that was.
pub(crate) fn stalls() -> u64 {
    STALLS.load(Ordering::Relaxed)
}
