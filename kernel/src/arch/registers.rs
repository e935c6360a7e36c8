//! Reading the registers that reports show.

use core::arch::asm;
use core::ptr::NonNull;
use x86_64::registers::control::{Cr0, Cr2, Cr3, Cr4, Efer};

/// The control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Protection, paging, write protection.
    pub cr0: u64,
    /// The address of the last page fault.
    pub cr2: u64,
    /// The root of the page tables, and flags.
    pub cr3: u64,
    /// Extensions in use.
    pub cr4: u64,
    /// Long mode, no-execute.
    pub efer: u64,
}

/// The same number, which the optimiser knows nothing of: for benchmarks, whose results must not depend on what the
/// compiler sees. It stays in its register, where `core::hint::black_box` stores and loads it.
#[inline(always)]
#[must_use]
pub fn opaque(mut number: u64) -> u64 {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {0} */", inout(reg) number, options(nomem, nostack, preserves_flags));
    }
    number
}

/// The same of a pointer.
#[inline(always)]
#[must_use]
#[expect(
    clippy::pointers_in_nomem_asm_block,
    reason = "nothing is read or written"
)]
pub fn opaque_pointer(pointer: NonNull<u8>) -> NonNull<u8> {
    let mut hidden = pointer.as_ptr();
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {0} */", inout(reg) hidden, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: it is the same one still.
    unsafe { NonNull::new_unchecked(hidden) }
}

/// Reads the control registers.
#[must_use]
pub fn control() -> Control {
    let (root, flags) = Cr3::read_raw();
    Control {
        cr0: Cr0::read_raw(),
        cr2: Cr2::read_raw(),
        cr3: root.start_address().as_u64() | u64::from(flags),
        cr4: Cr4::read_raw(),
        efer: Efer::read_raw(),
    }
}

/// The address of the last page fault.
#[must_use]
pub fn fault_address() -> u64 {
    Cr2::read_raw()
}

/// The frame pointer of the caller.
#[inline(always)]
#[must_use]
pub fn frame_pointer() -> u64 {
    let rbp: u64;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

/// The stack pointer of the caller.
#[inline(always)]
#[must_use]
pub fn stack_pointer() -> u64 {
    let rsp: u64;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp
}

/// The flags of the caller.
#[must_use]
pub fn flags() -> u64 {
    x86_64::registers::rflags::read_raw()
}
