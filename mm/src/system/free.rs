//! Freeing pages: the way of a block back to a list of its CPU, or to its zone.
#![forbid(unsafe_code)]

use super::{Core, Memory, PageLists};
use crate::addr::{Order, Pfn};
use crate::buddy::pageset::classic::Temperature;
use crate::buddy::{List, Told, Trace};
use crate::frame::{FrameTable, FreeError, Offer};
use crate::mem::Exclusive;
use crate::platform::{PageAccess, Platform};
use crate::report::Corruption;
use crate::sync::Pin;
use crate::sync::atomic::Ordering;
use crate::zone::Kept;

impl<P: Platform> Memory<P> {
    /// Gives frames back to their zone. Context: any but NMI.
    #[inline]
    pub(crate) fn release(&self, block: Exclusive) {
        self.release_traced(block, &mut Told(&self.platform));
    }

    pub(crate) fn release_traced(&self, block: Exclusive, trace: &mut impl Trace) {
        let (pfn, order) = (block.frames().first(), block.order());
        let offer = |frames: &FrameTable| frames.offered::<P>(block).ok();
        if self.release_offer(offer, order, trace).is_err() {
            self.lose(pfn, order);
        }
    }

    /// Gives a block of `order` back that `offer` gives up, if it is one of the machine's.
    ///
    /// # Errors
    /// Why it is none.
    #[inline(always)]
    pub(crate) fn release_offer(
        &self,
        offer: impl FnOnce(&FrameTable) -> Option<Offer>,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), FreeError> {
        if List::are_for(order) {
            let pin = Pin::new(&self.platform);
            if let Some(here) = self.here(&pin) {
                // It is the same table, found by the shorter way. Each way lets the pin go by itself.
                let Some(offer) = offer(here.frames()) else {
                    drop(pin);
                    return Err(FreeError::NotPresent);
                };
                let offer = Self::alone(here.frames(), offer, order)?;
                match here.put(offer, order, trace) {
                    Ok(is_drain_wanted) => {
                        if is_drain_wanted {
                            self.serve_drains_here();
                        }
                        drop(pin);
                        return Ok(());
                    }
                    Err((offer, is_drain_wanted)) => {
                        if is_drain_wanted {
                            self.serve_drains_here();
                        }
                        drop(pin);
                        return self.release_unusual(offer, order, Temperature::Hot, trace);
                    }
                }
            }
        }
        let core = self.core().ok_or(FreeError::NotPresent)?;
        let offer = offer(&core.frames).ok_or(FreeError::NotPresent)?;
        let offer = Self::alone(&core.frames, offer, order)?;
        self.release_unusual(offer, order, Temperature::Hot, trace)
    }

