//! One workload, so many times: for a tool that counts instructions from outside.
//!
//! The tool looks at [`counted`] alone; what is made ready before it is not counted.

use std::process::ExitCode;

use crate::contestants::{Bitmap, BuddyFrames, BuddyHeap, Contestant, Floor, Nothing, Ours};
use crate::workloads::{BATCH, HUGE, batches, pairs, shuffled};

const BYTES: usize = 128 << 20;

/// A workload: its name, how many operations one time is, and what to do.
struct Workload {
    name: &'static str,
    operations: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Pairs(u8),
    Batches,
}

const WORKLOADS: [Workload; 5] = [
    workload("pair_o0", 1, What::Pairs(0)),
    workload("pair_o3", 1, What::Pairs(3)),
    workload("pair_o4", 1, What::Pairs(4)),
    workload("pair_o9", 1, What::Pairs(HUGE)),
    workload("batch1024", BATCH, What::Batches),
];

const fn workload(name: &'static str, operations: usize, what: What) -> Workload {
    Workload {
        name,
        operations,
        what,
    }
}

/// The word that the command line has for a contestant, and how it runs a workload.
type Entry = (&'static str, fn(What, usize));

const CONTESTANTS: [Entry; 6] = [
    ("nothing", prepare::<Nothing>),
    ("floor", prepare::<Floor>),
    ("mm", prepare::<Ours>),
    ("bitmap", prepare::<Bitmap>),
    ("buddy_frames", prepare::<BuddyFrames>),
    ("buddy_heap", prepare::<BuddyHeap>),
];

/// Prints each workload with the operations in it, and the contestants.
pub(crate) fn list() {
    for workload in &WORKLOADS {
        println!("workload {} {}", workload.name, workload.operations);
    }
    for (name, _) in &CONTESTANTS {
        println!("contestant {name}");
    }
}

/// Runs a workload for a contestant.
pub(crate) fn run(workload: &str, contestant: &str, times: &str) -> ExitCode {
    let chosen = WORKLOADS.iter().find(|known| known.name == workload);
    let entry = CONTESTANTS.iter().find(|(name, _)| *name == contestant);
    let (Some(chosen), Some((_, run)), Ok(times)) = (chosen, entry, times.parse()) else {
        eprintln!("--count WORKLOAD CONTESTANT TIMES; --list-counts shows the words");
        return ExitCode::from(2);
    };
    run(chosen.what, times);
    ExitCode::SUCCESS
}

fn prepare<C: Contestant>(what: What, times: usize) {
    let mut ops = C::new(BYTES);
    let sequence = shuffled();
    // Once before, so that what is filled on first use is full.
    work(&mut ops, what, &sequence, 1);
    counted(&mut ops, what, &sequence, times);
}

/// The part that is counted.
#[inline(never)]
fn counted<C: Contestant>(ops: &mut C, what: What, sequence: &[usize], times: usize) {
    work(ops, what, sequence, times);
}

#[inline]
fn work<C: Contestant>(ops: &mut C, what: What, sequence: &[usize], times: usize) {
    match what {
        What::Pairs(order) => pairs(ops, order, times),
        What::Batches => batches(ops, sequence, times),
    }
}
