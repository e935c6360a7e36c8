//! What the contestants are made to do.
//!
//! They are called through pointers, all of them alike: a kernel calls its allocator, and a compiler that inlined the
//! smallest one into the loop would measure something else. Sizes are known at run time only, for all.

use std::alloc::Layout;
use std::hint::black_box;
use std::ptr::{NonNull, null_mut};
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use mm_tests::race::{Random, elapsed};
use mm_tests::traces::{Op, Trace};

use crate::contestants::Ops;

/// Objects of a batch.
pub(crate) const BATCH: usize = 1_024;
/// Objects alive during churn.
pub(crate) const LIVE: usize = 100_000;
/// Objects that go to the other CPU at a time.
pub(crate) const PARCEL: usize = 4_096;
/// What most objects are like.
pub(crate) const SMALL: Layout = match Layout::from_size_align(64, 8) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

/// A workload by name, for who counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    Pairs,
    Batches,
    Churn,
    Trace(usize),
}

/// Takes an object and gives it back, again and again.
#[inline(never)]
pub(crate) fn pairs(ops: &mut dyn Ops, count: usize) {
    for _ in 0..count {
        let layout = black_box(SMALL);
        let object = ops.alloc(layout).unwrap();
        ops.free(black_box(object), layout);
    }
}

/// Takes [`BATCH`] objects, then gives them back in another order, again and again.
#[inline(never)]
pub(crate) fn batches(ops: &mut dyn Ops, sequence: &[usize], count: usize) {
    let mut objects = [NonNull::dangling(); BATCH];
    for _ in 0..count {
        for object in &mut objects {
            *object = ops.alloc(black_box(SMALL)).unwrap();
        }
        for &index in sequence {
            ops.free(objects[index % BATCH], black_box(SMALL));
        }
    }
}

/// An order in which a batch is given back.
pub(crate) fn shuffled() -> Vec<usize> {
    let mut sequence: Vec<usize> = (0..BATCH).collect();
    Random::new(1).shuffle(&mut sequence);
    sequence
}

/// A size between 9 and 1,024 bytes, each power of two as likely as the next.
pub(crate) fn any_size(random: &mut Random) -> Layout {
    let half = 8 << random.below(7);
    Layout::from_size_align(half + 1 + random.below(half), 8).unwrap()
}

/// Writes to an object as its owner would: its first byte, or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    First,
    All,
}

impl Touch {
    #[inline]
    fn object(self, object: NonNull<u8>, layout: Layout) {
        let bytes = match self {
            Self::First => 1,
            Self::All => layout.size(),
        };
        // SAFETY: the object was taken with this layout, by whoever asks for this.
        unsafe { object.write_bytes(1, bytes) };
    }
}

type Held = Option<(NonNull<u8>, Layout)>;

/// Many objects alive, each replaced by another one in turn at random.
pub(crate) struct Churn {
    held: Vec<Held>,
    steps: Vec<(u32, Layout)>,
}

impl Churn {
    /// So many steps; nothing is taken yet.
    pub(crate) fn new(live: usize, steps: usize) -> Self {
        let mut random = Random::new(4);
        let mut step = |_| (random.below(live) as u32, any_size(&mut random));
        let steps = (0..steps).map(&mut step).collect();
        // Written: a table of zeroes would come into being while it is used.
        let held = (0..live).map(|_| Some((NonNull::dangling(), SMALL)));
        let mut held: Vec<Held> = held.collect();
        held.fill(None);
        Self { held, steps }
    }

    /// Takes what is to be alive.
    pub(crate) fn fill(&mut self, ops: &mut dyn Ops, touch: Touch) {
        let mut random = Random::new(5);
        for held in &mut self.held {
            let layout = any_size(&mut random);
            let object = ops.alloc(layout).unwrap();
            touch.object(object, layout);
            *held = Some((object, layout));
        }
    }

    /// Goes all steps.
    #[inline(never)]
    pub(crate) fn work(&mut self, ops: &mut dyn Ops, touch: Touch) {
        for &(place, layout) in &self.steps {
            let place = &mut self.held[place as usize];
            if let Some((old, layout)) = place.take() {
                ops.free(old, layout);
            }
            let object = ops.alloc(layout).unwrap();
            touch.object(object, layout);
            *place = Some((object, layout));
        }
    }

