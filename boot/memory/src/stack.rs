//! Stacks with a guard page.

use core::arch::asm;
use core::fmt;

use mm::adapters::{Home, Vmalloc};
use mm::addr::{VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::system::VmallocError;

/// A stack below which nothing is mapped: what overflows it faults, instead of writing over something (Linux:
/// `CONFIG_VMAP_STACK`). Dropping it gives its pages back.
pub struct Stack<H: Home>(Vmalloc<H>);

impl<H: Home> Stack<H> {
    /// A stack of `bytes`, rounded up to pages. Context: task.
    ///
    /// # Errors
    /// [`VmallocError`].
    pub fn alloc(home: H, bytes: usize) -> Result<Self, VmallocError> {
        let pages = bytes.checked_next_multiple_of(4096);
        let bytes = pages.ok_or(VmallocError::TooLarge)?;
        Vmalloc::alloc(home, bytes, Gfp::KERNEL).map(Self)
    }

    /// Where it lies: the page below is never mapped. Context: any.
    #[must_use]
    pub fn range(&self) -> VirtRange {
        let start = VirtAddr::from_ptr(self.0.as_non_null().as_ptr());
        let bytes = u64::try_from(self.0.size()).unwrap_or_default();
        VirtRange::from_size(start, bytes).unwrap_or_default()
    }

    /// Calls `f` on this stack, and comes back to the caller's. Context: task; `f` has no more than the stack.
    pub fn call(&mut self, f: impl FnOnce()) {
        // Whole pages: the end is aligned as the ABI wants it.
        // SAFETY: one past the area's last byte.
        let top = unsafe { self.0.as_non_null().add(self.0.size()) };
        let mut f = Some(f);
        call_on(top.as_ptr(), &mut f);
    }
}

/// Calls what is in `f` with the stack pointer at `top`.
fn call_on<F: FnOnce()>(top: *mut u8, f: &mut Option<F>) {
    // SAFETY: (1) the area ends at `top`, is nobody else's, and the page below it is not mapped; (2) `f` is called once and is
    // what `take_and_call` expects; (3) whatever that calls leaves r12 as it is, by the ABI, so the old stack comes back; (4) nothing
    // unwinds: kernels abort.
    unsafe {
        asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {call}",
            "mov rsp, r12",
            top = in(reg) top,
            call = sym take_and_call::<F>,
            in("rdi") f,
            out("r12") _,
            clobber_abi("sysv64"),
        );
    }
}

extern "sysv64" fn take_and_call<F: FnOnce()>(f: &mut Option<F>) {
    if let Some(f) = f.take() {
        f();
    }
}

impl<H: Home> fmt::Debug for Stack<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;

    #[test]
    fn code_runs_on_the_other_stack_and_comes_back() {
        let mut pages = std::vec![0_u128; 64 << 10];
        let (first, last) = (pages.as_ptr().addr(), pages.as_ptr_range().end.addr());
        let top = pages.as_mut_ptr_range().end.cast::<u8>();
        let (mut inside, mut sum) = (0, 0_u64);
        let numbers = std::vec![1_u64, 2, 3];
        let mut work = Some(|| {
            let local = 0_u8;
            inside = (&raw const local).addr();
            sum = numbers.iter().sum();
        });
        call_on(top, &mut work);
        assert!(work.is_none());
        assert_eq!(sum, 6);
        assert!((first..last).contains(&inside), "not on that stack");
    }
}
