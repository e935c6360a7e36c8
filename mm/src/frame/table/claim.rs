//! State changes that hand ownership of frames over.
//!
//! Each function here turns one kind of ownership into another: RAM from early allocation into
//! frames, a free block into a token, a raw number back into a token, the last reference into a
//! token. The state word is checked every time, so that even a broken allocator cannot mint two
//! tokens for one block.

use crate::addr::{Order, Pfn, PfnRange};
use crate::frame::{CachedWord, Event, FrameState, FrameTable, Word, ZoneId};
use crate::mem::{EarlyRam, Exclusive};
use crate::report::{Check, Corruption};
use crate::sync::Dropped;

/// Why a block was not taken back. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeError {
    /// The library manages no such frame.
    NotPresent,
    /// A block of that order cannot start there.
    Misaligned,
    /// The block is free already.
    AlreadyFree,
    /// The frame was never handed out: firmware, kernel image or boot-time tables.
    Reserved,
    /// The frame lies inside a block that starts elsewhere.
    Interior {
        /// First frame of that block.
        head: Pfn,
    },
    /// The block was handed out with another order.
    WrongOrder {
        /// The order it has.
        actual: Order,
    },
    /// The block is reference-counted: use `put_page`.
    Shared,
    /// The record was overwritten.
    Damaged,
}

impl core::fmt::Display for FreeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotPresent => f.write_str("no such frame"),
            Self::Misaligned => f.write_str("not aligned to its order"),
            Self::AlreadyFree => f.write_str("already free"),
            Self::Reserved => f.write_str("reserved"),
            Self::Interior { head } => write!(f, "inside the block at frame {head}"),
            Self::WrongOrder { actual } => write!(f, "wrong order: it has order {actual}"),
            Self::Shared => f.write_str("reference-counted"),
            Self::Damaged => f.write_str("its record is damaged"),
        }
    }
}

impl core::error::Error for FreeError {}

/// What dropping a reference led to.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the last reference carries the block"]
pub enum PutOutcome {
    /// Others still hold references.
    Shared,
    /// It was the last one: the block is the caller's, to be freed.
    Last(Exclusive),
}

/// A block together with its record.
#[derive(Debug)]
#[must_use = "dropping the token leaks the block"]
pub(crate) struct Claimed<'a> {
    block: Exclusive,
    frame: &'a super::Frame,
    word: Word,
}

impl Claimed<'_> {
    /// What the record says.
    #[inline]
    pub(crate) const fn word(&self) -> Word {
        self.word
    }

    /// The block alone.
    #[inline]
    pub(crate) fn into_block(self) -> Exclusive {
        self.block
    }

    /// Does something to the block's bytes.
    #[inline]
    pub(crate) fn map(self, change: impl FnOnce(Exclusive) -> Exclusive) -> Self {
        let first = self.block.frames();
        let block = change(self.block);
        debug_assert_eq!(block.frames(), first, "another block");
        Self { block, ..self }
    }

    /// Marks the block as one on a CPU's list. Answers its first frame.
    #[inline(always)]
    pub(crate) fn cache(self, word: CachedWord) -> Pfn {
        self.frame.publish(word.word());
        self.block.leak().first()
    }
}

impl FrameTable {
    /// Marks a frame as present but out of the allocator's reach, unless it is marked already
    /// (two reserved ranges may share a frame). Context: boot.
    ///
    /// # Errors
    /// [`Corruption::BadRecord`] if the frame was handed to the allocator before.
    pub fn reserve_once(&self, pfn: Pfn, home: ZoneId) -> Result<(), Corruption> {
        let frame = self.frame(pfn).ok_or(Corruption::BadRecord {
            pfn,
            word: 0,
            check: Check::State,
        })?;
        let word = frame.word();
        if word.is(FrameState::Reserved) {
            return Ok(());
        }
        if word
            .state()
            .and_then(|state| state.after(Event::Reserve))
            .is_none()
        {
            return Err(Corruption::BadRecord {
                pfn,
                word: word.bits(),
                check: Check::State,
            });
        }
        frame.publish(Word::reserved(home));
        Ok(())
    }

    /// Turns RAM from early allocation into blocks of frames, the largest first that fit, each
    /// handed to `each`. The range must be whole frames of one zone. Context: boot.
    ///
    /// # Errors
    /// [`Corruption::BadRecord`] if a frame was handed out before; the frames from there on stay
    /// as they are.
    pub fn adopt(
        &self,
        ram: EarlyRam,
        home: ZoneId,
        mut each: impl FnMut(Exclusive),
    ) -> Result<(), Corruption> {
        for (pfn, order) in ram.leak().whole_frames().blocks(Order::MAX) {
            let frame = self.frame(pfn).ok_or(Corruption::BadRecord {
                pfn,
                word: 0,
                check: Check::State,
            })?;
            let word = frame.word();
            if word
                .state()
                .and_then(|state| state.after(Event::Adopt))
                .is_none()
            {
                return Err(Corruption::BadRecord {
                    pfn,
                    word: word.bits(),
                    check: Check::State,
                });
            }
            frame.publish(Word::unique(home, order, 0));
            // SAFETY: (1) the RAM's token was consumed, so nobody else has the bytes, and the state
            // word says that no token for the frames was made before; (2) it came from memblock.
            each(unsafe { Exclusive::new(PfnRange::block(pfn, order)) });
        }
        Ok(())
    }

