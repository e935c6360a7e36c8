//! This library: `kmalloc` behind the adapter that kernels make their `#[global_allocator]` of.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use mm::adapters::{EarlyPages, KernelHeap};
use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::platform::{CpuId, IrqState, Platform, Profile};
use mm::report::Corruption;
use mm::system::Memory;
use mm_tests::lean::{self, Lean};

use crate::contestants::{Contestant, Kind, Ops};

/// A lean machine with a profile.
pub(crate) trait Machine: Platform + AsRef<Lean> {
    /// Its contestant's name.
    const NAME: &'static str;
    /// One without RAM.
    fn bare() -> Self;
}

/// That with the profile `plain`.
pub(crate) type Plain = Lean;

impl Machine for Plain {
    const NAME: &'static str = "mm-plain";

    fn bare() -> Self {
        Self::new()
    }
}

/// The same with the profile `hardened`; nothing is zeroed here either.
pub(crate) struct Hardened(Lean);

impl AsRef<Lean> for Hardened {
    fn as_ref(&self) -> &Lean {
        &self.0
    }
}

impl Machine for Hardened {
    const NAME: &'static str = "mm-hardened";

    fn bare() -> Self {
        Self(Lean::new())
    }
}

// SAFETY: all of it as `Lean`, which answers.
unsafe impl Platform for Hardened {
    const PROFILE: Profile = Profile::Hardened;

    #[inline]
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        self.0.direct_map(range)
    }

    #[inline]
    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.0.virt_to_phys(addr)
    }

    #[inline]
    fn direct_map_base(&self) -> Option<VirtAddr> {
        self.0.direct_map_base()
    }

    #[inline]
    fn current_cpu(&self) -> CpuId {
        self.0.current_cpu()
    }

    fn cpus(&self) -> u32 {
        self.0.cpus()
    }

    const HAS_ANCHORS: bool = true;

    #[inline]
    fn anchor(&self) -> Option<NonNull<()>> {
        self.0.anchor()
    }

    fn relax(&self, rounds: u32) -> bool {
        self.0.relax(rounds)
    }

    #[inline]
    fn irq_save(&self) -> IrqState {
        self.0.irq_save()
    }

    #[inline]
    fn irq_restore(&self, state: IrqState) {
        self.0.irq_restore(state);
    }

    fn random_seed(&self) -> u64 {
        0x5eed
    }

    fn corruption(&self, report: &Corruption) {
        self.0.corruption(report);
    }
}

/// The heap of a machine.
pub(crate) struct Ours<M: Machine> {
    memory: &'static Memory<M>,
    heap: &'static KernelHeap<&'static Memory<M>, 1>,
}

impl<M: Machine> Clone for Ours<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Ours<M> {}

impl<M: Machine> Ops for Ours<M> {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no size of a workload is 0.
        NonNull::new(unsafe { self.heap.alloc(layout) })
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.heap.dealloc(object.as_ptr(), layout) };
    }

    #[inline]
    fn resize(&mut self, object: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        NonNull::new(unsafe { self.heap.realloc(object.as_ptr(), layout, size) })
    }

    fn shrink(&mut self) {
        self.memory.shrink_caches();
        self.memory.drain_all_pages();
    }
}

impl<M: Machine> Contestant for Ours<M> {
    const NAME: &'static str = M::NAME;
    const KIND: Kind = Kind::Ours;
    type Cpu = Self;

    fn new(bytes: usize) -> Self {
        let memory: &'static _ = Box::leak(Box::new(Memory::new(M::bare())));
        lean::bring_up(memory, bytes, 0);
        let early = Box::leak(Box::new(EarlyPages::new()));
        let heap = Box::leak(Box::new(KernelHeap::new(memory, early)));
        Self { memory, heap }
    }

    fn on_two_cpus(self) -> [Self; 2] {
        [self; 2]
    }
}
