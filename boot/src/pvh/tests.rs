//! Start infos as they should be, cut at every byte, and lying.

use std::vec::Vec;

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use proptest::prelude::{any, proptest};
use proptest::{collection, prop_assert};

use super::{MAGIC, PvhError, parse};
use crate::bytes::SliceMemory;
use crate::handoff::{Handoff, RangeKind};
use crate::regions::Regions;
use crate::warning::Warning;

const BASE: u64 = 0x9000;
const LIMIT: usize = 6;
const MAP: [(u64, u64, u32); 4] = [
    (0, 0x9_fc00, 1),
    (0xfd_0000_0000, 0x3_0000_0000, 2),
    (0x10_0000, 0x1ff0_0000, 1),
    (0xffff_ffff_ffff_f000, 0x2000, 3),
];
const COMMAND_LINE: &[u8] = b"mem=64M quiet\0";
const MODULES: [(u64, u64); 2] = [(0x100_0000, 0x1234), (0x200_0000, 1)];

/// A start info with everything, one part behind the other.
struct Sample {
    bytes: Vec<u8>,
    map: u64,
    command_line: u64,
    modules: u64,
}

fn sample() -> Sample {
    let map = BASE + 56;
    let command_line = map + 24 * u64::try_from(MAP.len()).unwrap();
    let modules = command_line + u64::try_from(COMMAND_LINE.len()).unwrap();

    let mut bytes = Vec::new();
    for word in [MAGIC, 1, 0, u32::try_from(MODULES.len()).unwrap()] {
        bytes.extend(word.to_le_bytes());
    }
    for address in [modules, command_line, 0xf_59e0, map] {
        bytes.extend(address.to_le_bytes());
    }
    for word in [u32::try_from(MAP.len()).unwrap(), 0] {
        bytes.extend(word.to_le_bytes());
    }
    for (start, size, kind) in MAP {
        bytes.extend(start.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(u64::from(kind).to_le_bytes());
    }
    bytes.extend(COMMAND_LINE);
    for (start, size) in MODULES {
        for word in [start, size, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
    }
    Sample {
        bytes,
        map,
        command_line,
        modules,
    }
}

/// Parses and returns the outcome, with room for [`LIMIT`] regions.
fn parsed(bytes: &[u8]) -> (Result<(), PvhError>, Handoff, Vec<MemoryRegion>, usize) {
    let mut storage = [MemoryRegion::empty(); LIMIT];
    let mut handoff = Handoff::new();
    let mut regions = Regions::new(&mut storage, LIMIT);
    let memory = SliceMemory::new(BASE, bytes);
    let result = parse(&memory, BASE, &mut handoff, &mut regions);
    let lost = regions.lost();
    let kept = regions.as_slice().to_vec();
    (result, handoff, kept, lost)
}

/// The error after overwriting `bytes` at `offset`.
fn error_with(offset: usize, bytes: &[u8]) -> PvhError {
    let mut sample = sample().bytes;
    sample[offset..offset + bytes.len()].copy_from_slice(bytes);
    parsed(&sample).0.unwrap_err()
}

#[test]
fn everything_that_is_said_is_handed_on() {
    let sample = sample();
    let (result, handoff, regions, lost) = parsed(&sample.bytes);
    assert_eq!((result, lost), (Ok(()), 0));

    let kinds = [
        MemoryRegionKind::Usable,
        MemoryRegionKind::UnknownBios(2),
        MemoryRegionKind::Usable,
        MemoryRegionKind::UnknownBios(3),
    ];
    for ((region, given), kind) in regions.iter().zip(MAP).zip(kinds) {
        assert_eq!((region.start, region.kind), (given.0, kind));
        // The last one wraps.
        assert_eq!(region.end, given.0.wrapping_add(given.1));
    }
    assert_eq!(handoff.command_line(), Some("mem=64M quiet"));
    assert_eq!(handoff.rsdp(), Some(0xf_59e0));
    assert_eq!(handoff.module().map(|module| module.end), Some(0x100_1234));
    assert_eq!(handoff.warnings(), [Warning::ModulesIgnored { count: 1 }]);

    let reserved: Vec<_> = handoff
        .reserved_ranges()
        .iter()
        .map(|range| (range.kind, range.start, range.end))
        .collect();
    let expected = [
        (RangeKind::StartInfo, BASE, BASE + 56),
        (RangeKind::MemoryMap, sample.map, sample.command_line),
        (RangeKind::CommandLine, sample.command_line, sample.modules),
        (RangeKind::ModuleList, sample.modules, sample.modules + 64),
        (RangeKind::Module, 0x100_0000, 0x100_1234),
        (RangeKind::Module, 0x200_0000, 0x200_0001),
    ];
    assert_eq!(reserved, expected);
}

#[test]
fn a_structure_cut_anywhere_is_an_error() {
    let sample = sample();
    for length in 0..sample.bytes.len() {
        let (result, ..) = parsed(&sample.bytes[..length]);
        assert!(result.is_err(), "cut to {length} bytes");
    }
}

#[test]
fn each_lie_has_its_error() {
    assert_eq!(error_with(0, &[0]), PvhError::Magic { found: 0x336e_c500 });
    assert_eq!(error_with(4, &[0]), PvhError::Version { found: 0 });
    assert_eq!(error_with(40, &[0; 8]), PvhError::MapMissing);
    assert_eq!(error_with(48, &[0; 4]), PvhError::MapMissing);

    let map = sample().map;
    let entries = u32::MAX;
    assert_eq!(
        error_with(48, &[0xff; 4]),
        PvhError::MapUnreadable { at: map, entries }
    );
    assert_eq!(
        error_with(40, &[0xff; 8]),
        PvhError::MapUnreadable {
            at: u64::MAX,
            entries: 4
        }
    );
    assert_eq!(
        error_with(24, &u64::MAX.to_le_bytes()),
        PvhError::CommandLineUnterminated { at: u64::MAX }
    );
    assert_eq!(
        error_with(16, &8_u64.to_le_bytes()),
        PvhError::ModulesUnreadable { at: 8, entries: 2 }
    );
}

#[test]
fn a_command_line_without_an_end_is_an_error() {
    let mut sample = sample();
    let at = sample.command_line;
    sample.bytes.truncate(usize::try_from(at - BASE).unwrap());
    sample.bytes.extend([b'x'; 0x1_1000]);
    let expected = PvhError::CommandLineUnterminated { at };
    assert_eq!(parsed(&sample.bytes).0, Err(expected));
}

#[test]
fn what_is_absent_is_not_invented() {
    let mut sample = sample().bytes;
    // No modules, no list, no command line, no RSDP.
    sample[12..40].fill(0);
    let (result, handoff, regions, _) = parsed(&sample);
    assert_eq!(result, Ok(()));
    assert_eq!(regions.len(), MAP.len());
    assert_eq!(handoff.command_line(), None);
    assert_eq!(handoff.rsdp(), None);
    assert_eq!(handoff.module(), None);
}

#[test]
fn regions_beyond_the_room_are_counted() {
    let mut bytes = sample().bytes;
    // Nine entries, which reach into command line and modules; those come after the map.
    bytes[48] = 9;
    bytes.extend([0; 200]);
    let (result, _, regions, lost) = parsed(&bytes);
    assert_eq!((result, regions.len(), lost), (Ok(()), LIMIT, 9 - LIMIT));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in collection::vec(any::<u8>(), 0..300), magic: bool) {
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&[0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0]);
        }
        let (_, handoff, regions, _) = parsed(&bytes);
        prop_assert!(regions.len() <= LIMIT);
        prop_assert!(handoff.reserved_ranges().iter().all(|range| range.start <= range.end));
    }

    #[test]
    fn flipped_bits_never_panic(flips in collection::vec((any::<usize>(), 0..8_u8), 1..6)) {
        let mut bytes = sample().bytes;
        for (place, bit) in flips {
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
        }
        let (_, handoff, _, _) = parsed(&bytes);
        prop_assert!(handoff.reserved_ranges().iter().all(|range| range.start <= range.end));
    }
}
