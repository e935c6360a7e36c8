//! A zone seen from a context that must not wait: an NMI handler, which may have interrupted the
//! holder of the zone lock or the user of this CPU's lists.
#![forbid(unsafe_code)]

use super::listed::Kept;
use super::watermark::AllocFlags;
use super::{NumaEvent, Zone};
use crate::buddy::{List, Mixing, Request, Told, tell_block};
use crate::frame::{FrameTable, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::EventKind;
use crate::sync::Pin;
use crate::sync::atomic::Ordering;

/// The zone lock is taken.
pub(crate) struct Contended;

impl Zone {
    /// Takes a block that this CPU has at hand. A drain that somebody asked for is left to whoever
    /// uses the lists next. Context: any, on a CPU that is not away.
    pub(crate) fn take_listed_nolock<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        request: Request,
    ) -> Option<Exclusive> {
        let list = List::serving(request)?;
        let mut own = self.pagesets.enter(pin)?;
        let (set, gauges) = own.parts();
        let order = request.order();
        let taken = set.take(list, order, gauges);
        let _ = own.leave();
        let block = taken?.hand_out(pin.platform(), order, request.is_compound())?;
        tell_block(pin.platform(), EventKind::Alloc, &block);
        Some(block)
    }

    /// Takes a block from the free areas, if nobody is at them. Context: any.
    ///
    /// # Errors
    /// [`Contended`] where somebody is.
    pub(crate) fn try_alloc<P: Platform>(
        &self,
        platform: &P,
        request: &Request,
    ) -> Result<Option<Exclusive>, Contended> {
        let mut areas = self.areas.try_lock(platform).ok_or(Contended)?;
        let flags = AllocFlags::empty();
        let wanted = (request, flags, Mixing::Allowed);
        let block = Self::take(&mut areas, platform, wanted, self.home, &mut Told(platform));
        if let Some(block) = &block {
            tell_block(platform, EventKind::Alloc, block);
            self.note_numa(platform.current_cpu(), NumaEvent::Unlisted, 1);
        }
        self.unlock(areas);
        Ok(block)
    }

    /// Puts a block whose record says `word` on this CPU's lists, if nobody is at them and nothing has
    /// to go back for it. Context: any, on a CPU that is not away.
    pub(crate) fn free_listed_nolock<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        (block, word): (Exclusive, Word),
    ) -> Kept {
        let Some((list, mut own)) = List::for_word(word).zip(self.pagesets.enter(pin)) else {
            return Kept::Refused(block);
        };
        let order = word.order();
        let (set, gauges) = own.parts();
        if gauges.are_closed() || !set.has_lists(order) || !set.has_room(order, gauges) {
            return Kept::Refused(block);
        }
        tell_block(pin.platform(), EventKind::Free, &block);
        match frames.cache(block, set.words(list).0) {
            Ok(block) => {
                let _ = set.put_anyway(list, order, block, gauges);
                let _ = own.leave();
                Kept::Listed
            }
            Err(block) => Kept::Refused(block),
        }
    }

    /// Gives a block back to the free areas, if nobody is at them. Context: any.
    ///
    /// # Errors
    /// The block: somebody is, or it is not of this zone.
    pub(crate) fn try_free<P: Platform>(
        &self,
        platform: &P,
        block: Exclusive,
    ) -> Result<(), Exclusive> {
        let Some(mut areas) = self.try_lock(platform) else {
            return Err(block);
        };
        let order = block.order();
        tell_block(platform, EventKind::Free, &block);
        let given = areas.give(block, order, &mut Told(platform));
        if given.is_ok() {
            areas.note_free(order.frames());
        }
        self.unlock(areas);
        given
    }

    /// Counts frames that are put off, or with a negative number (as two's complement) that are not
    /// any more.
    pub(crate) fn note_deferred(&self, frames: u64) {
        self.deferred.fetch_add(frames, Ordering::Relaxed);
    }

    /// Frames whose freeing is put off ([`GracePeriods`](crate::system::GracePeriods),
    /// `free_pages_nolock`): they are marked as if on a list of a CPU. Context: any; stale when it arrives.
    #[must_use]
    pub fn deferred_frames(&self) -> u64 {
        self.deferred.load(Ordering::Relaxed)
    }
}
