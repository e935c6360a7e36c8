//! A table of regions: sorted, disjoint, as few as possible.
//!
//! A [`Table`] starts with 128 slots of its own and may be moved into a larger array
//! ([`Table::move_into`]); deciding when, and where the array lies, is [`super::grow`]'s part.
//! Operations that may need slots have a twin that says how many
//! ([`slots_to_add`](Table::slots_to_add) and so on), so that growing comes first and the
//! operation itself cannot fail halfway. Linux counterpart: `struct memblock_type`.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;

use super::region::Region;
use crate::addr::{PhysRange, to_count};
use crate::mem::Array;
use crate::report::{Check, Corruption};

/// Slots before the first growth, as Linux's `INIT_MEMBLOCK_REGIONS`.
pub const INLINE_REGIONS: usize = 128;

/// A sorted table of disjoint regions.
///
/// # Invariants
/// The first `count` slots hold regions that are not empty, in ascending order, disjoint; no two
/// neighbours touch and are alike; `total` is the sum of their sizes.
pub(super) struct Table {
    inline: [Region; INLINE_REGIONS],
    /// Takes the place of `inline` once there were too many regions for that.
    grown: Option<Array<Region>>,
    count: usize,
    /// Bytes.
    total: u64,
}

/// The table has no slot left; the caller should have grown it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TableFull;

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            inline: [Region {
                range: PhysRange::EMPTY,
                node: None,
                flags: super::region::RegionFlags::empty(),
            }; INLINE_REGIONS],
            grown: None,
            count: 0,
            total: 0,
        }
    }

    pub(super) fn regions(&self) -> &[Region] {
        let slots = match &self.grown {
            Some(array) => array,
            None => &self.inline[..],
        };
        slots.get(..self.count).unwrap_or_default()
    }

    fn slots_mut(&mut self) -> &mut [Region] {
        match &mut self.grown {
            Some(array) => array,
            None => &mut self.inline,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn capacity(&self) -> usize {
        self.grown
            .as_ref()
            .map_or(INLINE_REGIONS, |array| array.len())
    }

    pub(super) fn spare(&self) -> usize {
        self.capacity().saturating_sub(self.count)
    }

    /// Where the slots lie, if not inside the table itself.
    pub(super) fn array_range(&self) -> Option<PhysRange> {
        self.grown.as_ref().map(Array::range)
    }

    /// Goes over to a larger array, whose elements are overwritten; gives back the one used so far.
    pub(super) fn move_into(&mut self, mut array: Array<Region>) -> Option<Array<Region>> {
        for (slot, region) in array.iter_mut().zip(self.regions()) {
            *slot = *region;
        }
        self.grown.replace(array)
    }

    /// The indices of the regions that share a byte with `range`.
    pub(super) fn overlapping(&self, range: PhysRange) -> Range<usize> {
        let regions = self.regions();
        let from = regions.partition_point(|region| region.end() <= range.start());
        let to = regions.partition_point(|region| region.base() < range.end());
        from..to.max(from)
    }

    /// How many slots [`add`](Self::add) needs at most.
    pub(super) fn slots_to_add(&self, wanted: &Region) -> usize {
        let regions = self.regions();
        let isolated = |gap: &PhysRange| {
            let piece = wanted.over(*gap);
            let at = regions.partition_point(|region| region.base() < gap.start());
            let below = at.checked_sub(1).and_then(|below| regions.get(below));
            let joins_below = below.is_some_and(|below| below.joins(&piece));
            let joins_above = regions.get(at).is_some_and(|above| piece.joins(above));
            !joins_below && !joins_above
        };
        self.gaps(wanted.range).filter(isolated).count()
    }

    /// Adds the parts of `wanted` that no region covers yet; covered parts keep what they are.
    pub(super) fn add(&mut self, wanted: &Region) -> Result<(), TableFull> {
        loop {
            let gap = self.gaps(wanted.range).next();
            let Some(gap) = gap else {
                return Ok(());
            };
            self.insert(wanted.over(gap))?;
        }
    }

    /// The parts of `range` that no region covers, lowest first.
    fn gaps(&self, range: PhysRange) -> impl Iterator<Item = PhysRange> {
        let within = self.overlapping(range);
        let regions = self.regions().get(within).unwrap_or_default();
        let starts = core::iter::once(range.start()).chain(regions.iter().map(Region::end));
        let ends = regions.iter().map(Region::base);
        let ends = ends.chain(core::iter::once(range.end()));
        starts
            .zip(ends)
            .filter_map(|(start, end)| PhysRange::new(start, end))
            .filter(|gap| !gap.is_empty())
    }

    /// Puts in a region that overlaps none, joining it with its neighbours where they are alike.
    fn insert(&mut self, mut region: Region) -> Result<(), TableFull> {
        let added = region.range.size();
        let mut at = self.overlapping(region.range).start;
        if let Some(above) = self.regions().get(at).filter(|above| region.joins(above)) {
            region.range = joined(region.range, above.range);
            self.take_out(at);
        }
        let below = at
            .checked_sub(1)
            .and_then(|below| self.regions().get(below));
        if let Some(below) = below.filter(|below| below.joins(&region)) {
            region.range = joined(below.range, region.range);
            at = at.saturating_sub(1);
            self.take_out(at);
        }
        self.put_in(at, region)?;
        self.total = self.total.saturating_add(added);
        Ok(())
    }

    /// How many slots [`remove`](Self::remove) needs at most: one where it leaves a region's
    /// both ends.
    pub(super) fn slots_to_remove(&self, range: PhysRange) -> usize {
        let regions = self.regions();
        let splits = regions.get(self.overlapping(range)).is_some_and(|hit| {
            hit.iter()
                .any(|region| region.base() < range.start() && range.end() < region.end())
        });
        usize::from(splits && !range.is_empty())
    }

    /// Takes out every byte of `range`.
    pub(super) fn remove(&mut self, range: PhysRange) -> Result<(), TableFull> {
        if range.is_empty() {
            return Ok(());
        }
        let mut at = self.overlapping(range).start;
        while let Some(region) = self.regions().get(at).copied() {
            if range.end() <= region.base() {
                break;
            }
            let below = PhysRange::new(region.base(), range.start());
            let above = PhysRange::new(range.end(), region.end());
            self.take_out(at);
            for rest in [below, above].into_iter().flatten() {
                if !rest.is_empty() {
                    self.put_in(at, region.over(rest))?;
                    at = at.saturating_add(1);
                }
            }
            let removed = region.range.intersect(range).size();
            self.total = self.total.saturating_sub(removed);
        }
        Ok(())
    }

    /// How many slots [`modify`](Self::modify) needs at most: one for each end that cuts a region.
    pub(super) fn slots_to_modify(&self, range: PhysRange) -> usize {
        let cuts = |at: crate::addr::PhysAddr| {
            let mut regions = self.regions().iter();
            regions.any(|region| region.base() < at && at < region.end())
        };
        usize::from(cuts(range.start())).saturating_add(usize::from(cuts(range.end())))
    }

    /// Changes node or flags of everything inside `range`.
    pub(super) fn modify(
        &mut self,
        range: PhysRange,
        mut change: impl FnMut(&mut Region),
    ) -> Result<(), TableFull> {
        if range.is_empty() {
            return Ok(());
        }
        self.cut(range.start())?;
        self.cut(range.end())?;
        let within = self.overlapping(range);
        if let Some(regions) = self.slots_mut().get_mut(within) {
            regions.iter_mut().for_each(&mut change);
        }
        self.join_neighbours();
        Ok(())
    }

    /// Splits the region that has `at` inside, if there is one.
    fn cut(&mut self, at: crate::addr::PhysAddr) -> Result<(), TableFull> {
        let index = self.regions().partition_point(|region| region.end() <= at);
        let Some(region) = self.regions().get(index).copied() else {
            return Ok(());
        };
        let below = PhysRange::new(region.base(), at).filter(|below| !below.is_empty());
        let (Some(below), Some(above)) = (below, PhysRange::new(at, region.end())) else {
            return Ok(());
        };
        self.put_in(index, region.over(below))?;
        if let Some(slot) = self.slots_mut().get_mut(index.saturating_add(1)) {
            slot.range = above;
        }
        Ok(())
    }

    fn join_neighbours(&mut self) {
        let count = self.count;
        let slots = self.slots_mut();
        let mut kept = 0_usize;
        for index in 0..count {
            let Some(region) = slots.get(index).copied() else {
                break;
            };
            let last = kept.checked_sub(1).and_then(|last| slots.get_mut(last));
            if let Some(last) = last.filter(|last| last.joins(&region)) {
                last.range = joined(last.range, region.range);
            } else if let Some(slot) = slots.get_mut(kept) {
                *slot = region;
                kept = kept.saturating_add(1);
            }
        }
        self.count = kept;
    }

    /// Shrinks every region to what `shrink` leaves of it; a region with nothing left goes.
    pub(super) fn shrink_each(&mut self, shrink: impl Fn(&Region) -> PhysRange) {
        let count = self.count;
        let mut kept = 0_usize;
        let mut total = 0_u64;
        let slots = self.slots_mut();
        for index in 0..count {
            let Some(region) = slots.get(index).copied() else {
                break;
            };
            let range = shrink(&region);
            if range.is_empty() {
                continue;
            }
            total = total.saturating_add(range.size());
            if let Some(slot) = slots.get_mut(kept) {
                *slot = region.over(range);
                kept = kept.saturating_add(1);
            }
        }
        self.count = kept;
        self.total = total;
    }

    fn put_in(&mut self, at: usize, region: Region) -> Result<(), TableFull> {
        let count = self.count;
        let end = count.saturating_add(1);
        let room = self.slots_mut().get_mut(at..end).ok_or(TableFull)?;
        room.rotate_right(1);
        *room.first_mut().ok_or(TableFull)? = region;
        self.count = end;
        Ok(())
    }

    fn take_out(&mut self, at: usize) {
        let count = self.count;
        if let Some(tail) = self.slots_mut().get_mut(at..count) {
            tail.rotate_left(1);
            self.count = count.saturating_sub(1);
        }
    }

    pub(super) fn validate(&self) -> Result<(), Corruption> {
        let mut sum = 0_u64;
        let mut below: Option<&Region> = None;
        for region in self.regions() {
            let floor = below.map_or(0, |below| below.end().as_u64());
            let touches = below.is_some_and(|below| below.joins(region));
            if region.range.is_empty() || region.base().as_u64() < floor || touches {
                return Err(Corruption::Miscount {
                    check: Check::TableOrder,
                    recorded: region.base().as_u64(),
                    counted: floor,
                });
            }
            sum = sum.saturating_add(region.range.size());
            below = Some(region);
        }
        if sum != self.total || self.count > self.capacity() {
            return Err(Corruption::Miscount {
                check: Check::TableTotal,
                recorded: self.total,
                counted: sum,
            });
        }
        Ok(())
    }
}

/// Two ranges that touch, as one.
fn joined(below: PhysRange, above: PhysRange) -> PhysRange {
    PhysRange::new(below.start(), above.end()).unwrap_or(below)
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("count", &to_count(self.count))
            .field("total", &self.total)
            .field("regions", &self.regions())
            .finish()
    }
}
