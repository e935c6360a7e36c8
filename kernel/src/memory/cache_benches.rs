//! Benchmarks of a cache of its own: the names and meanings of `docs/benchmarks.md`.
#![expect(
    unsafe_code,
    reason = "measures the interface of plain addresses, whose frees are unsafe"
)]

use super::object_benches::refused;
use super::{Kernel, MEMORY};
use crate::arch::registers::opaque_pointer;
use crate::bench;
use crate::bench::{BenchError, Bencher};
use core::hint::black_box;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::{KmemCache, TypedCache};

bench!(
    "cache_200",
    "a cache of 200-byte objects: one allocated and freed",
    pairs
);
bench!(
    "cache_200_typed",
    "the same with a value of 200 bytes and its handle",
    typed
);
bench!(
    "cache_200_bulk64",
    "64 objects of 200 bytes by the bulk interface, per object",
    bulk
);

/// Pairs a round.
const PAIRS: usize = 1_000;
/// Objects at once.
const MANY: usize = 64;
/// Bytes of an object.
const SIZE: usize = 200;

type Objects = [Option<NonNull<u8>>; MANY];

fn with_cache(
    body: impl FnOnce(&KmemCache<Kernel>) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let cache = KmemCache::create(Kernel, "bench", (SIZE, 8), SlabFlags::NO_MERGE);
    let cache = cache.map_err(BenchError::failed)?;
    let outcome = body(&cache);
    let left = cache.destroy();
    outcome?;
    left.map_err(|left| BenchError::failed(format_args!("{} objects are left", left.objects)))?;
    match MEMORY.drain_all_pages() {
        true => Ok(()),
        false => Err(BenchError::failed("a CPU did not drain its lists")),
    }
}

fn pairs(bencher: &mut Bencher) -> Result<(), BenchError> {
    with_cache(|cache| {
        pair(cache);
        bencher.each("", PAIRS, move |_| pair(cache));
        Ok(())
    })
}

#[inline(always)]
fn pair(cache: &KmemCache<Kernel>) {
    if let Ok(object) = cache.alloc(Gfp::KERNEL) {
        // SAFETY: allocated just now.
        if let Err(error) = unsafe { cache.free(opaque_pointer(object)) } {
            refused(error);
        }
    }
}

fn typed(bencher: &mut Bencher) -> Result<(), BenchError> {
    let cache = TypedCache::create(Kernel, "bench", SlabFlags::NO_MERGE);
    let cache = cache.map_err(BenchError::failed)?;
    let pair = |number: usize| {
        // One word of it is written: what is measured is the handle, not the copy.
        let value = || MaybeUninit::<[usize; SIZE / 8]>::uninit();
        if let Ok(mut boxed) = cache.try_new_with(Gfp::KERNEL, value) {
            let first: *mut usize = boxed.as_mut_ptr().cast();
            // SAFETY: the first word of the value.
            unsafe { first.write(number) };
            drop(black_box(boxed));
        }
    };
    pair(0);
    bencher.each("", PAIRS, pair);
    cache
        .destroy()
        .map_err(|(left, _)| BenchError::failed(format_args!("{left} values are left")))
}

fn bulk(bencher: &mut Bencher) -> Result<(), BenchError> {
    with_cache(|cache| {
        let fill = || {
            let mut objects: Objects = [None; MANY];
            match cache.alloc_bulk(Gfp::KERNEL, &mut objects) {
                Ok(MANY) => Ok(objects),
                Ok(_) => Err(BenchError::failed("out of memory")),
                Err(error) => Err(BenchError::failed(error)),
            }
        };
        let free_all = |mut objects: Objects| {
            // SAFETY: the bulk interface filled the places, and they are emptied.
            unsafe { cache.free_bulk(&mut objects) }.map_err(|(_, error)| BenchError::failed(error))
        };
        let empty = || Ok([None; MANY]);
        let allocate = |objects: &mut Objects| {
            let _ = black_box(cache.alloc_bulk(Gfp::KERNEL, objects));
        };
        free_all(fill()?)?;
        bencher.whole("_alloc", MANY, empty, allocate, free_all)?;
        let free_whole = |objects: &mut Objects| {
            // SAFETY: as above.
            let freed = unsafe { cache.free_bulk(objects) };
            let _ = black_box(freed);
        };
        bencher.whole("_free", MANY, fill, free_whole, |_| Ok(()))
    })
}
