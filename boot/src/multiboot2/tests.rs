//! Information structures as an independent writer (the `multiboot2` crate) makes them, cut at
//! every byte, and lying.

use std::vec::Vec;

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use multiboot2::{
    BootLoaderNameTag, Builder, CommandLineTag, FramebufferField, FramebufferTag, FramebufferType,
    MaybeDynSized, MemoryArea, MemoryAreaType, MemoryMapTag, ModuleTag, RsdpV1Tag, RsdpV2Tag,
};
use proptest::prelude::{any, proptest};
use proptest::{collection, prop_assert};

use super::{Multiboot2Error, parse};
use crate::bytes::SliceMemory;
use crate::handoff::{Handoff, RawFramebuffer};
use crate::regions::Regions;
use crate::warning::Warning;

const BASE: u64 = 0x1_0000;
const LIMIT: usize = 6;

struct Outcome {
    result: Result<(), Multiboot2Error>,
    handoff: Handoff,
    regions: Vec<MemoryRegion>,
}

fn parsed(bytes: &[u8]) -> Outcome {
    let mut storage = [MemoryRegion::empty(); LIMIT];
    let mut handoff = Handoff::new();
    let mut regions = Regions::new(&mut storage, LIMIT);
    let memory = SliceMemory::new(BASE, bytes);
    let result = parse(&memory, BASE, &mut handoff, &mut regions);
    let regions = regions.as_slice().to_vec();
    Outcome {
        result,
        handoff,
        regions,
    }
}

