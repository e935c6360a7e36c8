//! Where page tables come from: whole pages of RAM, picked from the firmware's map.
//!
//! Pages are taken upwards from the end of the kernel image, then, if those do not suffice, from
//! 1 MiB to the image; never above the identity map, never from memory in use.

use crate::bytes::IDENTITY_END;
use crate::handoff::ReservedRange;
use crate::list::List;
use crate::regions::Regions;

const PAGE: u64 = 0x1000;
/// Below is memory of the firmware and of real-mode code.
const FLOOR: u64 = 0x10_0000;
const PIECES: usize = 16;

/// Ranges of memory that became page tables.
pub(crate) type Pieces = List<(u64, u64), PIECES>;

/// A source of page-table pages that remembers what it gave.
#[derive(Debug)]
pub(crate) struct Arena<'a> {
    regions: &'a Regions<'a>,
    in_use: &'a [ReservedRange],
    windows: [(u64, u64); 2],
    pieces: Pieces,
}

impl<'a> Arena<'a> {
    /// Creates an arena around the kernel image at `image` (page addresses).
    pub(crate) const fn new(
        regions: &'a Regions<'a>,
        in_use: &'a [ReservedRange],
        image: (u64, u64),
    ) -> Self {
        Self {
            regions,
            in_use,
            windows: [(image.1, IDENTITY_END), (FLOOR, image.0)],
            pieces: List::new((0, 0)),
        }
    }

    /// Takes a page and returns its physical address.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let [above, below] = self.windows;
        let page = self.free_page(above).or_else(|| self.free_page(below))?;
        let next = page.checked_add(PAGE)?;

        let extends = self.pieces.last_mut().filter(|piece| piece.1 == page);
        if let Some(piece) = extends {
            piece.1 = next;
        } else if self.pieces.is_full() {
            return None;
        } else {
            self.pieces.push((page, next));
        }
        for window in &mut self.windows {
            if (window.0..window.1).contains(&page) {
                window.0 = next;
            }
        }
        Some(page)
    }

    /// Returns what was taken, as ranges.
    pub(crate) const fn into_pieces(self) -> Pieces {
        self.pieces
    }

    fn free_page(&self, window: (u64, u64)) -> Option<u64> {
        let (mut at, end) = window;
        while at < end {
            let run = self.regions.run_at(at);
            if !run.is_ram {
                at = run.end;
                continue;
            }
            let Some(taken) = self.user_of(at) else {
                return Some(at);
            };
            at = taken.end.checked_next_multiple_of(PAGE)?;
        }
        None
    }

    fn user_of(&self, page: u64) -> Option<&ReservedRange> {
        let next = page.saturating_add(PAGE);
        let overlaps = |range: &&ReservedRange| range.start < next && page < range.end;
        self.in_use.iter().find(overlaps)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use bootloader_api::info::MemoryRegion;

    use super::Arena;
    use crate::handoff::{RangeKind, ReservedRange};
    use crate::regions::Regions;

    const IMAGE: (u64, u64) = (0x20_0000, 0x30_0000);

    fn taken(map: &[(u64, u64, u32)], in_use: &[(u64, u64)], pages: usize) -> Vec<(u64, u64)> {
        let mut storage = [MemoryRegion::empty(); 16];
        let mut regions = Regions::new(&mut storage, 16);
        for (start, size, kind) in map {
            regions.push_bios(*start, *size, *kind);
        }
        let in_use: Vec<_> = in_use
            .iter()
            .map(|(start, end)| ReservedRange {
                kind: RangeKind::Module,
                start: *start,
                end: *end,
            })
            .collect();
        let mut arena = Arena::new(&regions, &in_use, IMAGE);
        for _ in 0..pages {
            arena.take();
        }
        arena.into_pieces().as_slice().to_vec()
    }

    #[test]
    fn pages_follow_the_image() {
        let pieces = taken(&[(0, 0x100_0000, 1)], &[], 3);
        assert_eq!(pieces, [(0x30_0000, 0x30_3000)]);
    }

    #[test]
    fn memory_in_use_and_holes_are_stepped_over() {
        let map = [(0, 0x100_0000, 1), (0x30_1000, 1, 2)];
        let pieces = taken(&map, &[(0x30_2fff, 0x30_3001)], 3);
        assert_eq!(pieces, [(0x30_0000, 0x30_1000), (0x30_4000, 0x30_6000)]);
    }

    #[test]
    fn memory_below_the_image_is_the_last_resort() {
        let pieces = taken(&[(0, 0x30_1000, 1)], &[], 1000);
        assert_eq!(pieces, [(0x30_0000, 0x30_1000), (0x10_0000, 0x20_0000)]);
    }

    #[test]
    fn a_map_without_memory_gives_nothing() {
        assert_eq!(taken(&[], &[], 3), []);
        assert_eq!(taken(&[(0, u64::MAX, 2)], &[], 3), []);
        // Above 4 GiB is out of reach of the identity map.
        assert_eq!(taken(&[(1 << 32, 1 << 32, 1)], &[], 3), []);
    }
}
