//! The part of bring-up that leaves sections for later.
//!
//! What it does takes time in proportion to the ranges of the firmware's map, not to memory: sections in
//! a row that are free as a whole are dealt with at once. A table has an entry for each section that a
//! zone spans, as small as can be.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder};
use crate::addr::{PfnRange, to_count};
use crate::buddy::{Area, Told};
use crate::collections::SetBank;
use crate::config::{PAGE_SIZE, SECTION_FRAMES};
use crate::frame::FrameTable;
use crate::mem::{EarlyBox, EarlyRam};
use crate::memblock::{Memblock, NodeChoice};
use crate::platform::{NodeId, Platform};
use crate::system::adopt::Source;
use crate::system::populate::Latent;
use crate::system::sections::{AREA_PAGES, Sections, metadata_pages};
use crate::system::{Core, Populate};
use crate::zone::{Node, Zone, ZoneKind};

impl<P: Platform> Builder<'_, P> {
    /// Room for a zone to remember which of so many sections are populated later.
    pub(super) fn latent_set(&mut self, node: NodeId, slots: u64) -> Result<SetBank, BringUpError> {
        let bytes = SetBank::bytes_for(1, slots).unwrap_or(u64::MAX);
        let ram = self.take_table(bytes, node)?;
        Ok(SetBank::carve(self.platform, ram, 1, slots)?)
    }

    /// What is done with memory that is not populated now: room for the map of it, if there is any.
    pub(super) fn room_for_map(
        &mut self,
        frames: &FrameTable,
        nodes: &[Node],
        populate: Populate,
    ) -> Result<Option<EarlyRam>, BringUpError> {
        match populate {
            Populate::OnDemand => self.leave_latent(frames, nodes).map(Some),
            Populate::AtBoot => self.mark_reserved(frames, nodes).map(|()| None),
        }
    }

    /// Gives records to the sections that cannot be populated later, and tells the zones of those that
    /// can. Answers with room for memblock, which stays.
    fn leave_latent(
        &mut self,
        frames: &FrameTable,
        nodes: &[Node],
    ) -> Result<EarlyRam, BringUpError> {
        let bytes = to_count(size_of::<Option<Memblock>>());
        let room = self.take_table(bytes, NodeId(0))?;
        // What is taken for one section may be what another one had room in.
        while self.build_cramped(frames, nodes)? {}

        let sections = Sections {
            nodes,
            memblock: &self.memblock,
        };
        let mut next: u64 = 0;
        let mut count: u64 = 0;
        let mut areas: u64 = 0;
        while let Some(run) = sections.run_from(next) {
            next = run.end;
            if let Some(zone) = run.whole {
                let length = run.end.saturating_sub(run.first);
                let each = SECTION_FRAMES.saturating_sub(metadata_pages::<P>(1));
                zone.expect(
                    self.platform,
                    (run.first, run.end),
                    each.saturating_mul(length),
                );
                count = count.saturating_add(length);
                areas = areas.saturating_add(length);
            } else if frames.section(run.first).is_none()
                && let Some(site) = sections.site::<P>(run.first)
            {
                for zone in sections.zones(run.first) {
                    let frames = sections.yields(run.first, zone, &site);
                    zone.expect(self.platform, (run.first, run.end), frames);
                    areas = areas.saturating_add(1);
                }
                count = count.saturating_add(1);
            }
        }
        let summary = &mut self.summary;
        let frames = count.saturating_mul(SECTION_FRAMES);
        let records = count.saturating_mul(FrameTable::SECTION_BYTES);
        let areas = areas.saturating_mul(AREA_PAGES.saturating_mul(PAGE_SIZE));
        summary.recorded = summary.recorded.saturating_add(frames);
        summary.record_bytes = summary.record_bytes.saturating_add(records);
        summary.side_bytes = summary.side_bytes.saturating_add(areas);
        Ok(room)
    }

    /// Gives records to sections that have no room for their own. Answers whether there were any.
    fn build_cramped(&mut self, frames: &FrameTable, nodes: &[Node]) -> Result<bool, BringUpError> {
        let mut next: u64 = 0;
        let mut found = false;
        loop {
            let sections = Sections {
                nodes,
                memblock: &self.memblock,
            };
            let Some(run) = sections.run_from(next) else {
                return Ok(found);
            };
            next = run.end;
            let section = run.first;
            let has_room = || sections.site::<P>(section).is_some();
            if run.whole.is_some() || frames.section(section).is_some() || has_room() {
                continue;
            }
            found = true;
            let node = sections.zones(section).next().map(|zone| zone.id().node);
            let node = NodeChoice::Prefer(node.unwrap_or_default());
            let bytes = FrameTable::SECTION_BYTES;
            let ram = self.take(bytes, bytes, node)?;
            self.add_section(frames, section, ram)?;
            self.add_areas(frames, nodes, section)?;
        }
    }

    /// Room for the free blocks of a section with records, in each of its zones.
    fn add_areas(
        &mut self,
        frames: &FrameTable,
        nodes: &[Node],
        section: u64,
    ) -> Result<(), BringUpError> {
        let mut place: usize = 0;
        loop {
            let sections = Sections {
                nodes,
                memblock: &self.memblock,
            };
            let zone = sections.zones(section).nth(place).map(Zone::id);
            let Some((id, records)) = zone.zip(frames.section(section)) else {
                return Ok(());
            };
            let ram = self.take_table(to_count(size_of::<Area>()), id.node)?;
            let zones = nodes.get(usize::from(id.node.0)).map(Node::zones);
            let zone = zones.and_then(|zones| zones.get(usize::from(id.zone)));
            zone.map_or(Ok(()), |zone| zone.open(self.platform, records, ram))?;
            place = place.saturating_add(1);
        }
    }
}

impl Core {
    /// Keeps the map of what is latent, in `room`; hands over what is not; and populates a first section
    /// of each node, of the zone that most requests ask first: for those that need populated memory.
    pub(super) fn keep_map<P: Platform>(
        &mut self,
        platform: &P,
        memblock: Memblock,
        room: EarlyRam,
    ) -> Result<(), BringUpError> {
        let mut memblock = Some(memblock);
        let kept = EarlyBox::carve(platform, room, || memblock.take())?;
        self.latent = Some(Latent::new(kept));
        let Some(sections) = self.sections() else {
            return Ok(());
        };
        let mut next: u64 = 0;
        while let Some(run) = sections.run_from(next) {
            next = run.end;
            if run.whole.is_none() && self.frames.section(run.first).is_some() {
                self.settle(
                    platform,
                    sections,
                    run.first,
                    PfnRange::EMPTY,
                    Source::Early,
                );
            }
        }
        for node in self.nodes.iter() {
            let first = node.zonelist(ZoneKind::Normal).next();
            let zone = first.or_else(|| node.zonelist(ZoneKind::Movable).next());
            if let Some(zone) = zone.filter(|zone| zone.is_behind()) {
                self.populate_next(platform, zone, &mut Told(platform));
            }
        }
        Ok(())
    }
}
