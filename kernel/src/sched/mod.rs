//! Kernel threads: a preemptive scheduler for all CPUs.
//!
//! | Module | What |
//! |---|---|
//! | [`thread`], [`mod@spawn`] | threads; made, ended, joined |
//! | [`team`] | threads that borrow from whoever waits for them |
//! | [`policy`] | which nodes' memory a thread wants |
//! | [`wait`], [`mutex`] | waiting for events: queues, completions, a lock that sleeps |
//! | `list` | lists linked through the threads |
//! | `queue` | per-CPU queues: where a thread goes, which one is next |
//! | `switch` | from one thread to the next, asked or not |
//! | `tick` | the timer: time slices, deadlines |
//! | `idle`, `idle_time` | what a CPU does that has nothing to do, and for how long |
//! | `worker` | a thread on each CPU for work that is meant for it |
//! | [`hotplug`] | CPUs go offline and come back |
//! | `commands` | `ps`, `cpu` |
//!
//! Threads are switched by turns. A timer interrupt may take the CPU from a thread between any two
//! instructions, and the thread may go on on another CPU, unless interrupts are off or the thread
//! is pinned ([`Pin`](crate::arch::pin::Pin)). A lock that spins keeps interrupts off, so its
//! holder runs on. Linux counterpart: `kernel/sched`, with one class, round robin.

mod commands;
pub mod hotplug;
pub(crate) mod idle;
pub(crate) mod idle_time;
mod list;
pub mod mutex;
pub mod policy;
pub(crate) mod queue;
pub mod spawn;
pub(crate) mod switch;
pub mod team;
pub mod thread;
pub(crate) mod tick;
pub mod wait;
pub(crate) mod worker;

use crate::arch::local::{self, CpuLocal};
use crate::arch::pin;
use crate::arch::running;
use crate::arch::stack::StackExtent;
use crate::{kernel_param, params};
use alloc::string::String;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};
use thread::{Affinity, Recipe, Role, SpawnError, Thread};
use x86_64::instructions::interrupts;

pub(crate) use spawn::prepare;
pub use spawn::{JoinHandle, spawn};

kernel_param!(
    "sched",
    "migrate",
    "move each thread to another CPU with each tick (a test)"
);

/// Sleeping is not allowed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    /// In a handler of an interrupt or exception.
    InInterrupt,
    /// The running thread is pinned to its CPU.
    Pinned,
    /// Interrupts are off.
    InterruptsOff,
    /// What runs is no thread that could be left: an idle CPU's, or the boot before there are any.
    NoThread,
}

impl fmt::Display for Atomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InInterrupt => "in an interrupt handler",
            Self::Pinned => "while pinned to a CPU",
            Self::InterruptsOff => "with interrupts off",
            Self::NoThread => "outside of any thread",
        })
    }
}

/// Attempts to sleep where it is not allowed, since boot.
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// How often something tried to sleep where it is not allowed.
#[must_use]
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Checks that the caller may sleep. Everything that may sleep calls it first, whether or not it
/// will: a wrong call is found when it is made, not when it happens to wait.
///
/// # Errors
/// Why it may not. That is a bug of the caller's: it is logged, with the place, and counted.
///
/// # Context
/// Any but NMI.
#[track_caller]
pub fn might_sleep() -> Result<(), Atomic> {
    let Err(atomic) = may_sleep() else {
        return Ok(());
    };
    VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    let place = Location::caller();
    log::error!("sleep in atomic context: {atomic}, at {place}");
    Err(atomic)
}

/// Whether the caller may sleep; says nothing to anybody.
///
/// # Errors
/// Why not.
pub fn may_sleep() -> Result<(), Atomic> {
    if !interrupts::are_enabled() {
        // Which of both is only told apart while nobody can move us.
        return Err(if local::current().is_in_interrupt() {
            Atomic::InInterrupt
        } else {
            Atomic::InterruptsOff
        });
    }
    if pin::depth() > 0 {
        return Err(Atomic::Pinned);
    }
    match running::with(Thread::role) {
        None | Some(Role::Idle) => Err(Atomic::NoThread),
        Some(Role::Normal | Role::Worker) => Ok(()),
    }
}

/// Lets other threads run first, if any are ready.
///
/// # Errors
/// The caller may not sleep.
///
/// # Context
/// Task.
#[track_caller]
pub fn yield_now() -> Result<(), Atomic> {
    might_sleep()?;
    switch::give_way();
    Ok(())
}

/// Sleeps for `ms` milliseconds at least.
///
/// # Errors
/// The caller may not sleep.
///
/// # Context
/// Task.
#[track_caller]
pub fn sleep_ms(ms: u64) -> Result<(), Atomic> {
    might_sleep()?;
    let deadline = thread::deadline_in(ms.saturating_mul(1_000_000));
    wait::park_until(Some(deadline), || false);
    Ok(())
}

/// Makes the code that runs a thread, the shell, bound to the boot CPU; and that CPU's idle thread.
///
/// # Errors
/// No memory.
pub(crate) fn init() -> Result<(), SpawnError> {
    let cpu = local::boot_cpu();
    let idle = local::boot_idle_stack();
    prepare_idle(cpu, idle, idle::prepare(idle))?;
    let shell = Thread::new(Recipe {
        name: String::from("shell"),
        affinity: Affinity::Cpu(0),
        role: Role::Normal,
        extent: cpu.main_stack(),
        stack: None,
        body: None,
        visit: None,
        sp: 0,
        cpu: 0,
    })?;
    shell.note_running(0);
    let _none = running::replace(cpu, shell);
    if params::get("sched") == Some("migrate") {
        tick::set_migrating(true);
    }
    Ok(())
}

/// Makes the idle thread of another CPU, which will come up on its main stack.
///
/// # Errors
/// No memory.
pub(crate) fn prepare_cpu(cpu: &'static CpuLocal) -> Result<(), SpawnError> {
    prepare_idle(cpu, cpu.main_stack(), 0)?;
    if let Some(idle) = cpu.sched.idle() {
        idle.note_running(cpu.id());
        let _none = running::replace(cpu, idle);
    }
    Ok(())
}

fn prepare_idle(cpu: &CpuLocal, extent: StackExtent, sp: u64) -> Result<(), SpawnError> {
    let id = cpu.id();
    let thread = Thread::new(Recipe {
        name: alloc::format!("idle/{id}"),
        affinity: Affinity::Cpu(id),
        role: Role::Idle,
        extent,
        stack: None,
        body: None,
        visit: None,
        sp,
        cpu: id,
    })?;
    cpu.sched.set_idle(thread);
    Ok(())
}

/// Looks at the running thread, if there are threads yet.
pub fn with_running<R>(look: impl FnOnce(&Thread) -> R) -> Option<R> {
    running::with(look)
}

/// The stack of the running thread; none before there are threads.
pub(crate) fn running_stack() -> StackExtent {
    running::with(Thread::stack).unwrap_or(StackExtent::NONE)
}
