//! Zone locks taken per 1,000 operations: what scales, whatever machine the benchmark runs on.

use crate::contestants::{Contestant, Ops, OursCounted};
use crate::workloads::{BATCH, HUGE, age, batches, pairs, shuffled};

const BYTES: usize = 128 << 20;
const PAIRS: usize = 10_000;
const BATCHES: usize = 50;
const CHURN_ROUNDS: usize = 10;

/// Prints the table. An allocation is an operation, and a free is one.
pub(crate) fn print() {
    println!("| workload | zone locks per 1,000 operations |\n|---|--:|");
    row("4 KiB pair", |ops| {
        pairs(ops, 0, PAIRS);
        2 * PAIRS
    });
    row("1,024 pages, shuffled free", |ops| {
        batches(ops, &shuffled(), BATCHES);
        2 * BATCHES * BATCH
    });
    row("churn at 50 % use", |ops| age(ops, CHURN_ROUNDS));
    row("2 MiB pair", |ops| {
        pairs(ops, HUGE, PAIRS);
        2 * PAIRS
    });
}

/// Prints the locks taken by `work`, which answers how many operations it made.
fn row(name: &str, work: impl FnOnce(&mut OursCounted) -> usize) {
    let mut ops = OursCounted::new(BYTES);
    // Once before, so that what is filled on first use is full.
    let page = ops.alloc(0).unwrap();
    ops.free(page, 0);
    let before = ops.0.platform().zone_locks();
    let operations = work(&mut ops);
    let taken = ops.0.platform().zone_locks() - before;
    println!(
        "| {name} | {:.1} |",
        1_000.0 * taken as f64 / operations as f64
    );
}
