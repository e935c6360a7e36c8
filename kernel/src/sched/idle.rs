//! What a CPU does that has no thread to run, and what is left of threads that have ended.
//!
//! An idle CPU says so in its word ([`Presence`](crate::arch::presence::Presence)), then looks once
//! more whether there is something to do, then halts. Whoever puts a thread in line looks at
//! the word after that, and interrupts a CPU that does not run. Either the one sees the thread or the
//! other sees the word.
#![expect(
    unsafe_code,
    reason = "the boot CPU's idle thread starts on a stack made by hand"
)]

use super::hotplug;
use super::list::{Kind, ThreadList};
use super::switch::{self, Leaving};
use super::thread::Thread;
use crate::arch::context;
use crate::arch::local::{self, CpuLocal};
use crate::arch::lock::IrqLock;
use crate::arch::pin::Pin;
use crate::arch::stack::StackExtent;
use crate::memory::stacks;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use x86_64::instructions::interrupts;

/// Threads that have ended with nobody to join them: their stacks are to be given back.
static ENDED: IrqLock<ThreadList> = IrqLock::new(ThreadList::new(Kind::Run));
/// How many there are.
static ENDED_COUNT: AtomicU32 = AtomicU32::new(0);

/// Leaves a thread that was left for the last time to whoever is idle first.
pub(super) fn clear_away(thread: Arc<Thread>) {
    let mut ended = ENDED.lock();
    ended.push(thread);
    ENDED_COUNT.store(ended.len(), Ordering::Relaxed);
}

/// Threads that have ended and are still to be cleared away.
pub(crate) fn ended() -> u32 {
    ENDED_COUNT.load(Ordering::Relaxed)
}

/// Gives the stacks of ended threads back, many at once; it takes no memory to do so.
///
/// # Context
/// Task or idle thread, interrupts on.
pub(super) fn reap() {
    if ENDED_COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let next = || {
        let mut ended = ENDED.lock();
        let next = ended.pop();
        ENDED_COUNT.store(ended.len(), Ordering::Relaxed);
        next
    };
    let ended = core::iter::from_fn(next);
    stacks::free(ended.filter_map(|thread| thread.take_stack()));
}

/// Readies a stack for the idle thread of the boot CPU, and gives its stack pointer. To be called
/// once, for a stack that nobody uses.
pub(super) fn prepare(stack: StackExtent) -> u64 {
    // SAFETY: (1) the boot CPU's idle stack is static, and this is its only user.
    unsafe { context::prepare(stack, start) }
}

/// Where the boot CPU's idle thread starts.
extern "sysv64" fn start() -> ! {
    switch::finish();
    interrupts::enable();
    run()
}

/// The idle thread of a CPU.
pub(crate) fn run() -> ! {
    loop {
        {
            // What was begun is finished before another thread runs here.
            let _pin = Pin::new();
            reap();
        }
        interrupts::disable();
        step(local::current());
        interrupts::enable();
    }
}

/// Runs what is ready; then halts until the next interrupt.
fn step(cpu: &CpuLocal) {
    switch::schedule(Leaving::Idle);
    if cpu.sched.plug.is_parking() {
        hotplug::park(cpu);
        return;
    }
    cpu.presence.enter();
    let is_called = cpu.sched.queued() > 0
        || cpu.sched.plug.is_parking()
        || ENDED_COUNT.load(Ordering::Relaxed) > 0;
    if !is_called {
        cpu.sched.idle_time.begin();
        // An interrupt that came since comes only behind the `sti`, and ends the `hlt`.
        interrupts::enable_and_hlt();
        interrupts::disable();
        // As below.
        cpu.sched.idle_time.end();
    }
    // An interrupt handler has done that already, but for NMI.
    cpu.presence.leave();
}
