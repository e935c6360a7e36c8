//! Records of areas, by number. There are more whenever they run out; they are never moved, and never given back.
#![forbid(unsafe_code)]

use super::Area;
use crate::addr::{Rows, VirtAddr, to_count, to_index};
use crate::collections::range_tree::{Nodes, RangeNode, Slot};
use crate::mem::{Array, EarlyRam};
use crate::platform::Platform;
use crate::sync::Once;

/// log2 of the records of the first chunk: a page of them.
const FIRST: u32 = 5;
/// Chunks that are twice as large as the one before.
const DOUBLING: u32 = 10;
/// log2 of the records of every other chunk: 4 MiB.
const LARGEST: u32 = FIRST + DOUBLING;
/// Chunks there can be: two million areas.
const CHUNKS: usize = 74;

/// All records.
#[derive(Debug)]
pub(super) struct Arena {
    chunks: [Once<&'static [Area]>; CHUNKS],
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            chunks: [const { Once::new() }; CHUNKS],
        }
    }

    /// Chunk and place of a record.
    fn place(slot: Slot) -> (usize, usize) {
        // So that the first chunk, too, starts at a power of two.
        let number = u64::from(slot.number()).saturating_add(1 << FIRST);
        let log = number.ilog2();
        let (chunk, offset) = match log < LARGEST {
            true => (u64::from(log.wrapping_sub(FIRST)), number ^ 1 << log),
            false => {
                let beyond = number.wrapping_sub(1 << LARGEST);
                let chunk = u64::from(DOUBLING).wrapping_add(beyond >> LARGEST);
                (chunk, beyond & ((1 << LARGEST) - 1))
            }
        };
        (to_index(chunk), to_index(offset))
    }

    /// The number of a chunk's first record.
    fn first(chunk: usize) -> u32 {
        let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
        let end_of_last = match chunk < DOUBLING {
            true => 1 << FIRST.saturating_add(chunk),
            false => chunk.saturating_sub(DOUBLING).saturating_add(1) << LARGEST,
        };
        let before_the_first: u32 = 1 << FIRST;
        end_of_last.saturating_sub(before_the_first)
    }

    /// Records of a chunk.
    fn len(chunk: usize) -> usize {
        let log = u32::try_from(chunk).unwrap_or(DOUBLING).min(DOUBLING);
        1 << log.saturating_add(FIRST)
    }

    /// The record with a number.
    #[inline]
    pub(super) fn area(&self, slot: Slot) -> Option<&'static Area> {
        let (chunk, offset) = Self::place(slot);
        let records: &'static [Area] = self.chunks.get(chunk)?.get()?;
        records.get(offset)
    }

    /// Where the records are, a chunk after the other.
    pub(super) fn rows(&self) -> impl Iterator<Item = Rows> {
        let chunks = self.chunks.iter().filter_map(Once::get);
        chunks.map(|records| Rows {
            at: VirtAddr::from_ptr(records.as_ptr()),
            count: to_count(records.len()),
            stride: to_count(size_of::<Area>()),
            fields: Area::FIELDS,
        })
    }

    /// The chunk that holds a record, and how many bytes it needs, unless it is there.
    pub(super) fn missing(&self, slot: Slot) -> Option<u64> {
        let (chunk, _) = Self::place(slot);
        let is_there = self.chunks.get(chunk)?.get().is_some();
        let bytes = to_count(size_of::<Area>().saturating_mul(Self::len(chunk)));
        (!is_there).then_some(bytes)
    }

    /// Whether there can be a record with this number.
    pub(super) fn can_hold(slot: Slot) -> bool {
        Self::place(slot).0 < CHUNKS
    }

    /// Makes a chunk of memory of as many bytes as were said to be missing for a record; one caller at a time.
    /// `false` if the platform does not reach the memory, which stays out of use then.
    pub(super) fn grow<P: Platform>(&self, platform: &P, slot: Slot, ram: EarlyRam) -> bool {
        let (chunk, _) = Self::place(slot);
        let first = Self::first(chunk);
        let record = |index: usize| {
            let number = u32::try_from(index).ok();
            let number = number.and_then(|index| Slot::new(first.saturating_add(index)));
            Area::new(number.unwrap_or(slot))
        };
        let records = Array::carve(platform, ram, Self::len(chunk), record);
        let place = self.chunks.get(chunk).zip(records.ok());
        place.is_some_and(|(place, records)| place.set(records.leak()).is_ok())
    }
}

impl Nodes for Arena {
    #[inline]
    fn node(&self, slot: Slot) -> Option<&RangeNode> {
        self.area(slot).map(|area| &area.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_place() {
        assert_eq!(size_of::<Area>(), 128);
        let mut expected = (0, 0);
        for number in 0..200_000 {
            assert_eq!(Arena::place(Slot::new(number).unwrap()), expected);
            let (chunk, offset) = expected;
            let first = Arena::first(chunk);
            assert_eq!(first + u32::try_from(offset).unwrap(), number);
            expected = match offset + 1 == Arena::len(chunk) {
                true => (chunk + 1, 0),
                false => (chunk, offset + 1),
            };
        }
        assert!(!Arena::can_hold(Slot::new(u32::MAX - 1).unwrap()));
    }
}
