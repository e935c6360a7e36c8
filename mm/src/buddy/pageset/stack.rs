//! A stack of blocks: the newest in an array, the rest linked through their records.
#![forbid(unsafe_code)]

use crate::addr::Pfn;
use crate::frame::{CachedWord, FrameTable};

/// A link to nowhere.
const END: u64 = u64::MAX;

/// Blocks at hand.
const HOT: usize = 32;
const HALF: usize = HOT / 2;

/// Blocks of one type and order. Some are at hand without touching a record; those below them
/// hang together by the list word of their records.
#[derive(Debug)]
pub(super) struct Stack {
    /// The state word of each of them.
    word: CachedWord,
    len: usize,
    hot: [u64; HOT],
    /// The newest of those that are linked.
    below: u64,
    linked: u64,
}

impl Stack {
    pub(super) const fn new(word: CachedWord) -> Self {
        Self {
            word,
            len: 0,
            hot: [0; HOT],
            below: END,
            linked: 0,
        }
    }

    /// The state word of a block that is here.
    #[inline]
    pub(super) const fn word(&self) -> CachedWord {
        self.word
    }

    /// Whether none is at hand; there may be some below.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a block on top.
    #[inline]
    pub(super) fn push(&mut self, pfn: Pfn, frames: &FrameTable) {
        if self.len >= HOT {
            self.sink(frames);
        }
        self.hot[self.len & (HOT - 1)] = pfn.as_u64();
        self.len = self.len.wrapping_add(1);
    }

    /// Takes the block on top of those at hand.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Pfn> {
        self.len = self.len.checked_sub(1)?;
        Some(Pfn::new(self.hot[self.len & (HOT - 1)]))
    }

    /// Takes the oldest of the blocks at hand, or one of those below them.
    pub(super) fn pop_old(&mut self, frames: &FrameTable) -> Option<Pfn> {
        if let Some(pfn) = self.unlink(frames) {
            return Some(pfn);
        }
        let oldest = *self.hot.first().filter(|_| self.len > 0)?;
        self.hot.copy_within(1..self.len.min(HOT), 0);
        self.len = self.len.wrapping_sub(1);
        Some(Pfn::new(oldest))
    }

    /// Links the older half of the array below.
    #[cold]
    #[inline(never)]
    fn sink(&mut self, frames: &FrameTable) {
        for &number in self.hot.iter().take(HALF) {
            let Some(frame) = frames.frame(Pfn::new(number)) else {
                continue;
            };
            frame.set_link(self.below);
            self.below = number;
            self.linked = self.linked.wrapping_add(1);
        }
        self.hot.copy_within(HALF.., 0);
        self.len = self.len.wrapping_sub(HALF);
    }

    /// Brings up to half an array of blocks up from below, in their order, if none is at hand.
    pub(super) fn rise(&mut self, frames: &FrameTable) {
        if self.len > 0 {
            return;
        }
        let count = usize::try_from(self.linked).unwrap_or(HOT).min(HALF);
        for place in (0..count).rev() {
            if let Some(pfn) = self.unlink(frames) {
                self.hot[place] = pfn.as_u64();
            }
        }
        self.len = count;
    }

    fn unlink(&mut self, frames: &FrameTable) -> Option<Pfn> {
        if self.below == END {
            return None;
        }
        let pfn = Pfn::new(self.below);
        self.below = frames.frame(pfn)?.link();
        self.linked = self.linked.wrapping_sub(1);
        Some(pfn)
    }
}
