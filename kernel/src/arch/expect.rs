//! Expecting an exception: run code that must fault, and go on after it.
//!
//! Tests use it to prove that a guard page guards or that a write-protected page cannot be
//! written: [`expect_fault`] runs a closure, and if that raises the expected exception, control
//! comes back as if it had returned, with what the CPU said about the fault.

use super::pin::Pin;
use super::trap::{TrapFrame, vector};
use core::arch::naked_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use x86_64::registers::control::Cr2;

/// Flags that must not survive an abandoned function: trap, direction, alignment check.
const UNWANTED_FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 18;

/// Where to go on after the expected exception, and what happened.
///
/// Belongs to one CPU; only that CPU touches it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Expectation {
    // `guarded_call` writes the first two by offset.
    resume_rsp: AtomicU64,
    resume_rip: AtomicU64,
    /// The expected vector plus one; zero is none.
    vector: AtomicU16,
    happened: AtomicBool,
    error_code: AtomicU64,
    address: AtomicU64,
    rip: AtomicU64,
}

/// What the CPU said about an expected exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The error code; zero for vectors without one.
    pub error_code: u64,
    /// CR2 when it happened: the address for a page fault, else whatever was there. For a general protection fault, what the
    /// first register holds that holds no address; zero if there is none.
    pub address: u64,
    /// The instruction that faulted.
    pub rip: u64,
}

/// Why there is no [`Fault`] to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectError {
    /// The function returned.
    NoFault,
    /// A fault is expected already; expectations do not nest.
    Nested,
}

impl fmt::Display for ExpectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFault => "the expected exception did not happen",
            Self::Nested => "an exception is expected already",
        })
    }
}

impl Expectation {
    pub(super) const fn new() -> Self {
        Self {
            resume_rsp: AtomicU64::new(0),
            resume_rip: AtomicU64::new(0),
            vector: AtomicU16::new(0),
            happened: AtomicBool::new(false),
            error_code: AtomicU64::new(0),
            address: AtomicU64::new(0),
            rip: AtomicU64::new(0),
        }
    }

    fn arm(&self, vector: u8) -> bool {
        let armed = u16::from(vector).wrapping_add(1);
        self.happened.store(false, Ordering::Relaxed);
        self.vector
            .compare_exchange(0, armed, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Ends the expectation and says what happened.
    fn disarm(&self) -> Result<Fault, ExpectError> {
        self.vector.store(0, Ordering::Relaxed);
        if !self.happened.load(Ordering::Relaxed) {
            return Err(ExpectError::NoFault);
        }
        Ok(Fault {
            error_code: self.error_code.load(Ordering::Relaxed),
            address: self.address.load(Ordering::Relaxed),
            rip: self.rip.load(Ordering::Relaxed),
        })
    }

    /// Takes the exception if it is the expected one: notes it and redirects `frame`.
    pub(super) fn take(&self, frame: &mut TrapFrame) -> bool {
        let wanted = self.vector.load(Ordering::Relaxed);
        if wanted == 0 || u64::from(wanted.wrapping_sub(1)) != frame.vector {
            return false;
        }
        self.vector.store(0, Ordering::Relaxed);
        self.error_code.store(frame.error_code, Ordering::Relaxed);
        let wild = frame.wild_registers().next().map(|(_, value)| value);
        let address = match wanted.wrapping_sub(1) == u16::from(vector::GENERAL_PROTECTION) {
            true => wild.unwrap_or_default(),
            false => Cr2::read_raw(),
        };
        self.address.store(address, Ordering::Relaxed);
        self.rip.store(frame.rip, Ordering::Relaxed);
        self.happened.store(true, Ordering::Relaxed);

        frame.rip = self.resume_rip.load(Ordering::Relaxed);
        frame.rsp = self.resume_rsp.load(Ordering::Relaxed);
        frame.rflags &= !UNWANTED_FLAGS;
        true
    }
}

/// Runs `body`, which must raise exception `vector`, and tells what the CPU said about it.
///
/// # Errors
///
/// `body` returned without the exception, or an exception is expected already.
///
/// # Safety
///
/// When the exception comes, `body` and what it called are abandoned: no destructor runs, no lock
/// is released, no call returns. So at the point of the fault
/// 1. nothing in those frames must be dropped for soundness;
/// 2. what `body` was doing is harmless half done, and what it wrote before, unless volatile or
///    atomic, is not relied on.
///
/// # Context
/// Task; another exception than the expected one is reported as always. `body` runs pinned; pins
/// that it takes and that the exception keeps it from dropping are taken back.
pub unsafe fn expect_fault<F: FnOnce()>(vector: u8, body: F) -> Result<Fault, ExpectError> {
    // What is expected is noted for this CPU.
    let pin = Pin::new();
    let cpu = pin.cpu();
    let pins = cpu.pin_count();
    let expectation = &cpu.expectation;
    if !expectation.arm(vector) {
        return Err(ExpectError::Nested);
    }
    let mut body = Some(body);
    // SAFETY: `run::<F>` gets what it takes; `expectation` is this CPU's, armed, and outlives the
    // call; the caller vouches for abandoning `body`.
    unsafe { guarded_call(run::<F>, (&raw mut body).cast(), expectation) };
    cpu.reset_pins(pins);
    expectation.disarm()
}

/// Calls the closure in the `Option<F>` that `body` points to.
///
/// # Safety
///
/// `body` points to an `Option<F>` that nobody else uses meanwhile.
unsafe extern "sysv64" fn run<F: FnOnce()>(body: *mut ()) {
    // SAFETY: the caller vouches for the pointer.
    let body = unsafe { &mut *body.cast::<Option<F>>() };
    if let Some(body) = body.take() {
        body();
    }
}

/// Calls `body(data)` with a way back in `place`: its first two words become the stack pointer
/// and the instruction to continue with.
///
/// # Safety
///
/// `place` points to an `Expectation` of this CPU, `data` to what `body` takes; see
/// [`expect_fault`] for what `body` may do.
#[unsafe(naked)]
unsafe extern "sysv64" fn guarded_call(
    body: unsafe extern "sysv64" fn(*mut ()),
    data: *mut (),
    place: *const Expectation,
) {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rdx], rsp",
        "lea rax, [rip + 2f]",
        "mov [rdx + 8], rax",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        // Reached by return and by `Expectation::take` alike.
        "2:",
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
