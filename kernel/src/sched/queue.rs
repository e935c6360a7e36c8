//! Which thread runs where: a queue of ready threads for each CPU.
//!
//! A thread that becomes ready goes to the CPU it ran on last if that is idle, else to an idle one,
//! else in line. A CPU that runs out of threads takes one from another's queue before it goes
//! idle, and a timer interrupt that finds threads in line wakes an idle CPU to do so. What a queue
//! misses is thus made good for within a time slice.

use super::idle_time::IdleTime;
use super::list::{Kind, ThreadList};
use super::switch::Leaving;
use super::thread::{Affinity, Role, Status, Thread};
use super::{hotplug, tick};
use crate::arch::irq::IrqGuard;
use crate::arch::local::{self, CpuLocal};
use crate::arch::lock::IrqLock;
use crate::arch::{apic, running, smp, time};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use spin::Once;

/// The scheduler's part of a CPU.
#[derive(Debug)]
pub(crate) struct CpuQueue {
    ready: IrqLock<ThreadList>,
    /// Length of the list, for those who only look.
    queued: AtomicU32,
    /// The thread that was left here last, and why, until its successor has put it away.
    left: IrqLock<Option<(Arc<Thread>, Leaving)>>,
    idle: Once<Arc<Thread>>,
    pub(super) worker: Once<Arc<Thread>>,
    /// Time without a thread.
    pub(crate) idle_time: IdleTime,
    pub(super) timer: tick::CpuTimer,
    pub(super) plug: hotplug::Plug,
}

impl CpuQueue {
    pub(crate) const fn new() -> Self {
        Self {
            ready: IrqLock::new(ThreadList::new(Kind::Run)),
            queued: AtomicU32::new(0),
            left: IrqLock::new(None),
            idle: Once::new(),
            worker: Once::new(),
            idle_time: IdleTime::new(),
            timer: tick::CpuTimer::new(),
            plug: hotplug::Plug::new(),
        }
    }

    /// Threads in line.
    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::SeqCst)
    }

    pub(super) fn idle(&self) -> Option<Arc<Thread>> {
        self.idle.get().cloned()
    }

    pub(super) fn set_idle(&self, thread: Arc<Thread>) {
        self.idle.call_once(|| thread);
    }

    pub(super) fn note_left(&self, thread: Arc<Thread>, leaving: Leaving) {
        *self.left.lock() = Some((thread, leaving));
    }

    pub(super) fn take_left(&self) -> Option<(Arc<Thread>, Leaving)> {
        self.left.lock().take()
    }

    fn push(&self, thread: Arc<Thread>) {
        let mut ready = self.ready.lock();
        ready.push(thread);
        self.queued.store(ready.len(), Ordering::SeqCst);
    }

    fn pop(&self) -> Option<Arc<Thread>> {
        if self.queued() == 0 {
            return None;
        }
        let mut ready = self.ready.lock();
        let thread = ready.pop();
        self.queued.store(ready.len(), Ordering::SeqCst);
        thread
    }

    fn take_movable(&self) -> Option<Arc<Thread>> {
        if self.queued() == 0 {
            return None;
        }
        let mut ready = self.ready.lock();
        let thread = ready.take_first(|thread| thread.affinity() == Affinity::Any);
        self.queued.store(ready.len(), Ordering::SeqCst);
        thread
    }

    /// Takes the first thread out that may run on `cpu`; nothing where the queue is in use.
    fn steal(&self, cpu: u32) -> Option<Arc<Thread>> {
        if self.queued() == 0 {
            return None;
        }
        let mut ready = self.ready.try_lock()?;
        let thread = ready.take_first(|thread| thread.affinity().allows(cpu));
        self.queued.store(ready.len(), Ordering::SeqCst);
        thread
    }
}

/// Whether a CPU has nothing but its idle thread, or is about to.
fn is_free(cpu: &CpuLocal) -> bool {
    !cpu.presence.is_running() && cpu.sched.queued() == 0
}

/// CPUs that take threads, from the one after `first` on, round to `first` itself.
fn active_after(first: u32) -> impl Iterator<Item = &'static CpuLocal> {
    let count = smp::count();
    let after = (0..count).filter_map(move |step| {
        let number = first.wrapping_add(step).wrapping_add(1);
        smp::cpu(number.checked_rem(count)?)
    });
    after.filter(|cpu| cpu.sched.plug.is_active())
}

