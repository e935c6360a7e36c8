//! Ways to fail on purpose, so that reports can be looked at and tested.

use core::arch::asm;
use core::hint::black_box;

/// Reads from an address that nothing is mapped at.
pub fn bad_read() -> ! {
    // SAFETY: ends in a page fault by intention: the first page of the upper half is a hole in
    // every layout. Not a Rust access, so the compiler assumes nothing about it.
    unsafe {
        asm!("mov rax, [{}]", "ud2", in(reg) 0xffff_8000_0000_0000_u64, options(noreturn));
    }
}

/// Writes to such an address.
pub fn bad_write() -> ! {
    // SAFETY: as in `bad_read`.
    unsafe {
        asm!("mov [{0}], {0}", "ud2", in(reg) 0xffff_8000_0000_0000_u64, options(noreturn));
    }
}

/// Calls an address that nothing is mapped at.
pub fn bad_call() -> ! {
    // SAFETY: as in `bad_read`, for an instruction fetch.
    unsafe { asm!("call {}", "ud2", in(reg) 0xffff_8000_0000_1000_u64, options(noreturn)) }
}

/// Uses the kernel stack up.
pub fn stack_overflow() -> u64 {
    overflow(0)
}

#[expect(
    unconditional_recursion,
    reason = "running out of stack is what this is for"
)]
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    let below = overflow(depth.wrapping_add(1));
    frame
        .iter()
        .fold(below, |sum, &word| sum.wrapping_add(word))
}

/// Executes an undefined instruction.
pub fn invalid_opcode() -> ! {
    // SAFETY: raises #UD and nothing else.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}

/// Uses an address that is not canonical.
pub fn general_protection() -> ! {
    // SAFETY: raises #GP by intention, before anything is read.
    unsafe {
        asm!("mov rax, [{}]", "ud2", in(reg) 0x8000_0000_0000_0000_u64, options(noreturn));
    }
}

/// Divides by zero, in the CPU.
pub fn divide() -> ! {
    // SAFETY: raises #DE and nothing else; the registers it would write are not used again.
    unsafe {
        asm!(
            "xor edx, edx",
            "mov eax, 1",
            "xor ecx, ecx",
            "div ecx",
            "ud2",
            options(noreturn)
        );
    }
}

/// Enters the NMI handler.
pub fn nmi() {
    // SAFETY: the handler saves all state; nobody masks this vector's software interrupt.
    unsafe { asm!("int 2") };
}

/// Executes an undefined instruction with a frame pointer that points nowhere.
pub fn lost_frame_pointer() -> ! {
    // SAFETY: the report is the last that runs, and it does not trust `rbp`.
    unsafe { asm!("mov rbp, {}", "ud2", in(reg) 0x6161_6161_6161_6161_u64, options(noreturn)) }
}

/// Raises a real double fault: an exception whose own gate is out of the IDT's limit.
pub fn double_fault() -> ! {
    super::idt::shorten(super::trap::vector::DOUBLE_FAULT);
    general_protection()
}