fn sample() -> Vec<u8> {
    let areas = [
        MemoryArea::new(0x10_0000, 0x700_0000, MemoryAreaType::Available),
        MemoryArea::new(0, 0x9_fc00, MemoryAreaType::Available),
        MemoryArea::new(0x7fe_0000, 0x2_0000, MemoryAreaType::AcpiAvailable),
        MemoryArea::new(u64::MAX, 2, MemoryAreaType::Custom(20)),
    ];
    let field = |position| FramebufferField { position, size: 8 };
    let rgb = FramebufferType::RGB {
        red: field(16),
        green: field(8),
        blue: field(0),
    };
    let info = Builder::new()
        .cmdline(CommandLineTag::new(r#"exec=\"cat\" quiet"#))
        .bootloader(BootLoaderNameTag::new("GRUB 2.06"))
        .add_module(ModuleTag::new(0x20_0000, 0x20_1234, "ramdisk"))
        .mmap(MemoryMapTag::new(&areas))
        .framebuffer(FramebufferTag::new(0xfd00_0000, 4096, 1024, 768, 32, rgb))
        .rsdpv2(RsdpV2Tag::new(*b"TESTER", 2, 1, 36, 2))
        .rsdpv1(RsdpV1Tag::new(*b"TESTER", 0, 1))
        .build();
    info.as_bytes().to_vec()
}

/// Writes a structure of the given tags and an end tag.
fn structure(tags: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = std::vec![0; 8];
    for (kind, content) in tags.iter().chain([&(0, &[][..])]) {
        let size = u32::try_from(content.len() + 8).unwrap();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let size = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// The content of a map tag: entry size, version, and `words` of 64 bits.
fn map(entry_size: u32, words: &[u64]) -> Vec<u8> {
    let mut bytes = u64::from(entry_size).to_le_bytes().to_vec();
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

fn error_of(tags: &[(u32, &[u8])]) -> Multiboot2Error {
    parsed(&structure(tags)).result.unwrap_err()
}

#[test]
fn everything_that_is_said_is_handed_on() {
    let bytes = sample();
    let Outcome {
        result,
        handoff,
        regions,
    } = parsed(&bytes);
    assert_eq!(result, Ok(()));

    let expected = [
        (0x10_0000, 0x710_0000, MemoryRegionKind::Usable),
        (0, 0x9_fc00, MemoryRegionKind::Usable),
        (0x7fe_0000, 0x800_0000, MemoryRegionKind::UnknownBios(3)),
        (u64::MAX, 1, MemoryRegionKind::UnknownBios(20)),
    ]
    .map(|(start, end, kind)| MemoryRegion { start, end, kind });
    assert_eq!(regions, expected);
    assert_eq!(handoff.command_line(), Some(r#"exec="cat" quiet"#));
    let module = handoff.module().map(|module| (module.start, module.end));
    assert_eq!(module, Some((0x20_0000, 0x20_1234)));
    assert_eq!(handoff.warnings(), []);
    let expected = RawFramebuffer {
        address: 0xfd00_0000,
        pitch: 4096,
        width: 1024,
        height: 768,
        bits_per_pixel: 32,
        positions: [16, 8, 0],
        sizes: [8; 3],
    };
    assert_eq!(handoff.framebuffer(), Some(expected));
}

#[test]
fn the_newer_root_pointer_wins_and_lies_in_the_structure() {
    let bytes = sample();
    let at = parsed(&bytes).handoff.rsdp().unwrap();
    let offset = usize::try_from(at - BASE).unwrap();
    assert_eq!(&bytes[offset..offset + 8], b"RSD PTR ");
    assert_eq!(bytes[offset + 15], 2);
}

#[test]
fn a_structure_cut_anywhere_is_an_error() {
    let bytes = sample();
    for length in 0..bytes.len() {
        // Cut, with the size field still telling the truth about the past.
        assert!(parsed(&bytes[..length]).result.is_err(), "cut to {length}");
        // And with a size field that owns up to it.
        if length >= 8 {
            let mut owned = bytes[..length].to_vec();
            let size = u32::try_from(length).unwrap();
            owned[..4].copy_from_slice(&size.to_le_bytes());
            assert!(parsed(&owned).result.is_err(), "shortened to {length}");
        }
    }
}

#[test]
fn each_lie_has_its_error() {
    let entries = map(24, &[0, 0x1000, 1]);
    assert_eq!(error_of(&[]), Multiboot2Error::MapMissing);
    assert_eq!(
        error_of(&[(1, b"no end")]),
        Multiboot2Error::Unterminated { kind: 1 }
    );
    assert_eq!(
        error_of(&[(3, &[0, 0, 0, 2, 0, 0, 0, 1, 0])]),
        Multiboot2Error::Module {
            start: 0x200_0000,
            end: 0x100_0000
        }
    );
    for (entry_size, size) in [(0, 24), (8, 24), (23, 24), (25, 24), (48, 24)] {
        assert_eq!(
            error_of(&[(6, &map(entry_size, &[0, 0x1000, 1]))]),
            Multiboot2Error::MapEntries { entry_size, size }
        );
    }
    assert_eq!(
        error_of(&[(6, &entries), (8, &[0; 10])]),
        Multiboot2Error::Tag {
            kind: 8,
            size: 18,
            offset: 48
        }
    );

    let mut bytes = sample();
    bytes[..4].copy_from_slice(&15_u32.to_le_bytes());
    let result = parsed(&bytes).result;
    assert_eq!(result, Err(Multiboot2Error::Size { found: 15 }));
    // A tag of size 0 would never end.
    bytes = structure(&[(6, &entries)]);
    bytes[12] = 0;
    let error = Multiboot2Error::Tag {
        kind: 6,
        size: 0,
        offset: 8,
    };
    assert_eq!(parsed(&bytes).result, Err(error));
}

#[test]
fn larger_map_entries_are_skipped_over() {
    let entries = map(32, &[0x1000, 0x1000, 1, 99, 0x3000, 0x1000, 2, 99]);
    let outcome = parsed(&structure(&[(6, &entries)]));
    assert_eq!(outcome.result, Ok(()));
    let starts: Vec<_> = outcome.regions.iter().map(|region| region.start).collect();
    assert_eq!(starts, [0x1000, 0x3000]);
}

#[test]
fn the_efi_map_serves_when_there_is_no_other() {
    let mut words = Vec::new();
    // Type, physical, virtual, pages, attributes.
    for (kind, start, pages) in [(7, 0, 16), (4, 0x10_0000, 1), (10, 0x20_0000, u64::MAX)] {
        words.extend([kind, start, 0, pages, 0]);
    }
    let efi = map(40, &words);
    let kinds = |tags: &[(u32, &[u8])]| {
        let outcome = parsed(&structure(tags));
        assert_eq!(outcome.result, Ok(()));
        let kinds: Vec<_> = outcome.regions.iter().map(|region| region.kind).collect();
        (kinds, outcome.handoff.warnings().to_vec())
    };

    let (usable, acpi) = (MemoryRegionKind::Usable, MemoryRegionKind::UnknownUefi(10));
    let ended = kinds(&[(17, &efi)]);
    assert_eq!(
        ended,
        (
            std::vec![usable, usable, acpi],
            std::vec![Warning::EfiMapOnly]
        )
    );

    let running = kinds(&[(18, &[]), (17, &efi)]);
    let services = MemoryRegionKind::UnknownUefi(4);
    let warnings = std::vec![Warning::EfiBootServices, Warning::EfiMapOnly];
    assert_eq!(running, (std::vec![usable, services, acpi], warnings));

    let both = kinds(&[(17, &efi), (6, &map(24, &[0, 0x1000, 1]))]);
    assert_eq!(both, (std::vec![usable], std::vec![]));
}

#[test]
fn a_text_screen_is_no_framebuffer() {
    let mut screen = std::vec![0; 24];
    for (kind, warnings) in [(2, 0), (0, 1)] {
        screen[21] = kind;
        let tags: [(u32, &[u8]); 2] = [(6, &map(24, &[0, 0x1000, 1])), (8, &screen)];
        let outcome = parsed(&structure(&tags));
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(outcome.handoff.framebuffer(), None);
        assert_eq!(outcome.handoff.warnings().len(), warnings);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in collection::vec(any::<u8>(), 0..300), sized: bool) {
        if sized && bytes.len() >= 8 {
            let size = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&size.to_le_bytes());
        }
        let outcome = parsed(&bytes);
        prop_assert!(outcome.regions.len() <= LIMIT);
    }

    #[test]
    fn random_tags_never_panic(
        tags in collection::vec((0..20_u32, collection::vec(any::<u8>(), 0..60)), 0..8),
    ) {
        let tags: Vec<_> = tags.iter().map(|(kind, content)| (*kind, &content[..])).collect();
        let outcome = parsed(&structure(&tags));
        prop_assert!(outcome.regions.len() <= LIMIT);
    }

    #[test]
    fn flipped_bits_never_panic(flips in collection::vec((any::<usize>(), 0..8_u8), 1..6)) {
        let mut bytes = sample();
        for (place, bit) in flips {
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
        }
        let outcome = parsed(&bytes);
        prop_assert!(outcome.handoff.reserved_ranges().iter().all(|range| range.start <= range.end));
    }
}
