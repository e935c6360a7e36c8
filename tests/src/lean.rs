//! A machine that adds nothing of its own to what is measured on it.
//!
//! The simulator checks every call of the library; this one answers with as few instructions as a
//! kernel does: RAM is one piece of host memory, the CPU is a number that the thread has set, and
//! interrupts do not exist.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::mem::RamClaim;
use mm::memblock::Memblock;
use mm::platform::{CpuId, IrqState, NodeId, Platform, Profile};
use mm::report::Corruption;
use mm::slab::SlubDebug;
use mm::system::{HugePages, Memory, Options, PageLists, PageOwner, Populate};
use mm::zone::plan::{CoreWish, NodePlan, Plan};

/// Where RAM begins: above 4 GiB, so that all of it is in the Normal zone.
const START: PhysAddr = PhysAddr::new(1 << 32);
/// RAM begins at a multiple of this on the host too.
const ALIGN: usize = 2 << 20;

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
}

/// Says which CPU this thread is, for all lean machines.
pub fn set_cpu(cpu: u32) {
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
    bytes: u64,
}

impl Lean {
    /// A machine whose RAM is never given back to the host: few are made.
    fn new(bytes: usize) -> Self {
        let ram: &'static mut [u8] = Box::leak(vec![0; bytes + ALIGN].into_boxed_slice());
        let skip = ram.as_ptr().align_offset(ALIGN);
        Self {
            first: AtomicPtr::new(ram[skip..].as_mut_ptr()),
            bytes: bytes as u64,
        }
    }
}

/// Boots a machine with `bytes` of RAM; nothing is zeroed, poisoned or checked on the way.
///
/// # Panics
/// If it does not boot.
#[must_use]
pub fn boot(bytes: usize) -> Memory<Lean> {
    let memory = Memory::new(Lean::new(bytes));
    let platform = memory.platform();
    // SAFETY: (1, 2) the range added below is the machine's RAM, which nobody else uses; (3) the
    // machine was made just now for this memblock alone; (4) nothing is freed by range.
    let mut memblock = Memblock::new(unsafe { RamClaim::new() });
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
        huge_pages: HugePages::Never,
        page_lists: PageLists::Tuned,
        page_owner: PageOwner::Off,
        populate: Populate::AtBoot,
        cma_bytes: 0,
        fail_page_alloc: None,
        slub_debug: SlubDebug::OFF,
        failslab: None,
    };
    memory.bring_up(memblock, &plan, options).unwrap();
    memory
}

// SAFETY: (1, 2) RAM is one leaked allocation at one offset, used by the library alone; (3) no
// interrupt handlers exist here, and a thread keeps its CPU number; (4) whoever runs two threads
// on one machine gives them different numbers; (5, 6) no frame table is mapped.
unsafe impl Platform for Lean {
    const PROFILE: Profile = Profile::Plain;

    #[inline]
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        let whole = PhysRange::from_size(START, self.bytes);
        let offset = range.start().offset_from(START)? as usize;
        let first = self.first.load(Ordering::Relaxed);
        // SAFETY: the range is inside RAM, which is one allocation.
        let place = whole.covers(range).then(|| unsafe { first.add(offset) })?;
        NonNull::new(place)
    }

    #[inline]
    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        let first = VirtAddr::from_ptr(self.first.load(Ordering::Relaxed));
        let offset = addr.offset_from(first).filter(|&o| o < self.bytes)?;
        START.checked_add(offset)
    }

    #[inline]
    fn current_cpu(&self) -> CpuId {
        CpuId(cpu())
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
