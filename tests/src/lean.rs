//! A machine that adds nothing of its own to what is measured on it.
//!
//! The simulator checks every call of the library; this one answers with as few instructions as a
//! kernel does: RAM is one piece of host memory, the CPU is a number that the thread has set, and
//! interrupts do not exist.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::mem::RamClaim;
use mm::memblock::Memblock;
use mm::platform::{CpuId, IrqState, NodeId, Platform, Profile};
use mm::report::Corruption;
use mm::slab::SlubDebug;
use mm::system::{
    DebugPagealloc, HugePages, Memory, Options, PageLists, PageOwner, PageTableCheck, Populate,
    no_anchor,
};
use mm::zone::plan::{CoreWish, NodePlan, Plan};

/// Where RAM begins: above 4 GiB, so that all of it is in the Normal zone.
const START: PhysAddr = PhysAddr::new(1 << 32);
/// RAM begins at a multiple of this on the host too.
const ALIGN: usize = 2 << 20;
/// CPUs of a machine.
const CPUS: usize = 2;

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
}

/// Says which CPU this thread is, 0 or 1, for all lean machines.
///
/// # Panics
/// If there is no such CPU.
pub fn set_cpu(cpu: u32) {
    assert!((cpu as usize) < CPUS, "lean machines have {CPUS} CPUs");
    CPU.set(cpu);
}

/// Which CPU this thread is: 0 unless it was set.
#[inline]
#[must_use]
pub fn cpu() -> u32 {
    CPU.get()
}

/// The machine, with the profile `plain`.
#[derive(Debug)]
pub struct Lean {
    first: AtomicPtr<u8>,
    bytes: AtomicU64,
    anchors: [AtomicPtr<()>; CPUS],
}

impl Lean {
    /// A machine without RAM.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a machine is plugged in once")]
    pub const fn new() -> Self {
        Self {
            first: AtomicPtr::new(null_mut()),
            bytes: AtomicU64::new(0),
            anchors: [const { AtomicPtr::new(no_anchor().as_ptr()) }; CPUS],
        }
    }

    /// Gives the machine RAM, which is never given back to the host: few are made. It is the system's, not that of the
    /// program's allocator, which may be this machine.
    fn plug_in(&self, bytes: usize) {
        let layout = Layout::from_size_align(bytes + ALIGN, 1).unwrap();
        // SAFETY: the size is not zero.
        let ram = unsafe { System.alloc_zeroed(layout) };
        assert!(!ram.is_null(), "the host has no {bytes} bytes");
        // SAFETY: as many bytes more were allocated.
        let first = unsafe { ram.add(ram.align_offset(ALIGN)) };
        let before = self.first.swap(first, Ordering::Relaxed);
        assert!(before.is_null(), "it has RAM already");
        self.bytes.store(bytes as u64, Ordering::Relaxed);
    }
}

impl AsRef<Self> for Lean {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Boots a machine with `bytes` of RAM; nothing is zeroed, poisoned or checked on the way.
///
/// # Panics
/// If it does not boot.
#[must_use]
pub fn boot(bytes: usize) -> Memory<Lean> {
    let memory = Memory::new(Lean::new());
    bring_up(&memory, bytes, 0);
    memory
}

/// Brings a machine up that has no RAM yet; the first `reserved` bytes of it stay out of the allocator. Answers where
/// they are.
///
/// # Panics
/// If it does not boot.
pub fn bring_up<P>(memory: &Memory<P>, bytes: usize, reserved: u64) -> PhysRange
where
    P: Platform + AsRef<Lean>,
{
    let platform = memory.platform();
    platform.as_ref().plug_in(bytes);
    // SAFETY: (1, 2) the range added below is the machine's RAM, which nobody else uses; (3) the
    // machine got it just now for this memblock alone; (4) nothing is freed by range.
    let mut memblock = Memblock::new(unsafe { RamClaim::new() });
    let reserved = PhysRange::from_size(START, reserved);
    memblock.reserve(platform, reserved).unwrap();
    memblock.allow_growth();
    let ram = PhysRange::from_size(START, bytes as u64);
    memblock.add(platform, ram).unwrap();
    memblock.set_node(platform, ram, NodeId(0)).unwrap();

    let mut nodes = [NodePlan::EMPTY; 1];
    let plan = Plan::compute(&memblock, CoreWish::default(), &mut nodes).unwrap();
    let options = Options {
        init_on_alloc: false,
        init_on_free: false,
        page_poison: false,
        debug_pagealloc: DebugPagealloc::Off,
        huge_pages: HugePages::Never,
        page_lists: PageLists::Tuned,
        page_owner: PageOwner::Off,
        page_table_check: PageTableCheck::Off,
        populate: Populate::AtBoot,
        cma_bytes: 0,
        fail_page_alloc: None,
        slub_debug: SlubDebug::OFF,
        failslab: None,
        kfence_sample_interval: 0,
    };
    memory.bring_up(memblock, &plan, options).unwrap();
    for (cpu, kept) in (0..).zip(&memory.platform().as_ref().anchors) {
        let anchor = memory.anchor(CpuId(cpu)).unwrap_or(no_anchor());
        kept.store(anchor.as_ptr(), Ordering::Relaxed);
    }
    reserved
}

// SAFETY: (1, 2) RAM is one leaked allocation at one offset, used by the library alone; (3) no
// interrupt handlers exist here, and a thread keeps its CPU number; (4) whoever runs two threads
// on one machine gives them different numbers; (5, 6) no frame table is mapped; (9) `set_cpu` knows no other; (10) `bring_up` keeps
// what the one memory of this machine says.
unsafe impl Platform for Lean {
    const PROFILE: Profile = Profile::Plain;

    #[inline]
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        let whole = PhysRange::from_size(START, self.bytes.load(Ordering::Relaxed));
        let offset = range.start().offset_from(START)? as usize;
        let first = self.first.load(Ordering::Relaxed);
        // SAFETY: the range is inside RAM, which is one allocation.
        let place = whole.covers(range).then(|| unsafe { first.add(offset) })?;
        NonNull::new(place)
    }

    #[inline]
    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        let first = VirtAddr::from_ptr(self.first.load(Ordering::Relaxed));
        let offset = addr
            .offset_from(first)
            .filter(|&o| o < self.bytes.load(Ordering::Relaxed))?;
        START.checked_add(offset)
    }

    #[inline]
    fn direct_map_base(&self) -> Option<VirtAddr> {
        let first = VirtAddr::from_ptr(self.first.load(Ordering::Relaxed));
        let base = first.as_u64().wrapping_sub(START.as_u64());
        Some(VirtAddr::new(base))
    }

    #[inline]
    fn current_cpu(&self) -> CpuId {
        CpuId(cpu())
    }

    fn cpus(&self) -> u32 {
        CPUS as u32
    }

    const HAS_ANCHORS: bool = true;

    #[inline]
    fn anchor(&self) -> Option<NonNull<()>> {
        NonNull::new(self.anchors[cpu() as usize % CPUS].load(Ordering::Relaxed))
    }

    /// A CPU whose thread does something else answers nobody.
    fn relax(&self, _: u32) -> bool {
        false
    }

    #[inline]
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    #[inline]
    fn irq_restore(&self, _: IrqState) {}

    fn corruption(&self, report: &Corruption) {
        panic!("corruption: {report}");
    }
}