    /// The bytes that are asked for by what is alive.
    pub(crate) fn live_bytes(&self) -> usize {
        let live = self.held.iter().flatten();
        live.map(|(_, layout)| layout.size()).sum()
    }

    pub(crate) const fn steps(&self) -> usize {
        self.steps.len()
    }
}

/// A trace, and a table for its objects.
pub(crate) struct Replay {
    trace: &'static Trace,
    events: usize,
    held: Vec<Held>,
}

impl Replay {
    /// The first so many events of a trace.
    pub(crate) fn new(trace: &'static Trace, most: usize) -> Self {
        let held = (0..trace.slots).map(|_| Some((NonNull::dangling(), SMALL)));
        let mut held: Vec<Held> = held.collect();
        held.fill(None);
        Self {
            trace,
            events: trace.events.len().min(most),
            held,
        }
    }

    pub(crate) const fn events(&self) -> usize {
        self.events
    }

    /// Does what the trace says, on one CPU; `each` is called before each event.
    #[inline(never)]
    pub(crate) fn work(&mut self, ops: &mut dyn Ops, touch: Touch, mut each: impl FnMut(usize)) {
        for (number, event) in self.trace.events[..self.events].iter().enumerate() {
            each(number);
            let place = &mut self.held[event.slot];
            match (event.op, place.take()) {
                (Op::Alloc(layout), _) => {
                    let object = ops.alloc(layout).unwrap();
                    touch.object(object, layout);
                    *place = Some((object, layout));
                }
                (Op::Resize(size), Some((object, layout))) => {
                    let moved = ops.resize(object, layout, size).unwrap();
                    let layout = Layout::from_size_align(size, layout.align()).unwrap();
                    touch.object(moved, layout);
                    *place = Some((moved, layout));
                }
                (_, Some((object, layout))) => ops.free(object, layout),
                (_, None) => unreachable!("traces are in a valid order"),
            }
        }
    }

    /// Gives back what is left.
    pub(crate) fn finish(&mut self, ops: &mut dyn Ops) {
        for (object, layout) in self.held.iter_mut().filter_map(Option::take) {
            ops.free(object, layout);
        }
    }
}

/// What goes from one CPU to the other: two parcels, one being filled while the other one is emptied.
pub(crate) struct Mail {
    parcels: [Vec<AtomicPtr<u8>>; 2],
    barrier: Barrier,
}

impl Mail {
    pub(crate) fn new() -> Self {
        let parcel = || (0..PARCEL).map(|_| AtomicPtr::new(null_mut())).collect();
        Self {
            parcels: [parcel(), parcel()],
            barrier: Barrier::new(2),
        }
    }

    /// CPU 0 takes objects, CPU 1 gives them back at the same time, a parcel later. How long this one worked.
    pub(crate) fn work(&self, cpu: usize, ops: &mut dyn Ops, parcels: usize) -> Duration {
        let mut worked = Duration::ZERO;
        for number in 0..=parcels {
            self.barrier.wait();
            worked += match cpu {
                0 if number < parcels => {
                    let parcel = &self.parcels[number % 2];
                    elapsed(|| take(ops, parcel))
                }
                1 if number > 0 => {
                    let parcel = &self.parcels[(number - 1) % 2];
                    elapsed(|| give(ops, parcel))
                }
                _ => Duration::ZERO,
            };
        }
        worked
    }
}

#[inline(never)]
fn take(ops: &mut dyn Ops, parcel: &[AtomicPtr<u8>]) {
    for place in parcel {
        let object = ops.alloc(black_box(SMALL)).unwrap();
        place.store(object.as_ptr(), Ordering::Relaxed);
    }
}

#[inline(never)]
fn give(ops: &mut dyn Ops, parcel: &[AtomicPtr<u8>]) {
    for place in parcel {
        let object = NonNull::new(place.load(Ordering::Relaxed)).unwrap();
        ops.free(object, black_box(SMALL));
    }
}
