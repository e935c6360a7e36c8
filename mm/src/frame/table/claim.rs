//! State changes that hand ownership of frames over.
//!
//! Each function here turns one kind of ownership into another: RAM from early allocation into
//! frames, a free block into a token, a raw number back into a token, the last reference into a
//! token. The state word is checked every time, so that even a broken allocator cannot mint two
//! tokens for one block.

use crate::addr::{Order, Pfn, PfnRange};
use crate::frame::{Event, Frame, FrameState, FrameTable, Word, ZoneId};
use crate::mem::{EarlyRam, Exclusive};
use crate::platform::NodeId;
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

impl FrameTable {
    /// The record of a frame that `event` may happen to, its word, and what that will be.
    #[inline]
    fn before(&self, pfn: Pfn, event: Event) -> Result<(&Frame, Word, Word), Corruption> {
        let found = self.frame(pfn).and_then(|frame| {
            let word = frame.word();
            Some((frame, word, word.after(event)?))
        });
        found.ok_or_else(|| self.bad_state(pfn))
    }

    /// The report of a frame that is not in the state that it should be in.
    #[cold]
    fn bad_state(&self, pfn: Pfn) -> Corruption {
        let word = self.frame(pfn).map_or(Word::INTERIOR, Frame::word);
        Corruption::BadRecord {
            pfn,
            word: word.bits(),
            check: Check::State,
        }
    }

    /// Marks a frame as present but out of the allocator's reach, unless it is marked already
    /// (two reserved ranges may share a frame). Context: boot.
    ///
    /// # Errors
    /// [`Corruption::BadRecord`] if the frame was handed to the allocator before.
    pub fn reserve_once(&self, pfn: Pfn, home: ZoneId) -> Result<(), Corruption> {
        match self.before(pfn, Event::Reserve) {
            Ok((frame, ..)) => frame.publish(Word::reserved(home)),
            Err(_) if self.reserved_in(pfn).is_some() => {}
            Err(corruption) => return Err(corruption),
        }
        Ok(())
    }

    /// The node of a frame that is present but out of the allocator's reach. Context: any.
    pub(crate) fn reserved_in(&self, pfn: Pfn) -> Option<NodeId> {
        let word = self.frame(pfn)?.word();
        word.is(FrameState::Reserved).then(|| word.zone_id().node)
    }

    /// Turns RAM from early allocation into blocks of frames, the largest first that fit, each
    /// handed to `each`; a reservation ends with that. The range must be whole frames of one
    /// zone, all reserved or none. Context: boot or task.
    ///
    /// # Errors
    /// [`Corruption::BadRecord`] if a frame was handed out before, and what is left of the RAM:
    /// the frames from there on stay as they are.
    pub fn adopt(
        &self,
        ram: EarlyRam,
        home: ZoneId,
        mut each: impl FnMut(Exclusive),
    ) -> Result<(), (Corruption, EarlyRam)> {
        let mut rest = ram;
        for (pfn, order) in rest.range().whole_frames().blocks(Order::MAX) {
            let block = PfnRange::block(pfn, order);
            let frame = match self.adoptable(block) {
                Ok(frame) => frame,
                Err(corruption) => return Err((corruption, rest)),
            };
            let bytes = block.end().addr().offset_from(rest.range().start());
            let (ram, above) = rest.split_at(bytes.unwrap_or_default());
            rest = above;
            let _ = ram.leak();
            frame.publish(Word::unique(home, order, 0));
            // SAFETY: (1) the RAM's token was consumed, so nobody else has the bytes, and the state
            // word says that no token for the frames was made before; (2) it came from memblock.
            each(unsafe { Exclusive::new(block) });
        }
        let _ = rest.leak();
        Ok(())
    }

    /// The record of the first frame of a block to be adopted. If the frames are reserved, those
    /// behind the first become its interior; frames that never were anything are that already.
    fn adoptable(&self, block: PfnRange) -> Result<&Frame, Corruption> {
        let (first, word, _) = self.before(block.first(), Event::Adopt)?;
        if word.is(FrameState::Reserved) {
            let mut frames = block.iter();
            if let Some(pfn) = frames.find(|&pfn| self.reserved_in(pfn).is_none()) {
                return Err(self.bad_state(pfn));
            }
            for pfn in block.iter().skip(1) {
                let (frame, _, interior) = self.before(pfn, Event::Absorb)?;
                frame.publish(interior);
            }
        }
        Ok(first)
    }
}

impl FrameTable {
    /// Cuts a block that was handed out into the fewest blocks such that one starts at `at`, and
    /// answers the two sides. Context: any; the caller owns the block.
    pub(crate) fn carve_up(&self, block: Exclusive, at: Pfn) -> (Exclusive, Exclusive) {
        let first = block.frames().first();
        let word = self.frame(first).map_or(Word::INTERIOR, Frame::word);
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
        let offer = unsafe { self.offer_by_section(pfn) };
        offer.ok_or(FreeError::NotPresent)?.accept(self, order)
    }

    /// Why a number is not that of a block of `order` with one owner.
    #[cold]
    #[inline(never)]
    pub(super) fn why_not_free(&self, pfn: Pfn, order: Order) -> FreeError {
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
        let Ok((frame, unique, shared)) = self.before(pfn, Event::Share) else {
            return Err(block);
        };
        frame.share(unique, shared);
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
        head.frame()
            .try_get()
            .then(|| Reference { pfn: head.pfn() })
    }

    /// Drops a reference to a shared block (Linux: `put_page`). Context: any.
    ///
    /// # Errors
    /// [`Corruption`] if the block is not shared or its count was lost; nothing is freed then.
    pub fn put(&self, reference: Reference) -> Result<PutOutcome, Corruption> {
        let pfn = reference.pfn;
        let (frame, shared, unique) = self.before(pfn, Event::LastPut)?;
        match frame.put(shared, unique) {
            Dropped::Shared => Ok(PutOutcome::Shared),
            Dropped::Saturated => Err(Corruption::RefcountSaturated { pfn }),
            Dropped::Last => {
                // SAFETY: (1) the last reference is gone and none can be taken from zero, so the
                // block is ours alone; (2) only adopted frames become shared.
                let block = unsafe { Exclusive::new(PfnRange::block(pfn, shared.order())) };
                Ok(PutOutcome::Last(block))
            }
        }
    }
}
