//! All CPUs of the machine: which there are, starting them, calling them, stopping them.
//!
//! | file | what |
//! |---|---|
//! | `trampoline` | from real mode to the kernel |
//! | `start` | INIT, start-up, start-up; who did not come |
//! | [`call`] | run something on another CPU |
//! | `stop` | stop the others, for a report |
//!
//! CPUs have numbers without gaps, in the order in which they came; 0 is the boot CPU. A CPU that
//! is there keeps its number, also while it is offline ([`crate::sched::hotplug`]).

pub mod call;
mod start;
pub(crate) mod stop;
mod trampoline;

use super::local::{self, CpuLocal};
use super::lock::IrqLock;
use crate::num::to_usize;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use mm::mem::EarlyRam;
use spin::Once;

pub(crate) use call::serve_work;
pub use call::{NoSuchCpu, call_on, call_on_all, run_on, run_on_each};
pub(crate) use start::{Firmware, bring_up};

/// The most CPUs there can be: what eight bits of APIC identifier can tell apart, less the one
/// that means all of them.
pub const MAX_CPUS: usize = 255;

/// The CPUs that take part but for the first, which is static.
static CPUS: [Once<&'static CpuLocal>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
/// How many take part.
static COUNT: AtomicU32 = AtomicU32::new(1);
/// What the firmware's table names, and what became of it.
static RECORDS: IrqLock<Vec<Record>> = IrqLock::new(Vec::new());
/// The page that CPUs start in, from early memory until they have.
static LOW_PAGE: IrqLock<Option<EarlyRam>> = IrqLock::new(None);

/// What became of a CPU that the firmware names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes part, with this number.
    Online(u32),
    /// It did not answer in time.
    NoAnswer,
    /// The firmware says that it cannot be used, or is not there yet.
    Disabled,
    /// Its identifier needs x2APIC mode.
    OutOfReach,
    /// There was no memory for its stacks.
    NoMemory,
    /// The command line leaves it out, or what all other CPUs need is missing.
    LeftOut,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online(0) => "online, boot CPU",
            Self::Online(_) => "online",
            Self::NoAnswer => "does not answer",
            Self::Disabled => "disabled by the firmware",
            Self::OutOfReach => "out of reach without x2APIC",
            Self::NoMemory => "no memory for its stacks",
            Self::LeftOut => "left out",
        })
    }
}

/// A CPU that the firmware names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its APIC identifier.
    pub apic_id: u32,
    /// What became of it.
    pub state: State,
}

/// Sends an NMI to a CPU; answers whether it got out. Without a handler for it that is the end.
///
/// # Context
/// Any.
pub(crate) fn send_nmi(cpu: &CpuLocal) -> bool {
    super::apic::send(cpu.apic_id(), super::apic::Message::Nmi).is_ok()
}

/// How many CPUs take part.
///
/// # Context
/// Any.
#[must_use]
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// The CPU with a number, if it takes part.
///
/// # Context
/// Any.
#[must_use]
pub fn cpu(id: u32) -> Option<&'static CpuLocal> {
    if id >= count() {
        return None;
    }
    if id == 0 {
        return Some(local::boot_cpu());
    }
    let index = to_usize(u64::from(id));
    CPUS.get(index)?.get().copied()
}

/// All CPUs that take part, by number.
///
/// # Context
/// Any.
pub fn cpus() -> impl Iterator<Item = &'static CpuLocal> {
    (0..count()).filter_map(cpu)
}

/// The firmware's CPUs in its order.
#[must_use]
pub fn records() -> Vec<Record> {
    RECORDS.lock().clone()
}

/// Puts the page aside that CPUs will start in.
pub(crate) fn keep_low_page(page: EarlyRam) {
    *LOW_PAGE.lock() = Some(page);
}

/// Lets a CPU that has come in take part.
fn publish(cpu: &'static CpuLocal) {
    if let Some(place) = CPUS.get(to_usize(u64::from(cpu.id()))) {
        place.call_once(|| cpu);
        COUNT.fetch_add(1, Ordering::AcqRel);
    }
}
