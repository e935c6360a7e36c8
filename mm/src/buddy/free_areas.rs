//! The free areas of a zone: split on the way out, merge on the way in.
//!
//! # Which block is chosen
//!
//! A request takes the pageblock whose *largest* free block is the smallest that still fits, and
//! of several such the lowest. Pageblocks that are nearly full are filled first and those that
//! are nearly empty are left to drain, so free memory gathers in whole pageblocks. A plain
//! last-in-first-out buddy scatters it instead.
//!
//! Everything is bounded: a look-up touches one word per index level, a split or merge at most
//! ten records, a change of a pageblock's type at most 512.
#![forbid(unsafe_code)]

use super::area::{Area, ByKind, ByOrder, base_of, row, slot};
use super::index::{Index, SETS};
use super::latest::Latest;
use super::{MigrateType, Stats};
use crate::addr::{Order, Pfn, PfnRange, Rows, VirtAddr, to_count, to_index};
use crate::collections::SetBank;
use crate::config::{PAGEBLOCK_ORDER, SECTION_FRAME_SHIFT, SECTION_FRAMES};
use crate::frame::{SectionFrames, ZoneId};
use crate::mem::{Array, CarveError, EarlyBox, EarlyRam};
use crate::platform::Platform;

/// One slot for each section that a zone spans.
pub(crate) type AreaSlots = Array<Option<EarlyBox<Area>>>;

bitflags::bitflags! {
    /// What whoever unlocks a zone's free areas has to look at.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Note: u8 {
        /// There are, or were, pageblocks that not every request may use.
        const SPECIAL = 1 << 0;
        /// Types were mixed in a pageblock.
        const FRAGMENTED = 1 << 1;
    }
}

/// Free blocks of a zone. Taking is in `take` and `fallback`, giving back in `give`, exact
/// ranges in `contig`, the recount in `validate`.
#[derive(Debug)]
pub(crate) struct FreeAreas {
    pub(super) home: ZoneId,
    pub(super) first_section: u64,
    pub(super) areas: AreaSlots,
    pub(super) index: Index,
    /// Free blocks by type and order (Linux: `free_area[order].nr_free`, kept per type).
    pub(super) blocks: ByKind<ByOrder<u64>>,
    /// Free frames outside isolated pageblocks.
    pub(super) free: u64,
    /// Pageblocks that are isolated.
    pub(super) isolated: u64,
    /// One block of them is on no list yet.
    pub(super) latest: Latest,
    /// Slots of sections that are not populated yet: one set.
    latent: SetBank,
    /// Frames in pageblocks kept for large requests that cannot wait.
    pub(super) high_atomic: u64,
    /// Frames in pageblocks of CMA.
    pub(super) cma: u64,
    notes: Note,
    pub(super) stats: Stats,
}

impl FreeAreas {
    /// No areas yet.
    pub(crate) const fn empty(home: ZoneId) -> Self {
        Self {
            home,
            first_section: 0,
            areas: Array::empty(),
            index: Index::empty(),
            blocks: [[0; 16]; 8],
            free: 0,
            isolated: 0,
            latest: Latest::NONE,
            latent: SetBank::empty(),
            high_atomic: 0,
            cma: 0,
            notes: Note::empty(),
            stats: Stats::ZERO,
        }
    }

    /// Makes room for areas from section `first_section` on, one slot for each section of the
    /// index. For a zone without areas.
    pub(crate) fn install(&mut self, first_section: u64, areas: AreaSlots, bank: SetBank) {
        self.first_section = first_section;
        self.areas = areas;
        self.index.bank = bank;
    }

    /// Makes room for the sections to be populated later: a set of slots.
    pub(crate) fn install_latent(&mut self, latent: SetBank) {
        self.latent = latent;
    }

    /// Takes note that some sections, which have memory of the zone, are populated later.
    pub(crate) fn expect(&mut self, first: u64, end: u64) {
        let slot = |section: u64| section.saturating_sub(self.first_section);
        self.latent.insert_all(0, slot(first), slot(end));
    }

    /// The lowest section that is not populated yet.
    pub(crate) fn lowest_latent(&self) -> Option<u64> {
        Some(self.first_section.wrapping_add(self.latent.first(0)?))
    }

    /// Whether a section of the zone is not populated yet.
    pub(crate) fn is_latent(&self, section: u64) -> bool {
        let slot = section.checked_sub(self.first_section);
        slot.is_some_and(|slot| self.latent.contains(0, slot))
    }

    /// No longer waits for a section.
    pub(crate) fn forget(&mut self, section: u64) {
        if let Some(slot) = section.checked_sub(self.first_section) {
            let _ = self.latent.remove(0, slot);
        }
    }

    /// Where the pointers to areas are, null for sections without any, and the section of the first.
    pub(crate) fn slots_at(&self) -> (Rows, u64) {
        const { assert!(size_of::<Option<EarlyBox<Area>>>() == size_of::<usize>()) };
        let rows = Rows {
            at: VirtAddr::from_ptr(self.areas.as_ptr()),
            count: to_count(self.areas.len()),
            stride: to_count(size_of::<usize>()),
            fields: [0; 8],
        };
        (rows, self.first_section)
    }

