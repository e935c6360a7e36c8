//! The firmware's memory map: kept as it came, and asked where there is RAM.
//!
//! The map is not repaired here. Regions keep the firmware's order, may overlap, be empty, or
//! wrap past the last address (`end < start`). Whoever asks [`Regions::run_at`] gets the careful
//! reading: a page is RAM if a usable region holds all of it and no other region touches it.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

/// How many firmware regions are kept. The largest maps known have about 300.
pub const FIRMWARE_REGIONS: usize = 1024;
/// How many regions `boot` may add for its own memory.
pub const BOOT_REGIONS: usize = 32;

const PAGE: u64 = 0x1000;

/// A list of regions in borrowed storage.
///
/// # Invariants
///
/// `length <= storage.len()` and `firmware_limit <= storage.len()`.
#[derive(Debug)]
pub struct Regions<'a> {
    storage: &'a mut [MemoryRegion],
    length: usize,
    firmware_limit: usize,
    given: usize,
}

/// Physical addresses of one nature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first address after the run.
    pub end: u64,
    /// Whether every page of it is RAM.
    pub is_ram: bool,
}

impl<'a> Regions<'a> {
    /// Creates an empty list that keeps up to `firmware_limit` regions of the firmware and fills
    /// the rest of `storage` with the loader's own.
    #[must_use]
    pub const fn new(storage: &'a mut [MemoryRegion], firmware_limit: usize) -> Self {
        let room = storage.len();
        let firmware_limit = if firmware_limit < room {
            firmware_limit
        } else {
            room
        };
        Self {
            storage,
            length: 0,
            firmware_limit,
            given: 0,
        }
    }

    /// Appends a region of the firmware with its E820 type.
    pub fn push_bios(&mut self, start: u64, size: u64, kind: u32) {
        self.push_firmware(start, size, bios_kind(kind));
    }

    /// Appends a region of the firmware; a wrapping one gets `end < start`.
    pub(crate) fn push_firmware(&mut self, start: u64, size: u64, kind: MemoryRegionKind) {
        self.given = self.given.saturating_add(1);
        if self.length < self.firmware_limit {
            let end = start.wrapping_add(size);
            self.push(MemoryRegion { start, end, kind });
        }
    }

    /// Appends memory that `boot` uses; false if there is no room.
    pub(crate) fn push_boot(&mut self, start: u64, end: u64) -> bool {
        self.push(MemoryRegion {
            start,
            end,
            kind: MemoryRegionKind::Bootloader,
        })
    }

    fn push(&mut self, region: MemoryRegion) -> bool {
        let Some(place) = self.storage.get_mut(self.length) else {
            return false;
        };
        *place = region;
        // INVARIANT: `length` was the index of a place.
        self.length = self.length.saturating_add(1);
        true
    }

    /// Returns the regions.
    #[must_use]
    pub fn as_slice(&self) -> &[MemoryRegion] {
        self.storage.get(..self.length).unwrap_or_default()
    }

    /// How many regions the firmware gave, kept or not.
    #[must_use]
    pub const fn given(&self) -> usize {
        self.given
    }

    /// How many regions of the firmware could not be kept.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.given.saturating_sub(self.firmware_limit)
    }

    /// Gives the storage back, cut to the regions in it.
    pub(crate) fn into_slice(self) -> &'a mut [MemoryRegion] {
        self.storage.get_mut(..self.length).unwrap_or_default()
    }

    /// Returns the nature of the page at `at` (a page address) and where it may change.
    ///
    /// Regions of kind `Bootloader` are skipped: what `boot` uses is RAM.
    #[must_use]
    pub fn run_at(&self, at: u64) -> Run {
        let mut end = u64::MAX;
        let mut usable = false;
        let mut taken = false;

        for region in self.as_slice() {
            let Some((from, to)) = page_bounds(region) else {
                continue;
            };
            for bound in [from, to] {
                if bound > at && bound < end {
                    end = bound;
                }
            }
            if (from..to).contains(&at) {
                match region.kind {
                    MemoryRegionKind::Usable => usable = true,
                    _ => taken = true,
                }
            }
        }

        let is_ram = usable && !taken;
        Run { end, is_ram }
    }

    /// Whether any region is usable.
    #[must_use]
    pub fn has_usable(&self) -> bool {
        let usable = |region: &MemoryRegion| region.kind == MemoryRegionKind::Usable;
        self.as_slice().iter().any(usable)
    }

    /// Returns the first region that is not usable and touches `start..end`.
    #[must_use]
    pub fn obstacle(&self, start: u64, end: u64) -> Option<MemoryRegion> {
        let touches = |region: &&MemoryRegion| {
            let is_taken = region.kind != MemoryRegionKind::Usable;
            let bounds = page_bounds(region).filter(|_| is_taken);
            bounds.is_some_and(|(from, to)| from < end && start < to)
        };
        self.as_slice().iter().find(touches).copied()
    }

    /// Returns the first address of `start..end` (page addresses) that is not RAM.
    #[must_use]
    pub fn first_gap(&self, start: u64, end: u64) -> Option<u64> {
        let mut at = start;
        while at < end {
            let run = self.run_at(at);
            if !run.is_ram {
                return Some(at);
            }
            at = run.end;
        }
        None
    }
}

