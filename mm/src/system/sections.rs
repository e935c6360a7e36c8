//! Sections seen through memblock: what of them is RAM, what is free, and where their records can go.
//!
//! ```text
//! a section     |reserved|     free     :tables:areas: records |   hole   |free|
//!                                       |------- site ---------|
//! ```
//!
//! A section that is populated later brings the memory for its own metadata: the top end of the highest
//! free range of one zone that is large enough.
#![forbid(unsafe_code)]

use core::mem::size_of;

use crate::addr::{Pfn, PfnRange, to_count};
use crate::buddy::Area;
use crate::config::{PAGE_SIZE, SECTION_FRAMES};
use crate::frame::FrameTable;
use crate::memblock::{Memblock, NodeFrames};
use crate::platform::Platform;
use crate::zone::{Node, Zone};

/// Pages that the records of a section take.
const RECORD_PAGES: u64 = FrameTable::SECTION_BYTES / PAGE_SIZE;
/// Pages that an area of a zone takes.
pub(super) const AREA_PAGES: u64 = to_count(size_of::<Area>()).div_ceil(PAGE_SIZE);

/// Frames that the metadata of a section take which has memory of so many zones.
pub(super) const fn metadata_pages<P: Platform>(zones: u64) -> u64 {
    let areas = zones.saturating_mul(AREA_PAGES);
    let fixed = RECORD_PAGES.saturating_add(P::FRAME_TABLE_PAGES);
    fixed.saturating_add(areas)
}

/// The nodes and the map that they were made from.
#[derive(Clone, Copy)]
pub(super) struct Sections<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) memblock: &'a Memblock,
}

/// Where a section's metadata goes.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// The zone that has the frames.
    pub(super) zone: &'a Zone,
    /// Frames for page tables, areas and records, in this order.
    pub(super) frames: PfnRange,
}

/// Sections in a row with RAM.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// The first one.
    pub(super) first: u64,
    /// The one behind the last.
    pub(super) end: u64,
    /// The zone that has all of their frames, and all are free. Otherwise it is one section.
    pub(super) whole: Option<&'a Zone>,
}

/// The frames of a section.
pub(super) const fn frames_of(section: u64) -> PfnRange {
    let first = section.saturating_mul(SECTION_FRAMES);
    PfnRange::from_numbers(first, first.saturating_add(SECTION_FRAMES))
}

impl<'a> Sections<'a> {
    /// What a walk finds inside `range`, zone by zone.
    fn cut(
        self,
        found: impl Iterator<Item = NodeFrames> + 'a,
        range: PfnRange,
    ) -> impl Iterator<Item = (&'a Zone, PfnRange)> {
        found.flat_map(move |found| {
            let node = usize::from(found.node.unwrap_or_default().0);
            let inside = found.frames.intersect(range);
            let node = self.nodes.get(node).filter(|_| !inside.is_empty());
            let zones = node.into_iter().flat_map(Node::zones);
            zones.filter_map(move |zone| {
                let here = inside.intersect(zone.span());
                (!here.is_empty()).then_some((zone, here))
            })
        })
    }

    /// RAM inside `range`, zone by zone.
    pub(super) fn ram(self, range: PfnRange) -> impl Iterator<Item = (&'a Zone, PfnRange)> {
        self.cut(self.memblock.frames(None), range)
    }

    /// RAM inside `range` that was handed over free, zone by zone.
    pub(super) fn free(self, range: PfnRange) -> impl Iterator<Item = (&'a Zone, PfnRange)> {
        self.cut(self.memblock.free_frames(), range)
    }

    /// The zones with RAM in a section, each once.
    pub(super) fn zones(self, section: u64) -> impl Iterator<Item = &'a Zone> {
        let ram = move || self.ram(frames_of(section)).map(|(zone, _)| zone);
        ram().enumerate().filter_map(move |(place, zone)| {
            let mut before = ram().take(place);
            before
                .all(|earlier| earlier.id() != zone.id())
                .then_some(zone)
        })
    }

    /// Where the metadata of a section can go, if there is a place.
    pub(super) fn site<P: Platform>(self, section: u64) -> Option<Site<'a>> {
        let zones = to_count(self.zones(section).count());
        let needed = metadata_pages::<P>(zones);
        let mut best: Option<Site<'a>> = None;
        for (zone, free) in self.free(frames_of(section)) {
            let higher = best.is_none_or(|site| free.first() > site.frames.first());
            if free.frames() >= needed && higher {
                let end = free.end().as_u64();
                let frames = PfnRange::from_numbers(end.saturating_sub(needed), end);
                best = Some(Site { zone, frames });
            }
        }
        best
    }

    /// Frames of a zone that become free when a section is populated.
    pub(super) fn yields(self, section: u64, zone: &Zone, site: &Site<'_>) -> u64 {
        let ours = self.free(frames_of(section));
        let ours = ours.filter(|(owner, _)| owner.id() == zone.id());
        let free = ours.map(|(_, free)| free.frames());
        let free = free.fold(0, u64::saturating_add);
        let hosts = site.zone.id() == zone.id();
        free.saturating_sub(if hosts { site.frames.frames() } else { 0 })
    }

    /// The first sections with RAM from `section` on.
    pub(super) fn run_from(self, section: u64) -> Option<Run<'a>> {
        let ahead = PfnRange::from_numbers(frames_of(section).first().as_u64(), u64::MAX);
        let (_, ram) = self.ram(ahead).next()?;
        let first = ram.first().section();
        let whole = frames_of(first);
        let covering = self.free(ahead).find(|(_, free)| free.covers(whole));
        Some(match covering {
            Some((zone, free)) => Run {
                first,
                end: free.end().section(),
                whole: Some(zone),
            },
            None => Run {
                first,
                end: first.saturating_add(1),
                whole: None,
            },
        })
    }

    /// The zone that a frame of RAM belongs to.
    pub(super) fn zone_at(self, pfn: Pfn) -> Option<&'a Zone> {
        let frame = PfnRange::from_count(pfn, 1)?;
        self.ram(frame).next().map(|(zone, _)| zone)
    }
}
