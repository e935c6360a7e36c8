//! Page tables that go while others walk through them (M7).
//!
//! The lock of a table and grace periods are the library's; entries are written with Release and read with Acquire, as
//! `pagetable::entry_io` does, which is not built here. Who waits for the lock of a table that dies is left to
//! `tests/pagetable/waiters.rs` and `concurrency.rs`: loom goes round in a loop that waits.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use loom::thread;

use super::explore;
use crate::frame::TableLock;
use crate::sync::grace::{Cookie, Epoch, Seat};

/// In an entry: nothing.
const NONE: usize = 0;
/// What stands in a table that nobody freed.
const ALIVE: u32 = 1;

/// An entry that leads to a table with one entry in use, and CPUs that read.
struct World {
    epoch: Epoch,
    seats: [Seat; 2],
    /// [`NONE`], or 1.
    entry: AtomicUsize,
    /// The record of the table's frame.
    record: AtomicU32,
    table: UnsafeCell<u32>,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self {
            epoch: Epoch::new(),
            seats: [Seat::new(), Seat::new()],
            entry: AtomicUsize::new(1),
            record: AtomicU32::new(0),
            table: UnsafeCell::new(ALIVE),
        };
        world.lock().begin(1, false);
        Arc::new(world)
    }

    fn lock(&self) -> TableLock<'_> {
        TableLock::of_a_model(&self.record)
    }

    fn look(&self) -> u32 {
        // SAFETY: loom fails the model if it is freed meanwhile.
        self.table.with(|table| unsafe { *table })
    }

    /// A walk: whether the entry leads to the table, which is read then.
    fn walk(&self, cpu: usize) {
        let seat = &self.seats[cpu];
        seat.enter(&self.epoch);
        if self.entry.load(Ordering::Acquire) != NONE {
            assert_eq!(self.look(), ALIVE, "a walker reads a table that was freed");
        }
        seat.exit();
    }

    /// Takes what the table maps away, and the table with it.
    fn unmap(&self) {
        self.lock().lock().unwrap();
        assert_eq!(self.lock().sub(1), 0);
        assert!(self.lock().may_die());
        self.entry.store(NONE, Ordering::Release);
        self.lock().die();
    }

    /// Frees the table if a grace period is over that began when nothing led to it any more, at one of a few looks.
    fn free(&self, cookie: Cookie, looks: u32) -> bool {
        for _ in 0..looks {
            let latest = self.epoch.latest();
            let passed = self.seats.iter().map(|seat| seat.passed(latest));
            self.epoch.note_over(passed.fold(latest, Cookie::earlier));
            if self.epoch.is_over(cookie) {
                self.give_back();
                return true;
            }
            thread::yield_now();
        }
        false
    }

    fn give_back(&self) {
        // SAFETY: loom fails the model if anybody reads it.
        self.table.with_mut(|table| unsafe { *table = 0 });
        self.record.store(0, Ordering::Relaxed);
    }
}

/// A walker, and who unmaps and frees.
#[test]
fn a_walker_reads_no_table_that_was_freed() {
    explore(3, || {
        let world = World::new();
        let walker = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.walk(1);
                assert!(world.seats[1].report(&world.epoch));
                world.walk(1);
            })
        };
        world.unmap();
        let _ = world.free(world.epoch.start(), 2);
        walker.join().unwrap();
    });
}

/// An interrupt in the midst of a walk says that the CPU is quiescent, as handlers do: it is not.
#[test]
fn an_interrupted_walk_goes_on() {
    explore(3, || {
        let world = World::new();
        let walker = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let seat = &world.seats[1];
                seat.enter(&world.epoch);
                let entry = world.entry.load(Ordering::Acquire);
                assert!(!seat.report(&world.epoch));
                if entry != NONE {
                    assert_eq!(world.look(), ALIVE, "freed under a walker");
                }
                seat.exit();
            })
        };
        world.unmap();
        let _ = world.free(world.epoch.start(), 2);
        walker.join().unwrap();
    });
}

/// A walker, who unmaps, and somebody else who frees what was unmapped.
#[test]
fn whoever_frees_a_table_waits_for_walkers() {
    explore(2, || {
        let world = World::new();
        let walker = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.walk(1);
                assert!(world.seats[1].report(&world.epoch));
            })
        };
        world.unmap();
        let cookie = world.epoch.start();
        let freer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let latest = world.epoch.latest();
                world.epoch.note_over(world.seats[1].passed(latest));
                if world.epoch.is_over(cookie) {
                    world.give_back();
                }
            })
        };
        freer.join().unwrap();
        walker.join().unwrap();
    });
}

/// The models can succeed: a table does go.
#[test]
fn a_table_is_freed_when_all_walkers_have_gone() {
    explore(3, || {
        let world = World::new();
        world.walk(1);
        world.unmap();
        let cookie = world.epoch.start();
        let cpu = {
            let world = Arc::clone(&world);
            thread::spawn(move || assert!(world.seats[1].report(&world.epoch)))
        };
        cpu.join().unwrap();
        assert_eq!(world.seats[1].passed(cookie), cookie);
        assert!(world.free(cookie, 1));
    });
}
