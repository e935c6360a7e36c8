//! Walks over the tables: free ranges in both directions, frames.
//!
//! Free is what is memory, not reserved, and not withheld (no direct map, or a driver's own).
//! A free range never spans two memory regions, so it has one node. Linux counterpart:
//! `for_each_free_mem_range`, its `_reverse`, `for_each_mem_pfn_range`.
#![forbid(unsafe_code)]

use super::region::Region;
use crate::addr::{PfnRange, PhysAddr, PhysRange};
use crate::platform::NodeId;

/// Free bytes on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeRange {
    /// Which bytes; never none.
    pub range: PhysRange,
    /// The node they belong to, once that is known.
    pub node: Option<NodeId>,
}

/// Whole frames on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeFrames {
    /// Which frames; never none.
    pub frames: PfnRange,
    /// The node they belong to, once that is known.
    pub node: Option<NodeId>,
}

impl FreeRange {
    /// The whole frames inside: a frame that is partly reserved is reserved. Context: any.
    #[must_use]
    pub fn whole_frames(&self) -> Option<NodeFrames> {
        whole_frames(self.range, self.node)
    }
}

/// The whole frames of a memory region.
pub(super) fn region_frames(region: &Region) -> Option<NodeFrames> {
    whole_frames(region.range, region.node)
}

fn whole_frames(range: PhysRange, node: Option<NodeId>) -> Option<NodeFrames> {
    let frames = range.whole_frames();
    (!frames.is_empty()).then_some(NodeFrames { frames, node })
}

/// Iterator over free ranges, lowest first; [`FreeRanges::rev`] goes the other way.
///
/// Both tables are walked once: a step looks at one memory region and one gap between reserved
/// regions, then leaves behind whichever of the two ends first. The two directions are separate
/// walks: an iterator is used in one of them.
#[derive(Clone, Debug)]
pub struct FreeRanges<'a> {
    memory: &'a [Region],
    reserved: &'a [Region],
    /// The first region not passed.
    region: usize,
    /// The first gap not passed: gap `n` lies below reserved region `n`.
    gap: usize,
}

impl<'a> FreeRanges<'a> {
    pub(super) const fn new(memory: &'a [Region], reserved: &'a [Region]) -> Self {
        Self {
            memory,
            reserved,
            region: 0,
            gap: 0,
        }
    }

    /// The free ranges not yet seen, highest first. Context: any.
    #[must_use]
    pub fn rev(self) -> FreeRangesDown<'a> {
        FreeRangesDown {
            regions: self.memory.len(),
            gaps: self.reserved.len().saturating_add(1),
            walk: self,
        }
    }

    /// Gap `index` between the reserved regions, or `None` behind the last one.
    fn gap(&self, index: usize) -> Option<PhysRange> {
        if index > self.reserved.len() {
            return None;
        }
        let below = index.checked_sub(1).and_then(|i| self.reserved.get(i));
        let start = below.map_or(PhysAddr::ZERO, Region::end);
        let end = self.reserved.get(index).map_or(PhysAddr::MAX, Region::base);
        PhysRange::new(start, end)
    }

    fn free(region: &Region, gap: PhysRange) -> Option<FreeRange> {
        let range = region.range.intersect(gap);
        (!range.is_empty() && !region.is_withheld()).then_some(FreeRange {
            range,
            node: region.node,
        })
    }
}

impl Iterator for FreeRanges<'_> {
    type Item = FreeRange;

    fn next(&mut self) -> Option<FreeRange> {
        loop {
            let region = self.memory.get(self.region)?;
            let gap = self.gap(self.gap)?;
            if region.end() <= gap.end() {
                self.region = self.region.saturating_add(1);
            } else {
                self.gap = self.gap.saturating_add(1);
            }
            if let Some(free) = Self::free(region, gap) {
                return Some(free);
            }
        }
    }
}

/// Iterator over free ranges, highest first.
#[derive(Clone, Debug)]
pub struct FreeRangesDown<'a> {
    walk: FreeRanges<'a>,
    /// Regions from here on were passed.
    regions: usize,
    /// Gaps from here on were passed.
    gaps: usize,
}

impl Iterator for FreeRangesDown<'_> {
    type Item = FreeRange;

    fn next(&mut self) -> Option<FreeRange> {
        loop {
            let last_region = self.regions.checked_sub(1)?;
            let last_gap = self.gaps.checked_sub(1)?;
            let region = self.walk.memory.get(last_region)?;
            let gap = self.walk.gap(last_gap)?;
            if gap.start() <= region.base() {
                self.regions = last_region;
            } else {
                self.gaps = last_gap;
            }
            if last_region < self.walk.region {
                return None;
            }
            if let Some(free) = FreeRanges::free(region, gap) {
                return Some(free);
            }
        }
    }
}
