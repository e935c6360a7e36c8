//! Instruction sequences that tests and benchmarks need and Rust cannot say.

use super::time::tsc;
use core::arch::{asm, naked_asm};

/// Executes a breakpoint instruction; the handler logs it and returns here.
pub fn breakpoint() {
    // SAFETY: the #BP handler saves and restores all state.
    unsafe { asm!("int3") };
}

/// Raises `vector` by a software interrupt.
///
/// Vectors with an error code are refused (returns false): the CPU pushes none for a software
/// interrupt, and the stub would take the return address for it.
pub fn software_interrupt(vector: u8) -> bool {
    let has_code = vector < 32 && (super::stubs::HAS_ERROR_CODE >> vector) & 1 != 0;
    if has_code {
        return false;
    }
    // SAFETY: every vector has a handler that saves and restores all state.
    unsafe { raise(u64::from(vector)) };
    true
}

/// Jumps to the `vector`th of 256 `int` instructions, each followed by a return.
///
/// # Safety
///
/// `vector` is below 256 and its handler returns.
#[unsafe(naked)]
unsafe extern "sysv64" fn raise(vector: u64) {
    naked_asm!(
        "lea rax, [rip + 2f]",
        "lea rax, [rax + rdi * 4]",
        "jmp rax",
        "2:",
        ".set .Lmm_raise, 0",
        ".rept 256",
        ".byte 0xcd, .Lmm_raise, 0xc3, 0xcc",
        ".set .Lmm_raise, .Lmm_raise + 1",
        ".endr",
    )
}

/// The vector that [`words_changed_by_interrupt`] raises.
pub const PROBE_VECTOR: u8 = 0xf0;

/// Overwrites all sixteen XMM registers, as any handler may.
pub fn clobber_sse() {
    // SAFETY: sets registers to ones, and says so.
    unsafe {
        asm!(
            ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "pcmpeqd xmm\\reg, xmm\\reg",
            ".endr",
            clobber_abi("sysv64"),
            options(nomem, nostack),
        );
    }
}

/// Fills the red zone and all sixteen XMM registers, raises [`PROBE_VECTOR`], and compares.
///
/// Returns the number of words that changed: 16 of the red zone and 32 of the registers are
/// looked at.
#[must_use]
pub fn words_changed_by_interrupt() -> u64 {
    let changed: u64;
    // SAFETY: the function keeps to the calling convention and restores what it must.
    unsafe {
        asm!("call {}", sym red_zone_and_xmm, out("rax") changed, clobber_abi("sysv64"));
    }
    changed
}

/// See [`words_changed_by_interrupt`].
///
/// # Safety
///
/// Changes caller-saved registers only; anyone may call it.
#[unsafe(naked)]
unsafe extern "sysv64" fn red_zone_and_xmm() -> u64 {
    naked_asm!(
        // The pattern of word n is n + 1, times an odd constant.
        "mov r8, 0x9e3779b97f4a7c15",
        "mov rcx, 16",
        "2:",
        "mov r9, rcx",
        "imul r9, r8",
        "neg rcx",
        "mov [rsp + rcx * 8], r9",
        "neg rcx",
        "dec rcx",
        "jnz 2b",
        // Register n gets n + 1 and its complement, times the constant.
        ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "mov r9d, \\reg + 1",
        "imul r9, r8",
        "movq xmm\\reg, r9",
        "movddup xmm\\reg, xmm\\reg",
        ".endr",
        "int 0xf0",
        "xor eax, eax",
        "mov rcx, 16",
        "3:",
        "mov r9, rcx",
        "imul r9, r8",
        "neg rcx",
        "cmp [rsp + rcx * 8], r9",
        "setne r10b",
        "movzx r10, r10b",
        "add rax, r10",
        "neg rcx",
        "dec rcx",
        "jnz 3b",
        ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "mov r9d, \\reg + 1",
        "imul r9, r8",
        "movq r10, xmm\\reg",
        "psrldq xmm\\reg, 8",
        "movq r11, xmm\\reg",
        "xor r10, r9",
        "xor r11, r9",
        "neg r10",
        "adc rax, 0",
        "neg r11",
        "adc rax, 0",
        ".endr",
        "ret",
    )
}

/// Fills fifteen general registers, raises [`PROBE_VECTOR`], and returns how many changed.
#[must_use]
pub fn registers_changed_by_interrupt() -> u64 {
    let changed: u64;
    // SAFETY: the function keeps to the calling convention and restores what it must.
    unsafe {
        asm!("call {}", sym general_registers, out("rax") changed, clobber_abi("sysv64"));
    }
    changed
}