    /// Sets in a zone's index, for [`SetBank::bytes_for`].
    pub(crate) const INDEX_SETS: u64 = SETS;

    /// Free frames outside isolated pageblocks.
    #[inline]
    pub(crate) const fn free_frames(&self) -> u64 {
        self.free
    }

    /// Whether any pageblock is isolated.
    pub(crate) const fn has_isolated(&self) -> bool {
        self.isolated != 0
    }

    /// What there is to look at; usually nothing.
    #[inline]
    pub(crate) const fn notes(&self) -> Note {
        self.notes
    }

    /// Takes the note that types were mixed.
    pub(crate) const fn take_fragmented(&mut self) -> bool {
        let found = self.notes.contains(Note::FRAGMENTED);
        self.notes = self.notes.difference(Note::FRAGMENTED);
        found
    }

    /// Leaves a note for whoever unlocks.
    pub(super) const fn note(&mut self, note: Note) {
        self.notes = self.notes.union(note);
    }

    /// What was done so far.
    pub(crate) const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Notes that a block was handed out.
    #[inline]
    pub(crate) fn note_alloc(&mut self, order: Order) {
        self.note_alloc_frames(order.frames());
    }

    /// Notes that frames were handed out.
    #[inline]
    pub(crate) fn note_alloc_frames(&mut self, frames: u64) {
        self.stats.allocated = self.stats.allocated.wrapping_add(frames);
    }

    /// Notes that frames were given back by an owner.
    #[inline]
    pub(crate) fn note_free(&mut self, frames: u64) {
        self.stats.freed = self.stats.freed.wrapping_add(frames);
    }

    /// Adds room for the free blocks of a section, whose pageblocks start out as `kind`; it is
    /// populated with that.
    ///
    /// # Errors
    /// [`CarveError`] if `ram` cannot hold it; [`CarveError::Unreachable`] also for a section
    /// outside the zone.
    pub(crate) fn add_area<P: Platform>(
        &mut self,
        platform: &P,
        frames: SectionFrames,
        ram: EarlyRam,
        kind: MigrateType,
    ) -> Result<(), CarveError> {
        let at = frames.pfn(0).section().checked_sub(self.first_section);
        let range = ram.range();
        let place = at.and_then(|at| self.areas.get_mut(to_index(at)));
        let place = place.ok_or(CarveError::Unreachable(range))?;
        *place = Some(EarlyBox::carve(platform, ram, || {
            Area::new(frames, self.home, kind)
        })?);
        self.forget(frames.pfn(0).section());
        Ok(())
    }

    /// Pageblocks of present sections within `span`, by type. Those to be populated will be Movable.
    pub(crate) fn pageblocks(&self, span: PfnRange) -> [u64; MigrateType::COUNT] {
        let mut counts = [0_u64; MigrateType::COUNT];
        for area in self.areas.iter().flatten() {
            for (block, pageblock) in area.blocks.iter().enumerate() {
                let frames = PfnRange::block(area.frames.pfn(base_of(block)), Order::PAGEBLOCK);
                let inside = u64::from(!frames.intersect(span).is_empty());
                let count = &mut counts[pageblock.kind.index()];
                *count = count.saturating_add(inside);
            }
        }
        for slot in (0..self.latent.bound()).filter(|&slot| self.latent.contains(0, slot)) {
            let first = self.first_section.wrapping_add(slot) << SECTION_FRAME_SHIFT;
            let whole = PfnRange::from_numbers(first, first.saturating_add(SECTION_FRAMES));
            let inside = whole.intersect(span);
            let first = inside.first().align_down(Order::PAGEBLOCK);
            let end = inside.end().align_up(Order::PAGEBLOCK);
            let blocks = end.offset_from(first).unwrap_or_default() >> PAGEBLOCK_ORDER;
            let count = &mut counts[MigrateType::Movable.index()];
            *count = count.saturating_add(blocks);
        }
        counts
    }

    /// Free blocks of a type and order.
    pub(crate) const fn free_blocks(&self, kind: MigrateType, order: Order) -> u64 {
        self.blocks[row(kind)][slot(order)]
    }

    /// The slot and section offset of a frame, if the zone has an area there.
    #[inline]
    pub(super) fn slot_of(&self, pfn: Pfn) -> Option<u64> {
        let slot = pfn.section().checked_sub(self.first_section)?;
        self.areas.at(slot)?.as_ref().map(|_| slot)
    }

    /// The pageblock type at a frame, if the zone has an area there.
    pub(crate) fn kind_at(&self, pfn: Pfn) -> Option<MigrateType> {
        let slot = self.slot_of(pfn)?;
        let area = self.areas.at(slot)?.as_deref()?;
        Some(area.block_of(pfn.section_offset()).kind)
    }
}
