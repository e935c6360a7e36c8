//! Benchmarks of page allocation: the names and meanings of `docs/benchmarks.md`.
//!
//! None of them zeroes when the kernel runs with `init_on_alloc=0`, as the figures that they are
//! compared with; otherwise each page handed out is zeroed too.
#![expect(
    unsafe_code,
    reason = "measures the interface of plain frame numbers, whose frees are unsafe"
)]

use super::MEMORY;
use super::bring_up::boot_map;
use crate::arch::registers::opaque;
use crate::bench;
use crate::bench::{BenchError, Bencher};
use crate::num::to_usize;
use alloc::vec::Vec;
use core::hint::black_box;
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::FreeError;

bench!(
    "page_o0",
    "order 0 alloc + free, hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 0>
);
bench!(
    "page_o0_atomic",
    "same, GFP_ATOMIC",
    pairs::<{ Gfp::ATOMIC.bits() }, 0>
);
bench!(
    "page_o0_dma32",
    "same, from DMA32",
    pairs::<{ Gfp::KERNEL.union(Gfp::DMA32).bits() }, 0>
);
bench!(
    "page_o0_movable",
    "same, movable",
    pairs::<{ Gfp::HIGHUSER_MOVABLE.bits() }, 0>
);
bench!(
    "page_o1",
    "order 1 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 1>
);
bench!(
    "page_o2",
    "order 2 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 2>
);
bench!(
    "page_o3",
    "order 3 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 3>
);
bench!(
    "page_o4",
    "order 4 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 4>
);
bench!(
    "page_o5",
    "order 5 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 5>
);
bench!(
    "page_o9",
    "order 9 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 9>
);
bench!(
    "page_o10",
    "order 10 hot pair",
    pairs::<{ Gfp::KERNEL.bits() }, 10>
);
bench!(
    "page_o0_batch64",
    "64 pages allocated, then freed, per page",
    batch::<64, 0>
);
bench!(
    "page_o0_batch1024",
    "1,024 pages, per page",
    batch::<1_024, 0>
);
bench!(
    "page_o0_batch8192",
    "8,192 pages, per page",
    batch::<8_192, 0>
);
bench!(
    "page_o0_drained64",
    "64 pages allocated where all lists of CPUs were drained before, per page",
    drained
);
bench!(
    "page_o9_batch64",
    "64 blocks of 2 MiB, per block",
    batch::<64, 9>
);
bench!(
    "page_o0_bulk64",
    "64 pages at once by the bulk interface, per page",
    bulk
);
bench!(
    "metadata",
    "bytes per frame: the record, and with all side tables",
    metadata
);
bench!(
    "boot_memory",
    "from the kernel's entry to memory ready",
    boot_memory
);
bench!(
    "boot_prompt",
    "from the kernel's entry to the first command",
    |bencher| {
        let taken = crate::shell::ready_tsc().saturating_sub(crate::arch::time::start_tsc());
        bencher.value("", 1, taken);
        Ok(())
    }
);

/// Pairs a round.
const PAIRS: usize = 1_000;

const fn order_of(number: u8) -> Order {
    match Order::new(number) {
        Some(order) => order,
        None => Order::ZERO,
    }
}

#[inline(always)]
fn free(pfn: Pfn, order: Order) {
    // SAFETY: every caller got the block from `alloc_pages` with this order and forgets it.
    if let Err(error) = unsafe { MEMORY.free_pages(pfn, order) } {
        refused(error);
    }
}

/// A refusal would be a bug of the allocator.
#[cold]
#[inline(never)]
fn refused(error: FreeError) {
    log::error!("bench: a page was not taken back: {error}");
}

/// Flags and order are constants, as where kernel code allocates.
fn pairs<const GFP: u32, const ORDER: u8>(bencher: &mut Bencher) -> Result<(), BenchError> {
    let gfp = const { Gfp::from_bits_truncate(GFP) };
    let order = const { order_of(ORDER) };
    // Once outside the loop, so that running out of memory is an error and not a figure.
    free(
        MEMORY.alloc_pages(gfp, order).map_err(BenchError::failed)?,
        order,
    );
    bencher.each("", PAIRS, |_| {
        let (gfp, order) = const { (Gfp::from_bits_truncate(GFP), order_of(ORDER)) };
        if let Ok(pfn) = MEMORY.alloc_pages(gfp, order) {
            free(Pfn::new(opaque(pfn.as_u64())), order);
        }
    });
    Ok(())
}

