//! Whoever finds a line empty sees what was done to end what was on it, also while new things begin.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::sync::{Line, Turns, UnderWay};

struct Work {
    turns: Turns,
    under_way: UnderWay,
    result: UnsafeCell<u32>,
}

impl Work {
    fn begin(&self) -> Line {
        let line = self.turns.line();
        self.under_way.begin(line);
        line
    }
}

#[test]
fn who_waits_sees_what_was_done_and_is_not_held_up_by_what_comes_later() {
    explore(3, || {
        let work = Arc::new(Work {
            turns: Turns::new(),
            under_way: UnderWay::new(),
            result: UnsafeCell::new(0),
        });
        let line = work.begin();
        let worker = {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                // SAFETY: the model finds out whether anybody else is at it.
                work.result.with_mut(|result| unsafe { *result = 7 });
                work.under_way.end(line);
            })
        };
        // Begins at any time, and never ends.
        let other = {
            let work = Arc::clone(&work);
            thread::spawn(move || work.begin())
        };
        let wait = work.turns.wait().unwrap();
        assert!(work.turns.wait().is_none());
        let mut all = true;
        for _ in 0..2 {
            all &= work.under_way.is_empty(wait.turn());
        }
        drop(wait);
        if all {
            // SAFETY: as above.
            assert_eq!(work.result.with(|result| unsafe { *result }), 7);
        }
        worker.join().unwrap();
        let line = other.join().unwrap();
        // What never ends is on one line; the other one is empty now.
        assert!(!work.under_way.is_empty(line));
        assert_eq!(work.under_way.count(), 1);
    });
}
