//! One workload, so many times: for a tool that counts instructions from outside.
//!
//! The tool looks at [`counted`] alone; what is made ready before it is not counted.

use std::alloc::Layout;
use std::process::ExitCode;
use std::ptr::NonNull;

use mm_tests::traces::{NAMES, Trace};

use crate::contestants::{self, Contestant, Kind, Ops, Talent};
use crate::crates::arena;
use crate::race::BYTES;
use crate::workloads::{BATCH, Churn, LIVE, Replay, Touch, Work, batches, pairs, shuffled};

/// A workload: its name, how many operations one time is, and what to do.
const WORKLOADS: [(&str, usize, Work); 5] = [
    ("pair_64", 1, Work::Pairs),
    ("batch1024", BATCH, Work::Batches),
    ("churn", LIVE, Work::Churn),
    ("linux61-fsproc", 368_679, Work::Trace(0)),
    ("python-json", 434_408, Work::Trace(1)),
];

/// Prints each workload with the operations in it, and the contestants.
pub(crate) fn list() {
    for (name, operations, _) in WORKLOADS {
        println!("workload {name} {operations}");
    }
    for talent in talents() {
        println!("contestant {}", talent.name);
    }
}

/// Runs a workload for a contestant.
pub(crate) fn run(workload: &str, contestant: &str, times: &str) -> ExitCode {
    let chosen = WORKLOADS.iter().find(|(name, ..)| *name == workload);
    let talents = talents();
    let talent = talents.iter().find(|talent| talent.name == contestant);
    let (Some((_, _, work)), Some(talent), Ok(times)) = (chosen, talent, times.parse()) else {
        eprintln!("--count WORKLOAD CONTESTANT TIMES; --list-counts shows the words");
        return ExitCode::from(2);
    };
    (talent.count)(*work, times);
    ExitCode::SUCCESS
}

/// An allocator that does nothing: what a workload costs by itself.
struct Nothing(NonNull<u8>);

impl Ops for Nothing {
    #[inline]
    fn alloc(&mut self, _: Layout) -> Option<NonNull<u8>> {
        Some(self.0)
    }

    #[inline]
    fn free(&mut self, _: NonNull<u8>, _: Layout) {}

    #[inline]
    fn resize(&mut self, object: NonNull<u8>, _: Layout, _: usize) -> Option<NonNull<u8>> {
        Some(object)
    }
}

impl Contestant for Nothing {
    const NAME: &'static str = "nothing";
    const KIND: Kind = Kind::NoStd;
    type Cpu = Self;

    fn new(bytes: usize) -> Self {
        Self(arena(bytes))
    }

    fn on_two_cpus(self) -> [Self; 2] {
        let twin = Self(self.0);
        [self, twin]
    }
}

// SAFETY: nobody asks what is in its object.
unsafe impl Send for Nothing {}

/// All that can be counted.
fn talents() -> Vec<Talent> {
    let mut talents = contestants::all();
    talents.push(Talent::of::<Nothing>());
    talents
}

/// A workload that is ready.
enum Ready {
    Pairs,
    Batches(Vec<usize>),
    Churn(Churn),
    Replay(Replay),
}

/// Makes ready, and has it counted.
pub(crate) fn count<C: Contestant>(work: Work, times: usize) {
    let mut ops = C::new(BYTES);
    let mut ready = match work {
        Work::Pairs => Ready::Pairs,
        Work::Batches => Ready::Batches(shuffled()),
        Work::Churn => {
            let mut churn = Churn::new(LIVE, LIVE);
            churn.fill(&mut ops, Touch::First);
            Ready::Churn(churn)
        }
        Work::Trace(number) => {
            let trace = Box::leak(Box::new(Trace::load(NAMES[number])));
            Ready::Replay(Replay::new(trace, usize::MAX))
        }
    };
    // Once before, so that what is filled on first use is full.
    again(&mut ops, &mut ready, 1);
    counted(&mut ops, &mut ready, times);
}

/// The part that is counted.
#[inline(never)]
fn counted(ops: &mut dyn Ops, ready: &mut Ready, times: usize) {
    again(ops, ready, times);
}

#[inline]
fn again(ops: &mut dyn Ops, ready: &mut Ready, times: usize) {
    match ready {
        Ready::Pairs => pairs(ops, times),
        Ready::Batches(sequence) => batches(ops, sequence, times),
        Ready::Churn(churn) => (0..times).for_each(|_| churn.work(ops, Touch::First)),
        Ready::Replay(replay) => {
            for _ in 0..times {
                replay.work(ops, Touch::First, |_| {});
                replay.finish(ops);
            }
        }
    }
}