/// Puts a thread in line that has become ready.
///
/// # Context
/// Any but NMI.
pub(super) fn place(thread: Arc<Thread>) {
    let _irq = IrqGuard::new();
    let target = match thread.affinity() {
        Affinity::Cpu(id) => id,
        Affinity::Any => choose(thread.cpu()),
    };
    put(target, thread);
}

fn choose(last: u32) -> u32 {
    let is_here = |id: u32| smp::cpu(id).filter(|cpu| cpu.sched.plug.is_active());
    if is_here(last).is_some_and(is_free) {
        return last;
    }
    if let Some(free) = active_after(last).find(|cpu| is_free(cpu)) {
        return free.id();
    }
    is_here(last).map_or(0, CpuLocal::id)
}

/// Puts a thread in line at a CPU, and lets the CPU know where it would not look by itself. The
/// caller keeps interrupts off.
pub(super) fn put(target: u32, thread: Arc<Thread>) {
    let cpu = smp::cpu(target).unwrap_or_else(local::boot_cpu);
    thread.set_status(Status::Ready);
    cpu.sched.push(thread);
    if cpu.id() == local::current_id() {
        if running::with(Thread::role) == Some(Role::Idle) {
            cpu.ask_for_switch();
        }
        tick::arm(cpu);
        return;
    }
    fence(Ordering::SeqCst);
    if !cpu.presence.is_running() || !tick::comes_soon(cpu) {
        notify(cpu);
    }
}

/// Makes a CPU look at its queue. Where the interrupt gets stuck, its timer will do.
pub(crate) fn notify(cpu: &CpuLocal) {
    let _ = apic::send_reschedule(cpu.apic_id());
}

/// The next thread to run here, which was taken out of line; `None` if there is none.
///
/// The caller keeps interrupts off.
pub(super) fn pick(cpu: &CpuLocal) -> Option<Arc<Thread>> {
    if cpu.sched.plug.is_active() {
        return cpu.sched.pop().or_else(|| steal(cpu.id()));
    }
    // On its way offline: only what is bound here runs here, and in the end not even that.
    evict(cpu);
    if cpu.sched.plug.is_offline() {
        return None;
    }
    cpu.sched.pop()
}

/// Sends all threads in line here that may run elsewhere to other CPUs.
pub(super) fn evict(cpu: &CpuLocal) {
    while let Some(thread) = cpu.sched.take_movable() {
        place(thread);
    }
}

fn steal(here: u32) -> Option<Arc<Thread>> {
    active_after(here)
        .filter(|cpu| cpu.id() != here)
        .find_map(|cpu| cpu.sched.steal(here))
}

/// Where a thread goes on that has had its turn here: here, or where the line is shorter.
pub(super) fn next_place(cpu: &CpuLocal, thread: &Thread) -> u32 {
    let here = cpu.id();
    if thread.affinity() != Affinity::Any {
        return here;
    }
    if !cpu.sched.plug.is_active() {
        return choose(here);
    }
    // One other CPU, by chance, is enough to spread threads evenly in time.
    let other = by_chance(here);
    if tick::is_migrating() {
        return other;
    }
    let shorter = |other: &&CpuLocal| other.sched.queued().saturating_add(1) < cpu.sched.queued();
    smp::cpu(other).filter(shorter).map_or(here, CpuLocal::id)
}

/// Some CPU that takes threads; another one than `here` where there is one.
fn by_chance(here: u32) -> u32 {
    let mixed = time::tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let steps = mixed.checked_rem(u64::from(smp::count())).unwrap_or(0);
    let first = here.wrapping_add(u32::try_from(steps).unwrap_or(0));
    active_after(first)
        .find(|cpu| cpu.id() != here)
        .map_or(here, CpuLocal::id)
}

/// Wakes an idle CPU to take over what is in line here.
pub(super) fn nudge(cpu: &CpuLocal) {
    if let Some(free) = active_after(cpu.id()).find(|cpu| is_free(cpu)) {
        notify(free);
    }
}
