//! Populating sections: latent memory gets its records and goes to the zones.
//!
//! At boot most sections stay as memblock has left them, and cost nothing. A section is populated when
//! a request needs its memory, when somebody names one of its frames (an exact range, early memory that
//! comes back), or ahead of that by a thread ([`Memory::populate_ahead`]). Nothing is allocated for it
//! and nobody waits: the records lie in the section itself. One whose free ranges are too small for
//! that got its records at boot. Linux counterpart: deferred initialisation of struct pages
//! (`deferred_init_memmap`, `deferred_grow_zone`).
//!
//! # Protocol
//!
//! The map of the machine is memblock's own, kept as it was at the end of boot; what of it was handed
//! over since is told by which sections have records. Those change under the populate lock only.
//!
//! A section gets its records under one hold of that lock, and is handed over block by block, with the lock
//! released in between where blocks are written to (`init_on_free`, poison). Whoever takes the lock meanwhile,
//! a handler that interrupts included, first [hands over](Core::with_all_settled) what is left: nobody
//! waits for who was interrupted.
#![forbid(unsafe_code)]

use super::adopt::Source;
use super::bring_up::BringUpError;
use super::sections::{AREA_PAGES, Sections, Site, frames_of, metadata_pages};
use super::{Core, Memory};
use crate::addr::{Pfn, PfnRange};
use crate::buddy::{Step, Told, Trace};
use crate::config::{PAGE_SIZE, PAGEBLOCK_FRAMES, SECTION_FRAMES};
use crate::frame::FrameTable;
use crate::mem::EarlyBox;
use crate::memblock::Memblock;
use crate::platform::{NodeId, Platform};
use crate::report::{Check, Corruption};
use crate::sync::{IrqGuard, SpinLock, rank};
use crate::zone::Zone;

/// What is known of memory without records.
#[derive(Debug)]
pub(crate) struct Latent {
    memblock: EarlyBox<Option<Memblock>>,
    /// Held while a section is populated; what of it is still to be handed over.
    lock: SpinLock<Option<Settling>>,
}

/// A section that has records, and is not handed over yet from a frame on.
#[derive(Debug)]
pub(super) struct Settling {
    rest: PfnRange,
    /// The frames of its metadata.
    used: PfnRange,
}

impl Latent {
    pub(super) const fn new(memblock: EarlyBox<Option<Memblock>>) -> Self {
        Self {
            memblock,
            lock: SpinLock::new(rank::POPULATE, None),
        }
    }
}

impl<P: Platform> Memory<P> {
    /// Whether a frame is free, but in a section that has no records yet. Context: any; stale when it
    /// arrives.
    #[must_use]
    pub fn is_latent(&self, pfn: Pfn) -> bool {
        let Some(core) = self.core() else {
            return false;
        };
        let frame = PfnRange::from_count(pfn, 1).unwrap_or_default();
        let sections = core.sections();
        let mut free = sections.into_iter().flat_map(|all| all.free(frame));
        core.frames.section(pfn.section()).is_none() && free.next().is_some()
    }

    /// Populates every section that a range touches. Context: any but NMI; masks interrupts for as
    /// long as it takes to clear a section's records (1 MiB) and hand over its 64 pageblocks. Where free pages
    /// are written to (`init_on_free`, `page_poison`), that is done a pageblock at a time, 2 MiB.
    pub fn populate(&self, range: PfnRange) {
        if let Some(core) = self.core() {
            core.populate_all(&self.platform, range);
        }
    }

    /// Populates memory of a node ahead of requests, until each of its zones has as much populated and
    /// free as a section, and as twice its `high` mark: requests that cannot have memory populated live
    /// on that. Answers how many sections that took. To be called by a thread that
    /// [`Platform::wake_populate`] wakes, and once after boot. Context: task.
    pub fn populate_ahead(&self, node: NodeId) -> u64 {
        let Some((core, node)) = self.core().and_then(|core| Some((core, core.node(node)?))) else {
            return 0;
        };
        let mut sections: u64 = 0;
        for zone in node.zones() {
            while zone.is_behind() {
                core.populate_next(&self.platform, zone, &mut Told(&self.platform));
                sections = sections.saturating_add(1);
                self.platform.reschedule();
            }
        }
        sections
    }

    /// Populates a section of a zone for a request.
    #[cold]
    #[inline(never)]
    pub(super) fn populate_for(&self, core: &Core, zone: &Zone, trace: &mut impl Trace) {
        core.populate_next(&self.platform, zone, trace);
        self.keep_ahead(zone);
    }

    /// Wakes whoever populates memory ahead of requests, if there is too little.
    pub(super) fn keep_ahead(&self, zone: &Zone) {
        if zone.is_behind() {
            let _ = self.platform.wake_populate(zone.id().node);
        }
    }

