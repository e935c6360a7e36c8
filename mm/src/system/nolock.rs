//! Pages for contexts that must not wait, NMI handlers above all.
//!
//! An NMI handler may have interrupted the holder of any lock, and the user of this CPU's page lists. So
//! nothing here spins. Where this CPU's lists are in use, or it is away, a zone is asked if its lock is free.
//! Where it is not, an allocation would block, and says so; a freed block is left on a stack that
//! whoever may wait gives back ([`defer`](super::defer)).
#![forbid(unsafe_code)]

use super::{AllocError, Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, Request};
use crate::frame::{FreeError, Offer};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::sync::Pin;
use crate::zone::{Contended, Kept, Zone};

impl<P: Platform> Memory<P> {
    /// Allocates `2^order` pages without waiting for anybody (Linux: `alloc_pages_nolock`): from
    /// this CPU's lists, or from a zone above its `low` mark that nobody is at. Flags that ask for
    /// more than that (reclaim, reserves) count for nothing. Context: any, NMI included.
    ///
    /// # Errors
    /// [`AllocError::WouldBlock`] where a zone could not be asked; otherwise as
    /// [`Self::alloc_pages`]. Failures are not reported.
    #[track_caller]
    pub fn alloc_pages_nolock(&self, gfp: Gfp, order: Order) -> Result<Pfn, AllocError> {
        let request = Request::new(gfp, order)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        let node = core
            .near_node(&self.platform)
            .ok_or(AllocError::NoSuchNode)?;
        let mut error = AllocError::OutOfMemory;
        for zone in core.zones_for(node.into(), &request) {
            let floor = zone.low_floor(&request);
            match self.try_zone(core, zone, &request, floor) {
                Ok(None) => {}
                Err(Contended) => error = AllocError::WouldBlock,
                Ok(Some(block)) => {
                    let Some(block) = self.prepare(core, &request, block) else {
                        continue;
                    };
                    return Ok(block.leak().first());
                }
            }
        }
        Err(error)
    }

    fn try_zone(
        &self,
        core: &Core,
        zone: &Zone,
        request: &Request,
        floor: u64,
    ) -> Result<Option<Exclusive>, Contended> {
        let pin = Pin::new(&self.platform);
        if core.cpus.presence.is_present(pin.cpu()) {
            let listed = zone.take_listed_nolock(&pin, *request);
            if listed.is_some() {
                return Ok(listed);
            }
        }
        if !zone.spares(request.order(), floor) {
            return Ok(None);
        }
        zone.try_alloc(&self.platform, request)
    }

    /// Gives a block of `order` back without waiting for anybody.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn release_nolock(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
    ) -> Result<(), FreeError> {
        let offer = Self::alone(&core.frames, offer, order)?;
        let word = offer.word();
        let block = offer.accept(&core.frames, order)?;
        let Some(block) = core.wipe(&self.platform, block) else {
            return Ok(());
        };
        let Some(zone) = core.zone(word.zone_id()) else {
            self.lose(block.leak().first(), order);
            return Ok(());
        };
        let pin = Pin::new(&self.platform);
        let kept = if core.cpus.presence.is_present(pin.cpu()) {
            zone.free_listed_nolock(&pin, &core.frames, (block, word))
        } else {
            Kept::Refused(block)
        };
        drop(pin);
        if let Kept::Refused(block) = kept
            && let Err(block) = zone.try_free(&self.platform, block)
            && let Err(block) = self.free_later(core, block)
        {
            self.lose(block.leak().first(), order);
        }
        Ok(())
    }
}
