//! Exact ranges of a zone: isolated, taken, put back.
//!
//! A range may be as large as the zone. The zone's lock is held for a few pageblocks at a time,
//! so that others wait for microseconds however large it is. What keeps others out of the range
//! meanwhile is isolation: all of it is isolated before the first frame is taken, and from an
//! isolated pageblock nobody is served.
#![forbid(unsafe_code)]

use super::Zone;
use crate::addr::PfnRange;
use crate::buddy::{FreeAreas, MigrateType, RangeError, tell_block};
use crate::config::PAGEBLOCK_FRAMES;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::EventKind;

/// Frames that are dealt with under one hold of the lock, at most: eight pageblocks. A pair that
/// may be one block of the largest order is never cut.
const HOLD: u64 = 8 * PAGEBLOCK_FRAMES;

/// A range cut at multiples of [`HOLD`].
fn parts(range: PfnRange) -> impl Iterator<Item = PfnRange> {
    let mut first = range.first().as_u64();
    let end = range.end().as_u64();
    core::iter::from_fn(move || {
        let next = (first | (HOLD - 1)).saturating_add(1).min(end);
        let part = PfnRange::from_numbers(first, next);
        first = next;
        (!part.is_empty()).then_some(part)
    })
}

impl Zone {
    /// Takes exactly the frames of `range`, whose pageblocks must hold nothing in use there. The
    /// tokens of the pieces go to `each`, lowest first. While it is at work, requests of others
    /// find less memory than there is. Context: task.
    ///
    /// # Errors
    /// [`RangeError`]. Nothing is changed then, but pieces that `each` was given already are the
    /// caller's to give back; that happens only if somebody else ends the isolation meanwhile.
    pub(crate) fn alloc_range<P: Platform>(
        &self,
        platform: &P,
        range: PfnRange,
        kind: MigrateType,
        mut each: impl FnMut(Exclusive),
    ) -> Result<(), RangeError> {
        self.isolate_if(platform, range, |areas, part| {
            areas.check_cma(part, kind)?;
            areas.check_frames(part)
        })?;
        for part in parts(range) {
            let mut areas = self.lock(platform);
            let mut taken: u64 = 0;
            let outcome = areas.take_range::<P>(part, kind, |block| {
                taken = taken.wrapping_add(block.frames().frames());
                // They leave the free areas for their owner at once.
                tell_block(platform, EventKind::Take, &block);
                tell_block(platform, EventKind::Alloc, &block);
                each(block);
            });
            areas.unisolate(part);
            self.note_isolation(&areas);
            areas.note_alloc_frames(taken);
            self.unlock(areas);
            if outcome.is_err() {
                let (rest, end) = (part.end().as_u64(), range.end().as_u64());
                self.unisolate(platform, PfnRange::from_numbers(rest, end));
                return outcome;
            }
        }
        Ok(())
    }

    /// Takes the pageblocks around `range` out of use (Linux: `start_isolate_page_range`). Nothing
    /// goes onto the page lists of CPUs until all pageblocks of the zone are back; what is on them
    /// already is served until it is drained
    /// ([`Memory::drain_all_pages`](crate::system::Memory::drain_all_pages)). Context: task.
    ///
    /// # Errors
    /// [`RangeError`]; nothing is changed then.
    pub fn isolate<P: Platform>(&self, platform: &P, range: PfnRange) -> Result<(), RangeError> {
        self.isolate_if(platform, range, |_, _| Ok(()))
    }

    /// Isolates a range if all its pageblocks can be, and `allows` says so of every part.
    fn isolate_if<P: Platform>(
        &self,
        platform: &P,
        range: PfnRange,
        allows: impl Fn(&FreeAreas, PfnRange) -> Result<(), RangeError>,
    ) -> Result<(), RangeError> {
        self.check_span(range)?;
        for part in parts(range) {
            self.lock(platform).check_blocks(part)?;
        }
        // Most refusals are found before anything is isolated.
        for part in parts(range) {
            allows(&self.lock(platform), part)?;
        }
        for part in parts(range) {
            let mut areas = self.lock(platform);
            // Others may have been there since.
            let outcome = allows(&areas, part).and_then(|()| areas.isolate(part));
            self.note_isolation(&areas);
            self.unlock(areas);
            if outcome.is_err() {
                let (first, done) = (range.first().as_u64(), part.first().as_u64());
                self.unisolate(platform, PfnRange::from_numbers(first, done));
                return outcome;
            }
        }
        Ok(())
    }

    /// Whether a range lies in the zone's span; the first frame that does not is the error.
    fn check_span(&self, range: PfnRange) -> Result<(), RangeError> {
        let (first, end) = (range.first(), self.span.end());
        if range.is_empty() {
            return Err(RangeError::Empty);
        }
        if self.span.covers(range) {
            return Ok(());
        }
        let pfn = if self.span.contains(first) {
            end
        } else {
            first
        };
        Err(RangeError::NotInZone { pfn })
    }

    /// Puts the pageblocks around `range` back into use (Linux: `undo_isolate_page_range`).
    /// Context: task.
    pub fn unisolate<P: Platform>(&self, platform: &P, range: PfnRange) {
        for part in parts(range.intersect(self.span)) {
            let mut areas = self.lock(platform);
            areas.unisolate(part);
            self.note_isolation(&areas);
            self.unlock(areas);
        }
    }
}
