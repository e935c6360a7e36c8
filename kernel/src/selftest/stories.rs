//! What reports say of addresses: each fault is provoked, and the words that matter are looked for.
#![expect(
    unsafe_code,
    reason = "provoking an exception abandons the code that raised it"
)]

use crate::arch::expect::expect_fault;
use crate::arch::trap::vector;
use crate::arch::{image, local, probe};
use crate::boot_info;
use crate::ktest::Failure;
use crate::memory::{Kernel, MEMORY, Pages, fault_story};
use crate::num::to_u64;
use crate::sched::{self, spawn, thread::Affinity};
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::adapters::Vmalloc;
use mm::addr::{Order, Pfn, VirtAddr};
use mm::buddy::Gfp;
use mm::config::Layout;
use mm::platform::Platform;
use mm::proc;
use mm::slab::SlabFlags;
use mm::system::KmemCache;

/// What a report would say of an address.
fn story(at: u64) -> Result<String, Failure> {
    let mut text = String::new();
    fault_story::tell(at, &mut text).map_err(Failure::new)?;
    Ok(text)
}

/// Has all of the words.
fn says(at: u64, words: &[&str]) -> Result<(), Failure> {
    let text = story(at)?;
    let missing = words.iter().find(|word| !text.contains(**word));
    match missing {
        None => Ok(()),
        Some(word) => Err(Failure::new(format_args!(
            "{at:#018x}: no `{word}` in: {text}"
        ))),
    }
}

/// Faults there, with `body`, and says that of it.
fn faults(at: u64, body: fn(u64), words: &[&str]) -> Result<(), Failure> {
    // SAFETY: the bodies used here own nothing and only execute the one faulting instruction.
    let fault = unsafe { expect_fault(vector::PAGE_FAULT, || body(at)) };
    let fault = fault.map_err(|error| Failure::new(format_args!("{at:#018x}: {error}")))?;
    ktest_eq!(fault.address, at);
    says(fault.address, words)
}

fn read(at: u64) {
    // SAFETY: the tests pass addresses that fault.
    unsafe { probe::touch(at) };
}

fn write(at: u64) {
    // SAFETY: as in `read`.
    unsafe { probe::poke(at) };
}

fn execute(at: u64) {
    // SAFETY: as in `read`.
    unsafe { probe::call(at) };
}

/// `file:` of this one, as locations name it.
const HERE: &str = "kernel/src/selftest/stories.rs:";

fn thread_id() -> u32 {
    sched::with_running(|thread| thread.id()).unwrap_or_default()
}

/// The frame that an address of the direct map is in.
fn frame_of(at: u64) -> Result<u64, Failure> {
    let phys = MEMORY.platform().virt_to_phys(VirtAddr::new(at));
    let phys = phys.ok_or(Failure::new("no RAM"))?;
    Ok(phys.frame().as_u64())
}

/// What a register held that was used as an address and is none.
fn wild_pointer(at: u64) -> Result<u64, Failure> {
    // SAFETY: as in `faults`.
    let fault = unsafe { expect_fault(vector::GENERAL_PROTECTION, || read(at)) };
    Ok(fault.map_err(Failure::new)?.address)
}

