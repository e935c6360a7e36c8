//! The thread that runs on this CPU, in a word of the per-CPU area.
//!
//! The word owns one reference to the thread. Reading it through `gs:` is one instruction, so it
//! names the running thread on whatever CPU that happens to be: a thread cannot be moved
//! between finding itself and using what it found.

use super::anchor;
use super::irq::IrqGuard;
use super::local::{self, CpuLocal};
use crate::sched::thread::Thread;
use alloc::sync::Arc;
use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use mm::numa::Policy;

fn raw() -> *const Thread {
    let address = local::address::<{ offset_of!(CpuLocal, thread) }>();
    core::ptr::with_exposed_provenance(address)
}

/// Looks at the running thread; `None` before there are threads.
///
/// # Context
/// Any. In an interrupt it is the interrupted thread.
pub(crate) fn with<R>(look: impl FnOnce(&Thread) -> R) -> Option<R> {
    // SAFETY: `replace` stored a pointer from `Arc::into_raw`, whose reference is given up only
    // after another thread was put in its place, which cannot happen while this one is here.
    let thread = unsafe { raw().as_ref() }?;
    Some(look(thread))
}

/// A reference to the running thread; `None` before there are threads.
///
/// # Context
/// As [`with`].
pub(crate) fn get() -> Option<Arc<Thread>> {
    let thread = raw();
    if thread.is_null() {
        return None;
    }
    // SAFETY: as in `with`: an `Arc`'s pointer, with a reference that lasts meanwhile.
    unsafe { Arc::increment_strong_count(thread) };
    // SAFETY: the reference that was just counted.
    Some(unsafe { Arc::from_raw(thread) })
}

/// Makes `next` the running thread of `cpu` and gives back the one before.
///
/// # Context
/// On that CPU with interrupts off, or before it runs.
pub(crate) fn replace(cpu: &CpuLocal, next: Arc<Thread>) -> Option<Arc<Thread>> {
    anchor::note_policy(cpu, next.policy().is_set());
    let next = Arc::into_raw(next);
    // For `raw`, which gets an address.
    let _ = next.expose_provenance();
    let before = cpu.thread.swap(next.cast_mut(), Ordering::Relaxed);
    if before.is_null() {
        return None;
    }
    // SAFETY: this function stored it, with the reference that is taken out here.
    Some(unsafe { Arc::from_raw(before) })
}

/// Whether the running thread has a memory policy.
///
/// # Context
/// Any. In an interrupt it is the interrupted thread's.
#[inline]
pub(crate) fn has_policy() -> bool {
    // SAFETY: reads a byte of this CPU's own area.
    unsafe {
        asm!("cmp byte ptr gs:[{}], 0", "jne {}", const offset_of!(CpuLocal, has_policy),
            label { return true }, options(nostack, readonly));
    }
    false
}

/// Sets the memory policy of the running thread; answers the one before.
///
/// # Context
/// Task.
pub(crate) fn set_policy(policy: Option<Policy>) -> Option<Policy> {
    // No switch between the thread's word and the CPU's.
    let _off = IrqGuard::new();
    let before = with(|thread| thread.policy().replace(policy));
    let has_policy = before.is_some() && policy.is_some();
    anchor::note_policy(local::current(), has_policy);
    before.flatten()
}
