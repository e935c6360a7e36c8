//! One frame, in words.

use mm::frame::{FrameState, Kind};
use mm::inspect::{EntryKind, Record};

use crate::areas::{Area, within_reason};
use crate::guest::Guest;
use crate::owner::Owner;
use crate::snapshot::{Snapshot, field};

/// Orders that blocks can have.
const ORDERS: u32 = 11;

/// The record of a frame, if it has one.
fn record(guest: &Guest, pfn: u64) -> Option<Record> {
    let table = guest.of(EntryKind::Sections).next()?;
    let section = guest.section_frames();
    if pfn / section >= table.numbers[0] {
        return None;
    }
    let records = guest
        .u64_at(table.at.wrapping_add(pfn / section * 8))
        .filter(|&at| at != 0)?;
    let mut bytes = [0; Record::BYTES];
    let at = records.wrapping_add(pfn % section * Record::BYTES as u64);
    guest.read(at, &mut bytes).then(|| Record::read(&bytes))?
}

/// The block that a frame belongs to: its first frame, and that one's record.
fn head(guest: &Guest, pfn: u64) -> Option<(u64, Record)> {
    (0..ORDERS).find_map(|order| {
        let first = pfn >> order << order;
        let record = record(guest, first)?;
        let starts = record.word.state() != Some(FrameState::Interior);
        let covers = pfn - first < record.word.order().frames();
        (starts && covers).then_some((first, record))
    })
}

/// Who allocated a frame last, if the machine keeps that.
fn origin(guest: &Guest, pfn: u64) -> Option<String> {
    let entry = guest.of(EntryKind::Origins).next()?;
    let [sections, fields, _] = entry.numbers;
    let section = guest.section_frames();
    if pfn / section >= sections {
        return None;
    }
    let row = entry
        .at
        .wrapping_add((pfn / section).wrapping_mul(entry.width.into()));
    let (pointer, len) = (
        guest.u64_at(row.wrapping_add(field(fields, 0)))?,
        guest.u64_at(row.wrapping_add(field(fields, 1)))?,
    );
    let place = pfn % section;
    let location = guest
        .u64_at(pointer.wrapping_add(place * 8))
        .filter(|_| place < len)?;
    guest.location(location)
}

/// What is known of a frame, a line for each thing.
#[must_use]
pub fn describe(guest: &Guest, snapshot: &Snapshot, pfn: u64) -> Vec<String> {
    let owner = usize::try_from(pfn).ok();
    let owner = owner.and_then(|pfn| snapshot.owners.get(pfn)).copied();
    let owner = owner.unwrap_or_default();
    let mut lines = vec![format!(
        "frame {pfn:#x}, address {:#x}: {}",
        pfn << 12,
        owner.name()
    )];
    let Some((first, record)) = head(guest, pfn) else {
        return lines;
    };
    let word = record.word;
    let home = word.zone_id();
    let in_zone = snapshot
        .zones
        .iter()
        .find(|zone| (zone.node, zone.index) == (u32::from(home.node.0), u32::from(home.zone)));
    let zone = in_zone.map_or("?", |zone| zone.name.as_str());
    let state = word.state().map_or("damaged", FrameState::name);
    let (order, node) = (word.order().as_u8(), home.node.0);
    lines.push(format!(
        "{state} block of order {order} from {first:#x}, node {node}, zone {zone}"
    ));
    if let Some(slab) = record.slab() {
        let mut caches = snapshot.caches.iter();
        let cache = caches.find(|cache| cache.number == u32::from(slab.cache));
        if let Some(cache) = cache {
            lines.push(format!(
                "slab of {}: {} of {} objects of {} bytes are taken",
                cache.name, slab.taken, cache.per_slab, cache.size
            ));
        }
    } else if word.is_for(Kind::Table) {
        let used = record.maps & 0x3ff;
        lines.push(format!(
            "page table of level {}, {used} entries in use",
            record.private & 7
        ));
    }
    if matches!(owner, Owner::Vmalloc | Owner::Stack)
        && let Some((area, at)) = area_of(guest, &snapshot.areas, pfn)
    {
        let place = area.place.as_deref().unwrap_or("somebody");
        lines.push(format!("mapped at {at:#x}, {} by {place}", area.kind));
    }
    if let Some(place) = origin(guest, pfn) {
        lines.push(format!("allocated at {place}"));
    }
    lines
}

/// The area that a frame is mapped in, and where.
fn area_of<'s>(guest: &Guest, areas: &'s [Area], pfn: u64) -> Option<(&'s Area, u64)> {
    within_reason(areas).find_map(|area| {
        let mut found = None;
        area.pages(guest, |at, frame| {
            if frame == pfn {
                found = Some(at);
            }
        });
        Some((area, found?))
    })
}