/// See [`registers_changed_by_interrupt`].
///
/// # Safety
///
/// Keeps to the calling convention; anyone may call it.
#[unsafe(naked)]
unsafe extern "sysv64" fn general_registers() -> u64 {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // Each register gets a number of its own; rsp is what finds the way back.
        ".set .Lmm_value, 0x51000",
        ".irp reg,rax,rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
        "mov \\reg, .Lmm_value",
        ".set .Lmm_value, .Lmm_value + 1",
        ".endr",
        "int 0xf0",
        // What is left after the subtraction is zero; `neg` sets the carry where it is not.
        ".set .Lmm_value, 0x51000",
        ".irp reg,rax,rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
        "sub \\reg, .Lmm_value",
        ".set .Lmm_value, .Lmm_value + 1",
        ".endr",
        "neg rax",
        "sbb rax, rax",
        "neg rax",
        ".irp reg,rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
        "neg \\reg",
        "adc rax, 0",
        ".endr",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// Fills the general registers, the XMM registers, the red zone, an x87 register, the carry flag
/// and the SSE control word, runs `rounds` of a loop that uses all general registers, and returns how many
/// are not as they should be.
///
/// Threads that do this at the same time, with different `mark`s, find out whether a switch between
/// any two instructions loses anything.
#[must_use]
pub fn state_changed_in_a_loop(rounds: u64, mark: u64) -> u64 {
    let changed: u64;
    // SAFETY: the function keeps to the calling convention and restores what it must.
    unsafe {
        asm!("call {}", sym state_in_a_loop, in("rdi") rounds.max(1), in("rsi") mark,
            lateout("rax") changed, clobber_abi("sysv64"));
    }
    changed
}

/// See [`state_changed_in_a_loop`].
///
/// # Safety
///
/// Keeps to the calling convention; `rdi` is not zero.
#[unsafe(naked)]
unsafe extern "sysv64" fn state_in_a_loop(rounds: u64, mark: u64) -> u64 {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        // Above the stack pointer: the mark, the old and the new SSE control word, the x87 value.
        "sub rsp, 32",
        "mov [rsp], rsi",
        "stmxcsr [rsp + 8]",
        "mov eax, esi; and eax, 3; shl eax, 13; or eax, 0x1f80",
        "mov [rsp + 12], eax; ldmxcsr [rsp + 12]",
        "fild qword ptr [rsp]",
        // Register n and word n of the red zone get the mark plus n.
        ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "lea r9, [rsi + \\reg]",
        "movq xmm\\reg, r9; movddup xmm\\reg, xmm\\reg",
        "mov [rsp - 8 - 8 * \\reg], r9",
        ".endr",
        "mov rcx, rdi; mov rdi, rsi",
        ".set .Lmm_value, 0x100",
        ".irp reg,rax,rbx,rdx,rsi,rbp,r8,r9,r10,r11,r12,r13,r14,r15,rdi",
        "lea \\reg, [rdi + .Lmm_value]",
        ".set .Lmm_value, .Lmm_value + 1",
        ".endr",
        "stc",
        // Neither `lea` nor `dec` touches the carry.
        "2:",
        ".irp reg,rax,rbx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
        "lea \\reg, [\\reg + rcx]",
        ".endr",
        ".irp reg,rax,rbx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
        "not \\reg; lea \\reg, [\\reg + rcx]; not \\reg",
        ".endr",
        "dec rcx; jnz 2b",
        // From here on rcx counts what is wrong.
        "setnc cl; movzx ecx, cl",
        "sub rdi, [rsp]; sub rdi, 0x10d; neg rdi; adc rcx, 0",
        "mov rdi, [rsp]",
        ".set .Lmm_value, 0x100",
        ".irp reg,rax,rbx,rdx,rsi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
        "sub \\reg, rdi; sub \\reg, .Lmm_value; neg \\reg; adc rcx, 0",
        ".set .Lmm_value, .Lmm_value + 1",
        ".endr",
        ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "lea r9, [rdi + \\reg]",
        "mov r8, [rsp - 8 - 8 * \\reg]",
        "sub r8, r9; neg r8; adc rcx, 0",
        "movq r10, xmm\\reg; psrldq xmm\\reg, 8; movq r11, xmm\\reg",
        "sub r10, r9; neg r10; adc rcx, 0",
        "sub r11, r9; neg r11; adc rcx, 0",
        ".endr",
        "fistp qword ptr [rsp + 16]",
        "mov r8, [rsp + 16]",
        "sub r8, rdi; neg r8; adc rcx, 0",
        "stmxcsr [rsp + 16]",
        "mov r8d, [rsp + 16]",
        "xor r8d, [rsp + 12]",
        // Bits 0 to 5 tell what has happened, not what is wanted.
        "and r8d, 0xffc0",
        "neg r8d; adc rcx, 0",
        "ldmxcsr [rsp + 8]",
        "mov rax, rcx",
        "add rsp, 32",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; ret",
    )
}

