//! What is under way, counted so that whoever waits for all of it is not held up by what comes later.
//!
//! # Protocol
//!
//! There are two lines. What begins goes on the line that [`Turns`] names, and ends on the same. Whoever
//! waits turns to the other line, waits until the first one is empty, and then does the same once more: a
//! late beginner that had read the old turn may have gone on either. Meanwhile everything new goes on the
//! line that is not waited for. What was done before an end is seen by who found the line empty after
//! it. (Linux: the two counters of `srcu`.)
#![forbid(unsafe_code)]

use super::atomic::{AtomicU32, Ordering};

/// One of the two lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    Even,
    Odd,
}

impl Line {
    pub(crate) const BOTH: [Self; 2] = [Self::Even, Self::Odd];

    /// The other one.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }

    /// That one's of a pair.
    pub(crate) const fn of<T>(self, pair: &[T; 2]) -> &T {
        let [even, odd] = pair;
        match self {
            Self::Even => even,
            Self::Odd => odd,
        }
    }
}

const WAITED_FOR: u32 = 1 << 1;

/// Which line is next, and whether somebody waits: one does at a time.
#[derive(Debug)]
pub(crate) struct Turns(AtomicU32);

impl Turns {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Where what begins now goes. Context: any.
    pub(crate) fn line(&self) -> Line {
        Line::BOTH[usize::from(self.0.load(Ordering::Relaxed) & 1 != 0)]
    }

    /// Begins to wait, unless somebody else does. Context: any.
    pub(crate) fn wait(&self) -> Option<Wait<'_>> {
        let before = self.0.fetch_or(WAITED_FOR, Ordering::Acquire);
        (before & WAITED_FOR == 0).then_some(Wait(self))
    }
}

/// Whoever waits for all that has begun.
#[derive(Debug)]
pub(crate) struct Wait<'a>(&'a Turns);

impl Wait<'_> {
    /// Sends what begins from now on to the other line. Answers which one is to become empty.
    pub(crate) fn turn(&self) -> Line {
        Line::BOTH[usize::from(self.0.0.fetch_xor(1, Ordering::AcqRel) & 1 != 0)]
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_and(!WAITED_FOR, Ordering::Release);
    }
}

/// How much of one CPU's is under way, by line.
#[derive(Debug)]
pub(crate) struct UnderWay([AtomicU32; 2]);

impl UnderWay {
    /// Nothing is.
    pub(crate) fn new() -> Self {
        Self([AtomicU32::new(0), AtomicU32::new(0)])
    }

    /// Something begins.
    pub(crate) fn begin(&self, line: Line) {
        line.of(&self.0).fetch_add(1, Ordering::Relaxed);
    }

    /// Something ends that began on this line.
    pub(crate) fn end(&self, line: Line) {
        line.of(&self.0).fetch_sub(1, Ordering::Release);
    }

    /// Whether nothing is under way on a line; then what was done to end it is seen.
    pub(crate) fn is_empty(&self, line: Line) -> bool {
        line.of(&self.0).load(Ordering::Acquire) == 0
    }

    /// How much is, on both.
    pub(crate) fn count(&self) -> u32 {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        counts.fold(0, u32::saturating_add)
    }
}

impl Default for UnderWay {
    fn default() -> Self {
        Self::new()
    }
}