    /// Keeps everybody from populating memory.
    pub(super) fn stop_populating(&self) -> Option<IrqGuard<'_, Option<Settling>, P>> {
        self.core()?.with_all_settled(&self.platform)
    }

    /// Compares what zones expect of latent sections with the map. Context: populate lock held.
    pub(super) fn validate_latent(&self, core: &Core) -> Result<(), Corruption> {
        let Some(sections) = core.sections() else {
            return Ok(());
        };
        for zone in self.zones() {
            let numbers = 0..core.frames.limit().section();
            let waiting = numbers.filter(|&number| zone.is_latent(&self.platform, number));
            let counted = waiting.map(|number| {
                let site = sections.site::<P>(number);
                let has_records = core.frames.section(number).is_some();
                let site = site.filter(|_| !has_records);
                site.map_or(0, |site| sections.yields(number, zone, &site))
            });
            let counted = counted.fold(0, u64::saturating_add);
            if counted != zone.latent_frames() {
                return Err(Corruption::Miscount {
                    check: Check::LatentFrames,
                    recorded: zone.latent_frames(),
                    counted,
                });
            }
        }
        Ok(())
    }
}

impl Core {
    /// Frames that a section's metadata takes from them when it gets any: at the end of its highest range with room for them.
    pub(crate) const fn latent_metadata<P: Platform>() -> u64 {
        metadata_pages::<P>(1)
    }

    /// Frames that are free where their section has no records.
    pub(crate) fn latent_ranges(&self) -> impl Iterator<Item = PfnRange> {
        let all = PfnRange::from_numbers(0, self.frames.limit().as_u64());
        let free = self
            .sections()
            .into_iter()
            .flat_map(move |sections| sections.free(all));
        free.map(|(_, range)| range)
    }