    /// Gives a compound block back that `offer` gives up, if CPUs have blocks like it at hand. `false` if not: it stays
    /// its owner's.
    #[inline(always)]
    pub(crate) fn release_at_hand(
        &self,
        offer: impl FnOnce(&FrameTable) -> Option<Offer>,
        trace: &mut impl Trace,
    ) -> bool {
        // Who debugs wants to know who else does so at this moment: the longer way finds out.
        if P::PROFILE.is_debug() {
            return false;
        }
        let pin = Pin::new(&self.platform);
        let Some(here) = self.here(&pin) else {
            return false;
        };
        let Some(offer) = offer(here.frames()) else {
            return false;
        };
        let order = offer.word().listed_compound();
        let put = |order| here.put(offer.split(), order, trace);
        // Each list is found when it is compiled.
        let kept = match order.map(Order::as_u8) {
            Some(1) => put(const { Order::new_or_max(1) }),
            Some(2) => put(const { Order::new_or_max(2) }),
            Some(3) => put(const { Order::new_or_max(3) }),
            _ => return false,
        };
        match kept {
            Ok(is_drain_wanted) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                true
            }
            Err((_, is_drain_wanted)) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                false
            }
        }
    }

    /// In the profile `debug`, has one of several CPUs be the first that give the same block up at once.
    ///
    /// # Errors
    /// [`FreeError::AlreadyFree`] for the others.
    #[inline(always)]
    pub(super) fn alone(
        frames: &FrameTable,
        offer: Offer,
        order: Order,
    ) -> Result<Offer, FreeError> {
        match P::PROFILE.is_debug() {
            true => frames.look_again(offer).alone(order),
            false => Ok(offer),
        }
    }

    /// Gives a block back that is none of those that CPUs have at hand.
    #[inline(never)]
    fn release_unusual(
        &self,
        offer: Offer,
        order: Order,
        temperature: Temperature,
        trace: &mut impl Trace,
    ) -> Result<(), FreeError> {
        let core = self.core().ok_or(FreeError::NotPresent)?;
        let offer = core.frames.look_again(offer);
        let offer = if core.treats_free_pages {
            match self.wiped(core, offer, order)? {
                Some(offer) => offer,
                None => return Ok(()),
            }
        } else {
            offer
        };
        match self.set_aside(core, offer, order, trace) {
            Ok(()) => Ok(()),
            Err(offer) => self.release_to_lists(core, offer, order, temperature, trace),
        }
    }

    /// Does to the bytes of a block what is to be done on its way in, before the zone's lock is taken. Answers nothing if
    /// the block stays out.
    #[inline(never)]
    fn wiped(&self, core: &Core, offer: Offer, order: Order) -> Result<Option<Offer>, FreeError> {
        let block = offer.accept(&core.frames, order)?;
        let Some(block) = core.wipe(&self.platform, block) else {
            return Ok(None);
        };
        let offered = core.frames.offered::<P>(block);
        let offered = offered.map(|offer| core.frames.look_again(offer));
        offered.map(Some).map_err(|_| FreeError::NotPresent)
    }

    /// Gives a block back to this CPU's lists the longer way, or to its zone.
    #[inline(never)]
    fn release_to_lists(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
        temperature: Temperature,
        trace: &mut impl Trace,
    ) -> Result<(), FreeError> {
        let word = offer.word();
        let block = offer.accept(&core.frames, order)?;
        let Some(zone) = core.zone(word.zone_id()) else {
            self.lose(block.leak().first(), order);
            return Ok(());
        };
        let kept = match List::for_word(word) {
            None => Kept::Refused(block),
            Some(list) => {
                let pin = Pin::new(&self.platform);
                zone.free_listed(&pin, &core.frames, (block, list), temperature, trace)
            }
        };
        if let Kept::Refused(block) = kept
            && let Err(block) = zone.free(&self.platform, block, trace)
        {
            self.lose(block.leak().first(), order);
        }
        Ok(())
    }

    /// Gives a block back that CPUs have no lists for, to be merged later, if there is no more to it.
    #[inline(always)]
    fn set_aside(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
        trace: &mut impl Trace,
    ) -> Result<(), Offer> {
        if List::are_for(order) {
            return Err(offer);
        }
        match core.zone(offer.word().zone_id()) {
            Some(zone) => zone.free_latest(&self.platform, offer, order, trace),
            None => Err(offer),
        }
    }

    /// Gives a block of `order` back that nobody has looked at lately.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn release_cold(
        &self,
        core: &Core,
        offer: Offer,
        order: Order,
    ) -> Result<(), FreeError> {
        match core.options.page_lists {
            PageLists::Classic => {
                let offer = Self::alone(&core.frames, offer, order)?;
                self.release_unusual(offer, order, Temperature::Cold, &mut Told(&self.platform))
            }
            PageLists::Off | PageLists::Tuned => {
                self.release_offer(|_| Some(offer), order, &mut Told(&self.platform))
            }
        }
    }

    /// Reports a block that belongs nowhere: its record names no zone, or a wrong one.
    #[cold]
    pub(crate) fn lose(&self, pfn: Pfn, order: Order) {
        self.platform
            .corruption(&Corruption::LostBlock { pfn, order });
    }
}

impl Core {
    /// What happens to the bytes of a block on its way in, before the zone's lock is taken. One that user code still
    /// reaches is reported and stays out of circulation.
    #[inline]
    pub(super) fn wipe<P: Platform>(
        &self,
        platform: &P,
        mut block: Exclusive,
    ) -> Option<Exclusive> {
        if let Some((pfn, backing, count)) = self.map_counts.first_mapped(block.frames()) {
            let report = Corruption::FreedWhileMapped {
                pfn,
                backing,
                count,
            };
            self.quarantine(platform, block, &report);
            return None;
        }
        self.note_free(platform, block.frames());
        if P::PROFILE.is_debug() {
            platform.pages_freed(block.frames());
        }
        let hides = self.options.debug_pagealloc.is_on();
        if hides && (self.options.page_poison || self.options.init_on_free) {
            // What could not be freed at once comes here a second time.
            platform.protect_free_pages(block.frames(), PageAccess::ReadWrite);
        }
        if self.options.page_poison {
            block.poison(platform);
        } else if self.options.init_on_free {
            block.zero(platform);
        }
        if hides {
            platform.protect_free_pages(block.frames(), PageAccess::None);
        }
        Some(block)
    }

    /// Reports damage found in frames, and keeps them from everybody.
    #[cold]
    pub(super) fn quarantine<P: Platform>(
        &self,
        platform: &P,
        block: Exclusive,
        corruption: &Corruption,
    ) {
        platform.corruption(corruption);
        let frames = block.leak().frames();
        self.quarantined.fetch_add(frames, Ordering::Relaxed);
    }
}