    /// Ends the reservation of the frames of `ram`: their records forget it, so that they can be
    /// [adopted](Self::adopt). Context: boot or task.
    pub fn forget_reserved(&self, ram: &EarlyRam) {
        for pfn in ram.range().whole_frames().iter() {
            let Some(frame) = self.frame(pfn) else {
                continue;
            };
            if frame.word().is(FrameState::Reserved) {
                frame.publish(Word::INTERIOR);
            }
        }
    }
}

impl FrameTable {
    /// Cuts a block that was handed out into the fewest blocks such that one starts at `at`, and
    /// answers the two sides. Context: any; the caller owns the block.
    pub(crate) fn carve_up(&self, block: Exclusive, at: Pfn) -> (Exclusive, Exclusive) {
        let first = block.frames().first();
        let word = self.frame(first).map_or(Word::INTERIOR, super::Frame::word);
        let (low, high) = Self::split(block, at);
        for part in [&low, &high] {
            for (pfn, order) in part.frames().blocks(Order::MAX) {
                if let Some(frame) = self.frame(pfn) {
                    frame.publish(word.with_order(order));
                }
            }
        }
        (low, high)
    }

    /// Takes the first block off a run of blocks; what is left of the run, if anything, is the
    /// second answer.
    pub(crate) fn first_block(&self, run: Exclusive) -> (Exclusive, Option<Exclusive>) {
        let first = run.frames().first();
        let order = self
            .frame(first)
            .map_or(Order::ZERO, |frame| frame.word().order());
        let (block, rest) = Self::split(run, PfnRange::block(first, order).end());
        let rest = (!rest.frames().is_empty()).then_some(rest);
        (block, rest)
    }

    /// Cuts a token in two at a frame. The records of both parts are the caller's business.
    fn split(block: Exclusive, at: Pfn) -> (Exclusive, Exclusive) {
        let frames = block.frames();
        let low = PfnRange::from_numbers(
            frames.first().as_u64(),
            at.as_u64().min(frames.end().as_u64()),
        );
        let high = PfnRange::from_numbers(low.end().as_u64(), frames.end().as_u64());
        // SAFETY: `block` was consumed for the two parts, which do not overlap.
        let low = unsafe { Exclusive::new(low) };
        // SAFETY: as above.
        (low, unsafe { Exclusive::new(high) })
    }

    /// Turns the raw number of a block back into its token. Context: any.
    ///
    /// # Errors
    /// [`FreeError`] says what the number stands for instead; nothing is changed.
    ///
    /// # Safety
    ///
    /// The caller owns the block: it was handed out as a raw number, was not reclaimed since,
    /// and nobody uses its bytes any more. (The checks are diagnosis: a block that was freed and
    /// handed out again in the same shape cannot be told from the one meant.)
    #[inline]
    pub unsafe fn reclaim(&self, pfn: Pfn, order: Order) -> Result<Exclusive, FreeError> {
        // SAFETY: the caller's word.
        Ok(unsafe { self.claim(pfn, order) }?.block)
    }

