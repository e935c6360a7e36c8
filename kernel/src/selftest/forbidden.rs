//! What the page tables forbid: each attempt faults, with the error code that says how.
#![expect(
    unsafe_code,
    reason = "provoking a page fault abandons the code that raised it"
)]

use crate::arch::expect::{ExpectError, Fault, expect_fault};
use crate::arch::trap::vector;
use crate::arch::{cpu, image, local, probe, smp};
use crate::boot_info;
use crate::ktest::Failure;
use crate::memory::{Kernel, KernelPlatform, MEMORY, Pages, settle_areas};
use crate::num::to_u64;
use crate::panic::PageFaultWords;
use crate::{ktest, ktest_assert, ktest_eq, sched};
use alloc::boxed::Box;
use alloc::format;
use mm::adapters::Vmalloc;
use mm::addr::{Order, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::{Layout, PAGE_SIZE};
use mm::pagetable::{Attributes, Cache, PageSize, ProtectError, Protection};
use mm::system::Memory;

/// Bits of a page fault's error code (SDM vol. 3A, 4.7): the page is there, the access wrote, it fetched an instruction.
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

const LAYOUT: Layout = Layout::LINUX_LIKE;

/// One of the `set_memory_*`.
type Named = unsafe fn(&Memory<KernelPlatform>, VirtRange) -> Result<(), ProtectError>;

fn fault(body: impl FnOnce()) -> Result<Fault, Failure> {
    // SAFETY: the bodies used here own nothing and only execute the one faulting instruction.
    unsafe { expect_fault(vector::PAGE_FAULT, body) }.map_err(Failure::new)
}

fn read(address: u64) {
    // SAFETY: the tests pass addresses that fault, or that can be read.
    unsafe { probe::touch(address) };
}

fn write(address: u64) {
    // SAFETY: the tests pass addresses that fault, or of pages of their own.
    unsafe { probe::poke(address) };
}

fn execute(address: u64) {
    // SAFETY: the tests pass addresses that fault, or of code that returns.
    unsafe { probe::call(address) };
}

/// The attempt faults at that address, with that error code, which a report has the right words for.
fn refused(body: fn(u64), address: u64, code: u64) -> Result<(), Failure> {
    let fault = fault(|| body(address))?;
    ktest_eq!((fault.address, fault.error_code), (address, code));
    let act = match code & (WRITE | FETCH) {
        WRITE => "write",
        FETCH => "instruction fetch",
        _ => "read",
    };
    let why = match code & PRESENT {
        PRESENT => "the page's rights forbid it",
        _ => "page not present",
    };
    let words = format!("{}", PageFaultWords(fault.error_code));
    ktest_eq!(words, format!("kernel {act}: {why},"));
    Ok(())
}

/// Runs `body` in a thread of each CPU, one after the other.
fn on_every_cpu(body: impl Fn() -> Result<(), Failure> + Sync) -> Result<(), Failure> {
    for cpu in 0..smp::count() {
        let outcome = smp::run_on(cpu, &body).map_err(Failure::new)?;
        outcome.map_err(|failure| Failure::new(format_args!("CPU {cpu}: {failure}")))?;
    }
    Ok(())
}

/// Where the map of memory has a physical address.
fn direct(at: PhysAddr) -> u64 {
    let base = LAYOUT.direct_map.start().as_u64();
    base.saturating_add(at.as_u64())
}

/// A page of user code's at a low address, for as long as `body` runs.
fn with_user_page(body: impl FnOnce(u64) -> Result<(), Failure>) -> Result<(), Failure> {
    const AT: u64 = 0x40_0000;
    let space = MEMORY.kernel_space().ok_or(Failure::new("no tables"))?;
    let page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
    let attributes = Attributes {
        protection: Protection::USER | Protection::WRITE | Protection::EXECUTE,
        cache: Cache::WriteBack,
    };
    let row = (VirtAddr::new(AT), page.frames());
    // SAFETY: the lower half is nobody's, and only this test touches the page there.
    unsafe { MEMORY.map_pages(&space.tables, row, attributes, PageSize::Size4K) }
        .map_err(Failure::new)?;
    let outcome = body(AT);
    let range = VirtRange::from_size(VirtAddr::new(AT), PAGE_SIZE).unwrap_or_default();
    // SAFETY: this test is done with it.
    unsafe { MEMORY.unmap_pages(&space.tables, range, |_, _| ()) }
        .map_err(Failure::new)?
        .complete();
    outcome
}

ktest! {
    fn code_and_constants_are_not_written() {
        let info = boot_info().ok_or(Failure::new("no boot information"))?;
        let [code, constants, ..] = image::parts(info).map(|part| part.range.start());
        on_every_cpu(|| {
            for at in [code, constants] {
                let address = image::virtual_address(at, info);
                refused(write, address, PRESENT | WRITE)?;
                // The same bytes, through the map of memory.
                refused(write, direct(at), PRESENT | WRITE)?;
            }
            refused(execute, image::virtual_address(constants, info), PRESENT | FETCH)?;
            refused(execute, direct(code), PRESENT | FETCH)
        })
    }

    fn data_stacks_and_objects_are_not_executed() {
        static DATA: u64 = 0;
        on_every_cpu(|| {
            let on_stack = 0_u64;
            let object = Box::new(0_u64);
            let page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
            let area = Vmalloc::alloc(Kernel, 3 * 4096, Gfp::KERNEL).map_err(Failure::new)?;
            for address in [
                to_u64((&raw const DATA).addr()),
                to_u64((&raw const on_stack).addr()),
                to_u64((&raw const *object).addr()),
                to_u64(area.as_ptr().addr()),
                direct(page.frames().addrs().start()),
                LAYOUT.vmemmap.start().as_u64(),
                LAYOUT.fixmap.start().as_u64(),
                local::current().main_stack().bottom,
            ] {
                refused(execute, address, PRESENT | FETCH)?;
            }
            Ok(())
        })
    }

    fn nothing_is_at_null_nor_where_the_boot_loader_had_memory() {
        let info = boot_info().ok_or(Failure::new("no boot information"))?;
        let [code, ..] = image::parts(info).map(|part| part.range.start());
        // Null with an offset, the map of the boot loader, the guard hole; what `boot` had of the image.
        let stack = info.kernel_stack_bottom;
        let nowhere = [8, code.as_u64(), 0xffff_8000_0000_0000, stack];
        on_every_cpu(|| {
            nowhere.into_iter().try_for_each(|address| {
                refused(read, address, 0)?;
                refused(write, address, WRITE)?;
                refused(execute, address, FETCH)
            })
        })
    }

    fn nothing_is_under_a_stack_nor_behind_an_area() {
        on_every_cpu(|| {
            let thread = sched::running_stack();
            let stacks = local::current().stacks().map(|(_, stack)| stack);
            for stack in stacks.chain([thread]) {
                let guards = [stack.guard, stack.guard.saturating_add(0x800), stack.bottom.saturating_sub(1)];
                guards.into_iter().try_for_each(|at| refused(write, at, WRITE))?;
            }
            refused(read, thread.guard, 0)?;
            let area = Vmalloc::alloc(Kernel, 3 * 4096, Gfp::KERNEL).map_err(Failure::new)?;
            let end = to_u64(area.as_ptr().addr()).saturating_add(to_u64(area.len()));
            refused(read, end, 0)?;
            refused(write, end, WRITE)?;
            refused(execute, end, FETCH)
        })
    }

    fn the_map_of_memory_holds_nothing_but_memory() {
        // Registers of the local APIC, and behind the last RAM.
        let ram = MEMORY.zones().map(|zone| zone.span().end()).max();
        let end = ram.ok_or(Failure::new("no zones"))?;
        let behind = PfnRange::from_count(end, 1).ok_or(Failure::new("no frame"))?;
        on_every_cpu(|| {
            for at in [PhysAddr::new(0xfee0_0000), behind.addrs().start()] {
                refused(read, direct(at), 0)?;
                refused(write, direct(at), WRITE)?;
            }
            Ok(())
        })
    }

    fn pages_of_user_code_are_neither_executed_nor_touched() {
        with_user_page(|at| on_every_cpu(|| {
            if cpu::has_smep() {
                refused(execute, at, PRESENT | FETCH)?;
            }
            if cpu::has_smap() {
                refused(read, at, PRESENT)?;
                refused(write, at, PRESENT | WRITE)?;
                // Unless the kernel says so, for as long as it says so.
                // SAFETY: the CPU has the flag; the page is mapped.
                unsafe { probe::touch_of_user(at) };
                return refused(read, at, PRESENT);
            }
            // SAFETY: as in `fault`.
            let outcome = unsafe { expect_fault(vector::PAGE_FAULT, || read(at)) };
            ktest_eq!(outcome.err(), Some(ExpectError::NoFault));
            Ok(())
        }))
    }

    fn addresses_between_the_halves_are_refused_in_the_way_of_the_tables() {
        on_every_cpu(|| {
            for address in [0x8000_0000_0000, 0x00ff_ffff_ffff_f000, 0xff00_0000_0000_0000, 0xffff_7fff_ffff_f000] {
                if cpu::has_five_levels() {
                    refused(read, address, 0)?;
                    continue;
                }
                // SAFETY: as in `fault`.
                let fault = unsafe { expect_fault(vector::GENERAL_PROTECTION, || read(address)) };
                ktest_eq!(fault.map_err(Failure::new)?.error_code, 0);
            }
            // SAFETY: as in `fault`.
            let fault = unsafe { expect_fault(vector::GENERAL_PROTECTION, || read(0x0100_0000_0000_0000)) };
            ktest_eq!(fault.map_err(Failure::new)?.error_code, 0);
            Ok(())
        })
    }

    fn no_page_is_both_written_and_executed_and_tables_are_in_order() {
        let space = MEMORY.kernel_space().ok_or(Failure::new("no tables"))?;
        let found = mm::proc::check_wx(&MEMORY, space);
        ktest_eq!(found, mm::proc::Violations::default());
        let tables = MEMORY.validate_page_table(&space.tables).map_err(Failure::new)?;
        ktest_assert!(tables > 4);
        // Nothing is left of the boot loader's identity map.
        let low = MEMORY.next_leaf(&space.tables, VirtAddr::new(0));
        ktest_assert!(low.is_some_and(|(at, _)| at.as_u64() >> 63 == 1));
        Ok(())
    }

    fn pages_protected_by_name_fault_until_they_are_given_back() {
        let space = MEMORY.kernel_space().ok_or(Failure::new("no tables"))?;
        let page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
        let at = direct(page.pfn().addr());
        let range = VirtRange::from_size(VirtAddr::new(at), PAGE_SIZE).unwrap_or_default();
        let size = || MEMORY.walk(&space.tables, range.start()).leaf().map(|leaf| leaf.size);
        let before = size();
        // SAFETY: nobody but this test has the page; it expects the page faults.
        let set = |named: Named| unsafe { named(&MEMORY, range) };
        let both = Err(ProtectError::WriteExecute(range.start()));

        write(at);
        refused(execute, at, PRESENT | FETCH)?;
        ktest_eq!(set(Memory::set_memory_ro), Ok(()));
        refused(write, at, PRESENT | WRITE)?;
        read(at);
        ktest_eq!(size(), Some(PageSize::Size4K));
        ktest_eq!(set(Memory::set_memory_x), Ok(()));
        ktest_eq!(set(Memory::set_memory_rw), both);
        refused(write, at, PRESENT | WRITE)?;
        ktest_eq!(set(Memory::set_memory_nx), Ok(()));
        refused(execute, at, PRESENT | FETCH)?;
        ktest_eq!(set(Memory::set_memory_np), Ok(()));
        refused(read, at, 0)?;
        refused(write, at, WRITE)?;
        ktest_eq!(set(Memory::set_memory_p), Ok(()));
        refused(write, at, PRESENT | WRITE)?;
        ktest_eq!(set(Memory::set_memory_rw), Ok(()));
        write(at);
        // No table is left of it.
        ktest_eq!(size(), before);
        Ok(())
    }

    fn an_area_is_filled_with_code_and_run_and_its_next_owner_has_data() {
        // `ret`, in every place.
        const CODE: u8 = 0xc3;
        let new = || Vmalloc::alloc(Kernel, 3 * 4096, Gfp::KERNEL).map_err(Failure::new);
        let mut area = new()?;
        area.fill(CODE);
        let at = to_u64(area.as_ptr().addr()).saturating_add(PAGE_SIZE);
        let range = VirtRange::from_size(VirtAddr::new(at), PAGE_SIZE).unwrap_or_default();
        // SAFETY: nobody but this test has the area; it expects the page faults.
        let set = |named: Named| unsafe { named(&MEMORY, range) };
        let both = Err(ProtectError::WriteExecute(range.start()));

        on_every_cpu(|| refused(execute, at, PRESENT | FETCH))?;
        ktest_eq!(set(Memory::set_memory_x), both);
        ktest_eq!(set(Memory::set_memory_ro), Ok(()));
        on_every_cpu(|| {
            write(at.saturating_add(PAGE_SIZE));
            refused(write, at, PRESENT | WRITE)?;
            refused(execute, at, PRESENT | FETCH)
        })?;
        ktest_eq!(set(Memory::set_memory_x), Ok(()));
        on_every_cpu(|| {
            execute(at);
            refused(execute, at.saturating_sub(PAGE_SIZE), PRESENT | FETCH)?;
            refused(write, at, PRESENT | WRITE)
        })?;
        ktest_eq!(set(Memory::set_memory_rw), both);
        // Freed as it is; then there is no area that could be changed.
        let first = area.as_non_null();
        drop(area);
        ktest_eq!(set(Memory::set_memory_nx), Err(ProtectError::NoArea(range)));
        settle_areas();
        let mut again = new()?;
        again.fill(CODE);
        let starts = to_u64(again.as_ptr().addr());
        on_every_cpu(|| refused(execute, starts.saturating_add(PAGE_SIZE), PRESENT | FETCH))?;
        // Nobody else takes areas of three pages now.
        ktest_assert!(again.as_non_null() == first);
        Ok(())
    }
}
