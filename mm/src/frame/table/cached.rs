//! Blocks on the lists of a CPU: their tokens are given up, their records say so.

use crate::addr::{Pfn, PfnRange};
use crate::frame::{CachedWord, Frame, FrameTable, Word, ZoneId};
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
        mut each: impl FnMut(Pfn),
    ) {
        let (word, order) = (word.word(), word.word().order());
        let frames = block.leak();
        let (first, count) = (frames.first(), frames.frames() >> order.as_u8());
        let Some(section) = self.section(first.section()) else {
            return;
        };
        let start = first.section_offset();
        for piece in 0..count {
            let at = start.wrapping_add(piece << order.as_u8());
            section.at(at).publish(word);
            each(section.pfn(at));
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
        let (cached, order) = (cached.word(), cached.order());
        let damaged = |found: Word| Corruption::NotFree {
            pfn,
            word: found.bits(),
        };
        let frame = self.frame(pfn).ok_or(damaged(Word::INTERIOR))?;
        let found = frame.word();
        if found != cached {
            return Err(damaged(found));
        }
        if P::PROFILE.is_debug() {
            frame.exchange(found, word).map_err(damaged)?;
        } else {
            frame.publish(word);
        }
        // SAFETY: (1) the record said cached, which it says only after the token was consumed, and
        // no longer does; (2) only adopted frames are ever cached.
        Ok(unsafe { Exclusive::new(PfnRange::block(pfn, order)) })
    }
}
