//! The records of one section, reached without further checks.

use core::ptr::NonNull;

use crate::addr::{Order, Pfn, PfnRange, to_index};
use crate::config::{SECTION_FRAME_SHIFT, SECTION_FRAMES};
use crate::frame::{Event, Frame, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;

const LEN: usize = to_index(SECTION_FRAMES);

/// The 32,768 records of a section.
///
/// # Invariants
/// `records` are the initialised records of section `section`, and live as long as the frame
/// table they came from; whoever keeps a copy lives in the same `Memory`.
#[derive(Clone, Copy, Debug)]
pub struct SectionFrames {
    section: u64,
    records: NonNull<[Frame; LEN]>,
}

// SAFETY: a shared reference to records, which are atomics.
unsafe impl Send for SectionFrames {}
// SAFETY: as above.
unsafe impl Sync for SectionFrames {}

impl SectionFrames {
    /// Wraps a pointer.
    ///
    /// # Safety
    /// The type's invariant.
    pub(super) const unsafe fn new(section: u64, records: NonNull<[Frame; LEN]>) -> Self {
        Self { section, records }
    }

    /// The frame `offset` frames into the section; the offset wraps at the section's end.
    #[inline]
    #[must_use]
    pub(crate) const fn pfn(self, offset: u64) -> Pfn {
        Pfn::new((self.section << SECTION_FRAME_SHIFT) | (offset & (SECTION_FRAMES - 1)))
    }

    /// The record of the frame `offset` frames into the section; the offset wraps likewise.
    #[inline]
    #[must_use]
    pub(crate) fn at(&self, offset: u64) -> &Frame {
        // SAFETY: the invariant.
        let records = unsafe { self.records.as_ref() };
        &records[to_index(offset & (SECTION_FRAMES - 1))]
    }

    /// The records of a range that lies in the section; none of one that does not.
    #[inline]
    pub(crate) fn of(&self, frames: PfnRange) -> &[Frame] {
        let first = to_index(frames.first().section_offset());
        // SAFETY: the invariant.
        let records = unsafe { self.records.as_ref() };
        let behind = records.get(first..).unwrap_or_default();
        behind.get(..to_index(frames.frames())).unwrap_or_default()
    }

    /// Takes the block of `order` at `offset`, which starts a free block of at least that order,
    /// and writes `word` into its record. The allocator has removed it from its lists and given
    /// the rest, if any, records of its own. Context: zone lock held.
    ///
    /// # Errors
    /// [`Corruption::NotFree`] if the record says otherwise; nothing is changed then.
    #[inline]
    pub(crate) fn take<P: Platform>(
        &self,
        offset: u64,
        order: Order,
        word: Word,
    ) -> Result<Exclusive, Corruption> {
        let (pfn, frame) = (self.pfn(offset), self.at(offset));
        let found = frame.word();
        let is_free = found.after(Event::Allocate).is_some();
        let intact = is_free && found.order() >= order && pfn.is_aligned(order);
        if !intact {
            return Err(Corruption::NotFree {
                pfn,
                word: found.bits(),
            });
        }
        if P::PROFILE.is_debug() {
            let taken = frame.exchange(found, word);
            taken.map_err(|now| Corruption::NotFree {
                pfn,
                word: now.bits(),
            })?;
        } else {
            frame.publish(word);
        }
        // SAFETY: (1) the record said free, which it says only after the token was consumed, and
        // no longer does; (2) only adopted frames ever become free.
        Ok(unsafe { Exclusive::new(PfnRange::block(pfn, order)) })
    }
}
