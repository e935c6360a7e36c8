//! Time: slices of it for threads that share a CPU, and wakes at deadlines.
//!
//! Each CPU's timer is set for the next thing that is due there, and is off where nothing is: an idle
//! CPU, or one whose thread has it alone, is not interrupted.

use super::list::{Kind, ThreadList};
use super::queue;
use super::thread::{Role, Thread};
use crate::arch::irq::IrqGuard;
use crate::arch::local::{self, CpuLocal};
use crate::arch::lock::IrqLock;
use crate::arch::{apic, running, smp, time};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The usual time slice, in nanoseconds: a hundred a second.
const SLICE_NS: u64 = 10_000_000;
/// The timer is not set for less: an interrupt costs about that much.
const LEAST_NS: u64 = 20_000;
/// The timer is off.
const NEVER: u64 = u64::MAX;

/// Threads with a deadline.
static TIMED: IrqLock<ThreadList> = IrqLock::new(ThreadList::new(Kind::Time));
/// The time slice in use.
static SLICE: AtomicU64 = AtomicU64::new(SLICE_NS);
/// Each slice ends on another CPU.
static MIGRATING: AtomicBool = AtomicBool::new(false);

/// What the scheduler knows of a CPU's timer.
#[derive(Debug)]
pub(crate) struct CpuTimer {
    /// When it will interrupt, by the clock.
    armed: AtomicU64,
    /// The earliest deadline that this CPU is to keep.
    deadline: AtomicU64,
    /// When the running thread's time is up.
    slice_end: AtomicU64,
}

impl CpuTimer {
    pub(super) const fn new() -> Self {
        Self {
            armed: AtomicU64::new(NEVER),
            deadline: AtomicU64::new(NEVER),
            slice_end: AtomicU64::new(NEVER),
        }
    }

    fn disarm(&self) {
        self.armed.store(NEVER, Ordering::SeqCst);
    }
}

/// Whether threads are moved to another CPU with each tick.
pub(super) fn is_migrating() -> bool {
    MIGRATING.load(Ordering::Relaxed)
}

/// Moves threads to another CPU with each tick, or not. Answers what was done before.
pub(crate) fn set_migrating(migrating: bool) -> bool {
    MIGRATING.swap(migrating, Ordering::Relaxed)
}

/// Sets the time slice; `None` is the usual one. Answers the one before.
pub(crate) fn set_slice_ns(ns: Option<u64>) -> u64 {
    SLICE.swap(ns.unwrap_or(SLICE_NS).max(LEAST_NS), Ordering::Relaxed)
}

/// Whether a CPU's timer will interrupt within a time slice: it will notice a new thread by itself.
pub(super) fn comes_soon(cpu: &CpuLocal) -> bool {
    let armed = cpu.sched.timer.armed.load(Ordering::SeqCst);
    let slice_end = time::now_ns().saturating_add(SLICE.load(Ordering::Relaxed));
    armed <= slice_end
}

/// Sets this CPU's timer for the next thing that is due here, unless it is set for that already.
///
/// The caller keeps interrupts off.
pub(super) fn arm(cpu: &CpuLocal) {
    let timer = &cpu.sched.timer;
    let is_shared = cpu.sched.queued() > 0 || is_migrating();
    let deadline = timer.deadline.load(Ordering::Relaxed);
    if (!is_shared && deadline == NEVER) || !apic::is_in_use() {
        return;
    }
    let now = time::now_ns();
    let mut due = deadline;
    if is_shared && running::with(Thread::role) != Some(Role::Idle) {
        let end = timer.slice_end.load(Ordering::Relaxed);
        let end = match end {
            NEVER => now.saturating_add(SLICE.load(Ordering::Relaxed)),
            end => end,
        };
        timer.slice_end.store(end, Ordering::Relaxed);
        due = due.min(end);
    }
    if due < timer.armed.load(Ordering::Relaxed) {
        timer.armed.store(due, Ordering::SeqCst);
        apic::start_timer(due.saturating_sub(now).max(LEAST_NS));
    }
}

/// Another thread runs here: its slice begins. The caller keeps interrupts off.
pub(super) fn begin_slice(cpu: &CpuLocal) {
    cpu.sched.timer.slice_end.store(NEVER, Ordering::Relaxed);
    arm(cpu);
}

