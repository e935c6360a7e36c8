//! Which record stands somewhere: one word. Records are [areas](super::super::Area); models have others (`loom_tests`).

use core::fmt;
use core::ptr::{from_ref, null_mut};

use crate::sync::atomic::{AtomicPtr, Ordering};

/// A record that stands in line.
pub(crate) trait Linked: Sized + 'static {
    /// Where the one behind it stands, of the list that it is on.
    fn next(&self) -> &Link<Self>;
}

/// A record, or none. Records of areas live as long as the [`Memory`](crate::system::Memory) that they are part of, and the
/// link with them: so whoever finds one here may look at it.
///
/// # Invariants
/// Null, or made from a `&'static T`.
pub(crate) struct Link<T: 'static>(AtomicPtr<T>);

/// The word for a record.
fn word<T>(record: Option<&'static T>) -> *mut T {
    record.map_or(null_mut(), |record| from_ref(record).cast_mut())
}

/// The record that a word stands for.
///
/// # Safety
///
/// The word is null, or was made from a `&'static T`.
unsafe fn record<T>(word: *mut T) -> Option<&'static T> {
    // SAFETY: the caller's word; nobody has a unique reference to what others have a static one to.
    unsafe { word.as_ref() }
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        // INVARIANT: null.
        Self(AtomicPtr::new(null_mut()))
    }
}

impl<T> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0).finish()
    }
}

impl<T> Link<T> {
    /// Which record stands here; what was written to it before it was put here is visible then.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: the invariant.
        unsafe { record(self.0.load(Ordering::Acquire)) }
    }

    /// Puts a record here, or none.
    #[inline]
    pub(crate) fn set(&self, record: Option<&'static T>) {
        // INVARIANT: a static reference.
        self.0.store(word(record), Ordering::Release);
    }

    /// Puts none here, and answers which one stood here.
    pub(crate) fn take(&self) -> Option<&'static T> {
        // INVARIANT: null.
        let found = self.0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: the invariant.
        unsafe { record(found) }
    }
}

impl<T: Linked> Link<T> {
    /// Puts a record in front of those that are linked from here on: what is written to it is visible to whoever
    /// [takes](Self::take) them. Context: any; many at a time.
    #[inline]
    pub(crate) fn push(&self, new: &'static T) {
        let mut newest = self.0.load(Ordering::Relaxed);
        loop {
            // INVARIANT: it stood in a link.
            new.next().0.store(newest, Ordering::Relaxed);
            let (set, seen) = (Ordering::Release, Ordering::Relaxed);
            // INVARIANT: a static reference. Whoever stood here and was taken meanwhile may stand here again: its own
            // successor is looked at by nobody, so this is no harm.
            match (self.0).compare_exchange_weak(newest, word(Some(new)), set, seen) {
                Ok(_) => return,
                Err(now) => newest = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::ptr;
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::{Link, Linked};

    /// A record that says whose turn it is: plain words, to be ordered by the link alone.
    #[derive(Default)]
    struct Record {
        next: Link<Self>,
        /// Times that it was pushed, and times that it was taken.
        pushed: AtomicU32,
        taken: AtomicU32,
    }

    impl Linked for Record {
        fn next(&self) -> &Link<Self> {
            &self.next
        }
    }

    const PUSHERS: usize = 4;
    const RECORDS: usize = 8;
    const TIMES: u32 = 2_000;

    /// Takes all records, sees what was written before each was pushed, and lets it be pushed again.
    fn take_all(list: &Link<Record>) -> u32 {
        let mut count: u32 = 0;
        let mut rest = list.take();
        while let Some(record) = rest {
            rest = record.next.get();
            let pushed = record.pushed.load(Ordering::Relaxed);
            let taken = record.taken.load(Ordering::Relaxed).wrapping_add(1);
            assert_eq!(pushed, taken, "taken twice, or before it was written to");
            record.taken.store(taken, Ordering::Release);
            count = count.wrapping_add(1);
        }
        count
    }

    /// Each of several threads pushes records of its own again as soon as they are back, so that the list's first record
    /// may be one that stood there before; one thread takes.
    #[test]
    fn what_many_push_one_takes_once_each_time() {
        let list: &Link<Record> = Box::leak(Box::default());
        let records = |_| -> Vec<&'static Record> {
            let records = (0..RECORDS).map(|_| -> &'static Record { Box::leak(Box::default()) });
            records.collect()
        };
        let all: Vec<_> = (0..PUSHERS).map(records).collect();
        thread::scope(|scope| {
            for mine in &all {
                scope.spawn(move || {
                    for time in 0..TIMES {
                        for record in mine {
                            while record.taken.load(Ordering::Acquire) != time {
                                thread::yield_now();
                            }
                            record.pushed.store(time + 1, Ordering::Relaxed);
                            list.push(record);
                        }
                    }
                });
            }
            let mut left = TIMES * u32::try_from(PUSHERS * RECORDS).unwrap();
            while left > 0 {
                match take_all(list) {
                    0 => thread::yield_now(),
                    taken => left -= taken,
                }
            }
        });
        assert!(list.get().is_none());
        let mut all = all.iter().flatten();
        assert!(all.all(|record| record.taken.load(Ordering::Relaxed) == TIMES));
    }

    #[test]
    fn the_newest_comes_first_and_the_rest_is_linked_behind_it() {
        let list: &Link<Record> = Box::leak(Box::default());
        let records = [0, 1].map(|_| -> &'static Record { Box::leak(Box::default()) });
        records.iter().for_each(|record| list.push(record));
        let first = list.take().unwrap();
        let second = first.next.get().unwrap();
        assert!(ptr::eq(first, records[1]) && ptr::eq(second, records[0]));
        assert!(second.next.get().is_none() && list.take().is_none());
        list.set(Some(first));
        assert!(list.get().is_some_and(|found| ptr::eq(found, first)));
    }
}
