//! Where this CPU records what happens to memory: a word of the per-CPU area leads there, if it records.

use super::local::{self, CpuLocal};
use core::mem::offset_of;
use core::ptr::{from_ref, with_exposed_provenance};
use core::sync::atomic::{AtomicU64, Ordering};
use mm::inspect::EventRing;

/// Events of a CPU that are kept: 1 MiB. Time travel in a viewer goes back as far.
pub(crate) const KEPT: usize = 1 << 16;
/// The events of a CPU.
pub(crate) type Ring = EventRing<KEPT>;

/// The address of a CPU's ring, or 0.
#[derive(Debug, Default)]
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// Has a CPU record from now on.
pub(crate) fn set(cpu: &CpuLocal, ring: &'static Ring) {
    let address = crate::num::to_u64(from_ref(ring).expose_provenance());
    cpu.recorder.0.store(address, Ordering::Release);
}

/// The ring of this CPU.
///
/// # Context
/// Any. A thread that is moved right after has another CPU's, which does no harm.
#[inline]
pub(crate) fn current() -> Option<&'static Ring> {
    let address = local::address::<{ offset_of!(CpuLocal, recorder) }>();
    // SAFETY: 0, or what `set` got, which lives for good.
    unsafe { with_exposed_provenance::<Ring>(address).as_ref() }
}
