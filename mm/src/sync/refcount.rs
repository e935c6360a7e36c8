//! Reference counts that saturate instead of wrapping.
//!
//! The behaviour is that of Linux's `refcount_t`: a count that leaves its range is pinned at a
//! value in the middle of the unused half, from which no number of increments or decrements
//! that a machine can perform leads back to zero. What it counts then leaks, and is never freed
//! under a user.

use super::atomic::{AtomicU32, Ordering};

/// Where a count that went wrong stays (Linux: `REFCOUNT_SATURATED`).
const SATURATED: u32 = 0xc000_0000;
/// The largest count that is still believed (Linux: `REFCOUNT_MAX`).
const MAX: u32 = 0x7fff_ffff;
/// The upper four bits of what is no count: a note that the user of the word leaves there while there is nothing to
/// count. No count becomes one, since those past their limit are all pinned at [`SATURATED`].
const NOTE: u32 = 0xd << 28;
const NOTE_MASK: u32 = 0xf << 28;

/// Whether the word holds a note.
const fn is_note(bits: u32) -> bool {
    bits & NOTE_MASK == NOTE
}

/// What a decrement found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Dropped {
    /// Others still hold references.
    Shared,
    /// That was the last reference: the caller frees.
    Last,
    /// The count is saturated, or was zero before: nothing may be freed.
    Saturated,
}

/// A saturating reference count.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct RefCount(AtomicU32);

impl RefCount {
    /// Nobody refers.
    #[cfg(not(loom))]
    pub(crate) const fn zero() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A count that starts at `count`.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self(AtomicU32::new(count))
    }

    /// The count right now; it may be stale when it arrives.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Starts counting anew: whoever takes a reference from now on sees what was done before.
    /// Only while the count is zero.
    #[inline]
    pub fn set(&self, count: u32) {
        self.0.store(count, Ordering::Release);
    }

    /// The note with these 28 bits.
    pub(crate) const fn note(bits: u32) -> u32 {
        NOTE | bits & !NOTE_MASK
    }

    /// Leaves a [note](Self::note): nobody can take a reference until counting starts anew. Only while the count is zero,
    /// or a note.
    #[inline]
    pub(crate) fn set_note(&self, note: u32) {
        self.0.store(note, Ordering::Release);
    }

    /// Whether the count is stuck.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        let bits = self.get();
        bits > MAX && !is_note(bits)
    }

    /// Adds a reference unless there is none left to copy. Answers whether it was added; a
    /// count that would leave its range saturates (and the answer is yes: the object lives for
    /// ever). Context: any.
    #[inline]
    pub fn inc_not_zero(&self) -> bool {
        let mut old = self.get();
        loop {
            // Whoever knows the word from when it was a count may come late.
            if old == 0 || is_note(old) {
                return false;
            }
            let new = if old >= MAX {
                SATURATED
            } else {
                old.wrapping_add(1)
            };
            match self
                .0
                .compare_exchange_weak(old, new, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
    }

    /// Drops a reference. Everything done through it happens before what the last holder does
    /// next. Context: any.
    #[inline]
    pub fn dec(&self) -> Dropped {
        let mut old = self.get();
        let outcome = loop {
            let (new, outcome) = match old {
                1 => (0, Dropped::Last),
                2..=MAX => (old.wrapping_sub(1), Dropped::Shared),
                note if is_note(note) => return Dropped::Saturated,
                _ => (SATURATED, Dropped::Saturated),
            };
            match self
                .0
                .compare_exchange_weak(old, new, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break outcome,
                Err(now) => old = now,
            }
        };
        if outcome == Dropped::Last {
            super::atomic::fence(Ordering::Acquire);
        }
        outcome
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_at_the_limit_saturate_and_never_come_back() {
        let count = RefCount::new(MAX - 16);
        for _ in 0..32 {
            assert!(count.inc_not_zero());
        }
        assert!(count.is_saturated());
        for _ in 0..100 {
            assert_eq!(count.dec(), Dropped::Saturated);
        }
        assert!(count.is_saturated());
    }

    /// Many CPUs may count at once before one of them notices: the value must be far from zero on
    /// either side, and stay there.
    #[test]
    fn a_count_past_its_limit_is_pinned_in_the_middle_of_the_unused_half() {
        let last = RefCount::new(MAX - 1);
        assert!(last.inc_not_zero());
        assert_eq!((last.get(), last.is_saturated()), (MAX, false));
        assert_eq!(last.dec(), Dropped::Shared);
        assert_eq!(last.get(), MAX - 1);
        for start in [MAX, MAX + 1, SATURATED, u32::MAX] {
            let count = RefCount::new(start);
            for _ in 0..3 {
                assert!(count.inc_not_zero());
                assert_eq!(count.get(), SATURATED, "from {start:#x}");
            }
        }
    }

    #[test]
    fn a_note_is_no_count() {
        for note in [
            RefCount::note(0),
            RefCount::note(1),
            RefCount::note(u32::MAX),
        ] {
            let count = RefCount::new(0);
            count.set_note(note);
            assert!(!count.inc_not_zero() && !count.is_saturated());
            assert_eq!(count.dec(), Dropped::Saturated);
            assert_eq!(count.get(), note);
        }
    }

    #[test]
    fn zero_is_neither_revived_nor_freed_twice() {
        let count = RefCount::new(1);
        assert_eq!(count.dec(), Dropped::Last);
        assert!(!count.inc_not_zero());
        assert_eq!(count.dec(), Dropped::Saturated);
        assert!(count.is_saturated());
    }
}