/// Translates an E820 type, as PVH and Multiboot2 use it too.
const fn bios_kind(kind: u32) -> MemoryRegionKind {
    match kind {
        1 => MemoryRegionKind::Usable,
        other => MemoryRegionKind::UnknownBios(other),
    }
}

/// Returns the whole pages of a usable region, every touched page of another one; `None` for
/// nothing, for `Bootloader`, and for a usable region that wraps (it says nothing to rely on).
pub(crate) fn page_bounds(region: &MemoryRegion) -> Option<(u64, u64)> {
    let wraps = region.end < region.start;
    let (from, to) = match region.kind {
        MemoryRegionKind::Bootloader => return None,
        MemoryRegionKind::Usable if wraps => return None,
        MemoryRegionKind::Usable => {
            let from = region.start.checked_next_multiple_of(PAGE)?;
            (from, page_floor(region.end))
        }
        _ if region.start == region.end => return None,
        _ => {
            let end = if wraps { u64::MAX } else { region.end };
            let to = end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
            (page_floor(region.start), to)
        }
    };
    (from < to).then_some((from, to))
}

const fn page_floor(at: u64) -> u64 {
    at & !0xfff
}

#[cfg(test)]
mod tests {
    use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

    use super::{Regions, Run};

    fn with<T>(map: &[(u64, u64, u32)], ask: impl Fn(&Regions<'_>) -> T) -> T {
        let mut storage = [MemoryRegion::empty(); 4];
        let mut regions = Regions::new(&mut storage, 3);
        for (start, size, kind) in map {
            regions.push_bios(*start, *size, *kind);
        }
        ask(&regions)
    }

    #[test]
    fn regions_are_kept_in_order_and_as_they_are() {
        let map = [
            (0x5000, 0, 2),
            (0x1000, 0x10, 1),
            (u64::MAX, 3, 7),
            (0, 1, 1),
        ];
        with(&map, |regions| {
            let expected = [
                (0x5000, 0x5000, MemoryRegionKind::UnknownBios(2)),
                (0x1000, 0x1010, MemoryRegionKind::Usable),
                (u64::MAX, 2, MemoryRegionKind::UnknownBios(7)),
            ]
            .map(|(start, end, kind)| MemoryRegion { start, end, kind });
            assert_eq!(regions.as_slice(), expected);
            assert_eq!((regions.given(), regions.lost()), (4, 1));
        });
    }

    #[test]
    fn storage_below_the_limit_is_the_limit() {
        let mut storage = [MemoryRegion::empty(); 2];
        let mut regions = Regions::new(&mut storage, 9);
        for _ in 0..5 {
            regions.push_bios(0, 0x1000, 1);
        }
        assert_eq!((regions.as_slice().len(), regions.lost()), (2, 3));
    }

    #[test]
    fn room_for_own_regions_is_kept() {
        let mut storage = [MemoryRegion::empty(); 4];
        let mut regions = Regions::new(&mut storage, 3);
        for _ in 0..9 {
            regions.push_bios(0, 0x1000, 1);
        }
        assert!(regions.push_boot(0x1000, 0x2000));
        assert!(!regions.push_boot(0x2000, 0x3000));
        assert_eq!(regions.into_slice().len(), 4);
    }

    #[test]
    fn a_run_ends_where_anything_may_change() {
        let map = [(0x800, 0x3000, 1), (0x2fff, 2, 2)];
        with(&map, |regions| {
            let run = |end, is_ram| Run { end, is_ram };
            assert_eq!(regions.run_at(0), run(0x1000, false));
            assert_eq!(regions.run_at(0x1000), run(0x2000, true));
            assert_eq!(regions.run_at(0x2000), run(0x3000, false));
            assert_eq!(regions.run_at(0x3000), run(0x4000, false));
            assert_eq!(regions.run_at(0x4000), run(u64::MAX, false));
            assert_eq!(regions.first_gap(0x1000, 0x2000), None);
            assert_eq!(regions.first_gap(0x1000, 0x3000), Some(0x2000));
        });
    }

    #[test]
    fn a_wrapping_region_takes_everything_above_but_gives_nothing() {
        with(&[(0, 0x10_0000, 1), (0x8000, u64::MAX, 2)], |regions| {
            assert!(regions.run_at(0x7000).is_ram);
            assert!(!regions.run_at(0x8000).is_ram);
            assert!(!regions.run_at(0x7fff_ffff_f000).is_ram);
        });
        with(&[(0x8000, u64::MAX, 1)], |regions| {
            assert!(!regions.run_at(0x8000).is_ram);
        });
    }
}
