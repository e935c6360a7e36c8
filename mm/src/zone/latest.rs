//! The short way to a block that just came back: nothing is halved or merged on it.
#![forbid(unsafe_code)]

use super::{NumaEvent, Zone};
use crate::addr::Order;
use crate::buddy::{Request, Trace, tell_block};
use crate::frame::Offer;
use crate::mem::Exclusive;
use crate::platform::{CpuId, Platform};
use crate::report::EventKind;
use crate::sync::atomic::Ordering;

impl Zone {
    /// Takes the block that came back last, if it is as the request wants it and the zone stays above its
    /// `low` mark: nothing is halved or merged then. Context: as [`Self::alloc`].
    #[inline(always)]
    pub(crate) fn alloc_latest<P: Platform>(
        &self,
        platform: &P,
        cpu: CpuId,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let (order, word) = (request.order(), request.mark(self.unmarked));
        if self.latest.load(Ordering::Relaxed) != word.owned().bits()
            || !self.spares(order, self.low_floor(&request))
        {
            return None;
        }
        let mut areas = self.areas.lock(platform);
        let block = areas.take_latest(order, word, platform, trace);
        if let Some(block) = &block {
            tell_block(platform, EventKind::Alloc, block);
            areas.note_alloc(order);
            self.note_numa(cpu, NumaEvent::Unlisted, 1);
        }
        self.unlock(areas);
        block
    }

    /// Gives a block back, to be merged when anything else happens. Context: as [`Self::free`].
    ///
    /// # Errors
    /// The offer: it is no block, not of this zone, or there is more to it.
    #[inline(always)]
    pub(crate) fn free_latest<P: Platform>(
        &self,
        platform: &P,
        offer: Offer,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), Offer> {
        let mut areas = self.areas.lock(platform);
        let given = areas.give_latest(offer, order, trace);
        if given.is_ok() {
            areas.note_free(order.frames());
        }
        self.unlock(areas);
        given
    }
}
