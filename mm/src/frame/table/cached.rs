//! Blocks on the lists of a CPU: their tokens are given up, their records say so.

use core::ptr::NonNull;

use crate::addr::{Order, Pfn, PfnRange, to_index};
use crate::frame::{CachedWord, Frame, FrameTable, FreeError, Word, ZoneId};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;

impl FrameTable {
    /// Cuts a block into pieces of the order of `word`, all marked as on a CPU's list; each goes to `each`,
    /// lowest first. Context: any.
    pub(crate) fn cache_pieces(
        &self,
        block: Exclusive,
        word: CachedWord,
        mut each: impl FnMut(Pfn, Record),
    ) {
        let (word, order) = (word.word(), word.word().order());
        let frames = block.leak();
        let Some(section) = self.section(frames.first().section()) else {
            return;
        };
        let mut pfn = frames.first();
        for piece in section.of(frames).chunks_exact(to_index(order.frames())) {
            let frame = &piece[0];
            frame.publish(word);
            // INVARIANT: a section is part of the table.
            let record = Record {
                frame: NonNull::from(frame),
            };
            each(pfn, record);
            pfn = pfn.saturating_add(order.frames());
        }
    }

    /// As [`Self::uncache`] for a block of any zone and order, as its record says, which is told.
    ///
    /// # Errors
    /// [`Corruption::NotFree`] if the record says that it is on no list; nothing is changed then.
    pub(crate) fn uncache_found<P: Platform>(
        &self,
        pfn: Pfn,
    ) -> Result<(Exclusive, ZoneId), Corruption> {
        let word = self.frame(pfn).map_or(Word::INTERIOR, Frame::word_acquire);
        let cached = CachedWord::found(word).ok_or(Corruption::NotFree {
            pfn,
            word: word.bits(),
        })?;
        let block = self.uncache::<P>(pfn, cached, cached.unique())?;
        Ok((block, word.zone_id()))
    }

    /// Turns a block on a list of this CPU back into its token, marked with `word` from now on.
    /// `cached` is what its record must say.
    ///
    /// # Errors
    /// [`Corruption::NotFree`] if the record says otherwise; nothing is changed then.
    #[inline(always)]
    pub(crate) fn uncache<P: Platform>(
        &self,
        pfn: Pfn,
        cached: CachedWord,
        word: Word,
    ) -> Result<Exclusive, Corruption> {
        let record = self.record(pfn).ok_or(not_free(pfn, Word::INTERIOR))?;
        record.uncache::<P>((pfn, cached.order()), cached, word)
    }

    /// Marks a block that is given up as one on a CPU's list.
    ///
    /// # Errors
    /// The token, if it is not for a block of this table.
    pub(crate) fn cache(
        &self,
        block: Exclusive,
        cached: CachedWord,
    ) -> Result<(Pfn, Record), Exclusive> {
        let Some(record) = self.record(block.frames().first()) else {
            return Err(block);
        };
        record.get().publish(cached.word());
        Ok((block.leak().first(), record))
    }

    /// The record of a frame, to be kept with its number.
    #[inline]
    pub(crate) fn record(&self, pfn: Pfn) -> Option<Record> {
        self.frame(pfn).map(|frame| Record {
            frame: NonNull::from(frame),
        })
    }

    /// A block that the caller gives up, if its number says that it is one: see [`Offer`].
    ///
    /// # Safety
    ///
    /// If the record says that the block has one owner, that is the caller, who gives it up.
    #[inline(always)]
    pub(crate) unsafe fn offer<P: Platform>(&self, pfn: Pfn) -> Option<Offer> {
        let frame = NonNull::from(self.glance::<P>(pfn)?);
        let record = Record { frame };
        let word = record.get().word_acquire();
        // INVARIANT: the caller's word.
        Some(Offer { pfn, record, word })
    }

