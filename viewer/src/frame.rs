//! One frame, in words.

use mm::addr::VirtAddr;
use mm::frame::{FrameState, Kind};
use mm::inspect::{Entry, EntryKind, Record};
use mm::report::{CALLERS, FreedBy};

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

/// Where what is kept beside the record of a frame is: `bytes` for each, in an array for each section.
fn beside(guest: &Guest, entry: &Entry, pfn: u64, bytes: u64) -> Option<u64> {
    let [sections, fields, _] = entry.numbers;
    let section = guest.section_frames();
    if pfn / section >= sections {
        return None;
    }
    let row = (pfn / section).wrapping_mul(entry.width.into());
    let row = entry.at.wrapping_add(row);
    let (pointer, len) = (
        guest.u64_at(row.wrapping_add(field(fields, 0)))?,
        guest.u64_at(row.wrapping_add(field(fields, 1)))?,
    );
    let place = pfn % section;
    (place < len).then(|| pointer.wrapping_add(place.wrapping_mul(bytes)))
}

/// Who allocated a frame last, if the machine keeps that.
fn origin(guest: &Guest, pfn: u64) -> Option<String> {
    let entry = guest.of(EntryKind::Origins).next()?;
    let at = beside(guest, entry, pfn, 8)?;
    guest.location(guest.u64_at(at)?)
}

/// Who gave a frame back last, if the machine keeps that: in words, and the return addresses.
fn last_free(guest: &Guest, pfn: u64) -> Option<FreedBy> {
    let entry = guest.of(EntryKind::LastFrees).next()?;
    let words = entry.numbers[2];
    let at = beside(guest, entry, pfn, words.wrapping_mul(8))?;
    let mut callers = [VirtAddr::default(); CALLERS];
    for (place, number) in callers.iter_mut().zip(1..words) {
        *place = VirtAddr::new(guest.u64_at(at.wrapping_add(number * 8))?);
    }
    FreedBy::from_words(guest.u64_at(at)?, callers)
}

/// Functions that everybody frees through: they are not the one who did.
const LIBRARIES: [&str; 4] = ["mm::", "core::", "alloc::", "<"];

/// The function that a chain of calls began in, if it has a name.
fn who(callers: impl Iterator<Item = VirtAddr>, names: Names<'_>) -> Option<String> {
    // A return address may already be the next function's: the call is before it.
    let mut found = callers.filter_map(|at| names(at.as_u64().saturating_sub(1)));
    let is_own = |name: &&str| !LIBRARIES.iter().any(|library| name.starts_with(library));
    found.find_map(|text| Some(text.split(", inlined into ").find(is_own)?.to_owned()))
}

/// What names addresses of the machine's code, if anything does.
pub type Names<'n> = &'n mut dyn FnMut(u64) -> Option<String>;

/// What is known of a frame, a line for each thing.
#[must_use]
pub fn describe(guest: &Guest, snapshot: &Snapshot, pfn: u64, names: Names<'_>) -> Vec<String> {
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
        lines.push(format!("allocated last at {place}"));
    }
    if let Some(freed) = last_free(guest, pfn) {
        lines.push(match who(freed.callers(), names) {
            Some(name) => format!("freed last {freed} in {name}"),
            None => {
                let addresses = freed.callers().map(|at| format!(" {:#x}", at.as_u64()));
                let from = if freed.callers().next().is_some() {
                    ", from"
                } else {
                    ""
                };
                format!("freed last {freed}{from}{}", addresses.collect::<String>())
            }
        });
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