/// A timer interrupt.
pub(crate) fn on_timer() {
    let cpu = local::current();
    let timer = &cpu.sched.timer;
    timer.disarm();
    let now = time::now_ns();
    if timer.deadline.load(Ordering::Relaxed) <= now {
        wake_due(cpu, now);
    }
    let is_over = timer.slice_end.load(Ordering::Relaxed) <= now.saturating_add(LEAST_NS);
    if is_over && (cpu.sched.queued() > 0 || is_migrating()) {
        timer.slice_end.store(NEVER, Ordering::Relaxed);
        cpu.ask_for_switch();
        queue::nudge(cpu);
    }
    arm(cpu);
}

/// Another CPU has put a thread in line here, or this CPU is to go offline.
pub(crate) fn on_reschedule() {
    let cpu = local::current();
    let is_idle = running::with(Thread::role) == Some(Role::Idle);
    if !cpu.sched.plug.is_active() || (is_idle && cpu.sched.queued() > 0) {
        cpu.ask_for_switch();
    }
    arm(cpu);
}

/// Has this CPU wake a thread when the clock reaches `deadline`. A thread that is on the list is
/// left there: its deadline has not changed.
pub(super) fn wake_at(thread: &Arc<Thread>, deadline: u64) {
    let _irq = IrqGuard::new();
    let cpu = local::current();
    let mut timed = TIMED.lock();
    if thread.is_timed.swap(true, Ordering::Relaxed) {
        return;
    }
    thread.deadline.store(deadline, Ordering::Relaxed);
    thread.timer_cpu.store(cpu.id(), Ordering::Relaxed);
    timed.push(Arc::clone(thread));
    drop(timed);
    cpu.sched
        .timer
        .deadline
        .fetch_min(deadline, Ordering::Relaxed);
    arm(cpu);
}

/// Forgets a thread's deadline, if it has one.
pub(super) fn forget(thread: &Thread) {
    let mut timed = TIMED.lock();
    if thread.is_timed.swap(false, Ordering::Relaxed) {
        timed.remove(thread);
    }
}

/// Wakes the threads whose deadline has come, and notes the next one.
fn wake_due(cpu: &CpuLocal, now: u64) {
    let is_mine = |thread: &Thread| thread.timer_cpu.load(Ordering::Relaxed) == cpu.id();
    loop {
        let mut timed = TIMED.lock();
        let due = timed
            .take_first(|thread| is_mine(thread) && thread.deadline.load(Ordering::Relaxed) <= now);
        let Some(thread) = due else {
            let mut next = NEVER;
            timed.for_each(|thread| {
                if is_mine(thread) {
                    next = next.min(thread.deadline.load(Ordering::Relaxed));
                }
            });
            cpu.sched.timer.deadline.store(next, Ordering::Relaxed);
            return;
        };
        thread.is_timed.store(false, Ordering::Relaxed);
        drop(timed);
        thread.wake();
    }
}

/// Hands the deadlines of a CPU that goes offline to the boot CPU, and stops its timer.
///
/// The caller is that CPU, interrupts off.
pub(super) fn hand_over(cpu: &CpuLocal) {
    let boot_cpu = local::boot_cpu();
    let mut earliest = NEVER;
    TIMED.lock().for_each(|thread| {
        if thread.timer_cpu.load(Ordering::Relaxed) == cpu.id() {
            thread.timer_cpu.store(boot_cpu.id(), Ordering::Relaxed);
            earliest = earliest.min(thread.deadline.load(Ordering::Relaxed));
        }
    });
    apic::stop_timer();
    let timer = &cpu.sched.timer;
    timer.disarm();
    timer.deadline.store(NEVER, Ordering::Relaxed);
    if earliest == NEVER {
        return;
    }
    // Whatever the boot CPU stores itself comes from a look at the list after this.
    let theirs = &boot_cpu.sched.timer.deadline;
    theirs.fetch_min(earliest, Ordering::Relaxed);
    queue::notify(boot_cpu);
}

/// Time that all CPUs together spent without a thread, in nanoseconds.
pub(crate) fn idle_ns() -> u64 {
    smp::cpus()
        .map(|cpu| cpu.sched.idle_time.ns())
        .fold(0, u64::saturating_add)
}