    /// As [`Self::offer`], surely as its section's records have it.
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn offer_by_section(&self, pfn: Pfn) -> Option<Offer> {
        let record = self.record(pfn)?;
        let word = record.get().word_acquire();
        // INVARIANT: the caller's word.
        Some(Offer { pfn, record, word })
    }

    /// The same offer as its section's records have it, if what was seen of it may be old.
    #[inline(always)]
    pub(crate) fn look_again(&self, offer: Offer) -> Offer {
        match offer.word == Word::INTERIOR {
            true => self.by_section(offer),
            false => offer,
        }
    }

    #[cold]
    #[inline(never)]
    fn by_section(&self, offer: Offer) -> Offer {
        let found = self.record(offer.pfn).map(|record| Offer {
            record,
            word: record.get().word_acquire(),
            pfn: offer.pfn,
        });
        found.unwrap_or(offer)
    }

    /// A block that is given up.
    ///
    /// # Errors
    /// The token, if it is not for a block of this table.
    #[inline]
    pub(crate) fn offered<P: Platform>(&self, block: Exclusive) -> Result<Offer, Exclusive> {
        let pfn = block.frames().first();
        let Some(frame) = self.glance::<P>(pfn) else {
            return Err(block);
        };
        let record = Record {
            frame: NonNull::from(frame),
        };
        let word = record.get().word();
        let _ = block.leak();
        // INVARIANT: the token was consumed.
        Ok(Offer { pfn, record, word })
    }
}

/// The way to the record of one frame, without looking the section up.
///
/// # Invariants
/// It came from a frame table; whoever keeps a copy lives in the same `Memory`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    frame: NonNull<Frame>,
}

// SAFETY: a shared reference to a record, which is atomics.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

/// The record of no frame. Nobody writes to it: it says that it starts no block.
static NOBODY: Frame = Frame::new();

impl Record {
    /// What stands where there is none.
    pub(crate) const NOBODYS: Self = Self {
        // INVARIANT: a static's address; a table knows as much of frames that it does not know.
        frame: NonNull::from_ref(&NOBODY),
    };

    /// The record.
    #[inline(always)]
    pub(crate) const fn get(&self) -> &Frame {
        // SAFETY: records are initialised and live as long as their table (the invariant).
        unsafe { self.frame.as_ref() }
    }

    /// As [`FrameTable::uncache`], for a block whose order is known to be `order`.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub(crate) fn uncache<P: Platform>(
        self,
        (pfn, order): (Pfn, Order),
        cached: CachedWord,
        word: Word,
    ) -> Result<Exclusive, Corruption> {
        self.claim::<P>((pfn, order), || (cached.word(), word))
    }

    /// The same where both words are best read last.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub(crate) fn uncache_by<P: Platform>(
        self,
        (pfn, order): (Pfn, Order),
        words: impl FnOnce() -> (CachedWord, Word),
    ) -> Result<Exclusive, Corruption> {
        self.claim::<P>((pfn, order), || {
            let (cached, word) = words();
            (cached.word(), word)
        })
    }

    /// Takes a free block of exactly `order`, which is on no list of its zone, and writes `word`,
    /// which names that zone and order, into its record. Context: zone lock held.
    ///
    /// # Errors
    /// [`Corruption::NotFree`] if the record says otherwise; nothing is changed then.
    #[inline(always)]
    pub(crate) fn take_free<P: Platform>(
        self,
        (pfn, order): (Pfn, Order),
        word: Word,
    ) -> Result<Exclusive, Corruption> {
        self.claim::<P>((pfn, order), || (word.freed(), word))
    }

    /// Turns a block that nobody has into its token. Of `words` the record must say the first, and says
    /// the second then.
    #[inline(always)]
    fn claim<P: Platform>(
        self,
        (pfn, order): (Pfn, Order),
        words: impl FnOnce() -> (Word, Word),
    ) -> Result<Exclusive, Corruption> {
        let frame = self.get();
        let found = frame.word();
        let (nobodys, word) = words();
        if found != nobodys {
            return Err(not_free(pfn, found));
        }
        if P::PROFILE.is_debug() {
            frame
                .exchange(found, word)
                .map_err(|found| not_free(pfn, found))?;
        } else {
            frame.publish(word);
        }
        // SAFETY: (1) the record said cached or free, which it says only after the token was consumed,
        // and no longer does; (2) only adopted frames are ever either.
        Ok(unsafe { Exclusive::new(PfnRange::block(pfn, order)) })
    }
}

