//! CPUs go offline and come back.
//!
//! A CPU that is to go offline gets no new threads, sends those in line to others, and lets the
//! running one go with the next interrupt. What is bound to it keeps it online: a thread by
//! its [`Visit`], work by the visit of whoever waits for it. The idle thread then hands its
//! deadlines over, marks the CPU offline and halts. An offline CPU still answers calls that were made
//! before; whoever makes new ones leaves it out. What it is to forget of page tables it does when it wakes, as an
//! idle CPU does. The boot CPU stays.

use super::mutex::Mutex;
use super::{Atomic, queue, sleep_ms, tick};
use crate::arch::local::CpuLocal;
use crate::arch::{smp, time};
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use x86_64::instructions::interrupts;

/// It takes threads.
const ACTIVE: u8 = 0;
/// It takes no new ones.
const DRAINING: u8 = 1;
/// It is to park when it has none left.
const PARKING: u8 = 2;
/// It is parked.
const OFFLINE: u8 = 3;
/// It is to come back.
const RETURNING: u8 = 4;

/// How long whoever is bound to a CPU may take to finish.
const VISITORS_MS: u64 = 200;
/// How long a CPU may take to let go of its threads, or to come back.
const PATIENCE_MS: u64 = 20_000;

/// One CPU comes or goes at a time.
static CHANGE: Mutex<()> = Mutex::new(());

/// Where a CPU stands between online and offline.
#[derive(Debug)]
pub(crate) struct Plug {
    state: AtomicU8,
    visitors: AtomicU32,
}

impl Plug {
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicU8::new(ACTIVE),
            visitors: AtomicU32::new(0),
        }
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::SeqCst) == state
    }

    fn go(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Whether it takes threads.
    pub(crate) fn is_active(&self) -> bool {
        self.is(ACTIVE)
    }

    /// Whether its idle thread is to park it.
    pub(crate) fn is_parking(&self) -> bool {
        self.is(PARKING)
    }

    /// Whether it is parked: it need not be called.
    pub(crate) fn is_offline(&self) -> bool {
        self.is(OFFLINE)
    }
}

/// Keeps a CPU online until it is dropped.
#[derive(Debug)]
#[must_use = "the CPU may go offline when the visit is dropped"]
pub struct Visit(&'static CpuLocal);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.sched.plug.visitors.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Keeps a CPU online; `None` where there is no such CPU, or it is offline or about to be.
///
/// # Context
/// Any.
#[must_use]
pub fn visit(id: u32) -> Option<Visit> {
    let cpu = smp::cpu(id)?;
    // Counted first, looked at then: `offline` changes first and looks at the count then.
    cpu.sched.plug.visitors.fetch_add(1, Ordering::SeqCst);
    let visit = Visit(cpu);
    cpu.sched.plug.is_active().then_some(visit)
}

/// Why a CPU stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugError {
    /// There is no such CPU.
    NoSuchCpu(u32),
    /// The boot CPU cannot go offline.
    BootCpu,
    /// It is offline, or online, already.
    Already,
    /// A thread or work that is bound to it has not finished.
    InUse,
    /// It does not let go of its threads, or does not come back, in time.
    NoAnswer,
    /// The caller may not sleep.
    Atomic(Atomic),
}

impl fmt::Display for PlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu(id) => smp::NoSuchCpu(*id).fmt(f),
            Self::BootCpu => f.write_str("the boot CPU stays online"),
            Self::Already => f.write_str("it is so already"),
            Self::InUse => f.write_str("something that is bound to it has not finished"),
            Self::NoAnswer => f.write_str("it does not answer"),
            Self::Atomic(atomic) => write!(f, "not {atomic}"),
        }
    }
}

impl From<Atomic> for PlugError {
    fn from(atomic: Atomic) -> Self {
        Self::Atomic(atomic)
    }
}

/// Takes a CPU offline: its threads go on elsewhere, and it halts.
///
/// # Errors
/// [`PlugError`]; the CPU stays online.
///
/// # Context
/// Task.
pub fn offline(id: u32) -> Result<(), PlugError> {
    let _change = CHANGE.lock()?;
    let cpu = smp::cpu(id).ok_or(PlugError::NoSuchCpu(id))?;
    if id == 0 {
        return Err(PlugError::BootCpu);
    }
    let plug = &cpu.sched.plug;
    if !plug.go(ACTIVE, DRAINING) {
        return Err(PlugError::Already);
    }
    let is_left = || plug.visitors.load(Ordering::SeqCst) == 0;
    if !poll(VISITORS_MS, is_left)? {
        plug.go(DRAINING, ACTIVE);
        return Err(PlugError::InUse);
    }
    plug.go(DRAINING, PARKING);
    let is_parked = || {
        queue::notify(cpu);
        plug.is_offline()
    };
    // Where the time is up, whoever is first decides.
    if poll(PATIENCE_MS, is_parked)? || !plug.go(PARKING, ACTIVE) {
        return Ok(());
    }
    Err(PlugError::NoAnswer)
}

/// Brings a CPU back that went offline.
///
/// # Errors
/// [`PlugError`].
///
/// # Context
/// Task.
pub fn online(id: u32) -> Result<(), PlugError> {
    let _change = CHANGE.lock()?;
    let cpu = smp::cpu(id).ok_or(PlugError::NoSuchCpu(id))?;
    let plug = &cpu.sched.plug;
    if !plug.go(OFFLINE, RETURNING) {
        return Err(PlugError::Already);
    }
    let is_back = || {
        queue::notify(cpu);
        plug.is_active()
    };
    if poll(PATIENCE_MS, is_back)? {
        Ok(())
    } else {
        Err(PlugError::NoAnswer)
    }
}

/// Looks each millisecond whether something is so, for a while.
fn poll(ms: u64, is_so: impl Fn() -> bool) -> Result<bool, Atomic> {
    let start = time::now_ns();
    let limit = ms.saturating_mul(1_000_000);
    loop {
        if is_so() {
            return Ok(true);
        }
        if time::now_ns().saturating_sub(start) > limit {
            return Ok(false);
        }
        sleep_ms(1)?;
    }
}

/// Parks this CPU until it is to come back.
///
/// The caller is its idle thread, interrupts off, with nothing left in line.
pub(super) fn park(cpu: &CpuLocal) {
    let plug = &cpu.sched.plug;
    tick::hand_over(cpu);
    if !plug.go(PARKING, OFFLINE) {
        return;
    }
    while plug.is_offline() {
        cpu.presence.enter();
        // A thread that was on its way here when this CPU closed goes elsewhere. One that is bound
        // here stays in line.
        queue::evict(cpu);
        if plug.is_offline() {
            interrupts::enable_and_hlt();
            interrupts::disable();
        }
        cpu.presence.leave();
    }
    plug.go(RETURNING, ACTIVE);
}

/// Whether a CPU takes threads.
#[must_use]
pub fn is_online(cpu: &CpuLocal) -> bool {
    !cpu.sched.plug.is_offline()
}
