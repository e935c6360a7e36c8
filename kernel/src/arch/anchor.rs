//! What the memory core has for each CPU, found by a word of the per-CPU area: its anchor.
//!
//! The core says once what the word is; reading it through `gs:` is one instruction then. A second word
//! leads nowhere while the running thread has a memory policy: a request that finds something there need not ask.

use super::local::{self, CpuLocal};
use core::mem::offset_of;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::Ordering;
use mm::system::no_anchor;

/// What is there before anything is [`set`].
pub(super) const NO_ANCHOR: *mut () = no_anchor().as_ptr();

/// Makes [`NO_ANCHOR`] known to the reads, which get addresses.
pub(super) fn expose_none() {
    let _ = NO_ANCHOR.expose_provenance();
}

/// Keeps what the memory core says for `cpu`.
///
/// # Context
/// On that CPU before there are threads, or before it runs.
pub(crate) fn set(cpu: &CpuLocal, anchor: Option<NonNull<()>>) {
    let anchor = anchor.unwrap_or(no_anchor()).as_ptr();
    // For the reads, which get addresses.
    let _ = anchor.expose_provenance();
    cpu.anchor.store(anchor, Ordering::Relaxed);
    note_policy(cpu, cpu.has_policy.load(Ordering::Relaxed));
}

/// Takes note of whether the thread that runs on `cpu` from now on has a memory policy.
///
/// # Context
/// On that CPU with interrupts off, or before it runs.
pub(super) fn note_policy(cpu: &CpuLocal, has_policy: bool) {
    cpu.has_policy.store(has_policy, Ordering::Relaxed);
    let anchor = match has_policy {
        true => NO_ANCHOR,
        false => cpu.anchor.load(Ordering::Relaxed),
    };
    cpu.request_anchor.store(anchor, Ordering::Relaxed);
}

/// What was [`set`] for this CPU.
///
/// # Context
/// Any; pinned, if it is to stay true.
#[inline]
pub(crate) fn current() -> Option<NonNull<()>> {
    let address = local::address::<{ offset_of!(CpuLocal, anchor) }>();
    // SAFETY: neither word is ever null (`CpuLocal::new`, `set`, `note_policy`).
    Some(unsafe { NonNull::new_unchecked(with_exposed_provenance_mut(address)) })
}

/// The same, unless the running thread has a memory policy.
///
/// # Context
/// As [`current`]. In an interrupt it is the interrupted thread's policy.
#[inline]
pub(crate) fn for_request() -> Option<NonNull<()>> {
    let address = local::address::<{ offset_of!(CpuLocal, request_anchor) }>();
    // SAFETY: neither word is ever null (`CpuLocal::new`, `set`, `note_policy`).
    Some(unsafe { NonNull::new_unchecked(with_exposed_provenance_mut(address)) })
}
