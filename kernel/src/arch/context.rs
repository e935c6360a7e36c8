//! A thread's state in the CPU: leaving one thread for another, and being made to.
//!
//! [`switch`] is a call like any other, so it keeps only what a callee must keep: six general
//! registers and the control words of SSE and x87. A thread that is interrupted has more to
//! lose. An interrupt stack can neither be left for another thread nor entered again, so a handler
//! that wants to switch does not: [`divert`] leaves the interrupted place on the thread's own stack, below
//! the red zone, as `iretq` wants to find it, and has the interrupt return to `preempted_entry` instead. That
//! saves all other state there, runs [`crate::sched::switch::preempted`] like an
//! ordinary call on the thread's stack, and goes back by `iretq`. A signal reaches a program
//! in the same way.

use super::stack::StackExtent;
use super::trap::TrapFrame;
use crate::num::{to_u64, to_usize};
use core::arch::{asm, naked_asm};

/// Bytes below the stack pointer that a function may use without saying so (System V ABI).
const RED_ZONE: u64 = 128;
/// What `iretq` takes: instruction, code segment, flags, stack pointer, stack segment.
const RETURN_FRAME: u64 = 5 * 8;
/// Room that a preemption needs: registers, the x87/SSE state, and the scheduler's frames.
pub(crate) const ROOM: u64 = 6 * 1024;
/// Flags that the diverted code starts without: trap, interrupt, direction, nested task, resume,
/// alignment check.
const UNWANTED_FLAGS: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 18;

/// The SSE control word as the CPU starts with it: all exceptions masked, round to nearest.
const MXCSR: u64 = 0x1f80;
/// The same for x87.
const FPU_CONTROL: u64 = 0x037f;

/// Leaves the current thread: its stack pointer goes to `save`. Goes on with the thread
/// whose stack pointer was saved as `load`, and returns when somebody switches back.
///
/// # Safety
///
/// 1. Interrupts are off.
/// 2. `load` was saved by this function or made by [`prepare`], has not been used since, and its
///    stack is mapped.
/// 3. `save` is valid for a write, and whoever reads it waits until this CPU has left the stack.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn switch(save: *mut u64, load: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "ldmxcsr [rsp]",
        "fldcw [rsp + 4]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Makes the stack of a new thread look as if it had called [`switch`] at the start of `entry`,
/// and gives its stack pointer.
///
/// # Safety
///
/// 1. The stack is mapped, nobody uses it, and it is larger than a page.
#[expect(
    clippy::transmutes_expressible_as_ptr_casts,
    reason = "`as` casts are denied everywhere"
)]
pub(crate) unsafe fn prepare(stack: StackExtent, entry: extern "sysv64" fn() -> !) -> u64 {
    // SAFETY: a function pointer is as wide as an address and all its bits are initialised.
    let entry = unsafe { core::mem::transmute::<extern "sysv64" fn() -> !, *const ()>(entry) };
    let entry = to_u64(entry.expose_provenance());
    // From the top: a zero return address, which ends backtraces; the address that `switch`
    // returns to; rbp, rbx, r12 to r15; the control words.
    let words = [MXCSR | FPU_CONTROL << 32, 0, 0, 0, 0, 0, 0, entry, 0];
    let bytes = to_u64(size_of_val(&words));
    let place = stack.top.saturating_sub(bytes);
    // SAFETY: the top of a stack that nobody uses (1); eight-byte aligned, as `top` is.
    unsafe { write(place, words) };
    place
}

/// Writes words at an address.
///
/// # Safety
///
/// The place is mapped, aligned, and nobody else uses it.
unsafe fn write<const N: usize>(place: u64, words: [u64; N]) {
    let place = core::ptr::with_exposed_provenance_mut::<[u64; N]>(to_usize(place));
    // SAFETY: the caller vouches for the place. Volatile: the CPU reads it behind Rust's back.
    unsafe { place.write_volatile(words) };
}

/// Whether the running thread, whose stack is `stack`, has room for a switch that it did not ask
/// for.
pub(crate) fn has_room(stack: StackExtent) -> bool {
    let rsp: u64;
    // SAFETY: reads the stack pointer.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    stack.holds(rsp.saturating_sub(ROOM), ROOM)
}

/// Makes the interrupt behind `frame` return to the scheduler, on the interrupted thread's
/// stack, and from there to where it came from. Answers false, and changes nothing, where the
/// interrupted stack is not `stack` or is nearly used up.
///
/// # Safety
///
/// 1. `stack` is the running thread's, and `frame` the state that an interrupt found there.
pub(crate) unsafe fn divert(frame: &mut TrapFrame, stack: StackExtent) -> bool {
    let below = frame.rsp.saturating_sub(RED_ZONE) & !15;
    let place = below.saturating_sub(RETURN_FRAME);
    let lowest = place.saturating_sub(ROOM);
    if !stack.holds(lowest, below.saturating_sub(lowest)) {
        return false;
    }
    let words = [frame.rip, frame.cs, frame.rflags, frame.rsp, frame.ss];
    // SAFETY: in the thread's stack, below all that the interrupted code may use (1).
    unsafe { write(place, words) };
    frame.rsp = place;
    // SAFETY: computes an address; touches neither memory nor stack.
    unsafe {
        asm!("lea {}, [rip + {}]", out(reg) frame.rip, sym preempted_entry,
            options(nomem, nostack, preserves_flags, pure));
    }
    frame.rflags &= !UNWANTED_FLAGS;
    true
}

/// Where diverted interrupts return to: with interrupts off, on the interrupted thread's stack,
/// a return frame on top of it, and every register as it was.
///
/// # Safety
///
/// Only [`divert`] leads here.
#[unsafe(naked)]
unsafe extern "sysv64" fn preempted_entry() -> ! {
    naked_asm!(
        // The word above is the interrupted rip: to backtraces this is a call from there.
        "push rbp",
        "mov rbp, rsp",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "sub rsp, 512",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "cld",
        "call {preempted}",
        "fxrstor64 [rsp]",
        "lea rsp, [rbp - 9 * 8]",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "pop rbp",
        "iretq",
        preempted = sym crate::sched::switch::preempted,
    )
}