/// Sets rounding mode `mode` of SSE and x87 (0 to 3), runs `body`, and answers whether the modes are
/// still set. `body` does not calculate with floating-point numbers.
#[must_use]
pub fn rounding_modes_kept(mode: u32, body: impl FnOnce()) -> bool {
    let (mut mxcsr_before, mut fpu_before) = (0_u32, 0_u16);
    let mxcsr = 0x1f80 | (mode & 3).wrapping_shl(13);
    let fpu = 0x037f_u16 | u16::from(crate::num::low_byte(u64::from(mode & 3))) << 10;
    // SAFETY: reads the control words and sets them to valid ones, which no code of `body` depends on.
    unsafe {
        asm!("stmxcsr [{0}]", "fnstcw [{1}]", "ldmxcsr [{2}]", "fldcw [{3}]",
            in(reg) &raw mut mxcsr_before, in(reg) &raw mut fpu_before,
            in(reg) &raw const mxcsr, in(reg) &raw const fpu, options(nostack));
    }
    body();
    let (mut mxcsr_after, mut fpu_after) = (0_u32, 0_u16);
    // SAFETY: reads the control words and puts the earlier ones back.
    unsafe {
        asm!("stmxcsr [{0}]", "fnstcw [{1}]", "ldmxcsr [{2}]", "fldcw [{3}]",
            in(reg) &raw mut mxcsr_after, in(reg) &raw mut fpu_after,
            in(reg) &raw const mxcsr_before, in(reg) &raw const fpu_before, options(nostack));
    }
    // Bits 0 to 5 of the first tell what has happened.
    mxcsr_after & 0xffc0 == mxcsr && fpu_after == fpu
}

/// Executes thirty `nop`s.
pub fn thirty_nops() {
    // SAFETY: the function does nothing.
    unsafe { asm!("call {}", sym nops, clobber_abi("sysv64")) };
}

/// Whether `rip` is one of the `nop`s of [`thirty_nops`].
#[must_use]
pub fn is_in_thirty_nops(rip: u64) -> bool {
    let start: u64;
    // SAFETY: computes an address; touches neither memory nor stack.
    unsafe {
        asm!("lea {}, [rip + {}]", out(reg) start, sym nops,
            options(nomem, nostack, preserves_flags, pure));
    }
    (0..30).contains(&rip.wrapping_sub(start))
}

/// See [`thirty_nops`].
///
/// # Safety
///
/// Anyone may call it.
#[unsafe(naked)]
unsafe extern "sysv64" fn nops() {
    naked_asm!(".rept 30", "nop", ".endr", "ret")
}

/// Reads one byte.
///
/// For tests that expect a page fault; an ordinary read may be moved or left out.
///
/// # Safety
///
/// Reading at `address` has no side effect; it may well fault.
pub unsafe fn touch(address: u64) {
    // SAFETY: the caller vouches for the read.
    unsafe { asm!("mov al, [{}]", in(reg) address, out("al") _, options(nostack, readonly)) };
}

/// Reads one byte of a page of user code's, as SMAP lets the kernel do while it says so (SDM vol. 2B, STAC).
///
/// # Safety
///
/// 1. CR4.SMAP is set.
/// 2. As [`touch`].
pub unsafe fn touch_of_user(address: u64) {
    // SAFETY: (1) the flag that `stac` sets is there; (2) the caller vouches for the read. Memory is clobbered on
    // purpose: nothing else is touched meanwhile.
    unsafe { asm!("stac", "mov al, [{}]", "clac", in(reg) address, out("al") _, options(nostack)) };
}

/// Writes one zero byte.
///
/// # Safety
///
/// Writing at `address` faults, or harms nothing.
pub unsafe fn poke(address: u64) {
    // SAFETY: the caller vouches for the write.
    unsafe { asm!("mov byte ptr [{}], 0", in(reg) address, options(nostack)) };
}

/// Calls what is at an address.
///
/// # Safety
///
/// Fetching an instruction at `address` faults, or a function is there that may be called.
pub unsafe fn call(address: u64) {
    // SAFETY: the caller says that it faults, or returns.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("sysv64")) };
}

/// Executes an undefined instruction.
pub fn undefined() {
    // SAFETY: raises #UD and nothing else.
    unsafe { asm!("ud2", options(nomem, nostack)) };
}

/// TSC ticks of nothing at all, as [`thousand_nops`] and [`thousand_loops`] measure.
#[must_use]
pub fn nothing() -> u64 {
    let start = tsc();
    // SAFETY: no instruction at all.
    unsafe { asm!("", options(nomem, nostack)) };
    tsc().wrapping_sub(start)
}

/// TSC ticks of 1,000 `nop`s.
#[must_use]
pub fn thousand_nops() -> u64 {
    let start = tsc();
    // SAFETY: `nop` does nothing.
    unsafe { asm!(".rept 1000", "nop", ".endr", options(nomem, nostack)) };
    tsc().wrapping_sub(start)
}

/// TSC ticks of a loop of 1,000 times `dec; jnz`, with the one instruction that sets it up.
#[must_use]
pub fn thousand_loops() -> u64 {
    let start = tsc();
    // SAFETY: counts a register down.
    unsafe {
        asm!("mov {0:e}, 1000", "2:", "dec {0:e}", "jnz 2b", out(reg) _, options(nomem, nostack));
    }
    tsc().wrapping_sub(start)
}
