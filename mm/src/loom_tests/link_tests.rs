//! The list that areas wait on for a purge (`kspace::raw`): pushed to by many, taken as a whole by one.

use loom::cell::UnsafeCell;
use loom::thread;

use super::explore;
use super::link::{Link, Linked};

/// What an area's record is here: how often it was changed, in a cell that fails the model if two do so at a time, or one
/// does not see what the other wrote.
struct Record {
    next: Link<Self>,
    changes: UnsafeCell<u32>,
}

impl Linked for Record {
    fn next(&self) -> &Link<Self> {
        &self.next
    }
}

impl Record {
    /// Records live for ever.
    fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            next: Link::default(),
            changes: UnsafeCell::new(0),
        }))
    }

    fn change(&self) {
        // SAFETY: loom fails the model if anybody else is at it.
        self.changes.with_mut(|changes| unsafe { *changes += 1 });
    }

    fn changes(&self) -> u32 {
        // SAFETY: as above.
        self.changes.with(|changes| unsafe { *changes })
    }
}

fn list() -> &'static Link<Record> {
    Box::leak(Box::default())
}

/// As `Space::retire`: what was written to a record comes before the push.
fn retire(list: &Link<Record>, record: &'static Record) {
    record.change();
    list.push(record);
}

/// As `Space::purge`: the whole list, once to look and once to give back, which links records otherwise.
fn purge(list: &Link<Record>) -> u32 {
    let first = list.take();
    let mut next = first;
    while let Some(record) = next {
        assert!(record.changes() % 2 == 1, "not pushed, or taken twice");
        next = record.next.get();
    }
    let (mut count, mut next) = (0, first);
    while let Some(record) = next {
        next = record.next.get();
        record.next.set(None);
        record.change();
        count += 1;
    }
    count
}

/// Two retire areas while a third purges: each is purged once, now or later, and found as it was left.
#[test]
fn areas_that_two_retire_are_purged_once() {
    explore(3, || {
        let list = list();
        let records = [(); 2].map(|()| Record::new());
        let pushers = records.map(|record| thread::spawn(move || retire(list, record)));
        let mut purged = purge(list);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        purged += purge(list);
        assert_eq!(purged, 2);
        assert!(list.get().is_none());
        assert!(records.iter().all(|record| record.changes() == 2));
    });
}

/// An area that was purged is retired again, while somebody who found it in front of the list is about to push: the list's
/// first record is the same, what is behind it is not.
#[test]
fn an_area_that_comes_back_loses_nobody() {
    explore(3, || {
        let list = list();
        let [first, mine, other] = [(); 3].map(|()| Record::new());
        retire(list, first);
        let pushers = [mine, other].map(|record| thread::spawn(move || retire(list, record)));
        let mut purged = purge(list);
        retire(list, first);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        purged += purge(list);
        assert_eq!(purged, 4);
        assert_eq!(
            [first, mine, other].map(Record::changes),
            [4, 2, 2],
            "purged as often as retired"
        );
    });
}
