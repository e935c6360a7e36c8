//! From one thread to the next.
//!
//! A thread that is left must not be run by another CPU before this one is off its stack. So who
//! leaves only notes itself and why ([`Leaving`]), and whoever comes next on this CPU puts it
//! away ([`finish`]): in line, to sleep, or to be cleared away. No lock is held across a switch.
#![expect(unsafe_code, reason = "switching stacks has no safe form")]

use super::thread::{Role, Thread};
use super::{may_sleep, queue, tick};
use crate::arch::irq::IrqGuard;
use crate::arch::local::{self, CpuLocal};
use crate::arch::trap::TrapFrame;
use crate::arch::{context, running};
use alloc::sync::Arc;

/// Why a thread is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It goes in line at this CPU.
    Ready(u32),
    /// It sleeps until it is woken.
    Parked,
    /// It is over.
    Ended,
    /// It is the idle thread, and there is something to do.
    Idle,
}

/// Leaves the running thread for the next one that is ready, or for none. Returns when the thread
/// is given a CPU again, at once if there is no reason to leave it.
///
/// The caller keeps interrupts off and holds no pin; the CPU may be another one afterwards.
pub(super) fn schedule(leaving: Leaving) {
    let cpu = local::current();
    cpu.note_switch();
    crate::memory::note_quiescent();
    let next = match (queue::pick(cpu), leaving) {
        (Some(next), _) => next,
        (None, Leaving::Idle) => return,
        (None, Leaving::Ready(id)) if id == cpu.id() => return,
        (None, _) => match cpu.sched.idle() {
            Some(idle) => idle,
            None => return,
        },
    };
    switch_to(cpu, next, leaving);
    finish();
}

fn switch_to(cpu: &CpuLocal, next: Arc<Thread>, leaving: Leaving) {
    next.note_running(cpu.id());
    let load = next.sp().load(core::sync::atomic::Ordering::Relaxed);
    let Some(before) = running::replace(cpu, next) else {
        return;
    };
    let save = before.sp().as_ptr();
    // It is kept alive by this note, or by whoever takes the note.
    cpu.sched.note_left(before, leaving);
    // SAFETY: (1) interrupts are off; (2) `next` was ready, so it was left by `switch` or has not
    // run yet, and it was taken out of line for this CPU; (3) the note keeps `before` alive, and
    // nobody reads its stack pointer before `finish` has put it away.
    unsafe { context::switch(save, load) };
}

/// Puts the thread away that was left on this CPU just now. The first thing that any thread does
/// on a CPU, interrupts off.
pub(super) fn finish() {
    let cpu = local::current();
    if let Some((thread, leaving)) = cpu.sched.take_left() {
        match leaving {
            Leaving::Ready(id) => queue::put(id, thread),
            Leaving::Parked if thread.has_parked() => {}
            // Somebody has woken it while it was leaving.
            Leaving::Parked => queue::place(thread),
            Leaving::Ended if thread.has_ended() => super::idle::clear_away(thread),
            Leaving::Ended => {}
            Leaving::Idle => thread.set_status(super::thread::Status::Ready),
        }
    }
    tick::begin_slice(cpu);
}

/// Lets the next thread run, if one is ready. Interrupts are on, and no pin is held.
pub(super) fn give_way() {
    let _irq = IrqGuard::new();
    leave_ready(local::current());
}

fn leave_ready(cpu: &CpuLocal) {
    let leaving = running::with(|thread| match thread.role() {
        Role::Idle => Leaving::Idle,
        Role::Normal | Role::Worker => Leaving::Ready(queue::next_place(cpu, thread)),
    });
    if let Some(leaving) = leaving {
        schedule(leaving);
    }
}

/// At the end of an interrupt that found, or made, a switch due: has the interrupted thread switch
/// when it goes on. Where that may not be now (a pin, interrupts off, no room on its
/// stack), it stays due.
pub(crate) fn preempt(frame: &mut TrapFrame, cpu: &CpuLocal) {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let may = frame.rflags & INTERRUPTS_ON != 0 && cpu.pin_count() == 0 && !cpu.is_in_interrupt();
    let Some(stack) = running::with(Thread::stack).filter(|_| may) else {
        return;
    };
    // SAFETY: (1) the running thread's stack; the interrupted code had interrupts on, which no
    // handler has, so it was the thread that was interrupted.
    if unsafe { context::divert(frame, stack) } {
        cpu.note_switch();
    }
}

/// What a preempted thread runs, on its own stack, interrupts off, when it should let others run.
pub(crate) extern "sysv64" fn preempted() {
    running::with(Thread::count_preemption);
    leave_ready(local::current());
}

/// Switches now what was due while the running thread was pinned; where its stack is nearly used up
/// it stays due.
#[cold]
pub(crate) fn make_up() {
    let has_room = || running::with(|thread| context::has_room(thread.stack()));
    if may_sleep().is_ok() && has_room() == Some(true) {
        give_way();
    }
}
