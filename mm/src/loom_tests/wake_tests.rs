//! M11: whoever takes a zone below its mark wakes kswapd, which does not sleep through it.

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::explore;
use crate::sync::Bell;

const LOW: u64 = 5;
const HIGH: u64 = 6;

/// A zone: what is free, behind its lock, and the mirror of that which marks are compared with.
struct Zone {
    free: Mutex<u64>,
    mirror: AtomicU64,
    bell: Bell,
}

impl Zone {
    fn change(&self, change: impl FnOnce(u64) -> u64) {
        let mut free = self.free.lock().unwrap();
        *free = change(*free);
        self.mirror.store(*free, Ordering::Relaxed);
    }

    fn is_below(&self, mark: u64) -> bool {
        self.mirror.load(Ordering::Relaxed) < mark
    }

    /// Takes a page; rings if little is left. Answers whether the thread must be woken.
    fn take(&self) -> bool {
        self.change(|free| free - 1);
        self.is_below(LOW) && self.bell.ring()
    }

    /// What kswapd does when it is woken: reclaims until the high mark.
    fn balance(&self) {
        self.bell.answer();
        while self.is_below(HIGH) {
            self.change(|free| free + 1);
        }
    }
}

fn zone(free: u64) -> Arc<Zone> {
    Arc::new(Zone {
        free: Mutex::new(free),
        mirror: AtomicU64::new(free),
        bell: Bell::new(),
    })
}

/// When kswapd sleeps, either enough is free or somebody has rung.
#[test]
fn kswapd_does_not_sleep_while_a_zone_is_low_and_nobody_rings() {
    explore(3, || {
        let zone = zone(5);
        assert!(zone.take());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let zone = Arc::clone(&zone);
                thread::spawn(move || {
                    let _ = zone.take();
                })
            })
            .collect();
        zone.change(|free| free + 1);
        zone.balance();
        for other in others {
            other.join().unwrap();
        }
        // It goes to sleep now, unless it is rung for.
        assert!(!zone.is_below(LOW) || zone.bell.is_rung());
    });
}

/// Of those who ring at once, one wakes the thread.
#[test]
fn one_of_those_who_ring_wakes() {
    explore(3, || {
        let bell = Arc::new(Bell::new());
        let other = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || bell.ring())
        };
        let mine = bell.ring();
        assert!(mine != other.join().unwrap());
        assert!(bell.is_rung());
    });
}

/// Work that was made before the bell rang is seen by who answered it; otherwise it still rings.
#[test]
fn work_that_was_rung_for_is_seen_or_rings_still() {
    explore(3, || {
        let (bell, work) = (Arc::new(Bell::new()), Arc::new(AtomicU64::new(0)));
        let other = {
            let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
            thread::spawn(move || {
                work.store(1, Ordering::Relaxed);
                let _ = bell.ring();
            })
        };
        bell.answer();
        let is_seen = work.load(Ordering::Relaxed) == 1;
        other.join().unwrap();
        assert!(is_seen || bell.is_rung());
    });
}
