//! What programs and a kernel did, done again: every byte is looked at before it is given back, and nothing is left
//! of it in the end.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{NonNull, with_exposed_provenance_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use mm::adapters::{EarlyPages, KernelHeap};
use mm::system::Memory;
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, SimPlatform, Usual};
use mm_tests::traces::{NAMES, Op, Trace};

const MIB: u64 = 1 << 20;

/// Where an object is, how it was asked for, and the byte that it is full of.
#[derive(Clone, Copy)]
struct Kept {
    address: usize,
    layout: Layout,
    byte: u8,
}

impl Kept {
    fn object(&self) -> NonNull<u8> {
        NonNull::new(with_exposed_provenance_mut(self.address)).expect("there is memory for all")
    }

    /// Takes an object over, and fills it.
    fn filled(object: *mut u8, layout: Layout, byte: u8) -> Self {
        let address = object.expose_provenance();
        let kept = Self {
            address,
            layout,
            byte,
        };
        assert_eq!(address % layout.align(), 0);
        // SAFETY: an object of that size, which is the test's.
        unsafe { kept.object().write_bytes(byte, layout.size()) };
        kept
    }

    fn check(&self, size: usize) {
        // SAFETY: as above; all of it was filled.
        let bytes = unsafe { std::slice::from_raw_parts(self.object().as_ptr(), size) };
        assert!(
            bytes.iter().all(|&found| found == self.byte),
            "{:?}",
            self.layout
        );
    }
}

/// An object's place: whose turn it is there, and what is in it.
#[derive(Default)]
struct Slot {
    turn: AtomicU32,
    kept: Mutex<Option<Kept>>,
}

/// What all threads of a replay have in common.
struct Replay<'a, C: SimConfig> {
    heap: &'a KernelHeap<&'a Memory<SimPlatform<C>>, 1>,
    trace: &'a Trace,
    slots: &'a [Slot],
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl<C: SimConfig> Replay<'_, C> {
    fn note_live(&self, layout: Layout) {
        let live = self.live.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        self.peak.fetch_max(live, Ordering::Relaxed);
    }

    fn free(&self, kept: Kept) {
        kept.check(kept.layout.size());
        self.live.fetch_sub(kept.layout.size(), Ordering::Relaxed);
        // SAFETY: it came from there so, and nobody else has it.
        unsafe { self.heap.dealloc(kept.object().as_ptr(), kept.layout) };
    }

    fn done(&self, op: Op, kept: Option<Kept>, byte: u8) -> Option<Kept> {
        match (op, kept) {
            (Op::Alloc(layout), None) => {
                self.note_live(layout);
                // SAFETY: no size of a trace is 0.
                let object = unsafe { self.heap.alloc(layout) };
                Some(Kept::filled(object, layout, byte))
            }
            (Op::Resize(size), Some(kept)) => {
                let layout = Layout::from_size_align(size, kept.layout.align()).unwrap();
                self.live.fetch_sub(kept.layout.size(), Ordering::Relaxed);
                self.note_live(layout);
                // SAFETY: as in `free`; it is not used again.
                let moved = unsafe { self.heap.realloc(kept.object().as_ptr(), kept.layout, size) };
                let address = moved.expose_provenance();
                Kept { address, ..kept }.check(size.min(kept.layout.size()));
                Some(Kept::filled(moved, layout, byte))
            }
            (Op::Free, Some(kept)) => {
                self.free(kept);
                None
            }
            (op, kept) => panic!("{op:?} with {:?}", kept.map(|kept| kept.layout)),
        }
    }

    /// Does what one thread did, in its order; each object waits for what others do to it before.
    fn thread(&self, number: usize) {
        let mut turns = vec![0; self.slots.len()];
        for (event, byte) in self.trace.events.iter().zip((0..=u8::MAX).cycle()) {
            let turn = turns[event.slot];
            turns[event.slot] += 1;
            if event.thread != number {
                continue;
            }
            let slot = &self.slots[event.slot];
            while slot.turn.load(Ordering::Acquire) != turn {
                thread::yield_now();
            }
            let mut kept = slot.kept.lock().unwrap();
            *kept = self.done(event.op, kept.take(), byte);
            drop(kept);
            slot.turn.store(turn + 1, Ordering::Release);
        }
    }
}

fn replayed<C: SimConfig>(trace: &Trace) {
    let machine = Machine::<C>::new()
        .ram(0, 96 * MIB)
        .cpus_on(&[0, 0, 0])
        .boot();
    let early = Box::leak(Box::new(EarlyPages::new()));
    let heap = KernelHeap::new(&*machine, early);
    let slots: Vec<Slot> = (0..trace.slots).map(|_| Slot::default()).collect();
    let replay = Replay {
        heap: &heap,
        trace,
        slots: &slots,
        live: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for number in 0..2 {
            let (machine, replay) = (&machine, &replay);
            scope.spawn(move || {
                let _here = machine.cpu(1 + number);
                replay.thread(number as usize);
            });
        }
    });

    let left: Vec<Kept> = slots
        .iter()
        .filter_map(|slot| *slot.kept.lock().unwrap())
        .collect();
    assert_eq!(left.len(), trace.live_at_end, "{}", trace.name);
    machine.validate_caches().unwrap();
    left.into_iter().for_each(|kept| replay.free(kept));
    assert_eq!(replay.live.load(Ordering::Relaxed), 0);
    // Threads that run at once may be a little out of step with what was recorded.
    let peak = replay.peak.load(Ordering::Relaxed);
    assert!(
        peak >= trace.peak_live_bytes / 10 * 9,
        "{peak} bytes at most"
    );

    machine.shrink_caches();
    machine.for_each_cache(|name, stats| {
        assert_eq!((stats.active_objects, stats.slabs), (0, 0), "{name}");
    });
    machine.check();
    machine.finish();
}

#[test]
fn what_was_recorded_is_done_again_and_nothing_is_lost() {
    for name in NAMES {
        let trace = Trace::load(name);
        replayed::<Listed<Usual>>(&trace);
        replayed::<Checked>(&trace);
    }
}
