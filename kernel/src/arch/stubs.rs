//! Entry stubs: what the CPU jumps to, for each of the 256 vectors.
//!
//! A stub pushes a zero where the CPU pushed no error code, and its vector; the common part saves
//! the general registers as a [`TrapFrame`](super::trap::TrapFrame) and the x87/SSE state above
//! the handler's stack, and calls `dispatch`.
//!
//! Two facts shape this (they are easy to get wrong):
//! - the precompiled `core` uses the *red zone*, so nothing may be pushed on the interrupted
//!   stack: every gate names an interrupt stack;
//! - it also uses XMM registers freely, so they are saved before any Rust code runs.

use super::trap::dispatch;
use core::arch::{asm, naked_asm};

/// Distance between two stubs.
const STUB_BYTES: u64 = 16;

/// Vectors for which the CPU pushes an error code: 8, 10–14, 17, 21, 29, 30.
pub const HAS_ERROR_CODE: u32 = 0x6022_7d00;

/// The address of the stub of `vector`.
#[must_use]
pub(super) fn address(vector: u8) -> u64 {
    let start: u64;
    // SAFETY: computes an address; touches neither memory nor stack.
    unsafe {
        asm!("lea {}, [rip + {}]", out(reg) start, sym table,
            options(nomem, nostack, preserves_flags, pure));
    }
    // The table aligns itself: the function's own address may lie up to 15 bytes before it.
    let first = start.checked_next_multiple_of(STUB_BYTES).unwrap_or(start);
    first.saturating_add(STUB_BYTES.saturating_mul(u64::from(vector)))
}

/// The 256 stubs, one every sixteen bytes.
///
/// # Safety
///
/// Not to be called: the CPU enters its parts through the IDT, with a frame on the stack.
#[unsafe(naked)]
unsafe extern "sysv64" fn table() -> ! {
    naked_asm!(
        ".balign 16",
        ".set .Lmm_vector, 0",
        ".rept 256",
        ".balign 16",
        ".if .Lmm_vector < 32",
        ".if (({has_error_code} >> .Lmm_vector) & 1) == 0",
        "push 0",
        ".endif",
        ".else",
        "push 0",
        ".endif",
        "push .Lmm_vector",
        "jmp {common}",
        ".set .Lmm_vector, .Lmm_vector + 1",
        ".endr",
        has_error_code = const HAS_ERROR_CODE,
        common = sym common,
    )
}

/// Saves everything, calls [`dispatch`], restores everything and returns from the interrupt.
///
/// The last two words pushed are the interrupted `rip` and `rbp`, in the shape of an ordinary
/// call frame that `rbp` then points to: backtraces walk through an interrupt as through a call.
///
/// # Safety
///
/// Only the stubs of [`table`] may jump here.
#[unsafe(naked)]
unsafe extern "sysv64" fn common() -> ! {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // 14 registers, vector and error code lie above: the interrupted rip is the 17th word.
        "push [rsp + 16 * 8]",
        "push rbp",
        "mov rbp, rsp",
        "mov rdi, rsp",
        "sub rsp, 512",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "cld",
        "call {dispatch}",
        "fxrstor64 [rsp]",
        "mov rsp, rbp",
        "pop rbp",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        dispatch = sym dispatch,
    )
}
