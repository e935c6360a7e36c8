//! A zone seen from a context that must not wait: an NMI handler, which may have interrupted the
//! holder of the zone lock or the user of this CPU's lists.
#![forbid(unsafe_code)]

use super::Zone;
use super::listed::Kept;
use crate::addr::Order;
use crate::buddy::{List, Request};
use crate::frame::{Claimed, FrameTable};
use crate::mem::Exclusive;
use crate::platform::Platform;
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
        frames: &FrameTable,
        request: Request,
    ) -> Option<Exclusive> {
        let list = List::serving(request)?;
        let mut own = self.pagesets.enter(pin)?;
        let (set, gauges) = own.parts();
        let taken = set.take(list, request.order(), gauges);
        let _ = own.leave();
        Self::uncache(pin.platform(), frames, taken?, request.is_compound())
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
        let block = Self::take(&mut areas, platform, request, self.home, &mut ());
        self.unlock(areas);
        Ok(block)
    }

    /// Puts a block of `order` on this CPU's lists, if nobody is at them and nothing has to go back
    /// for it. Context: any, on a CPU that is not away.
    pub(crate) fn free_listed_nolock<P: Platform>(
        &self,
        pin: &Pin<'_, P>,
        frames: &FrameTable,
        claimed: Claimed<'_>,
        order: Order,
    ) -> Kept {
        let entered = List::of(claimed.word()).zip(self.pagesets.enter(pin));
        let Some((list, mut own)) = entered else {
            return Kept::Refused(claimed.into_block());
        };
        let (set, gauges) = own.parts();
        if self.is_paused() || !set.has_room(order, gauges) {
            return Kept::Refused(claimed.into_block());
        }
        let pfn = claimed.cache(set.word(list));
        let _ = set.put(list, order, pfn, (frames, gauges));
        let _ = own.leave();
        Kept::Listed
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
        let Some(mut areas) = self.areas.try_lock(platform) else {
            return Err(block);
        };
        let order = block.order();
        let given = areas.give(block, order, &mut ());
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
