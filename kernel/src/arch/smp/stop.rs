//! Stopping all other CPUs, for a kernel that is dying.

use super::super::apic::{self, Message};
use super::super::local::{self, CpuLocal};
use super::super::{exit, time};
use super::cpus;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

/// Nobody stops anybody.
const NOBODY: u32 = u32::MAX;
/// TSC ticks until a CPU that has not stopped is left running (a tenth of a second or so).
const PATIENCE_TICKS: u64 = 1 << 28;

/// The CPU that stops the others.
static STOPPER: AtomicU32 = AtomicU32::new(NOBODY);
/// How many have stopped.
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// Stops all other CPUs by NMI, wherever they are; only the first CPU that calls this returns.
///
/// # Context
/// Any, interrupts off.
pub(crate) fn stop_others() {
    let me = local::current_id();
    match STOPPER.compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(stopper) if stopper == me => return,
        Err(_) => stop_here(),
    }
    let mut told: u32 = 0;
    for cpu in cpus().filter(|cpu| cpu.id() != me) {
        // One that cannot be told goes on: the report must come out all the same.
        if apic::send(cpu.apic_id(), Message::Nmi).is_ok() {
            told = told.saturating_add(1);
        }
    }
    let start = time::tsc();
    while STOPPED.load(Ordering::Acquire) < told && time::tsc().wrapping_sub(start) < PATIENCE_TICKS
    {
        spin_loop();
    }
}

/// Whether an NMI means that this CPU is to stop.
pub(in crate::arch) fn is_wanted(cpu: &CpuLocal) -> bool {
    let stopper = STOPPER.load(Ordering::Acquire);
    stopper != NOBODY && stopper != cpu.id()
}

/// Stops this CPU for good.
pub(in crate::arch) fn stop_here() -> ! {
    STOPPED.fetch_add(1, Ordering::AcqRel);
    exit::halt()
}
