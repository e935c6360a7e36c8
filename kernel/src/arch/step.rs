//! Running code one instruction at a time.
//!
//! With the trap flag set the CPU raises #DB after every instruction. A test that does something
//! in that handler proves that it may happen between any two instructions of the stepped code:
//! what an interrupt or NMI at the worst moment would do.

use super::trap::{Handler, set_handler, vector};
use core::arch::asm;

/// Runs `body` with `handler` called after each of its instructions, and of the few around it.
///
/// Code that interrupts reach is not stepped: entering a handler clears the flag. `body` must not
/// touch the flag itself (`popf`).
///
/// # Safety
///
/// 1. As for [`set_handler`] with #DB, for which `handler` is registered meanwhile.
///
/// # Context
/// Task, one caller at a time: the handler of #DB is the same for all CPUs.
pub unsafe fn single_step<R>(handler: Handler, body: impl FnOnce() -> R) -> R {
    // SAFETY: the caller vouches for the handler.
    unsafe { set_handler(vector::DEBUG, Some(handler)) };
    // SAFETY: sets the trap flag and nothing else; #DB has a handler that returns.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = body();
    // SAFETY: clears it again.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    // SAFETY: nothing raises #DB any more.
    unsafe { set_handler(vector::DEBUG, None) };
    result
}
