//! Benchmarks of what `alloc` costs on `kmalloc`: the names and meanings of `docs/benchmarks.md`.

use super::MEMORY;
use crate::bench;
use crate::bench::{BenchError, Bencher};
use crate::num::to_u64;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hint::black_box;
use core::mem::MaybeUninit;

bench!(
    "box_64",
    "Box::new of 64 bytes, not written to, and its drop",
    box_64
);
bench!(
    "vec_push_1m",
    "1,000,000 numbers pushed onto an empty Vec<u64>, per push",
    vec_push
);

/// Pairs a round.
const PAIRS: usize = 1_000;
const PUSHES: usize = 1_000_000;

fn box_64(bencher: &mut Bencher) -> Result<(), BenchError> {
    bencher.each("", PAIRS, |_| {
        black_box(Box::new(MaybeUninit::<[u8; 64]>::uninit()));
    });
    MEMORY.shrink_caches();
    Ok(())
}

fn vec_push(bencher: &mut Bencher) -> Result<(), BenchError> {
    let push = |list: &mut Vec<u64>, number| list.push(to_u64(number));
    let check = |list: Vec<u64>| match list.iter().copied().eq(0..to_u64(PUSHES)) {
        true => Ok(()),
        false => Err(BenchError::failed("the elements are not what was pushed")),
    };
    bencher.phase("", PUSHES, || Ok(Vec::new()), push, check)?;
    MEMORY.shrink_caches();
    match MEMORY.drain_all_pages() {
        true => Ok(()),
        false => Err(BenchError::failed("a CPU did not drain its lists")),
    }
}
