//! A stack of blocks that any context may push to, NMI included: linked through their records.
//!
//! Pushing is one compare-exchange, taking is one exchange for all that is there. Nobody takes a
//! single block off, so a block that comes back to the same stack in between is no trouble.
#![forbid(unsafe_code)]

use super::Frame;
use crate::addr::Pfn;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A link to nowhere.
const END: u64 = u64::MAX;

/// Blocks that nobody else has, newest first. Their records' list words belong to the stack.
#[derive(Debug)]
pub struct FrameStack {
    top: AtomicU64,
}

impl FrameStack {
    /// An empty stack.
    #[must_use]
    pub fn new() -> Self {
        Self {
            top: AtomicU64::new(END),
        }
    }

    /// Puts the block on top that starts at `pfn`, whose record is `frame`. Answers whether the
    /// stack was empty. Context: any, NMI included.
    pub fn push(&self, pfn: Pfn, frame: &Frame) -> bool {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            frame.set_link(top);
            match self.top.compare_exchange_weak(
                top,
                pfn.as_u64(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return top == END,
                Err(now) => top = now,
            }
        }
    }

    /// Takes everything: the answer is the first block. Context: any.
    #[must_use = "the blocks are nowhere else now"]
    pub fn take(&self) -> Option<Pfn> {
        below(self.top.swap(END, Ordering::Acquire))
    }

    /// Puts back what was taken, from `first` on, below what has come since; `frame_of` finds records. Takes
    /// as long as much has come. Context: any.
    pub fn put_back<'a>(&self, first: Pfn, frame_of: impl Fn(Pfn) -> Option<&'a Frame>) {
        let mut first = first;
        loop {
            let put = self.top.compare_exchange(
                END,
                first.as_u64(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            if put.is_ok() {
                return;
            }
            let Some(newest) = self.take() else { continue };
            let mut oldest = newest;
            while let Some(next) = frame_of(oldest).and_then(Frame::below) {
                oldest = next;
            }
            if let Some(frame) = frame_of(oldest) {
                frame.set_link(first.as_u64());
            }
            first = newest;
        }
    }

    /// Whether nothing is there. Stale when it arrives. Context: any.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed) == END
    }
}

impl Default for FrameStack {
    fn default() -> Self {
        Self::new()
    }
}

impl Frame {
    /// The block below this one, of those that were taken together.
    #[must_use]
    pub fn below(&self) -> Option<Pfn> {
        below(self.link())
    }
}

fn below(link: u64) -> Option<Pfn> {
    (link != END).then(|| Pfn::new(link))
}