/// Frees blocks, of which there are `count` unless memory ran out.
fn release<const ORDER: u8>(blocks: Vec<Pfn>, count: usize) -> Result<(), BenchError> {
    let complete = blocks.len() == count;
    let order = const { order_of(ORDER) };
    blocks.into_iter().for_each(|pfn| free(pfn, order));
    if complete {
        Ok(())
    } else {
        Err(BenchError::failed("out of memory"))
    }
}

#[inline(always)]
fn allocate<const ORDER: u8>(blocks: &mut Vec<Pfn>) {
    let order = const { order_of(ORDER) };
    if let Ok(pfn) = MEMORY.alloc_pages(Gfp::KERNEL, order) {
        blocks.push(pfn);
    }
}

fn drained(bencher: &mut Bencher) -> Result<(), BenchError> {
    const COUNT: usize = 64;
    let prepare = || {
        if MEMORY.drain_all_pages() {
            Ok(Vec::with_capacity(COUNT))
        } else {
            Err(BenchError::failed("a CPU did not drain its lists"))
        }
    };
    let operation = |blocks: &mut Vec<Pfn>, _| allocate::<0>(blocks);
    let finish = |blocks| release::<0>(blocks, COUNT);
    bencher.phase("_alloc", COUNT, prepare, operation, finish)
}

fn batch<const COUNT: usize, const ORDER: u8>(bencher: &mut Bencher) -> Result<(), BenchError> {
    const { assert!(ORDER <= 10) };
    let count = COUNT;
    let empty = || Ok(Vec::with_capacity(count));
    let allocate = allocate::<ORDER>;
    let release = |blocks| release::<ORDER>(blocks, count);
    bencher.phase(
        "_alloc",
        count,
        empty,
        |blocks, _| allocate(blocks),
        release,
    )?;
    let full = || {
        let mut blocks = Vec::with_capacity(count);
        (0..count).for_each(|_| allocate(&mut blocks));
        if blocks.len() == count {
            Ok(blocks)
        } else {
            Err(BenchError::failed("out of memory"))
        }
    };
    let free_next = |blocks: &mut Vec<Pfn>, _| {
        let order = const { order_of(ORDER) };
        if let Some(pfn) = blocks.pop() {
            free(pfn, order);
        }
    };
    bencher.phase("_free", count, full, free_next, |_| Ok(()))
}

fn bulk(bencher: &mut Bencher) -> Result<(), BenchError> {
    const COUNT: usize = 64;
    let free_all = |mut pages: [Option<Pfn>; COUNT]| {
        // SAFETY: the bulk interface filled the places, and they are emptied.
        unsafe { MEMORY.free_pages_bulk(&mut pages) }
            .map_err(|(_, error)| BenchError::failed(error))
    };
    let fill = || {
        let mut pages = [None; COUNT];
        let filled = MEMORY
            .alloc_pages_bulk(Gfp::KERNEL, &mut pages)
            .map_err(BenchError::failed)?;
        if filled == COUNT {
            Ok(pages)
        } else {
            Err(BenchError::failed("out of memory"))
        }
    };
    let empty = || Ok([None; COUNT]);
    let allocate = |pages: &mut [Option<Pfn>; COUNT]| {
        let filled = MEMORY.alloc_pages_bulk(Gfp::KERNEL, pages);
        let _ = black_box(filled);
    };
    bencher.whole("_alloc", COUNT, empty, allocate, free_all)?;
    let free_whole = |pages: &mut [Option<Pfn>; COUNT]| {
        // SAFETY: as above.
        let freed = unsafe { MEMORY.free_pages_bulk(pages) };
        let _ = black_box(freed);
    };
    bencher.whole("_free", COUNT, fill, free_whole, |_| Ok(()))
}

fn metadata(bencher: &mut Bencher) -> Result<(), BenchError> {
    let summary = MEMORY.summary();
    let frames = to_usize(summary.recorded);
    bencher.value("_record", frames, summary.record_bytes);
    bencher.value(
        "_all",
        frames,
        summary.record_bytes.saturating_add(summary.side_bytes),
    );
    Ok(())
}

fn boot_memory(bencher: &mut Bencher) -> Result<(), BenchError> {
    let map = boot_map().ok_or_else(|| BenchError::failed("memory is not up"))?;
    bencher.value(
        "",
        1,
        map.ready_tsc.saturating_sub(crate::arch::time::start_tsc()),
    );
    Ok(())
}
