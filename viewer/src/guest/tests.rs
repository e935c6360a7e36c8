//! Memory that is half written, cut off or nonsense.

use std::fs;

use mm::addr::PhysAddr;
use mm::inspect::{Entry, EntryKind, Header};
use tempfile::NamedTempFile;

use super::{AttachError, FOUR_GIB, Guest, PAGE};
use crate::areas::{Area, State, within_reason};
use crate::frame::describe;
use crate::history::History;
use crate::mapped;
use crate::ram::Ram;
use crate::snapshot::Snapshot;

const MIB: usize = 1 << 20;
const BASE: u64 = 0xffff_8880_0000_0000;
/// Where the inspection page is.
const SHEET: usize = 0x5000;

/// 8 MiB with an inspection page that says this.
fn memory(header: Header, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![0; 8 * MIB];
    let header = Header {
        own: PhysAddr::new(SHEET as u64),
        entries: entries.len() as u64,
        direct_map: BASE,
        limit: 1 << 22,
        section_frames: 32768,
        levels: 4,
        ..header
    };
    bytes[SHEET..SHEET + Header::BYTES].copy_from_slice(&header.to_bytes());
    let places = bytes[SHEET + Header::BYTES..].chunks_exact_mut(Entry::BYTES);
    for (place, entry) in places.zip(entries) {
        place.copy_from_slice(&entry.to_bytes());
    }
    bytes
}

fn attach(bytes: &[u8]) -> (Result<Guest, AttachError>, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let ram = Ram::open(&[file.path().to_owned()]).unwrap();
    (Guest::attach(ram).map_err(|(error, _)| error), file)
}

fn zone(first: u64, end: u64, present: u64) -> Entry {
    Entry {
        numbers: [first, end, present],
        ..Entry::new(EntryKind::Zone, "Normal")
    }
}

#[test]
fn a_file_that_is_cut_off_says_so() {
    let whole = memory(Header::default(), &[zone(0, 2048, 2048)]);
    let (guest, _file) = attach(&whole);
    assert_eq!(guest.unwrap().ram().size(), 8 * MIB as u64);
    let (guest, _file) = attach(&whole[..5 * MIB]);
    let error = guest.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("here are 5 MiB") && said.contains("at least 8:"),
        "{said}"
    );
}

#[test]
fn zones_that_are_written_down_after_the_first_look_say_where_memory_is_split() {
    let (guest, file) = attach(&memory(Header::default(), &[]));
    let mut guest = guest.unwrap();
    let above = PhysAddr::new(FOUR_GIB + 0x1000);
    assert_eq!(guest.ram().offset(above), None);
    let end = FOUR_GIB / PAGE as u64 + 1024;
    fs::write(
        file.path(),
        memory(Header::default(), &[zone(0, end, 2048)]),
    )
    .unwrap();
    guest.refresh();
    assert_eq!(guest.ram().offset(above), Some(4 * MIB as u64 + 0x1000));
}

/// Numbers at the ends of what 64 bits hold, everywhere: nothing may overflow, and all of it ends.
#[test]
fn nonsense_is_looked_at_and_no_more() {
    let kinds = [
        EntryKind::Sections,
        EntryKind::Zone,
        EntryKind::Pageblocks,
        EntryKind::OfCpu,
        EntryKind::Cache,
        EntryKind::Areas,
        EntryKind::Origins,
        EntryKind::Latent,
        EntryKind::LastFrees,
        EntryKind::Events,
    ];
    for number in [
        u64::MAX,
        u64::MAX - 7,
        BASE,
        BASE + 64,
        1 << 20,
        1 << 24,
        1 << 63,
    ] {
        for width in [0, 1, 16, 4096, u32::MAX] {
            let entries = kinds.map(|kind| Entry {
                at: number,
                width,
                index: width,
                numbers: match kind {
                    EntryKind::Zone => [0, number, 0],
                    _ => [number; 3],
                },
                ..Entry::new(kind, "nonsense")
            });
            let mut bytes = memory(Header::default(), &entries);
            // Page tables that lead in circles: the first table is all of them.
            for slot in bytes[..PAGE].chunks_exact_mut(8) {
                slot.copy_from_slice(&3_u64.to_le_bytes());
            }
            let (guest, _file) = attach(&bytes);
            let guest = guest.unwrap();
            let snapshot = Snapshot::take(&guest);
            for pfn in [0, 1 << 20, 1 << 40, u64::MAX >> 12, u64::MAX] {
                assert!(!describe(&guest, &snapshot, pfn, &mut |_| None).is_empty());
            }
            let _events = History::read(&guest, u64::MAX);
        }
    }
    let (guest, _file) = attach(&memory(Header::default(), &[]));
    assert!(mapped::kernel(&guest.unwrap()).is_empty());
}

#[test]
fn areas_that_would_take_for_ever_are_left_out() {
    let area = |bytes: u64| Area {
        start: 1 << 46,
        end: (1 << 46) + bytes,
        state: State::InUse,
        kind: "vmalloc",
        asked: bytes,
        place: None,
    };
    let usual = vec![area(0x5000); 10_000];
    assert_eq!(within_reason(&usual).count(), usual.len());
    let damaged = vec![area(1 << 40); 10_000];
    assert_eq!(within_reason(&damaged).count(), 1);
}
