//! Grace periods: something is unlinked and, when they are over, freed; no reader sees that.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::explore;
use crate::sync::PresenceState as State;
use crate::sync::grace::{Epoch, Seat};

/// Two things, one of which is linked; a machine with one CPU that reads.
struct World {
    epoch: Epoch,
    seat: Seat,
    state: State,
    linked: AtomicUsize,
    things: [UnsafeCell<u32>; 2],
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Epoch::new(),
            seat: Seat::new(),
            state: State::present(),
            linked: AtomicUsize::new(0),
            things: [UnsafeCell::new(1), UnsafeCell::new(1)],
        })
    }

    /// A reader: looks up what is linked, and reads it.
    fn read(&self) {
        self.seat.enter(&self.epoch);
        let place = self.linked.load(Ordering::Acquire);
        // SAFETY: loom fails the model if it is freed meanwhile.
        let found = self.things[place].with(|thing| unsafe { *thing });
        assert_eq!(found, 1, "a reader sees what was freed");
        self.seat.exit();
    }

    /// Links the other thing, and frees the first if the grace period is over at one of a few looks.
    fn replace(&self, looks: u32) -> bool {
        self.linked.store(1, Ordering::Release);
        let cookie = self.epoch.start();
        for _ in 0..looks {
            let latest = self.epoch.latest();
            let mut passed = self.seat.passed(latest);
            let is_late = latest.is_after(passed) && !self.state.is_present();
            if is_late && self.seat.act_for(&self.state, latest) {
                passed = self.seat.passed(latest);
            }
            self.epoch.note_over(passed);
            if self.epoch.is_over(cookie) {
                // SAFETY: loom fails the model if anybody reads it.
                self.things[0].with_mut(|thing| unsafe { *thing = 0 });
                return true;
            }
            thread::yield_now();
        }
        false
    }

    fn return_here(&self) {
        while !self.state.try_return() {
            thread::yield_now();
        }
    }
}

/// The CPU's first reader, against whoever thinks that it never reads.
#[test]
fn a_first_reader_is_waited_for_or_sees_what_is_new() {
    explore(3, || {
        let world = World::new();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.read())
        };
        let _ = world.replace(2);
        reader.join().unwrap();
    });
}

/// Readers with quiescent states between them.
#[test]
fn what_is_freed_after_a_quiescent_state_is_seen_by_no_reader() {
    explore(3, || {
        let world = World::new();
        world.seat.enter(&world.epoch);
        world.seat.exit();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read();
                assert!(world.seat.report(&world.epoch));
                world.read();
            })
        };
        let _ = world.replace(2);
        reader.join().unwrap();
    });
}

/// The CPU reads, goes away, comes back and reads.
#[test]
fn a_cpu_that_is_acted_for_sees_what_is_new_when_it_is_back() {
    explore(3, || {
        let world = World::new();
        world.seat.enter(&world.epoch);
        world.seat.exit();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read();
                world.state.leave();
                world.return_here();
                world.read();
            })
        };
        let _ = world.replace(2);
        reader.join().unwrap();
    });
}

/// Somebody else finds the grace period over, and says so.
#[test]
fn whoever_hears_that_it_is_over_may_free_as_whoever_found_it() {
    explore(3, || {
        let world = World::new();
        world.seat.enter(&world.epoch);
        world.seat.exit();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read();
                assert!(world.seat.report(&world.epoch));
            })
        };
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let latest = world.epoch.latest();
                world.epoch.note_over(world.seat.passed(latest));
            })
        };
        world.linked.store(1, Ordering::Release);
        let cookie = world.epoch.start();
        if world.epoch.is_over(cookie) {
            // SAFETY: loom fails the model if anybody reads it.
            world.things[0].with_mut(|thing| unsafe { *thing = 0 });
        }
        reader.join().unwrap();
        other.join().unwrap();
    });
}

/// The models can succeed: a grace period does end.
#[test]
fn a_grace_period_ends_when_every_cpu_has_said_so() {
    explore(3, || {
        let world = World::new();
        world.read();
        let cookie = world.epoch.start();
        let cpu = {
            let world = Arc::clone(&world);
            thread::spawn(move || assert!(world.seat.report(&world.epoch)))
        };
        cpu.join().unwrap();
        assert_eq!(world.seat.passed(cookie), cookie);
        world.state.leave();
        let later = world.epoch.start();
        assert!(later.is_after(world.seat.passed(later)));
        assert!(world.seat.act_for(&world.state, later));
        assert_eq!(world.seat.passed(later), later);
    });
}
