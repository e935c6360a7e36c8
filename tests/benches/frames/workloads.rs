//! What the contestants are made to do.
//!
//! They are called through pointers, all of them alike: a kernel calls its allocator, and a
//! compiler that inlined the smallest one into the loop would measure something else.

use std::hint::black_box;

use mm_tests::lean;
use mm_tests::race::Random;

use crate::contestants::Ops;

/// log2 of a 2 MiB block's pages.
pub(crate) const HUGE: u8 = 9;
/// Pages of a batch.
pub(crate) const BATCH: usize = 1_024;
/// Rounds of churn that make memory old.
pub(crate) const CHURN_ROUNDS: usize = 250;

/// Takes a block and gives it back, again and again.
#[inline(never)]
pub(crate) fn pairs(ops: &mut dyn Ops, order: u8, count: usize) {
    for _ in 0..count {
        let frame = ops.alloc(black_box(order)).unwrap();
        ops.free(black_box(frame), black_box(order));
    }
}

/// Takes [`BATCH`] pages, then gives them back in another order, again and again.
#[inline(never)]
pub(crate) fn batches(ops: &mut dyn Ops, sequence: &[usize], count: usize) {
    let mut pages = [0; BATCH];
    for _ in 0..count {
        for page in &mut pages {
            *page = ops.alloc(black_box(0)).unwrap();
        }
        for &index in sequence {
            ops.free(pages[index % BATCH], black_box(0));
        }
    }
}

/// An order in which a batch is given back.
pub(crate) fn shuffled() -> Vec<usize> {
    let mut sequence: Vec<usize> = (0..BATCH).collect();
    Random::new(1).shuffle(&mut sequence);
    sequence
}

/// Makes memory old: takes all pages there are, gives a random half back, and then, round by round,
/// gives a random sixteenth of the others back and takes as many again.
pub(crate) fn age(ops: &mut dyn Ops, rounds: usize) {
    let mut random = Random::new(2);
    let mut live: Vec<usize> = std::iter::from_fn(|| ops.alloc(0)).collect();
    let all = live.len();
    random.shuffle(&mut live);
    for page in live.drain(all / 2..) {
        ops.free(page, 0);
    }

    let part = live.len() / 16;
    for _ in 0..rounds {
        for place in 0..part {
            let other = place + random.below(live.len() - place);
            live.swap(place, other);
            ops.free(live[place], 0);
        }
        for page in &mut live[..part] {
            *page = ops.alloc(0).unwrap();
        }
    }
}

/// How much of the free memory can still be had as 2 MiB blocks, in per cent. Leaves nothing free.
pub(crate) fn usable_as_huge(ops: &mut dyn Ops) -> f64 {
    let blocks: Vec<usize> = std::iter::from_fn(|| ops.alloc(HUGE)).collect();
    for &block in &blocks {
        ops.free(block, HUGE);
    }
    let pages = std::iter::from_fn(|| ops.alloc(0)).count();
    percent(blocks.len() << HUGE, pages)
}

/// How much of what one CPU has given back another one can get, in per cent: CPU 0 takes all
/// there is, CPU 1 gives a random half back, CPU 0 takes what it can.
pub(crate) fn reach(ops: &mut dyn Ops) -> f64 {
    lean::set_cpu(0);
    let mut pages: Vec<usize> = std::iter::from_fn(|| ops.alloc(0)).collect();
    Random::new(3).shuffle(&mut pages);
    pages.truncate(pages.len() / 2);

    lean::set_cpu(1);
    let freed = pages.len();
    for page in pages {
        ops.free(page, 0);
    }

    lean::set_cpu(0);
    percent(std::iter::from_fn(|| ops.alloc(0)).count(), freed)
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