#[cold]
const fn not_free(pfn: Pfn, found: Word) -> Corruption {
    let word = found.bits();
    Corruption::NotFree { pfn, word }
}

/// A block that its owner gives up, and what its record says; not checked yet.
///
/// # Invariants
/// If the record says that a block with one owner starts at `pfn`, this value is that owner.
#[derive(Debug)]
#[must_use = "dropping it leaks the block"]
pub(crate) struct Offer {
    pfn: Pfn,
    record: Record,
    word: Word,
}

impl Offer {
    /// The first frame.
    #[inline(always)]
    pub(crate) const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// What the record says.
    #[inline(always)]
    pub(crate) const fn word(&self) -> Word {
        self.word
    }

    /// The same block, not compound any more.
    #[inline(always)]
    pub(crate) const fn split(self) -> Self {
        // INVARIANT: what says that it is a block with an owner stays as it is.
        Self {
            word: self.word.simple(),
            ..self
        }
    }

    /// Makes sure that nobody else gives the same block up at this moment: of several, one is the first. For the profile
    /// `debug`; it is one locked instruction. What is no block of `order` stays as it is.
    ///
    /// # Errors
    /// [`FreeError::AlreadyFree`]: somebody else was first.
    pub(crate) fn alone(self, order: Order) -> Result<Self, FreeError> {
        let record = self.record.get();
        let word = record.word_acquire();
        if !self.is_block(order) || !word.is_unique_block(order) {
            return Ok(Self { word, ..self });
        }
        if word == word.going() {
            return Err(FreeError::AlreadyFree);
        }
        let first = record.exchange(word, word.going());
        first.map_err(|_| FreeError::AlreadyFree)?;
        // INVARIANT: what says that it is a block with an owner stays as it is.
        Ok(Self {
            word: self.word.going(),
            ..self
        })
    }

    /// Marks the block as one on a CPU's list, if its record says `owned`: that it has an owner, is of
    /// the list's zone, order and mobility, and has no flag set.
    ///
    /// # Errors
    /// The offer, if the block is another one or none.
    #[inline(always)]
    pub(crate) fn cache(self, (cached, owned): (CachedWord, Word)) -> Result<(Pfn, Record), Self> {
        if self.word != owned {
            return Err(self);
        }
        self.record.get().publish(cached.word());
        Ok((self.pfn, self.record))
    }

    /// Marks the block as free.
    ///
    /// # Errors
    /// The offer, if it is not a block of `order` with one owner.
    #[inline(always)]
    pub(crate) fn set_free(self, order: Order) -> Result<(Pfn, Record), Self> {
        if !self.is_block(order) {
            return Err(self);
        }
        self.record.get().publish(self.word.freed());
        Ok((self.pfn, self.record))
    }

    #[inline]
    fn is_block(&self, order: Order) -> bool {
        self.word.is_unique_block(order) && self.pfn.is_aligned(order)
    }

    /// The block's token.
    ///
    /// # Errors
    /// Why it is not the number of a block of `order` with one owner.
    #[inline]
    pub(crate) fn accept(self, frames: &FrameTable, order: Order) -> Result<Exclusive, FreeError> {
        let (pfn, is_block) = (self.pfn, self.is_block(order));
        if !is_block && !frames.look_again(self).is_block(order) {
            return Err(frames.why_not_free(pfn, order));
        }
        // SAFETY: (1) the invariant; (2) only adopted frames become unique.
        Ok(unsafe { Exclusive::new(PfnRange::block(pfn, order)) })
    }
}
