//! What each CPU has of its own, found through the GS base.
//!
//! One [`CpuLocal`] exists per CPU. The boot CPU's is a static; bringing up another CPU means to
//! allocate one more, give it its number, and call `CpuLocal::adopt` there.

use super::expect::Expectation;
use super::gdt::{Ist, Segments};
use super::stack::{GuardedStack, StackExtent};
use crate::num::to_u64;
use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

/// Bytes of a CPU's first stack.
const MAIN_STACK_BYTES: usize = 256 * 1024;

static BOOT_CPU: CpuLocal = CpuLocal::new(0);

/// The state of one CPU.
#[derive(Debug)]
pub struct CpuLocal {
    /// The address of this very struct, for [`current`]: `gs:` can be read through, but its base
    /// is only to be had from a slow model-specific register.
    this: AtomicU64,
    id: u32,
    /// Segments and interrupt stacks.
    pub(super) segments: Segments,
    /// The exception that the running code wants to happen.
    pub(super) expectation: Expectation,
    /// Fatal reports begun: a fault inside a report must not start another full one.
    reports: AtomicU32,
    /// Interrupts and exceptions taken, by vector.
    counts: [AtomicU64; 256],
    main_stack: GuardedStack<MAIN_STACK_BYTES>,
}

impl CpuLocal {
    /// The state of the CPU with number `id`, before it is used.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self {
            this: AtomicU64::new(0),
            id,
            segments: Segments::new(),
            expectation: Expectation::new(),
            reports: AtomicU32::new(0),
            counts: [const { AtomicU64::new(0) }; 256],
            main_stack: GuardedStack::new(),
        }
    }

    /// The kernel's number of this CPU: 0 is the boot CPU, others follow without gaps.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The stack the kernel runs on, on this CPU.
    #[must_use]
    pub fn main_stack(&self) -> StackExtent {
        self.main_stack.extent()
    }

    /// All stacks of this CPU, with a name for reports.
    pub fn stacks(&self) -> impl Iterator<Item = (&'static str, StackExtent)> + '_ {
        let interrupt = Ist::ALL.into_iter().map(|ist| {
            let name = match ist {
                Ist::Nmi => "NMI",
                Ist::DoubleFault => "double fault",
                Ist::MachineCheck => "machine check",
                Ist::PageFault => "page fault",
                Ist::Debug => "debug",
                Ist::Interrupt => "interrupt",
                Ist::Exception => "exception",
            };
            (name, self.segments.stack(ist))
        });
        core::iter::once(("main", self.main_stack())).chain(interrupt)
    }

    /// How often `vector` was taken.
    #[must_use]
    pub fn count(&self, vector: u8) -> u64 {
        self.counts
            .get(usize::from(vector))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn count_one(&self, vector: u8) {
        if let Some(count) = self.counts.get(usize::from(vector)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a fatal report and returns how many began before it.
    pub(crate) fn begin_report(&self) -> u32 {
        self.reports.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes the current CPU this one: GS base, segments, interrupt stacks.
    pub(super) fn adopt(&'static self) {
        let address = core::ptr::from_ref(self).expose_provenance();
        self.this.store(to_u64(address), Ordering::Relaxed);
        GsBase::write(VirtAddr::from_ptr(self));
        self.segments.load();
    }
}

/// The state of the boot CPU.
pub(crate) fn boot_cpu() -> &'static CpuLocal {
    &BOOT_CPU
}

/// The state of the CPU this runs on.
///
/// Every CPU adopts its state before it runs any other code of the kernel, so there always is
/// one: `kmain` begins with it.
///
/// # Context
/// Any. Nothing in this kernel moves a running task to another CPU, so the answer stays true.
#[inline]
#[must_use]
pub fn current() -> &'static CpuLocal {
    let this: usize;
    // SAFETY: the GS base is this CPU's `CpuLocal` (see above); reads one of its fields.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) this, const offset_of!(CpuLocal, this),
            options(nostack, preserves_flags, readonly));
    }
    let local = core::ptr::with_exposed_provenance::<CpuLocal>(this);
    // SAFETY: `adopt` stored the address of a `&'static CpuLocal`, and nobody else writes it.
    unsafe { &*local }
}

/// The number of the CPU this runs on: one instruction.
///
/// # Context
/// Any; see [`current`].
#[inline]
#[must_use]
pub fn current_id() -> u32 {
    let id: u32;
    // SAFETY: as in `current`; the number never changes.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) id, const offset_of!(CpuLocal, id),
            options(nostack, preserves_flags, readonly));
    }
    id
}