    /// The map of sections, where some were left latent.
    pub(super) fn sections(&self) -> Option<Sections<'_>> {
        let memblock = self.latent.as_ref()?.memblock.as_ref()?;
        Some(Sections {
            nodes: &self.nodes,
            memblock,
        })
    }

    /// Populates every section that a range touches.
    pub(super) fn populate_all<P: Platform>(&self, platform: &P, range: PfnRange) {
        let end = range.end().min(self.frames.limit());
        let last = end.saturating_add(SECTION_FRAMES - 1).section();
        for section in range.first().section()..last {
            self.populate(platform, section, || true);
        }
    }

    /// The zone of a frame in a section without records.
    pub(super) fn latent_zone(&self, pfn: Pfn) -> Option<&Zone> {
        let sections = self.sections()?;
        let has_records = self.frames.section(pfn.section()).is_some();
        sections.zone_at(pfn).filter(|_| !has_records)
    }

    /// Populates the lowest latent section of a zone, unless somebody else does so meanwhile.
    pub(super) fn populate_next<P: Platform>(
        &self,
        platform: &P,
        zone: &Zone,
        trace: &mut impl Trace,
    ) {
        match zone.lowest_latent(platform) {
            Some(section) => {
                trace.step(Step::Populated {
                    home: zone.id(),
                    pfn: frames_of(section).first(),
                });
                // What somebody else has populated meanwhile may do.
                let before = zone.latent_frames();
                self.populate(platform, section, || zone.latent_frames() == before);
            }
            // The last one is being populated by somebody else: that has come to its end now.
            None => self.wait_for_populating(platform, zone),
        }
    }

    /// Waits until nobody populates a section. If a zone without latent sections still counts latent
    /// frames then, it never will have them.
    #[cold]
    fn wait_for_populating<P: Platform>(&self, platform: &P, zone: &Zone) {
        let Some(_lock) = self.with_all_settled(platform) else {
            return;
        };
        let recorded = zone.latent_frames();
        if recorded > 0 && zone.lowest_latent(platform).is_none() {
            zone.lose_latent(recorded);
            platform.corruption(&Corruption::Miscount {
                check: Check::LatentFrames,
                recorded,
                counted: 0,
            });
        }
    }

    /// Populates a section, unless it is, or has no memory, or is not wanted any more once it is its
    /// turn. One that cannot be is reported and stays out of use.
    pub(super) fn populate<P: Platform>(
        &self,
        platform: &P,
        section: u64,
        is_wanted: impl Fn() -> bool,
    ) {
        let Some((mut settling, sections)) = self.with_all_settled(platform).zip(self.sections())
        else {
            return;
        };
        let is_latent = |zone: &Zone| zone.is_latent(platform, section);
        let has_records = self.frames.section(section).is_some();
        if has_records || !is_wanted() || !sections.zones(section).any(is_latent) {
            return;
        }
        let Some(site) = sections.site::<P>(section) else {
            return;
        };
        match self.build(platform, sections, section, &site) {
            Ok(()) => {
                self.reserve(platform, sections, section, site.frames);
                *settling = Some(Settling {
                    rest: frames_of(section),
                    used: site.frames,
                });
            }
            Err(_) => return self.lose_section(platform, sections, section, &site),
        }
        self.settle_part(platform, sections, &mut settling);
        drop(settling);
        drop(self.with_all_settled(platform));
    }

    /// Takes the populate lock when no section is left half handed over. `None` where nothing is latent.
    fn with_all_settled<'a, P: Platform>(
        &'a self,
        platform: &'a P,
    ) -> Option<IrqGuard<'a, Option<Settling>, P>> {
        let (latent, sections) = self.latent.as_ref().zip(self.sections())?;
        loop {
            let mut settling = latent.lock.lock(platform);
            if settling.is_none() {
                return Some(settling);
            }
            self.settle_part(platform, sections, &mut settling);
        }
    }

    /// Hands over as much of a section as may be under one hold of the lock.
    fn settle_part<P: Platform>(
        &self,
        platform: &P,
        sections: Sections<'_>,
        settling: &mut Option<Settling>,
    ) {
        let Some(Settling { rest, used }) = settling else {
            return;
        };
        let first = rest.first().as_u64();
        let end = match self.treats_free_pages {
            true => first
                .saturating_add(PAGEBLOCK_FRAMES)
                .min(rest.end().as_u64()),
            false => rest.end().as_u64(),
        };
        let part = PfnRange::from_numbers(first, end);
        self.hand_over(platform, sections, (part, *used), Source::Latent);
        *rest = PfnRange::from_numbers(end, rest.end().as_u64());
        if rest.is_empty() {
            *settling = None;
        }
    }

    /// Makes a section's records and areas.
    fn build<P: Platform>(
        &self,
        platform: &P,
        sections: Sections<'_>,
        section: u64,
        site: &Site<'_>,
    ) -> Result<(), BringUpError> {
        let bytes = |frames: u64| frames.saturating_mul(PAGE_SIZE);
        let ram = sections.memblock.hand_out(site.frames);
        let (tables, ram) = ram.split_at(bytes(P::FRAME_TABLE_PAGES));
        let size = ram.range().size();
        let (mut areas, records) = ram.split_at(size.saturating_sub(FrameTable::SECTION_BYTES));
        self.frames
            .add_section(platform, section, records, tables)?;
        let records = self.frames.section(section).into_iter().cycle();
        for (zone, records) in sections.zones(section).zip(records) {
            let (ram, rest) = areas.split_at(bytes(AREA_PAGES));
            areas = rest;
            zone.open(platform, records, ram)?;
        }
        Ok(())
    }

    /// Gives up a section that has no records.
    #[cold]
    fn lose_section<P: Platform>(
        &self,
        platform: &P,
        sections: Sections<'_>,
        section: u64,
        site: &Site<'_>,
    ) {
        for zone in sections.zones(section) {
            zone.forget(platform, section);
            zone.lose_latent(sections.yields(section, zone, site));
        }
        let pfn = frames_of(section).first();
        platform.corruption(&Corruption::LostSection { pfn });
    }

    /// Marks what of a section with records stays out of the allocator, and hands over the rest. Its
    /// metadata are the frames in `used`.
    pub(super) fn settle<P: Platform>(
        &self,
        platform: &P,
        sections: Sections<'_>,
        section: u64,
        used: PfnRange,
        source: Source,
    ) {
        self.reserve(platform, sections, section, used);
        self.hand_over(platform, sections, (frames_of(section), used), source);
    }

    /// Marks what of a section stays out of the allocator.
    fn reserve<P: Platform>(
        &self,
        platform: &P,
        sections: Sections<'_>,
        section: u64,
        used: PfnRange,
    ) {
        let whole = frames_of(section);
        let reserve = |zone: &Zone, frames: Option<PfnRange>| {
            for pfn in frames.unwrap_or_default().iter() {
                if let Err(corruption) = self.frames.reserve_once(pfn, zone.id()) {
                    platform.corruption(&corruption);
                }
            }
        };
        for (zone, ram) in sections.ram(whole) {
            let mut next = ram.first();
            for (_, free) in sections.free(ram) {
                reserve(zone, PfnRange::new(next, free.first()));
                next = free.end();
            }
            reserve(zone, PfnRange::new(next, ram.end()));
            reserve(zone, Some(ram.intersect(used)));
        }
    }

    /// Hands over what is free of a range in one section, but for the metadata.
    fn hand_over<P: Platform>(
        &self,
        platform: &P,
        sections: Sections<'_>,
        (range, used): (PfnRange, PfnRange),
        source: Source,
    ) {
        for (zone, free) in sections.free(range) {
            let inside = free.intersect(used);
            let parts = match inside.is_empty() {
                true => [Some(free), None],
                false => [
                    PfnRange::new(free.first(), inside.first()),
                    PfnRange::new(inside.end(), free.end()),
                ],
            };
            for part in parts.into_iter().flatten().filter(|part| !part.is_empty()) {
                let ram = sections.memblock.hand_out(part);
                if let Err((corruption, rest)) = self.adopt_in(platform, zone, ram, source) {
                    platform.corruption(&corruption);
                    if source == Source::Latent {
                        zone.lose_latent(rest.range().whole_frames().frames());
                    }
                }
            }
        }
    }
}
