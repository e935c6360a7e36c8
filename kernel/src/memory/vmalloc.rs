//! Areas of kernel addresses in this kernel: where they are, `/proc/vmallocinfo`, benchmarks, tests.
#![expect(unsafe_code, reason = "measures the interface of plain addresses")]

use super::{Kernel, MEMORY};
use crate::bench::{BenchError, Bencher};
use crate::ktest::Failure;
use crate::num::{to_u64, to_usize};
use crate::shell::interrupt::Output;
use crate::shell::{self, CommandError, CommandResult, no_arguments};
use crate::{bench, command, kprintln, ktest, ktest_assert, ktest_eq, proc_file};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use mm::adapters::Vmalloc;
use mm::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::Attributes;
use mm::proc;

proc_file!("/proc/vmallocinfo", |out| proc::vmallocinfo(&MEMORY, out));
command! { "vmallocinfo", "", "areas of kernel addresses, and what waits to be forgotten by all CPUs", vmallocinfo, "The lines of /proc/vmallocinfo: from, to, bytes with the guard page, who asked,
pages, what it is, and on which nodes its pages lie. `unpurged vm_area` was
freed, and CPUs may remember it until a purge. Areas that are ready for the next
request are counted below, not listed." }

/// Gives the region for areas to the memory core. Context: boot, when the kernel is on its own page tables.
pub(super) fn init() {
    if let Err(error) = MEMORY.vmalloc_init() {
        log::error!("vmalloc: {error}");
    }
}

/// A number of things, with their noun.
struct Of(u64, &'static str);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, noun) = self;
        write!(f, "{number} {noun}{}", if *number == 1 { "" } else { "s" })
    }
}

/// `explain vmalloc SIZE`: a real one, and what came of it.
pub(super) fn explain(arguments: &[String]) -> CommandResult {
    let [size] = arguments else {
        return Err(CommandError::usage("expected a number of bytes"));
    };
    let size = to_usize(shell::size(size)?);
    let before = MEMORY.vmalloc_stats();
    let area = Vmalloc::alloc(Kernel, size, Gfp::KERNEL).map_err(CommandError::failed)?;
    let after = MEMORY.vmalloc_stats();
    let first = VirtAddr::from_ptr(area.as_non_null().as_ptr());
    let bytes = to_u64(size).next_multiple_of(4096);
    let how = if after.hits > before.hits {
        "addresses that lay ready for this CPU: no lock was taken for them"
    } else {
        "addresses of the first gap that is large enough: the tree of areas was locked"
    };
    kprintln!(
        "{} {} {}, and one more that stays unmapped.",
        Of(to_u64(size), "byte"),
        if size == 1 { "is" } else { "are" },
        Of(bytes / 4096, "page")
    );
    kprintln!("The area got {how}.");
    let space = MEMORY.kernel_space();
    let space = space.ok_or_else(|| CommandError::failed("there are no page tables"))?;
    let range = VirtRange::from_size(first, bytes).unwrap_or_default();
    proc::each_run(&MEMORY, space, range, &mut |run| {
        let pages = run.range.size().checked_div(run.first.size.bytes());
        kprintln!(
            "{:?} is mapped in {} of {}, the first of which is at frame {}.",
            run.range,
            Of(pages.unwrap_or_default(), "page"),
            run.first.size,
            run.first.pfn
        );
        Ok(())
    })?;
    drop(area);
    let lazy = MEMORY.vmalloc_stats().lazy_pages;
    kprintln!(
        "It is free again: unmapped, and {} {} for the purge that has all CPUs forget them.",
        Of(lazy, "page"),
        if lazy == 1 { "waits" } else { "wait" }
    );
    Ok(())
}

fn vmallocinfo(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    proc::vmallocinfo(&MEMORY, &mut Output).map_err(CommandError::failed)?;
    let stats = MEMORY.vmalloc_stats();
    kprintln!(
        "now: {} areas, {} of them nobody's and ready for the next request; {} pages of freed areas wait for a purge, {} may",
        stats.areas,
        stats.ready,
        stats.lazy_pages,
        stats.lazy_max_pages
    );
    kprintln!(
        "since boot: {} purges of {} areas; {} requests got an area that was ready",
        stats.purges,
        stats.purged_areas,
        stats.hits
    );
    Ok(())
}

bench!(
    "vmalloc_4K",
    "vmalloc of a page, not zeroed",
    vmalloc::<{ 4 << 10 }, 512>
);
bench!("vmalloc_64K", "64 KiB", vmalloc::<{ 64 << 10 }, 64>);
bench!(
    "vmalloc_1M",
    "1 MiB in pages of 4 KiB",
    vmalloc::<{ 1 << 20 }, 8>
);
bench!(
    "vmalloc_16M",
    "16 MiB, large pages allowed",
    vmalloc::<{ 16 << 20 }, 2>
);
bench!(
    "vfree_4K",
    "vfree of a page, with its share of a purge that unmaps and flushes",
    vfree::<{ 4 << 10 }, 512>
);
bench!("vfree_64K", "64 KiB", vfree::<{ 64 << 10 }, 64>);
bench!("vfree_1M", "1 MiB", vfree::<{ 1 << 20 }, 8>);
bench!(
    "vfree_16M",
    "16 MiB in large pages",
    vfree::<{ 16 << 20 }, 2>
);
bench!(
    "vmalloc_4K_sustained",
    "vmalloc + vfree of a page, with purges",
    sustained
);
bench!(
    "vmap_16pages",
    "vmap + vunmap of 16 pages, with purges",
    vmap
);

