//! Memory of a zone that is there but has no records yet: latent memory.
//!
//! A latent frame is free and counts as such, in [`Zone::free_frames`] and [`Zone::managed`]. It can
//! be handed out only after its section was populated
//! ([`Memory::populate_ahead`](crate::system::Memory::populate_ahead) and requests do that): then it
//! moves, block by block, from one count to the other.
//!
//! # Protocol
//!
//! Which sections are latent is known to the free areas, under the zone lock. They become populated
//! one at a time, under the populate lock of the machine, so a section that was looked up there stays
//! what it was.
#![forbid(unsafe_code)]

use super::watermark::AllocFlags;
use super::{Zone, watermark};
use crate::addr::Order;
use crate::buddy::{MigrateType, Mixing, Request, Told};
use crate::config::SECTION_FRAMES;
use crate::frame::SectionFrames;
use crate::mem::{CarveError, EarlyRam, Exclusive};
use crate::platform::Platform;
use crate::sync::atomic::Ordering;

impl Zone {
    /// Frames that can be handed out at once. Context: any; stale when it arrives.
    #[inline]
    #[must_use]
    pub fn populated_free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Frames in sections that are not populated yet. Context: any; stale when it arrives.
    #[inline]
    #[must_use]
    pub fn latent_frames(&self) -> u64 {
        self.latent.load(Ordering::Relaxed)
    }

    /// As [`Self::spares`], latent memory included.
    pub(crate) fn spares_in_all(&self, order: Order, floor: u64) -> bool {
        watermark::spares(self.free_frames(), order, floor)
    }

    /// Populated frames that requests leave to those that cannot have more populated, as long as they
    /// themselves can: the `min` mark, or a quarter of a section, which is enough until the next one is
    /// populated.
    fn left_for_now(&self) -> u64 {
        self.watermarks.marks().min.min(SECTION_FRAMES / 4)
    }

    /// Whether a block can go and leave `floor` frames free, latent ones included, and enough of them
    /// populated.
    pub(crate) fn spares_for_now(&self, order: Order, floor: u64) -> bool {
        self.spares_in_all(order, floor) && self.spares(order, self.left_for_now())
    }

    /// As [`Self::spares_for_now`], for requests that cannot have memory populated: urgent ones may use
    /// up what is populated.
    pub(crate) fn spares_here(&self, order: Order, floor: u64, flags: AllocFlags) -> bool {
        match flags.intersects(AllocFlags::RESERVES) {
            true => self.spares_in_all(order, floor),
            false => self.spares_for_now(order, floor),
        }
    }

    /// So many populated frames can go and leave `floor` frames in that way.
    pub(crate) fn spare_for_now(&self, floor: u64) -> u64 {
        let populated = self.populated_free();
        if self.latent_frames() == 0 {
            return populated.saturating_sub(floor);
        }
        let populated = populated.saturating_sub(self.left_for_now());
        populated.min(self.free_frames().saturating_sub(floor))
    }

    /// Whether a request shall leave pageblocks of other types alone: it may have more memory
    /// populated.
    #[inline]
    pub(crate) fn mixing(&self, request: &Request) -> Mixing {
        if self.latent_frames() != 0 && request.may_populate() {
            Mixing::Avoided
        } else {
            Mixing::Allowed
        }
    }

    /// Populated frames that shall be free ahead of requests: those that cannot have more populated
    /// live on them.
    fn ahead(&self) -> u64 {
        let high = self.watermarks.marks().high;
        high.saturating_mul(2).max(SECTION_FRAMES)
    }

    /// Whether less is populated ahead of requests than shall be, and there is more.
    pub(crate) fn is_behind(&self) -> bool {
        self.latent_frames() != 0 && self.populated_free() < self.ahead()
    }

    /// Takes note of memory to be populated later: so many frames, in the sections from `first` up to,
    /// not including, `end`. Context: boot.
    pub(crate) fn expect<P: Platform>(&self, platform: &P, (first, end): (u64, u64), frames: u64) {
        self.lock(platform).expect(first, end);
        self.latent.fetch_add(frames, Ordering::Relaxed);
        self.managed.fetch_add(frames, Ordering::Relaxed);
    }

    /// The lowest section to be populated. Context: any but NMI; stale when it arrives.
    pub(crate) fn lowest_latent<P: Platform>(&self, platform: &P) -> Option<u64> {
        self.lock(platform).lowest_latent()
    }

    /// Whether a section is to be populated. Context: as [`Self::lowest_latent`].
    pub(crate) fn is_latent<P: Platform>(&self, platform: &P, section: u64) -> bool {
        self.lock(platform).is_latent(section)
    }

    /// Makes room for the free blocks of a section, which has records now. Context: populate lock held.
    ///
    /// # Errors
    /// As [`FreeAreas::add_area`](crate::buddy::FreeAreas::add_area).
    pub(crate) fn open<P: Platform>(
        &self,
        platform: &P,
        records: SectionFrames,
        ram: EarlyRam,
    ) -> Result<(), CarveError> {
        let mut areas = self.lock(platform);
        areas.add_area(platform, records, ram, MigrateType::Movable)
    }

    /// Hands a block of latent memory to the allocator. Context: populate lock held.
    ///
    /// # Errors
    /// The block, if the zone has no room for it.
    pub(crate) fn adopt_latent<P: Platform>(
        &self,
        platform: &P,
        block: Exclusive,
    ) -> Result<(), Exclusive> {
        let order = block.order();
        let mut areas = self.lock(platform);
        areas.give(block, order, &mut Told(platform))?;
        // First there are more, then fewer again: nobody finds less than there is all the time.
        self.free.store(areas.free_frames(), Ordering::Relaxed);
        self.latent.fetch_sub(order.frames(), Ordering::Relaxed);
        drop(areas);
        Ok(())
    }

    /// No longer counts latent frames, which went elsewhere. Context: populate lock held.
    pub(crate) fn lose_latent(&self, frames: u64) {
        self.latent.fetch_sub(frames, Ordering::Relaxed);
        self.managed.fetch_sub(frames, Ordering::Relaxed);
    }

    /// No longer waits for a section, which cannot be populated. Context: populate lock held.
    pub(crate) fn forget<P: Platform>(&self, platform: &P, section: u64) {
        self.lock(platform).forget(section);
    }
}
