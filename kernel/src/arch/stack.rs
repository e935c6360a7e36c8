//! Kernel stacks with a guard page below, and moving onto one.

use crate::num::{to_u64, to_usize};
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Range;

/// Bytes of the guard page below each stack.
pub const GUARD_BYTES: usize = 4096;

/// A stack of `BYTES` bytes above one guard page.
///
/// # Invariants
///
/// 1. Nothing but the CPU (as a stack) writes `body`, and nothing ever uses `guard`, so that its
///    page can be unmapped.
#[repr(C, align(4096))]
pub struct GuardedStack<const BYTES: usize> {
    guard: UnsafeCell<[u8; GUARD_BYTES]>,
    body: UnsafeCell<[u8; BYTES]>,
}

// SAFETY: no reference to the contents is ever formed (invariant 1); only addresses are given out.
unsafe impl<const BYTES: usize> Sync for GuardedStack<BYTES> {}

impl<const BYTES: usize> GuardedStack<BYTES> {
    /// A zeroed stack.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(
                BYTES.is_multiple_of(GUARD_BYTES),
                "a stack is whole pages long"
            );
        }
        Self {
            guard: UnsafeCell::new([0; GUARD_BYTES]),
            body: UnsafeCell::new([0; BYTES]),
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn extent(&self) -> StackExtent {
        let guard = to_u64(self.guard.get().addr());
        let bottom = to_u64(self.body.get().addr());
        StackExtent {
            guard,
            bottom,
            top: bottom.saturating_add(to_u64(BYTES)),
        }
    }
}

impl<const BYTES: usize> Default for GuardedStack<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize> fmt::Debug for GuardedStack<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.extent().fmt(f)
    }
}

/// Addresses of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackExtent {
    /// Start of the guard page, which ends at `bottom`.
    pub guard: u64,
    /// Lowest usable byte.
    pub bottom: u64,
    /// One past the highest byte; sixteen-byte aligned.
    pub top: u64,
}

impl StackExtent {
    /// No stack at all: it holds and guards nothing.
    pub const NONE: Self = Self {
        guard: 0,
        bottom: 0,
        top: 0,
    };

    /// Whether `len` bytes at `address` lie in the stack.
    #[must_use]
    pub fn holds(&self, address: u64, len: u64) -> bool {
        let end = address.checked_add(len);
        address >= self.bottom && end.is_some_and(|end| end <= self.top)
    }

    /// Whether an address lies in the guard page: an access there is an overflow.
    #[must_use]
    pub fn guards(&self, address: u64) -> bool {
        self.guard_range().contains(&address)
    }

    /// The guard page.
    #[must_use]
    pub fn guard_range(&self) -> Range<u64> {
        self.guard..self.bottom
    }

    /// Reads a word of the stack, whoever may be writing it.
    ///
    /// Returns `None` for a word that is not wholly inside or not aligned.
    #[must_use]
    pub fn read_word(&self, address: u64) -> Option<u64> {
        if !address.is_multiple_of(8) || !self.holds(address, 8) {
            return None;
        }
        let word = core::ptr::with_exposed_provenance::<u64>(to_usize(address));
        // SAFETY: the word lies in the body of a kernel stack, which is mapped for as long as
        // its CPU or its thread runs, and only they look (or a test, at stacks that last); a
        // volatile read of a word in motion yields some value.
        Some(unsafe { word.read_volatile() })
    }
}

/// Leaves the current stack for good and calls `entry(argument)` on the one that ends at `top`.
///
/// # Safety
///
/// 1. `top` is the sixteen-byte aligned top of a mapped stack that nobody uses.
/// 2. Nothing on the old stack is needed again, except what `argument` reaches and stays mapped.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter(
    top: u64,
    argument: *const (),
    entry: extern "sysv64" fn(*const ()) -> !,
) -> ! {
    // A zero return address and a zero frame pointer end backtraces.
    naked_asm!(
        "mov rsp, rdi",
        "mov rdi, rsi",
        "xor ebp, ebp",
        "push rbp",
        "jmp rdx",
    )
}
