//! Benchmarks of objects: the names and meanings of `docs/benchmarks.md`.
#![expect(
    unsafe_code,
    reason = "measures the interface of plain addresses, whose frees are unsafe"
)]

use super::MEMORY;
use crate::arch::registers::opaque_pointer;
use crate::bench;
use crate::bench::{BenchError, Bencher};
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr::NonNull;
use mm::buddy::Gfp;
use mm::slab::BadFree;

bench!(
    "kmalloc_8",
    "kmalloc + kfree of 8 bytes, size known when compiling",
    pairs::<8>
);
bench!("kmalloc_16", "16 bytes", pairs::<16>);
bench!("kmalloc_32", "32 bytes", pairs::<32>);
bench!("kmalloc_64", "64 bytes", pairs::<64>);
bench!("kmalloc_96", "96 bytes", pairs::<96>);
bench!("kmalloc_128", "128 bytes", pairs::<128>);
bench!("kmalloc_192", "192 bytes", pairs::<192>);
bench!("kmalloc_256", "256 bytes", pairs::<256>);
bench!("kmalloc_512", "512 bytes", pairs::<512>);
bench!("kmalloc_1024", "1,024 bytes", pairs::<1_024>);
bench!("kmalloc_2048", "2,048 bytes", pairs::<2_048>);
bench!("kmalloc_4096", "4,096 bytes", pairs::<4_096>);
bench!("kmalloc_8192", "8,192 bytes", pairs::<8_192>);
bench!(
    "kmalloc_16384",
    "16,384 bytes, which are pages",
    pairs::<16_384>
);
bench!(
    "kmalloc_64_runtime",
    "64 bytes, size known at run time",
    runtime
);
bench!(
    "kmalloc_64_batch1024",
    "1,024 objects of 64 bytes, per object",
    batch::<64>
);
bench!(
    "kmalloc_1024_batch1024",
    "1,024 objects of 1,024 bytes, per object",
    batch::<1_024>
);

/// Pairs a round.
const PAIRS: usize = 1_000;
/// Objects of a batch.
const BATCH: usize = 1_024;

#[inline(always)]
fn free(object: NonNull<u8>) {
    // SAFETY: every caller got the object from `kmalloc` and forgets it.
    if let Err(error) = unsafe { MEMORY.kfree(object) } {
        refused(error);
    }
}

/// A refusal would be a bug of the allocator.
#[cold]
#[inline(never)]
pub(super) fn refused(error: BadFree) {
    log::error!("bench: an object was not taken back: {error}");
}

/// Gives back what the caches keep: whoever measures pages next finds memory as it was.
fn leave_nothing() -> Result<(), BenchError> {
    MEMORY.shrink_caches();
    match MEMORY.drain_all_pages() {
        true => Ok(()),
        false => Err(BenchError::failed("a CPU did not drain its lists")),
    }
}

fn pairs<const SIZE: usize>(bencher: &mut Bencher) -> Result<(), BenchError> {
    free(
        MEMORY
            .kmalloc(SIZE, Gfp::KERNEL)
            .map_err(BenchError::failed)?,
    );
    bencher.each("", PAIRS, |_| {
        if let Ok(object) = MEMORY.kmalloc(SIZE, Gfp::KERNEL) {
            free(opaque_pointer(object));
        }
    });
    leave_nothing()
}

fn runtime(bencher: &mut Bencher) -> Result<(), BenchError> {
    free(
        MEMORY
            .kmalloc(64, Gfp::KERNEL)
            .map_err(BenchError::failed)?,
    );
    bencher.each("", PAIRS, |_| {
        if let Ok(object) = MEMORY.kmalloc(black_box(64), Gfp::KERNEL) {
            free(opaque_pointer(object));
        }
    });
    leave_nothing()
}

fn batch<const SIZE: usize>(bencher: &mut Bencher) -> Result<(), BenchError> {
    let allocate = |objects: &mut Vec<NonNull<u8>>| {
        if let Ok(object) = MEMORY.kmalloc(SIZE, Gfp::KERNEL) {
            objects.push(object);
        }
    };
    let release = |objects: Vec<NonNull<u8>>| {
        let complete = objects.len() == BATCH;
        objects.into_iter().for_each(free);
        match complete {
            true => Ok(()),
            false => Err(BenchError::failed("out of memory")),
        }
    };
    let empty = || Ok(Vec::with_capacity(BATCH));
    bencher.phase(
        "_alloc",
        BATCH,
        empty,
        |objects, _| allocate(objects),
        release,
    )?;
    let full = || {
        let mut objects = Vec::with_capacity(BATCH);
        (0..BATCH).for_each(|_| allocate(&mut objects));
        match objects.len() {
            BATCH => Ok(objects),
            _ => Err(BenchError::failed("out of memory")),
        }
    };
    let free_next = |objects: &mut Vec<NonNull<u8>>, _| {
        if let Some(object) = objects.pop() {
            free(object);
        }
    };
    bencher.phase("_free", BATCH, full, free_next, |_| Ok(()))?;
    leave_nothing()
}