/// Pairs of the long run, and after how many of them there is a purge.
const PAIRS: usize = 4_096;
const PER_PURGE: usize = 1_024;

fn take(size: usize) -> Result<NonNull<u8>, BenchError> {
    let area = match size {
        0x10_0001.. => MEMORY.vmalloc_huge(size, Gfp::KERNEL),
        _ => MEMORY.vmalloc(size, Gfp::KERNEL),
    };
    area.map_err(BenchError::failed)
}

fn free(area: NonNull<u8>) {
    // SAFETY: every caller got the area from `vmalloc` and forgets it.
    if let Err(error) = unsafe { MEMORY.vfree(area) } {
        log::error!("bench: {error}");
    }
}

/// Empty, with room: or full.
fn areas<const SIZE: usize, const COUNT: usize>(
    full: bool,
) -> Result<Vec<NonNull<u8>>, BenchError> {
    let mut areas = Vec::with_capacity(COUNT);
    while full && areas.len() < COUNT {
        areas.push(take(SIZE)?);
    }
    Ok(areas)
}

fn forget(areas: Vec<NonNull<u8>>, wanted: usize) -> Result<(), BenchError> {
    let is_complete = areas.len() == wanted;
    areas.into_iter().for_each(free);
    let _ = MEMORY.vmalloc_purge();
    match is_complete {
        true => Ok(()),
        false => Err(BenchError::failed("out of memory")),
    }
}

fn vmalloc<const SIZE: usize, const COUNT: usize>(bencher: &mut Bencher) -> Result<(), BenchError> {
    // The second time addresses and page tables are there.
    forget(areas::<SIZE, COUNT>(true)?, COUNT)?;
    let one = |areas: &mut Vec<NonNull<u8>>, _| {
        if let Ok(area) = take(SIZE) {
            areas.push(area);
        }
    };
    let empty = || areas::<SIZE, COUNT>(false);
    bencher.phase("", COUNT, empty, one, |areas| forget(areas, COUNT))
}

fn vfree<const SIZE: usize, const COUNT: usize>(bencher: &mut Bencher) -> Result<(), BenchError> {
    let all = |areas: &mut Vec<NonNull<u8>>| {
        areas.drain(..).for_each(free);
        let _ = MEMORY.vmalloc_purge();
    };
    bencher.whole(
        "",
        COUNT,
        || areas::<SIZE, COUNT>(true),
        all,
        |areas| forget(areas, 0),
    )
}

fn sustained(bencher: &mut Bencher) -> Result<(), BenchError> {
    free(take(4096)?);
    let pair = |index: usize| {
        if let Ok(area) = take(4096) {
            free(area);
        }
        if index.is_multiple_of(PER_PURGE) {
            let _ = MEMORY.vmalloc_purge();
        }
    };
    bencher.each("", PAIRS, pair);
    let _ = MEMORY.vmalloc_purge();
    Ok(())
}

fn vmap(bencher: &mut Bencher) -> Result<(), BenchError> {
    let blocks = (0..16).map(|_| MEMORY.alloc_block(Gfp::KERNEL, Order::ZERO));
    let blocks: Vec<_> = blocks
        .collect::<Result<_, _>>()
        .map_err(BenchError::failed)?;
    let frames: Vec<Pfn> = blocks.iter().map(|block| block.pfn()).collect();
    let pair = |index: usize| {
        // SAFETY: the pages are ours until the purge below, and nobody uses the addresses.
        if let Ok(area) = unsafe { MEMORY.vmap(&frames, Attributes::KERNEL) } {
            // SAFETY: as above.
            if let Err(error) = unsafe { MEMORY.vunmap(area) } {
                log::error!("bench: {error}");
            }
        }
        if index.is_multiple_of(64) {
            let _ = MEMORY.vmalloc_purge();
        }
    };
    bencher.each("", PAIRS, pair);
    let _ = MEMORY.vmalloc_purge();
    drop(blocks);
    Ok(())
}

ktest! {
    fn areas_hold_what_was_written_and_end_at_a_page_that_is_not_mapped() {
        for (size, is_huge) in [(1, false), (4096, false), (70_000, false), (5 << 20, true)] {
            let area = match is_huge {
                true => Vmalloc::alloc_huge(Kernel, size, Gfp::KERNEL),
                false => Vmalloc::alloc(Kernel, size, Gfp::KERNEL | Gfp::ZERO),
            };
            let mut area = area.map_err(Failure::new)?;
            ktest_assert!(is_huge || area.iter().all(|&byte| byte == 0));
            for (index, byte) in area.iter_mut().enumerate() {
                let [low, ..] = index.wrapping_mul(31).to_le_bytes();
                *byte = low;
            }
            for (index, byte) in area.iter().enumerate() {
                let [low, ..] = index.wrapping_mul(31).to_le_bytes();
                ktest_assert!(*byte == low, "byte {index} of {size}");
            }
            let first = VirtAddr::from_ptr(area.as_non_null().as_ptr());
            let end = first.checked_add(to_u64(size)).and_then(|end| end.align_up(4096));
            ktest_eq!(MEMORY.vmalloc_to_pfn(end.unwrap_or_default()), None);
            ktest_eq!(MEMORY.vmalloc_to_pfn(first).is_some(), true);
            drop(area);
            ktest_eq!(MEMORY.vmalloc_to_pfn(first), None);
        }
        let _ = MEMORY.vmalloc_purge();
        ktest_eq!(MEMORY.vmalloc_stats().lazy_pages, 0);
        MEMORY.validate_vmalloc().map_err(Failure::new)?;
        Ok(())
    }
}
