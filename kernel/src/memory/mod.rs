//! The memory core in this kernel: its platform, its bring-up, its commands.
//!
//! | Module | What |
//! |---|---|
//! | `address_space`, `fixmap` | the kernel's own page tables; slots with fixed addresses |
//! | `platform` | what `mm` asks of the machine |
//! | `firmware` | the boot loader's map as `mm` wants it, and what must be reserved |
//! | `bring_up` | from the map to a page allocator, with Linux's boot lines |
//! | `boot_memory` | what only the boot needed goes to the page allocator |
//! | `nodes` | which memory and CPUs are near to each other |
//! | `tables`, `frame_table`, `stacks` | page tables; those of the frame table and of kernel stacks |
//! | `vmalloc` | areas of kernel addresses |
//! | `tlb` | CPUs that forget translations when others have changed them |
//! | `attendant` | threads that sleep until somebody rings |
//! | `grace` | a thread for what waits until no CPU can see it any more |
//! | `kswapd` | a thread for each node that reclaims when little is left |
//! | `populate` | a thread for each node that populates memory ahead of requests |
//! | `events` | what happens, recorded for viewers |
//! | `holder` | whose a frame is that the page allocator never had |
//! | `fault_story`, `files`, `node_files`, `numactl`, `objects`, `oomtest`, `page_tables`, `pages`, `pcp`, `percpu`, `screen`, `sections`, `stress`, `sysctl`, `workload` | `/proc` files and shell commands |
//! | `object_damage` | what is told of objects that were written to, or never came back |
//! | `benches`, `heap_benches`, `object_benches`, `cache_benches`, `page_table_benches`, `tests` | benchmarks and in-kernel tests |

mod address_space;
mod attendant;
mod benches;
pub(crate) mod boot_memory;
mod bring_up;
mod cache_benches;
mod cma;
pub(crate) mod events;
pub(crate) mod fault_story;
mod files;
mod firmware;
pub(crate) mod fixmap;
mod frame_table;
pub(crate) mod grace;
mod heap_benches;
mod holder;
mod kfence;
pub(crate) mod kswapd;
pub(crate) mod ledger;
mod node_files;
mod nodes;
mod numactl;
mod object_benches;
mod object_damage;
mod object_stress;
mod objects;
mod oomtest;
mod page_table_benches;
mod page_tables;
pub(crate) mod pagealloc;
mod pages;
mod pcp;
mod percpu;
mod platform;
pub(crate) mod populate;
mod random;
mod reach;
mod screen;
mod sections;
pub(crate) mod stacks;
mod stress;
mod sysctl;
mod tables;
pub(crate) mod tests;
pub(crate) mod tlb;
mod tlb_tests;
mod vmalloc;
mod vmalloc_stress;
mod workload;
pub(crate) mod wrong_uses;

pub(crate) use bring_up::bring_up;
pub use platform::KernelPlatform;

use crate::kernel_param;
use mm::sync::shootdown::Lazy;
use mm::system::{Block, Home, Memory, VmallocError};

kernel_param!("mem", "SIZE", "use no RAM above");
kernel_param!(
    "memmap",
    "SIZE@|#|$|!START[,...]",
    "add RAM, mark as ACPI data, reserved, persistent; or exactmap"
);
kernel_param!(
    "kernelcore",
    "SIZE|N%",
    "memory that unmovable pages may use"
);
kernel_param!("movablecore", "SIZE|N%", "memory for movable pages only");
kernel_param!(
    "movable_node",
    "memory of hot-pluggable nodes is for movable pages only"
);
kernel_param!(
    "init_on_alloc",
    "0|1|off|on|n|y",
    "zero pages and objects when they are handed out"
);
kernel_param!(
    "init_on_free",
    "0|1|off|on|n|y",
    "zero pages and objects when they come back"
);
kernel_param!(
    "page_poison",
    "0|1|off|on|n|y",
    "fill free pages and check them"
);

