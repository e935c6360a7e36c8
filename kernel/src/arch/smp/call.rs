//! Calls from one CPU to another.
//!
//! A call is a record on the caller's stack, linked into the inbox of the CPU that is to make it;
//! the caller waits, so the record lives as long as anybody looks at it. There are two kinds:
//!
//! - [`call_on`] and [`call_on_all`] interrupt the other CPU: `body` runs there with interrupts off, on its
//!   interrupt stack, between any two instructions. It must be short and take only locks that are
//!   held with interrupts off.
//! - [`run_on`] and [`run_on_each`] are served by the other CPU's worker, a thread: `body` runs
//!   with interrupts on, for as long as it likes, and may sleep. Linux counterpart: a pinned work
//!   item.
//!
//! Whoever waits for an interrupting call serves its own CPU's meanwhile, also with interrupts off, and a
//! worker that waits for work does its own: two CPUs that call each other do not block. Whoever waits
//! for work sleeps. CPUs that are offline are not called.

use super::super::apic::{self, Message, vector};
use super::super::irq::IrqGuard;
use super::super::local::{self, CpuLocal};
use super::super::{running, time};
use super::{cpu, cpus};
use crate::sched::hotplug::{self, Visit};
use crate::sched::thread::{Affinity, Thread};
use crate::sched::{wait, worker};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt;
use core::hint::spin_loop;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// No such CPU takes part, or it is offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchCpu(pub u32);

impl fmt::Display for NoSuchCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no CPU {} online", self.0)
    }
}

/// A call that waits to be made.
#[derive(Debug)]
struct Call {
    next: AtomicPtr<Call>,
    run: unsafe fn(*const ()),
    data: *const (),
    /// To be woken when it is done; nobody where the caller spins.
    waiter: Option<Arc<Thread>>,
    done: AtomicBool,
}

impl Call {
    fn new(way: Way, run: unsafe fn(*const ()), data: *const ()) -> Self {
        let waiter = match way {
            Way::Interrupt => None,
            Way::Work => wait::waiter(),
        };
        Self {
            next: AtomicPtr::new(null_mut()),
            run,
            data,
            waiter,
            done: AtomicBool::new(false),
        }
    }
}

/// Calls that a CPU is to make: anybody adds, that CPU takes all at once.
///
/// # Invariants
///
/// 1. Every record in the list lives until its `done` is set, and `run(data)` may be called once,
///    on the inbox's CPU.
#[derive(Debug)]
pub(in crate::arch) struct Inbox {
    head: AtomicPtr<Call>,
}

impl Inbox {
    pub(in crate::arch) const fn new() -> Self {
        Self {
            head: AtomicPtr::new(null_mut()),
        }
    }