    /// As [`Self::reclaim`], with the record that says so.
    ///
    /// # Errors
    /// As [`Self::reclaim`].
    ///
    /// # Safety
    /// As [`Self::reclaim`].
    #[inline(always)]
    pub(crate) unsafe fn claim(&self, pfn: Pfn, order: Order) -> Result<Claimed<'_>, FreeError> {
        if let Some(frame) = self.frame(pfn) {
            let word = frame.word_acquire();
            if word.is_unique_block(order) && pfn.is_aligned(order) {
                // SAFETY: (1) the caller's word; (2) only adopted frames become unique.
                let block = unsafe { Exclusive::new(PfnRange::block(pfn, order)) };
                return Ok(Claimed { block, frame, word });
            }
        }
        Err(self.why_not_free(pfn, order))
    }

    /// A block with its record; `None` if the token is not for a block of this table.
    pub(crate) fn claimed(&self, block: Exclusive) -> Option<Claimed<'_>> {
        let frame = self.frame(block.frames().first())?;
        let word = frame.word();
        Some(Claimed { block, frame, word })
    }

    #[cold]
    #[inline(never)]
    fn why_not_free(&self, pfn: Pfn, order: Order) -> FreeError {
        let Some(frame) = self.frame(pfn) else {
            return FreeError::NotPresent;
        };
        if !pfn.is_aligned(order) {
            return FreeError::Misaligned;
        }
        let word = frame.word_acquire();
        match word.state() {
            Some(FrameState::Unique) => FreeError::WrongOrder {
                actual: word.order(),
            },
            Some(FrameState::Shared) => FreeError::Shared,
            Some(FrameState::Free | FrameState::Cached) => FreeError::AlreadyFree,
            Some(FrameState::Reserved) => FreeError::Reserved,
            Some(FrameState::Interior) => self.why_interior(pfn),
            None => FreeError::Damaged,
        }
    }

    fn why_interior(&self, pfn: Pfn) -> FreeError {
        match self.head(pfn) {
            None => FreeError::NotPresent,
            Some(head)
                if matches!(
                    head.frame().word().state(),
                    Some(FrameState::Free | FrameState::Cached)
                ) =>
            {
                FreeError::AlreadyFree
            }
            Some(head) => FreeError::Interior { head: head.pfn() },
        }
    }
}

/// One counted reference to a shared block.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping the token leaks the reference: give it to `FrameTable::put`"]
pub struct Reference {
    pfn: Pfn,
}

impl Reference {
    /// Turns a raw frame number back into the reference that it stands for.
    ///
    /// # Safety
    ///
    /// The caller holds a reference to the block that starts at `pfn`, as a number, and gives it
    /// up with this call.
    pub const unsafe fn from_raw(pfn: Pfn) -> Self {
        Self { pfn }
    }

    /// The block's first frame.
    #[must_use]
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Gives up the token for a raw frame number, which stands for the reference from now on.
    #[must_use = "the reference leaks unless it is put by number"]
    pub const fn into_raw(self) -> Pfn {
        self.pfn
    }
}

impl FrameTable {
    /// Makes a block reference-counted; the answer is its first reference. Context: any.
    ///
    /// # Errors
    /// The token, if the record does not show a block with one owner.
    pub fn share(&self, block: Exclusive) -> Result<Reference, Exclusive> {
        let pfn = block.frames().first();
        let Some(frame) = self.frame(pfn) else {
            return Err(block);
        };
        let word = frame.word();
        if !word.is(FrameState::Unique) {
            return Err(block);
        }
        // A reader that still knows the block from an earlier life takes a reference only once
        // the count says so, and by then the state must say shared.
        frame.change_state(FrameState::Unique, FrameState::Shared);
        frame.refs().set(1);
        let _ = block.leak();
        Ok(Reference { pfn })
    }

    /// Takes another reference to a shared block, found by any of its frames, unless it is not
    /// shared or its last reference is gone (Linux: `get_page_unless_zero`). Context: any.
    ///
    /// Between looking the frame up and taking the reference, the block may have been freed and
    /// handed out anew: whoever found the frame by other means than a reference checks, now that
    /// it cannot go away, that it still is what was looked for.
    #[must_use]
    pub fn try_get(&self, pfn: Pfn) -> Option<Reference> {
        let head = self.head(pfn)?;
        let frame = head.frame();
        // The count is non-zero only while the block is shared, so a successful increment
        // proves the state as of then, and keeps it.
        let got = frame.word_acquire().is(FrameState::Shared) && frame.refs().inc_not_zero();
        got.then(|| Reference { pfn: head.pfn() })
    }

    /// Drops a reference to a shared block (Linux: `put_page`). Context: any.
    ///
    /// # Errors
    /// [`Corruption`] if the block is not shared or its count was lost; nothing is freed then.
    pub fn put(&self, reference: Reference) -> Result<PutOutcome, Corruption> {
        let pfn = reference.pfn;
        let missing = Corruption::BadRecord {
            pfn,
            word: 0,
            check: Check::State,
        };
        let frame = self.frame(pfn).ok_or(missing)?;
        let word = frame.word();
        if !word.is(FrameState::Shared) {
            return Err(Corruption::BadRecord {
                pfn,
                word: word.bits(),
                check: Check::State,
            });
        }
        match frame.refs().dec() {
            Dropped::Shared => Ok(PutOutcome::Shared),
            Dropped::Saturated => Err(Corruption::RefcountSaturated { pfn }),
            Dropped::Last => {
                frame.change_state(FrameState::Shared, FrameState::Unique);
                // SAFETY: (1) the last reference is gone and none can be taken from zero, so the
                // block is ours alone; (2) only adopted frames become shared.
                let block = unsafe { Exclusive::new(PfnRange::block(pfn, word.order())) };
                Ok(PutOutcome::Last(block))
            }
        }
    }
}