ktest! {
    fn an_overflow_names_the_stack() {
        for (name, stack) in local::current().stacks() {
            let whose = format!("the {name} stack of CPU {}", local::current_id());
            let is_threads = stack.bottom == sched::running_stack().bottom;
            let whose = if is_threads { "the stack of thread" } else { whose.as_str() };
            for at in [stack.guard, stack.bottom.saturating_sub(8)] {
                faults(at, write, &["It is the guard page below", whose, "overflow"])?;
            }
            says(stack.top.saturating_sub(8), &[whose, "8 bytes below its top"])?;
        }
        Ok(())
    }

    fn an_overflow_of_a_thread_names_it() {
        static STOP: AtomicBool = AtomicBool::new(false);
        STOP.store(false, Ordering::Release);
        let sleeper = || while !STOP.load(Ordering::Acquire) {
            let _ = sched::sleep_ms(1);
        };
        let thread = spawn("sleeper", Affinity::Any, sleeper).map_err(Failure::new)?;
        let stack = sched::thread::find_at_once(|thread| thread.name() == "sleeper");
        let outcome = stack.ok_or(Failure::new("the list of threads is locked")).and_then(|found| {
            let whose = format!("the stack of thread {} `sleeper`", found.id());
            faults(found.stack().guard, write, &["It is the guard page below", &whose])
        });
        STOP.store(true, Ordering::Release);
        thread.join().map_err(Failure::new)?;
        outcome
    }

    fn a_read_behind_an_area_names_who_allocated_it() {
        let area = Vmalloc::alloc(Kernel, 2 * 4096, Gfp::KERNEL).map_err(Failure::new)?;
        let start = to_u64(area.as_non_null().addr().get());
        let place = format!("of 8192 bytes at {start:#018x}, allocated at {HERE}");
        let words = ["It is the guard page behind an area (vmalloc)", place.as_str()];
        faults(start.saturating_add(2 * 4096), read, &words)?;
        faults(start.saturating_add(3 * 4096 - 1), write, &words)?;
        faults(start.saturating_add(0x1008), execute, &["It is byte 0x1008 of an area (vmalloc)", &place])?;
        drop(area);
        // Its addresses stay together for the next area of that size, before the purge and behind it.
        says(start, &["area (vmalloc)", &place, "; it was given back, and "])?;
        crate::memory::settle_areas();
        faults(start, read, &["It is byte 0x0 of an area (vmalloc)", &place, "; it was given back, and is kept ready"])?;
        // One that is too large for that leaves a gap.
        let area = Vmalloc::alloc(Kernel, 3 << 20, Gfp::KERNEL).map_err(Failure::new)?;
        let start = to_u64(area.as_non_null().addr().get());
        drop(area);
        crate::memory::settle_areas();
        faults(start, read, &["No area is there: it was freed, or there was none."])
    }

    fn a_free_page_is_told_with_its_order_and_who_had_it() {
        let order = Order::new(4).unwrap_or_default();
        let mut block = Pages::alloc(Kernel, Gfp::KERNEL, order).map_err(Failure::new)?;
        let at = to_u64(block.bytes_mut().as_ptr().addr());
        says(at, &["a page in use, in a block of order 4 with one owner", " of zone "])?;
        drop(block);
        let last = at.saturating_add(order.frames().saturating_mul(4096)).saturating_sub(1);
        for at in [at, last] {
            // Others may have got it meanwhile.
            if !story(at)?.contains("free page, in a") {
                return Ok(());
            }
            let place = if MEMORY.keeps_origins() { HERE } else { "of zone " };
            let words = ["a free page, in a ", "block of order ", ", frame 0x", place];
            match MEMORY.hides_free_pages() {
                true => faults(at, read, &words)?,
                false => says(at, &words)?,
            }
            if MEMORY.keeps_origins() {
                let task = format!("; freed last by task {} on CPU ", thread_id());
                says(at, &[&task, ", from\n  #0 0xffffffff8"])?;
                let mut page = String::new();
                proc::page(&MEMORY, Pfn::new(frame_of(at)?), &mut page).map_err(Failure::new)?;
                ktest_assert!(page.contains("  allocated  last at ") && page.contains("  freed      last by task "), "{page}");
            }
        }
        Ok(())
    }

    fn a_freed_object_is_told_with_who_allocated_and_who_freed_it() {
        let flags = SlabFlags::STORE_USER | SlabFlags::POISON | SlabFlags::RED_ZONE;
        let cache = KmemCache::create(Kernel, "stories", (48, 8), flags).map_err(Failure::new)?;
        let object = cache.alloc(Gfp::KERNEL).map_err(Failure::new)?;
        let at = to_u64(object.addr().get());
        let told = says(at.saturating_add(5), &["It is byte 5 of an object of 48 bytes of cache stories; allocated last at ", HERE]);
        // SAFETY: nobody else has it.
        unsafe { cache.free(object) }.map_err(Failure::new)?;
        told?;
        says(at.saturating_add(5), &[
            "It is byte 5 of a freed object of 48 bytes of cache stories; allocated last at ", "; freed last at ", HERE, " on CPU ",
        ])?;
        says(at.saturating_add(48), &["It is byte 0 behind the end of a freed object of 48 bytes"])?;
        says(at.saturating_sub(2), &["It is 2 bytes before a freed object of 48 bytes"])?;
        // A pointer that is read from there is made of what freed objects are filled with.
        // SAFETY: RAM, of a slab that is there as long as the cache.
        let pointer = unsafe { object.cast::<u64>().read_volatile() };
        let wild = wild_pointer(pointer)?;
        ktest_eq!(wild, pointer);
        says(wild, &["It is no address", "what freed objects are filled with: a use after free"])?;
        cache.destroy().map_err(Failure::new)?;
        Ok(())
    }

    fn an_object_of_a_cache_that_checks_nothing_is_told_too() {
        let cache = KmemCache::create(Kernel, "stories2", (24, 8), SlabFlags::NO_MERGE);
        let cache = cache.map_err(Failure::new)?;
        let object = cache.alloc(Gfp::KERNEL).map_err(Failure::new)?;
        let at = to_u64(object.addr().get());
        let told = says(at, &["It is byte 0 of an object of 24 bytes of cache stories2"]);
        // SAFETY: nobody else has it.
        unsafe { cache.free(object) }.map_err(Failure::new)?;
        cache.destroy().map_err(Failure::new)?;
        told?;
        // Its slab is gone, or waits for that; in any case there is no object any more.
        ktest_assert!(!story(at)?.contains(" an object of 24 bytes"));
        Ok(())
    }

    fn a_pointer_that_is_no_address_says_so() {
        for (at, words) in [
            (0x8000_0000_0000_0000, "It is no address: a pointer that something else was written over."),
            (0x6b6b_6b6b_6b6b_6b93, "what freed objects are filled with"),
            (0xaaaa_aaaa_aaaa_aab2, "what free pages are filled with"),
        ] {
            let wild = wild_pointer(at)?;
            ktest_eq!(wild, at);
            says(wild, &[words])?;
        }
        Ok(())
    }

    fn a_write_to_the_kernels_code_names_it() {
        let info = boot_info().ok_or(Failure::new("no boot information"))?;
        let [code, constants, ..] = image::parts(info).map(|part| image::virtual_address(part.range.start(), info));
        faults(code, write, &["It is in the image, Kernel code", "whoever writes to it has a page fault", "\n  #0 0x"])?;
        faults(constants, write, &["It is in the image, Kernel rodata", "constants"])
    }

    fn pointers_to_nothing_say_why() {
        let layout = Layout::LINUX_LIKE;
        let end = layout.direct_map.end().as_u64().saturating_sub(4096);
        let cases: Vec<(u64, &str)> = [
            (0x10, "It is next to null: a pointer that was never set."),
            (0x7fff_0000, "It is an address of user code, and there is none."),
            (0xffff_8000_0012_3456, "No region of the kernel's half holds it."),
            (end, "There is no RAM at that physical address."),
        ].into();
        for (at, words) in cases {
            faults(at, read, &[words])?;
        }
        Ok(())
    }

    fn page_tables_and_reserved_pages_are_told() {
        let space = MEMORY.kernel_space().ok_or(Failure::new("no tables"))?;
        let base = space.layout.direct_map.start().as_u64();
        // The stack's last table is one that was made when memory was up.
        let area = Vmalloc::alloc(Kernel, 4096, Gfp::KERNEL).map_err(Failure::new)?;
        let steps = MEMORY.walk(&space.tables, VirtAddr::from_ptr(area.as_non_null().as_ptr()));
        let table = steps.last().ok_or(Failure::new("no walk"))?.table.addr().as_u64();
        says(base.saturating_add(table), &["of a page table, frame 0x"])?;
        let info = boot_info().ok_or(Failure::new("no boot information"))?;
        let code = image::physical(info).start().as_u64();
        says(base.saturating_add(code), &["a reserved page, never the page allocator's"])
    }

    fn where_memory_went_adds_up() {
        let mut text = String::with_capacity(1024);
        proc::shortage(&MEMORY, &mut text).map_err(Failure::new)?;
        let start = format!("Of {} pages, ", MEMORY.managed_frames());
        ktest_assert!(text.starts_with(&start) && text.contains(" Caches have ") && text.contains("most of all `"), "{text}");
        ktest_assert!(text.contains(" allocated most of all pages: ") == MEMORY.keeps_origins(), "{text}");
        Ok(())
    }
}
