//! The boot loader's map in the words of firmware, which `mm` repairs and reads.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use mm::memblock::firmware::{EfiAttributes, FirmwareKind, FirmwareRegion};

/// Entries that are looked at. Those of a map are disjoint: one more is merely not used.
pub(crate) const MOST: usize = 256;

/// A map, and how many entries it has.
pub(crate) fn firmware_map(regions: &[MemoryRegion]) -> ([FirmwareRegion; MOST], usize) {
    let mut map = [FirmwareRegion::default(); MOST];
    for (entry, region) in map.iter_mut().zip(regions) {
        *entry = firmware_region(region);
    }
    (map, regions.len().min(MOST))
}

/// A region as firmware would tell it. What the loader uses is RAM too; it is reserved apart.
pub(crate) fn firmware_region(region: &MemoryRegion) -> FirmwareRegion {
    let kind = match region.kind {
        MemoryRegionKind::Usable | MemoryRegionKind::Bootloader => FirmwareKind::Usable,
        MemoryRegionKind::UnknownBios(number) => FirmwareKind::from_e820(number),
        MemoryRegionKind::UnknownUefi(number) => {
            FirmwareKind::from_efi(number, EfiAttributes::empty())
        }
        _ => FirmwareKind::Reserved,
    };
    FirmwareRegion {
        start: region.start,
        size: region.end.saturating_sub(region.start),
        kind: kind.as_e820(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn region(start: u64, end: u64, kind: MemoryRegionKind) -> MemoryRegion {
        MemoryRegion { start, end, kind }
    }

    #[test]
    fn what_the_loader_uses_is_ram_and_what_nobody_knows_is_not() {
        for (kind, expected) in [
            (MemoryRegionKind::Usable, FirmwareKind::Usable),
            (MemoryRegionKind::Bootloader, FirmwareKind::Usable),
            (MemoryRegionKind::UnknownBios(2), FirmwareKind::Reserved),
            (
                MemoryRegionKind::UnknownBios(3),
                FirmwareKind::AcpiReclaimable,
            ),
            // EfiACPIMemoryNVS (UEFI specification 2.10, table 7.6).
            (MemoryRegionKind::UnknownUefi(10), FirmwareKind::AcpiNvs),
        ] {
            let found = firmware_region(&region(0x1000, 0x3000, kind));
            assert_eq!(found.kind, expected.as_e820(), "{kind:?}");
            assert_eq!((found.start, found.size), (0x1000, 0x2000));
        }
    }

    #[test]
    fn a_region_that_ends_before_it_starts_is_empty() {
        let wrapped = region(0x3000, 0x1000, MemoryRegionKind::Usable);
        assert_eq!(firmware_region(&wrapped).size, 0);
    }

    #[test]
    fn a_map_that_is_too_long_loses_its_end_only() {
        let one = region(0x1000, 0x2000, MemoryRegionKind::Usable);
        let (map, entries) = firmware_map(&[one; MOST + 1]);
        assert_eq!((entries, map[MOST - 1].size), (MOST, 0x1000));
        let (map, entries) = firmware_map(&[one; 2]);
        assert_eq!((entries, map[2].size), (2, 0));
    }
}
