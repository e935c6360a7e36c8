//! Everything that only this CPU architecture has, and the only place of the kernel with `unsafe`
//! code, but for these: `heap` (`GlobalAlloc` is an unsafe trait), `registry` (linker sections), parts
//! of `memory` and `sched` that say why at their top (page tables, stacks made by hand),
//! and `selftest` (which provokes faults and calls foreign symbols).
//!
//! | Module | What |
//! |---|---|
//! | [`local`] | what each CPU has of its own; which CPU this is |
//! | [`gdt`], [`stack`], `guard`, [`image`] | segments, stacks with guard pages, the image's bounds |
//! | [`idt`], [`stubs`], [`trap`], [`expect`] | from the interrupt to its handler and back |
//! | [`step`], [`probe`], [`crash`] | single-stepping, probing and failing, for tests |
//! | [`irq`], [`lock`], [`pin`] | interrupts off; a spin lock that keeps them off; no switch of threads |
//! | `context`, `running`, [`presence`] | from thread to thread; the running one; CPUs that have none |
//! | `anchor`, `recorder`, [`percpu`] | what the memory core has for each CPU; its events; variables of each CPU |
//! | [`cpu`], [`time`], `pit`, [`pic`] | CPUID and control registers, the clock, old chips |
//! | [`apic`], [`smp`], `tlb` | the local APIC; the other CPUs; what CPUs forget of page tables |
//! | `physmem` | physical memory for those who parse tables in it |
//! | [`serial`], [`exit`], `port` | the terminal and the ways to end |
//! | `display` | QEMU's display adapter |
#![expect(
    unsafe_code,
    reason = "privileged instructions, device ports and descriptor tables have no safe form"
)]

pub(crate) mod anchor;
pub mod apic;
pub(crate) mod context;
pub mod cpu;
pub mod crash;
pub(crate) mod display;
pub mod exit;
pub mod expect;
pub mod gdt;
mod guard;
pub mod idt;
pub mod image;
pub mod irq;
pub mod local;
pub mod lock;
pub mod percpu;
pub(crate) mod physmem;
pub mod pic;
pub mod pin;
mod pit;
mod port;
pub mod presence;
pub mod probe;
pub(crate) mod recorder;
pub mod registers;
pub(crate) mod running;
pub mod serial;
pub mod smp;
pub mod stack;
pub mod step;
pub mod stubs;
pub mod time;
pub(crate) mod tlb;
pub mod trap;

use x86_64::VirtAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};

pub use guard::GuardError;

/// Tells this CPU that it is the boot CPU. Nothing else of the kernel may run before.
pub(crate) fn adopt_boot_cpu() {
    local::adopt_boot_cpu();
    time::start();
}

/// Makes the terminal work: first of all, so that everything after it can speak.
///
/// Returns false where there is no serial port.
pub(crate) fn init_terminal() -> bool {
    serial::init().is_ok()
}

/// Sets up the rest of the boot CPU: control registers, and interrupts (masked at the PICs).
pub(crate) fn init_boot_cpu() {
    cpu::init();
    idt::load();
    pic::init();
    x86_64::instructions::interrupts::enable();
}

/// Which parts of a range of physical memory are mapped, as ordinary memory, at the offset.
pub(crate) fn mapped_runs(
    physical_offset: u64,
    range: mm::addr::PhysRange,
) -> alloc::vec::Vec<mm::addr::PhysRange> {
    guard::Tables { physical_offset }.mapped_runs(range)
}

/// Unmaps the guard pages of all stacks of the boot CPU and returns how many guard now.
///
/// # Errors
///
/// A guard page that stays mapped: an overflow of its stack goes unnoticed.
pub(crate) fn unmap_guard_pages(physical_offset: u64) -> Result<usize, GuardError> {
    let tables = guard::Tables { physical_offset };
    let mut unmapped: usize = 0;
    let idle = ("idle", local::boot_idle_stack());
    for (_, stack) in local::boot_cpu().stacks().chain([idle]) {
        let page = VirtAddr::new_truncate(stack.guard);
        // SAFETY: (1) a guard page is never used (`GuardedStack`, invariant 1); (2) the boot
        // loader's offset maps all physical memory, and no other CPU runs yet.
        match unsafe { guard::unmap(tables, page) } {
            Ok(()) | Err(GuardError::NotMapped) => unmapped = unmapped.saturating_add(1),
            Err(error) => return Err(error),
        }
    }
    Ok(unmapped)
}

