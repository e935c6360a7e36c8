//! The firmware's map as `bootloader_api` promises it: sorted, disjoint, page-aligned, and with
//! everything `Usable` free.
//!
//! Where regions overlap, one that is not usable beats a usable one, and of several that are not
//! the highest type wins, as in Linux. Usable memory that `boot` or the loader occupies becomes
//! `Bootloader`.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::handoff::ReservedRange;
use crate::regions::{Regions, page_bounds};

const PAGE: u64 = 0x1000;

/// Returns how many regions the map of `regions` regions and ranges can have at most.
pub(crate) const fn capacity(regions: usize) -> usize {
    regions.saturating_mul(2).saturating_add(1)
}

/// Writes the map to `storage` and returns the part that was filled.
///
/// `storage` must have [`capacity`] for all regions and ranges; what does not fit is left out.
pub(crate) fn fill<'a>(
    regions: &Regions<'_>,
    in_use: &[ReservedRange],
    storage: &'a mut [MemoryRegion],
) -> &'a mut [MemoryRegion] {
    let mut length = 0_usize;
    let mut at = 0_u64;
    while at < u64::MAX {
        let (kind, end) = piece_at(regions, in_use, at);
        let start = core::mem::replace(&mut at, end);
        let Some(kind) = kind else {
            continue;
        };

        let previous = length.checked_sub(1).and_then(|last| storage.get_mut(last));
        if let Some(previous) = previous.filter(|last| last.end == start && last.kind == kind) {
            previous.end = end;
        } else if let Some(place) = storage.get_mut(length) {
            *place = MemoryRegion { start, end, kind };
            length = length.saturating_add(1);
        }
    }
    storage.get_mut(..length).unwrap_or_default()
}

/// Returns what the page at `at` is, and where that may change.
fn piece_at(
    regions: &Regions<'_>,
    in_use: &[ReservedRange],
    at: u64,
) -> (Option<MemoryRegionKind>, u64) {
    let mut end = u64::MAX;
    let mut kind = None;
    for region in regions.as_slice() {
        let Some(bounds) = page_bounds(region) else {
            continue;
        };
        end = nearest(end, at, bounds);
        if (bounds.0..bounds.1).contains(&at) && rank(Some(region.kind)) > rank(kind) {
            kind = Some(region.kind);
        }
    }

    for range in in_use {
        let bounds = (
            range.start.saturating_sub(range.start % PAGE),
            range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX),
        );
        end = nearest(end, at, bounds);
        if (bounds.0..bounds.1).contains(&at) && kind == Some(MemoryRegionKind::Usable) {
            kind = Some(MemoryRegionKind::Bootloader);
        }
    }
    (kind, end)
}

/// Returns the nearest of `end` and those `bounds` that lie after `at`.
fn nearest(end: u64, at: u64, bounds: (u64, u64)) -> u64 {
    let mut nearest = end;
    for bound in [bounds.0, bounds.1] {
        if bound > at && bound < nearest {
            nearest = bound;
        }
    }
    nearest
}

fn rank(kind: Option<MemoryRegionKind>) -> (u8, u32) {
    match kind {
        None => (0, 0),
        Some(MemoryRegionKind::Usable) => (1, 0),
        Some(MemoryRegionKind::UnknownBios(kind) | MemoryRegionKind::UnknownUefi(kind)) => {
            (2, kind)
        }
        Some(_) => (3, 0),
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may add")]
mod tests {
    use std::vec::Vec;

    use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
    use proptest::prelude::{any, proptest};
    use proptest::{collection, prop_assert, prop_assert_eq};

    use super::{capacity, fill};
    use crate::handoff::{RangeKind, ReservedRange};
    use crate::regions::Regions;

    fn disjoint(map: &[(u64, u64, u32)], in_use: &[(u64, u64)]) -> Vec<MemoryRegion> {
        let mut storage = [MemoryRegion::empty(); 64];
        let mut regions = Regions::new(&mut storage, 64);
        for (start, size, kind) in map {
            regions.push_bios(*start, *size, *kind);
        }
        let kind = RangeKind::Module;
        let in_use: Vec<_> = in_use
            .iter()
            .map(|&(start, end)| ReservedRange { kind, start, end })
            .collect();
        let mut out = std::vec![MemoryRegion::empty(); capacity(map.len() + in_use.len())];
        fill(&regions, &in_use, &mut out).to_vec()
    }

    #[test]
    fn what_is_occupied_is_cut_out_of_usable_memory() {
        let usable = MemoryRegionKind::Usable;
        let expected = [
            (0, 0x1000, usable),
            (0x1000, 0x3000, MemoryRegionKind::Bootloader),
            (0x3000, 0x8000, usable),
            (0x8000, 0xa000, MemoryRegionKind::UnknownBios(4)),
        ]
        .map(|(start, end, kind)| MemoryRegion { start, end, kind });
        // Unsorted, overlapping, with fractions of pages, an empty one and two that wrap.
        let map = [
            (0x8800, 0x1000, 4),
            (0x9000, 0x100, 3),
            (0, 0x9fff, 1),
            (0x5000, 0, 2),
            (0x6000, u64::MAX, 1),
        ];
        assert_eq!(disjoint(&map, &[(0x1800, 0x2001)]), expected);
    }

    proptest! {
        #[test]
        fn the_result_is_sorted_disjoint_and_true(
            map in collection::vec((0..32_u64, 0..16_u64, 1..4_u32), 0..20),
            in_use in collection::vec((0..32_u64, 0..8_u64), 0..6),
            fraction in any::<u8>(),
        ) {
            let map: Vec<_> = map
                .iter()
                .map(|&(start, size, kind)| (start * 0x1000 + u64::from(fraction), size * 0x1000, kind))
                .collect();
            let in_use: Vec<_> = in_use
                .iter()
                .map(|&(start, size)| (start * 0x1000, (start + size) * 0x1000))
                .collect();
            let result = disjoint(&map, &in_use);

            prop_assert!(result.iter().all(|region| region.start < region.end));
            prop_assert!(result.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for page in 0..64_u64 {
                let (at, end) = (page * 0x1000, page * 0x1000 + 0x1000);
                let inside = |&&(start, size, kind): &&(u64, u64, u32)| {
                    kind == 1 && start <= at && end <= start + size
                };
                let touched = |&&(start, size, kind): &&(u64, u64, u32)| {
                    kind != 1 && size > 0 && start < end && at < start + size
                };
                let occupied = in_use.iter().any(|&(start, stop)| start < end && at < stop);
                let is_ram = map.iter().any(|entry| inside(&entry))
                    && !map.iter().any(|entry| touched(&entry));
                let free = is_ram && !occupied;
                let said = result.iter().find(|region| (region.start..region.end).contains(&at));
                let said_free = said.is_some_and(|region| region.kind == MemoryRegionKind::Usable);
                prop_assert_eq!(said_free, free, "page {:#x}", at);
            }
        }
    }
}