    pub(in crate::arch) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }

    /// Adds a call.
    ///
    /// # Safety
    ///
    /// 1. `call` satisfies invariant 1.
    unsafe fn push(&self, call: &Call) {
        let place = core::ptr::from_ref(call).cast_mut();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            call.next.store(head, Ordering::Relaxed);
            match self
                .head
                .compare_exchange_weak(head, place, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Makes all calls that are there, oldest first. Only the inbox's CPU may.
    pub(super) fn serve(&self) {
        let mut newest = self.head.swap(null_mut(), Ordering::Acquire);
        let mut oldest: *mut Call = null_mut();
        while !newest.is_null() {
            // SAFETY: invariant 1: not done yet, so it lives.
            let call = unsafe { &*newest };
            newest = call.next.swap(oldest, Ordering::Relaxed);
            oldest = core::ptr::from_ref(call).cast_mut();
        }
        while !oldest.is_null() {
            // SAFETY: as above.
            let call = unsafe { &*oldest };
            // After `done` the record is gone.
            oldest = call.next.load(Ordering::Relaxed);
            // SAFETY: invariant 1: this is the CPU, and this is the one time.
            unsafe { (call.run)(call.data) };
            let waiter = call.waiter.clone();
            call.done.store(true, Ordering::Release);
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}

/// Makes the interrupting calls that wait for this CPU.
pub(crate) fn serve() {
    let _irq = IrqGuard::new();
    local::current().calls.serve();
}

/// Does the work that waits for this CPU.
///
/// # Context
/// This CPU's worker.
pub(crate) fn serve_work() {
    local::current().work.serve();
}

/// How a call reaches its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Interrupt,
    Work,
}

impl Way {
    fn inbox(self, cpu: &CpuLocal) -> &Inbox {
        match self {
            Self::Interrupt => &cpu.calls,
            Self::Work => &cpu.work,
        }
    }
}

/// A closure that runs once, elsewhere, and its answer.
struct Errand<F, R> {
    body: UnsafeCell<Option<F>>,
    answer: UnsafeCell<Option<R>>,
}

/// Runs the closure of an errand.
///
/// # Safety
///
/// `data` points to an `Errand<F, R>` that nobody else touches meanwhile.
unsafe fn run_errand<F: FnOnce() -> R, R>(data: *const ()) {
    // SAFETY: the caller vouches for the pointer.
    let errand = unsafe { &*data.cast::<Errand<F, R>>() };
    // SAFETY: nobody else touches it; the reference ends here.
    let body = unsafe { (*errand.body.get()).take() };
    let answer = body.map(|body| body());
    // SAFETY: as above.
    unsafe { *errand.answer.get() = answer };
}

/// Interrupts `target`, which runs `body`, and waits for the answer. On the current CPU `body` just
/// runs, with interrupts off.
///
/// # Errors
/// No such CPU takes part.
///
/// # Context
/// Task or interrupt, holding no lock that the other CPU could be waiting for.
pub fn call_on<R: Send>(target: u32, body: impl FnOnce() -> R + Send) -> Result<R, NoSuchCpu> {
    let irq = IrqGuard::new();
    if target == local::current_id() {
        return Ok(body());
    }
    drop(irq);
    elsewhere(target, Way::Interrupt, body)
}

/// Has `target`'s worker run `body` and waits for the answer; a thread that is bound to `target`
/// just runs it. The CPU stays online meanwhile.
///
/// # Errors
/// No such CPU takes part, it is offline, or there is no memory for its worker.
///
/// # Context
/// Task, holding no lock.
pub fn run_on<R: Send>(target: u32, body: impl FnOnce() -> R + Send) -> Result<R, NoSuchCpu> {
    if own_cpu() == Some(target) {
        return Ok(body());
    }
    let _visit = hotplug::visit(target).ok_or(NoSuchCpu(target))?;
    elsewhere(target, Way::Work, body)
}

/// The CPU that the running thread is bound to.
fn own_cpu() -> Option<u32> {
    match running::with(Thread::affinity)? {
        Affinity::Cpu(id) => Some(id),
        Affinity::Any => None,
    }
}

fn elsewhere<F: FnOnce() -> R + Send, R: Send>(
    target: u32,
    way: Way,
    body: F,
) -> Result<R, NoSuchCpu> {
    let reachable = cpu(target).filter(|cpu| hotplug::is_online(cpu));
    let target = reachable.ok_or(NoSuchCpu(target))?;
    if way == Way::Work {
        worker::wake(target).map_err(|_| NoSuchCpu(target.id()))?;
    }
    let errand = Errand {
        body: UnsafeCell::new(Some(body)),
        answer: UnsafeCell::new(None),
    };
    let call = Call::new(way, run_errand::<F, R>, core::ptr::from_ref(&errand).cast());
    // SAFETY: (1) `wait` below does not return before the call is done, and nobody touches the
    // errand until then.
    unsafe { way.inbox(target).push(&call) };
    kick(way, target);
    wait(way, target, &call);
    errand.answer.into_inner().ok_or(NoSuchCpu(target.id()))
}

/// Interrupts all CPUs that are online, the current one included, at the same time, or one after the
/// other where there is no memory for the records of the calls; each runs `body` with its number.
///
/// # Context
/// As [`call_on`].
pub fn call_on_all(body: &(impl Fn(u32) + Sync)) {
    let _irq = IrqGuard::new();
    let me = local::current_id();
    let others = || cpus().filter(|cpu| hotplug::is_online(cpu) && cpu.id() != me);
    let mut room = Vec::new();
    if room.try_reserve_exact(others().count()).is_ok() {
        each(Way::Interrupt, Some(me), others(), body, room);
        return;
    }
    for cpu in others() {
        // One that has gone offline since is left out, as it would be above.
        let _ = elsewhere(cpu.id(), Way::Interrupt, || body(cpu.id()));
    }
    body(me);
}

/// The first `count` CPUs run `body` with their numbers, at the same time and outside of
/// interrupts, those that are offline left out. Answers how many there were.
///
/// # Context
/// Task; allocates.
pub fn run_on_each(count: u32, body: &(impl Fn(u32) + Sync)) -> u32 {
    let me = own_cpu().filter(|&me| me < count);
    let wanted = cpus().filter(|cpu| cpu.id() < count);
    // They stay online until all are done.
    let visits: Vec<(&CpuLocal, Visit)> = wanted
        .filter_map(|cpu| Some((cpu, hotplug::visit(cpu.id())?)))
        .collect();
    let ready = |cpu: &&CpuLocal| Some(cpu.id()) == me || worker::wake(cpu).is_ok();
    let reached = visits.iter().map(|&(cpu, _)| cpu).filter(ready);
    each(Way::Work, me, reached, body, Vec::new())
}

/// Runs the closure behind `data` with this CPU's number.
///
/// # Safety
///
/// `data` points to an `F` that lives meanwhile.
unsafe fn run_shared<F: Fn(u32) + Sync>(data: *const ()) {
    // SAFETY: the caller vouches for the pointer.
    let body = unsafe { &*data.cast::<F>() };
    body(local::current_id());
}

fn each<'a, F: Fn(u32) + Sync>(
    way: Way,
    me: Option<u32>,
    cpus: impl Iterator<Item = &'a CpuLocal>,
    body: &F,
    mut calls: Vec<(&'a CpuLocal, Call)>,
) -> u32 {
    let data = core::ptr::from_ref(body).cast();
    // The records must not move once they are in an inbox: all are there before the first is.
    let others = cpus.filter(|cpu| Some(cpu.id()) != me);
    calls.extend(others.map(|cpu| (cpu, Call::new(way, run_shared::<F>, data))));
    for (cpu, call) in &calls {
        // SAFETY: (1) `wait` below outlasts every call, and a closure that is `Sync` may run on
        // many CPUs at once.
        unsafe { way.inbox(cpu).push(call) };
        kick(way, cpu);
    }
    let mut ran = u32::try_from(calls.len()).unwrap_or(u32::MAX);
    if let Some(me) = me {
        body(me);
        ran = ran.saturating_add(1);
    }
    for (cpu, call) in &calls {
        wait(way, cpu, call);
    }
    ran
}

/// Makes a CPU look into its inbox. Where the interrupt gets stuck, the next try will do.
fn kick(way: Way, cpu: &CpuLocal) {
    match way {
        Way::Interrupt => {
            let _ = apic::send(cpu.apic_id(), Message::Interrupt(vector::CALL));
        }
        // It was made before there was work for it.
        Way::Work => {
            let _ = worker::wake(cpu);
        }
    }
}

/// Waits until `target` has made a call.
fn wait(way: Way, target: &CpuLocal, call: &Call) {
    let is_done = || call.done.load(Ordering::Acquire);
    match way {
        Way::Interrupt => spin_until_done(target, &is_done),
        Way::Work => {
            let is_worker = worker::is_running();
            wait::park_or_spin(|| {
                if is_worker {
                    serve_work();
                }
                is_done()
            });
        }
    }
}

/// Reminds `target` each second, and serves own calls.
fn spin_until_done(target: &CpuLocal, is_done: &impl Fn() -> bool) {
    let second = time::rate().unwrap_or(time::NS_PER_SECOND);
    let mut reminders: u32 = 0;
    let mut since = time::tsc();
    while !is_done() {
        serve();
        // It may be waiting for this CPU to flush.
        crate::memory::tlb::catch_up();
        spin_loop();
        if time::tsc().wrapping_sub(since) < second {
            continue;
        }
        since = time::tsc();
        reminders = reminders.saturating_add(1);
        if reminders == 60 {
            log::warn!("cpu {} has not made a call for a minute", target.id());
        }
        kick(Way::Interrupt, target);
    }
}