/// Writes the entry of a slot's page into the boot loader's tables, which lie at the offset.
///
/// # Errors
///
/// The boot loader has something else there, or there are no tables left to spare.
///
/// # Safety
///
/// 1. The page is a slot's, and whoever has the slot asked for the entry.
/// 2. The boot loader's tables are in use, on one CPU.
pub(crate) unsafe fn set_early_page(
    physical_offset: u64,
    page: mm::addr::VirtAddr,
    entry: mm::pagetable::Entry,
) -> Result<(), GuardError> {
    let tables = guard::Tables { physical_offset };
    let page = VirtAddr::new_truncate(page.as_u64());
    // SAFETY: (1, 2) the caller's word; the boot loader's offset maps all physical memory.
    unsafe { guard::set_entry(tables, page, entry.bits()) }
}

/// The guard pages below the stacks of the boot CPU.
pub(crate) fn guard_pages() -> impl Iterator<Item = u64> {
    let idle = ("idle", local::boot_idle_stack());
    let stacks = local::boot_cpu().stacks().chain([idle]);
    stacks.map(|(_, stack)| stack.guard)
}

/// Pages of `ram` that the map of memory has not, though it has those around them.
pub(crate) fn hidden_pages(
    physical_offset: u64,
    ram: &[mm::addr::PhysRange],
) -> alloc::vec::Vec<mm::addr::PhysAddr> {
    let mut hidden = alloc::vec::Vec::new();
    for &range in ram {
        let mut at = range.start();
        for run in mapped_runs(physical_offset, range) {
            while at < run.start() {
                hidden.push(at);
                at = at.saturating_add(PAGE_BYTES);
            }
            at = run.end();
        }
    }
    hidden
}

/// Bytes in a page.
const PAGE_BYTES: u64 = 4096;

/// The physical address behind an address of the tables in use.
pub(crate) fn physical(physical_offset: u64, at: u64) -> Option<u64> {
    guard::Tables { physical_offset }.physical(VirtAddr::new_truncate(at))
}

/// Has this CPU forget how a page is mapped.
pub(crate) fn forget_page(at: u64) {
    x86_64::instructions::tlb::flush(VirtAddr::new_truncate(at));
}

/// Uses the page tables with `root` on this CPU, and forgets all others.
///
/// # Safety
///
/// 1. Everything that is in use is mapped in the new tables where it was.
pub(crate) unsafe fn use_tables(root: mm::addr::Pfn) {
    let root = x86_64::PhysAddr::new_truncate(root.addr().as_u64());
    let root = x86_64::structures::paging::PhysFrame::containing_address(root);
    // SAFETY: (1) the caller's word.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    tlb::flush(mm::platform::TlbFlush::All);
}

/// Makes a page of the map of memory one that nobody can touch, or one that everybody can.
///
/// # Errors
///
/// There is no page table to split a large page with, or it is not mapped; nothing is changed.
///
/// # Safety
///
/// 1. Whoever touches the page while nobody can expects the page fault.
/// 2. Pages of one 2 MiB range only are put out of reach, the first one while no other CPU runs.
pub(crate) unsafe fn set_page_present(
    physical_offset: u64,
    page: mm::addr::PhysAddr,
    is_present: bool,
) -> Result<(), GuardError> {
    let tables = guard::Tables { physical_offset };
    let page = VirtAddr::new_truncate(page.as_u64().wrapping_add(physical_offset));
    // SAFETY: (1) the caller's word; (2) the offset maps all physical memory; pages of one range are split
    // once, before there are others.
    unsafe { guard::set_present(tables, page, is_present) }
}

/// Leaves the boot loader's stack for the kernel's own and goes on with `next` there.
pub(crate) fn enter_main_stack(next: extern "sysv64" fn(*const ()) -> !) -> ! {
    let top = local::boot_cpu().main_stack().top;
    // SAFETY: (1) the boot CPU's main stack is used here for the first time; (2) `next` takes
    // nothing along.
    unsafe { stack::enter(top, core::ptr::null(), next) }
}
