//! A stack of blocks: the newest in arrays, the rest linked through their records.
#![forbid(unsafe_code)]

use crate::addr::Pfn;
use crate::frame::{CachedWord, FrameTable, Record, Word};

/// A link to nowhere.
const END: u64 = u64::MAX;

/// Places of the arrays. The first stays empty, so that looking for a block in an empty stack finds
/// none there.
const PLACES: usize = 64;
/// Blocks at hand, at most: as many as a batch has.
const MOST: usize = PLACES - 1;
const HALF: usize = MOST / 2;

/// Blocks of one type and order. Some are at hand with their records; those below them hang
/// together by the list word of their records.
///
/// # Invariants
/// The blocks at hand stand in the places 1 to `top`, the newest last; `top` is at most [`MOST`], and
/// place 0 holds no record.
#[derive(Debug)]
pub(super) struct Stack {
    /// The state word of each of them, …
    word: CachedWord,
    /// … and the one that each has with an owner.
    owned: Word,
    top: usize,
    /// The newest of those that are linked.
    below: u64,
    linked: usize,
    records: [Option<Record>; PLACES],
    blocks: [Pfn; PLACES],
}

impl Stack {
    pub(super) const fn new(word: CachedWord) -> Self {
        Self {
            word,
            owned: word.unique(),
            top: 0,
            below: END,
            linked: 0,
            records: [None; PLACES],
            blocks: [Pfn::ZERO; PLACES],
        }
    }

    /// The state word of a block that is here, and the one that it has with an owner.
    #[inline(always)]
    pub(super) const fn words(&self) -> (CachedWord, Word) {
        (self.word, self.owned)
    }

    /// Whether none is at hand; there may be some below.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.top == 0
    }

    /// Puts a block on top.
    #[inline(always)]
    pub(super) fn push(&mut self, pfn: Pfn, record: Record) {
        if self.top >= MOST {
            self.sink();
        }
        let top = self.top.wrapping_add(1) & (PLACES - 1);
        self.blocks[top] = pfn;
        self.records[top] = Some(record);
        self.top = top;
    }

    /// Takes the block on top of those at hand.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(Pfn, Record)> {
        let top = self.top & (PLACES - 1);
        let record = self.records[top]?;
        self.top = top.wrapping_sub(1);
        Some((self.blocks[top], record))
    }

    /// Takes blocks below those at hand, and then the oldest of these, until `places` are full.
    /// Answers how many there were.
    pub(super) fn take_old(&mut self, places: &mut [Pfn], frames: &FrameTable) -> usize {
        let mut taken: usize = 0;
        for place in places.iter_mut() {
            let Some((pfn, _)) = self.unlink(frames) else {
                break;
            };
            *place = pfn;
            taken = taken.wrapping_add(1);
        }
        let rest = places.get_mut(taken..).unwrap_or_default();
        let count = rest.len().min(self.top);
        for (place, pfn) in rest.iter_mut().zip(&self.blocks[1..]).take(count) {
            *place = *pfn;
        }
        self.drop_oldest(count);
        taken.wrapping_add(count)
    }

    /// Forgets the oldest blocks at hand; the others move down.
    fn drop_oldest(&mut self, count: usize) {
        let count = count.min(self.top);
        let from = count.wrapping_add(1);
        self.blocks.copy_within(from.., 1);
        self.records.copy_within(from.., 1);
        self.top = self.top.wrapping_sub(count);
    }

    /// Links the older half of those at hand below.
    #[cold]
    #[inline(never)]
    fn sink(&mut self) {
        let at_hand = self.blocks.iter().zip(&self.records);
        for (pfn, record) in at_hand.skip(1).take(HALF) {
            if let Some(record) = record {
                record.get().set_link(self.below);
                self.below = pfn.as_u64();
                self.linked = self.linked.wrapping_add(1);
            }
        }
        self.drop_oldest(HALF);
    }

    /// Brings half an array of blocks up from below, in their order, if none is at hand.
    pub(super) fn rise(&mut self, frames: &FrameTable) {
        if !self.is_empty() {
            return;
        }
        let count = self.linked.min(HALF);
        let mut got: usize = 0;
        for place in (1..=count).rev() {
            let Some((pfn, record)) = self.unlink(frames) else {
                break;
            };
            self.blocks[place & (PLACES - 1)] = pfn;
            self.records[place & (PLACES - 1)] = Some(record);
            got = got.wrapping_add(1);
        }
        // A damaged link ends the chain; what came before it is there.
        self.top = count;
        self.drop_oldest(count.wrapping_sub(got));
    }

    fn unlink(&mut self, frames: &FrameTable) -> Option<(Pfn, Record)> {
        if self.below == END {
            return None;
        }
        let pfn = Pfn::new(self.below);
        let record = frames.record(pfn)?;
        self.below = record.get().link();
        self.linked = self.linked.wrapping_sub(1);
        Some((pfn, record))
    }
}