kernel_param!(
    "page_owner",
    "on|off",
    "keep which line of the source allocated each block, for /proc/page_owner, and who freed each page"
);
kernel_param!(
    "page_table_check",
    "on|off",
    "keep pages of user code from being mapped where they may not be"
);
kernel_param!(
    "populate",
    "ondemand|boot",
    "when memory gets its frame records"
);
kernel_param!(
    "fail_page_alloc",
    "INTERVAL,PERCENT,SPACE,TIMES[,MIN_ORDER]",
    "have requests for pages fail on purpose"
);
kernel_param!(
    "failslab",
    "INTERVAL,PERCENT,COUNT,TIMES[,MIN-MAX[,CACHE]]",
    "have requests for objects fail on purpose"
);
kernel_param!(
    "kfence.sample_interval",
    "ALLOCATIONS",
    "one object in so many is from a pool where wrong accesses to it fault"
);
kernel_param!(
    "slub_debug",
    "[FZPUAO-][,CACHE[*]...][;...]",
    "caches that check their objects, all by default; for what"
);
kernel_param!(
    "grace",
    "off|on",
    "whether a thread sees to what waits for grace periods"
);
kernel_param!(
    "kswapd",
    "off|on",
    "whether each node has a thread that reclaims memory when little is left"
);
kernel_param!(
    "percpu_pagelists",
    "off|tuned|classic",
    "how CPUs keep free pages at hand; classic as Linux 2.6 did"
);
kernel_param!(
    "transparent_hugepage",
    "always|madvise|never",
    "keep memory fit for huge pages, by a larger vm.min_free_kbytes"
);

/// The machine's memory.
pub static MEMORY: Memory<KernelPlatform> = Memory::new(KernelPlatform::new());

/// Names [`MEMORY`]: handles that carry it are no larger for it.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

#[expect(unsafe_code, reason = "`Home` is an unsafe trait")]
// SAFETY: a static is the same every time.
unsafe impl Home for Kernel {
    type P = KernelPlatform;

    fn memory(&self) -> &Memory<KernelPlatform> {
        &MEMORY
    }
}

/// Has frames of stacks and areas that nobody has any more freed. Context: task.
pub(crate) fn settle_areas() {
    stacks::drain();
    let _ = MEMORY.vmalloc_purge();
}

/// Frames that nobody has: those on the lists of CPUs are given back first, and caches may have some, since
/// everything that the kernel allocates makes them come and go. For tests that compare before and after. What is
/// put off is waited for.
pub(crate) fn free_frames() -> u64 {
    if MEMORY.grace().pending() > 0 {
        let _ = MEMORY.grace().barrier();
    }
    settle_areas();
    MEMORY.drain_all_pages();
    MEMORY.free_frames().saturating_add(frames_in_slabs())
}

/// The same, and page tables with them: those of areas stay where threads and their stacks have come and gone. For as
/// long as there are no more than `areas` areas at a time, no more records of areas are made.
pub(crate) fn free_or_table_frames(areas: u32) -> Result<u64, VmallocError> {
    MEMORY.vmalloc_reserve(areas)?;
    Ok(free_frames().saturating_add(MEMORY.page_table_frames()))
}

/// Frames that caches have.
pub(crate) fn frames_in_slabs() -> u64 {
    let mut frames: u64 = 0;
    MEMORY.for_each_cache(|_, cache| {
        frames = frames.saturating_add(cache.pages);
    });
    frames
}

/// An owned block of pages of this kernel.
pub type Pages = Block<Kernel>;

/// This CPU goes idle or offline: others may take what it has on its page lists.
#[expect(
    unsafe_code,
    reason = "what the CPU does until it returns is the caller's word"
)]
pub(crate) fn cpu_leaves() {
    // SAFETY: called with interrupts off by `Presence::enter`; the handler of the interrupt that
    // ends the idle time calls `Presence::leave`, and with it `cpu_returns`, before anything else.
    // NMI and machine-check handlers use no memory.
    unsafe { MEMORY.leave_cpu() };
    // SAFETY: as above; idle threads and the stacks of interrupts stay mapped, and so does the kernel. NMI handlers leave that
    // state while they run.
    unsafe { MEMORY.tlb_lazy_enter(Lazy::Idle) };
}

/// A moment at which this CPU is not reading, at the end of an interrupt, on its stack: what the CPU
/// has put off is done, as far as it may be.
#[inline]
pub(crate) fn quiescent() {
    let _ = MEMORY.grace().quiescent();
}

/// The same between two threads, on the stack of one of them, which may be preempted with little
/// left: what was put off waits for the next interrupt, which the thread `grace` sends.
#[inline]
pub(crate) fn note_quiescent() {
    let _ = MEMORY.grace().note_quiescent();
}

/// This CPU is back.
pub(crate) fn cpu_returns() {
    MEMORY.tlb_lazy_leave();
    MEMORY.return_cpu();
}
