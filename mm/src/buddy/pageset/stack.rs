//! A stack of blocks: the newest in an array, the rest linked through their records.
#![forbid(unsafe_code)]

use crate::addr::Pfn;
use crate::frame::{CachedWord, FrameTable};

/// A link to nowhere.
const END: u64 = u64::MAX;

/// Blocks at hand: as many as a batch has.
const HOT: usize = 64;
const HALF: usize = HOT / 2;

/// Blocks of one type and order. Some are at hand without touching a record; those below them
/// hang together by the list word of their records.
///
/// # Invariants
/// `hot` is a ring: the blocks at hand are those from `bottom` up to below `top`, which are at
/// most [`HOT`] apart and count on and on; a place is their remainder.
#[derive(Debug)]
pub(super) struct Stack {
    /// The state word of each of them.
    word: CachedWord,
    top: usize,
    bottom: usize,
    /// The newest of those that are linked.
    below: u64,
    linked: u64,
    hot: [u64; HOT],
}

impl Stack {
    pub(super) const fn new(word: CachedWord) -> Self {
        Self {
            word,
            top: 0,
            bottom: 0,
            below: END,
            linked: 0,
            hot: [0; HOT],
        }
    }

    /// The state word of a block that is here.
    #[inline]
    pub(super) const fn word(&self) -> CachedWord {
        self.word
    }

    /// Whether none is at hand; there may be some below.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.top == self.bottom
    }

    /// Puts a block on top.
    #[inline]
    pub(super) fn push(&mut self, pfn: Pfn, frames: &FrameTable) {
        if self.top.wrapping_sub(self.bottom) >= HOT {
            self.sink(frames);
        }
        self.hot[self.top & (HOT - 1)] = pfn.as_u64();
        self.top = self.top.wrapping_add(1);
    }

    /// Takes the block on top of those at hand.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Pfn> {
        if self.is_empty() {
            return None;
        }
        self.top = self.top.wrapping_sub(1);
        Some(Pfn::new(self.hot[self.top & (HOT - 1)]))
    }

    /// Takes one of the blocks below those at hand, or the oldest of these.
    pub(super) fn pop_old(&mut self, frames: &FrameTable) -> Option<Pfn> {
        self.unlink(frames).or_else(|| self.pop_bottom())
    }

    #[inline]
    fn pop_bottom(&mut self) -> Option<Pfn> {
        if self.is_empty() {
            return None;
        }
        let oldest = self.hot[self.bottom & (HOT - 1)];
        self.bottom = self.bottom.wrapping_add(1);
        Some(Pfn::new(oldest))
    }

    /// Links the older half of the array below.
    #[cold]
    #[inline(never)]
    fn sink(&mut self, frames: &FrameTable) {
        for _ in 0..HALF {
            let Some(pfn) = self.pop_bottom() else { return };
            if let Some(frame) = frames.frame(pfn) {
                frame.set_link(self.below);
                self.below = pfn.as_u64();
                self.linked = self.linked.wrapping_add(1);
            }
        }
    }

    /// Brings up to half an array of blocks up from below, in their order, if none is at hand.
    pub(super) fn rise(&mut self, frames: &FrameTable) {
        if !self.is_empty() {
            return;
        }
        let count = usize::try_from(self.linked).unwrap_or(HOT).min(HALF);
        self.top = self.top.wrapping_add(count);
        self.bottom = self.top;
        for _ in 0..count {
            let Some(pfn) = self.unlink(frames) else {
                return;
            };
            self.bottom = self.bottom.wrapping_sub(1);
            self.hot[self.bottom & (HOT - 1)] = pfn.as_u64();
        }
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
