//! A stack of blocks: the newest in arrays, the rest linked through their records.
#![forbid(unsafe_code)]

use crate::addr::Pfn;
use crate::frame::{CachedWord, FrameTable, Record, Word};

/// A link to nowhere.
const END: u64 = u64::MAX;

/// Blocks of one type and order. Fewer than `PLACES` - 1 are at hand; those below them hang together by
/// the list word of their records.
///
/// # Invariants
/// The blocks at hand stand in the places from 1 on, the newest last. Place 0 holds nobody's record: who
/// looks for a block in an empty stack finds one there that says that it is none. `PLACES` - 1 is a power of two, and
/// at most 256.
#[derive(Debug)]
pub(super) struct Stack<const PLACES: usize> {
    /// The state word of each of them, …
    word: CachedWord,
    /// … and the one that each has with an owner.
    owned: Word,
    /// How many are at hand, and as much more as makes it wrap when the last place is taken: the
    /// instruction that counts a block says then that there is no room for another.
    top: u8,
    /// The newest of those that are linked.
    below: u64,
    linked: usize,
    /// Where the chain of those ended too early, and how many were behind.
    broken: Option<(Pfn, usize)>,
    records: [Record; PLACES],
    blocks: [Pfn; PLACES],
}

impl<const PLACES: usize> Stack<PLACES> {
    /// Blocks in all places, for a moment.
    const FULL: usize = {
        assert!((PLACES - 1).is_power_of_two() && PLACES <= 257);
        PLACES - 1
    };
    const MASK: usize = Self::FULL - 1;
    const HALF: usize = Self::MASK / 2;
    /// `top` of a stack without blocks at hand.
    const EMPTY: u8 = {
        let [empty, ..] = (256 - Self::FULL).to_le_bytes();
        empty
    };

    pub(super) const fn new(word: CachedWord) -> Self {
        Self {
            word,
            owned: word.unique(),
            top: Self::EMPTY,
            below: END,
            linked: 0,
            broken: None,
            records: [Record::NOBODYS; PLACES],
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
        self.top == Self::EMPTY
    }

    /// The place of the newest; a mask instead of a check.
    #[inline(always)]
    fn newest(&self) -> usize {
        usize::from(self.top) & Self::MASK
    }

    /// Puts a block on top.
    #[inline(always)]
    pub(super) fn push(&mut self, pfn: Pfn, record: Record) {
        let place = self.newest().wrapping_add(1);
        self.blocks[place] = pfn;
        self.records[place] = record;
        self.top = self.top.wrapping_add(1);
        if self.top == 0 {
            self.sink();
        }
    }

    /// Takes the block on top of those at hand.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(Pfn, Record)> {
        let top = self.newest();
        if top == 0 {
            return None;
        }
        self.top = self.top.wrapping_sub(1);
        Some((self.blocks[top], self.records[top]))
    }

    /// The same if `claim` succeeds, which looks at the record: nobody's tells it that there is none.
    ///
    /// # Errors
    /// There is none, or what `claim` says of it; it is taken off then, too.
    #[inline(always)]
    pub(super) fn pop_claimed<T, E>(
        &mut self,
        claim: impl FnOnce(&Self, Pfn, Record) -> Result<T, E>,
    ) -> Result<(Pfn, T), Option<E>> {
        let newest = self.newest();
        let pfn = self.blocks[newest];
        match claim(self, pfn, self.records[newest]) {
            Ok(claimed) => {
                self.top = self.top.wrapping_sub(1);
                Ok((pfn, claimed))
            }
            Err(_) if self.is_empty() => Err(None),
            Err(error) => {
                self.top = self.top.wrapping_sub(1);
                Err(Some(error))
            }
        }
    }

    /// Takes blocks from the top into the empty ones of `places`, as long as any are at hand; `hand_out`
    /// says what goes into a place, if anything. Answers how many places are full, those before the first
    /// that is not, and how many blocks were taken.
    #[inline(always)]
    pub(super) fn pop_into<T>(
        &mut self,
        places: &mut [Option<T>],
        mut hand_out: impl FnMut(Pfn, Record, (CachedWord, Word)) -> Option<T>,
    ) -> (usize, usize) {
        // What is the same for all blocks is read once, and what changes is written once.
        let (words, before) = (self.words(), self.newest());
        let (mut newest, mut full): (usize, usize) = (before, 0);
        'places: for place in places {
            while place.is_none() {
                let at = newest & Self::MASK;
                if at == 0 {
                    break 'places;
                }
                *place = hand_out(self.blocks[at], self.records[at], words);
                newest = newest.wrapping_sub(1);
            }
            full = full.wrapping_add(1);
        }
        self.set_newest(newest);
        (full, before.wrapping_sub(newest))
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
        let count = rest.len().min(self.newest());
        for (place, pfn) in rest.iter_mut().zip(&self.blocks[1..]).take(count) {
            *place = *pfn;
        }
        self.drop_oldest(count);
        taken.wrapping_add(count)
    }

    /// Forgets the oldest blocks at hand; the others move down.
    fn drop_oldest(&mut self, count: usize) {
        self.drop_oldest_of(self.newest(), count);
    }

    /// The same where so many are at hand.
    fn drop_oldest_of(&mut self, all: usize, count: usize) {
        let count = count.min(all);
        let from = count.wrapping_add(1);
        self.blocks.copy_within(from.., 1);
        self.records.copy_within(from.., 1);
        self.set_newest(all.wrapping_sub(count));
    }

    /// Changes how many are at hand; there are no more than a byte counts.
    fn set_newest(&mut self, place: usize) {
        let [top, ..] = place.to_le_bytes();
        self.top = top.wrapping_add(Self::EMPTY);
    }

    /// Links the older half of those at hand below, all places being taken.
    #[cold]
    #[inline(never)]
    fn sink(&mut self) {
        let at_hand = self.blocks.iter().zip(&self.records);
        for (pfn, record) in at_hand.skip(1).take(Self::HALF) {
            record.get().set_link(self.below);
            self.below = pfn.as_u64();
            self.linked = self.linked.wrapping_add(1);
        }
        self.drop_oldest_of(Self::FULL, Self::HALF);
    }

    /// Brings half an array of blocks up from below, in their order, if none is at hand.
    pub(super) fn rise(&mut self, frames: &FrameTable) {
        if !self.is_empty() {
            return;
        }
        let count = self.linked.min(Self::HALF);
        let mut got: usize = 0;
        for place in (1..=count).rev() {
            let Some((pfn, record)) = self.unlink(frames) else {
                break;
            };
            self.blocks[place & Self::MASK] = pfn;
            self.records[place & Self::MASK] = record;
            got = got.wrapping_add(1);
        }
        // A damaged link ends the chain; what came before it is there.
        self.set_newest(count);
        self.drop_oldest(count.wrapping_sub(got));
    }

    fn unlink(&mut self, frames: &FrameTable) -> Option<(Pfn, Record)> {
        if self.below == END {
            return None;
        }
        let pfn = Pfn::new(self.below);
        let record = frames.record(pfn);
        let Some(record) = record.filter(|record| record.get().word() == self.word.word()) else {
            // What the link names is none of them: whatever comes behind it is out of reach.
            self.broken = Some((pfn, self.linked));
            (self.below, self.linked) = (END, 0);
            return None;
        };
        self.below = record.get().link();
        self.linked = self.linked.wrapping_sub(1);
        Some((pfn, record))
    }

    /// Where a link was found damaged since this was asked last, and how many blocks that lost.
    pub(super) const fn take_broken(&mut self) -> Option<(Pfn, usize)> {
        self.broken.take()
    }
}
