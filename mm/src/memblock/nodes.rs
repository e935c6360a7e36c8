//! What the firmware says about nodes, believed only as far as Linux believes it (`numa_add_memblk`,
//! `numa_cleanup_meminfo`, `numa_meminfo_cover_memory`).
#![forbid(unsafe_code)]

use core::fmt;

use super::{GrowError, Memblock, RegionFlags, TableKind};
use crate::addr::{PhysAddr, PhysRange};
use crate::config::PAGE_SIZE;
use crate::platform::{NodeId, Platform};

/// So much RAM without a node is too much.
const UNCOVERED_LIMIT: u64 = 1 << 20;

/// A range of addresses that belongs to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRange {
    /// The addresses, RAM or not.
    pub range: PhysRange,
    /// The node.
    pub node: NodeId,
}

/// Why all RAM is node 0's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodesError {
    /// Two nodes claim the same addresses.
    Overlap(NodeRange, NodeRange),
    /// So many bytes of RAM belong to no node.
    Uncovered(u64),
    /// The table of RAM cannot grow.
    Table(GrowError),
}

impl From<GrowError> for NodesError {
    fn from(error: GrowError) -> Self {
        Self::Table(error)
    }
}

impl Memblock {
    /// Says which nodes RAM belongs to, once all RAM is known. What lies between two ranges of a node
    /// and is claimed by no other is that node's too. Less than 1 MiB that belongs to no node counts
    /// as node 0's. Context: boot.
    ///
    /// # Errors
    /// [`NodesError`]: the ranges contradict each other or leave too much out. All RAM is on node 0
    /// then, as on a machine without nodes.
    pub fn set_nodes<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[NodeRange],
    ) -> Result<(), NodesError> {
        let outcome = self.try_set_nodes(platform, ranges);
        if outcome.is_err() {
            // One node for all takes fewer regions, so this cannot fail for want of room.
            self.set_node(platform, self.span(), NodeId(0))?;
        }
        outcome
    }

    /// Keeps memory that may be unplugged for the page allocator's movable pages (`movable_node`):
    /// marks `ranges` as [`RegionFlags::HOTPLUG`] and spares them in early allocation, as long as
    /// there is anything else. A node with anything reserved on it cannot go, and is not marked
    /// (Linux: `numa_clear_kernel_node_hotplug`). To be called once nodes are known. Context: boot.
    ///
    /// # Errors
    /// The table of RAM cannot grow: nothing is marked, and nothing spared.
    pub fn spare_hotplug<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[PhysRange],
    ) -> Result<(), GrowError> {
        let marked = self.mark_hotplug(platform, ranges);
        match marked {
            Ok(()) => self.spares_hotplug = true,
            // It takes fewer regions, so this cannot fail for want of room.
            Err(_) => self.clear(platform, self.span(), RegionFlags::HOTPLUG)?,
        }
        marked
    }

    fn mark_hotplug<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[PhysRange],
    ) -> Result<(), GrowError> {
        for range in ranges {
            self.mark(platform, *range, RegionFlags::HOTPLUG)?;
        }
        while let Some(range) = self.marked_in_use() {
            self.clear(platform, range, RegionFlags::HOTPLUG)?;
        }
        Ok(())
    }

    /// A marked range of a node that something is reserved on.
    fn marked_in_use(&self) -> Option<PhysRange> {
        let is_in_use = |node: Option<NodeId>| {
            let mut ours = self.memory().iter().filter(|region| region.node == node);
            ours.any(|region| self.overlaps(TableKind::Reserved, region.range))
        };
        let marked = |flags: RegionFlags| flags.contains(RegionFlags::HOTPLUG);
        let mut regions = self.memory().iter();
        let found = regions.find(|region| marked(region.flags) && is_in_use(region.node));
        found.map(|region| region.range)
    }

    /// Whether a place in RAM may be unplugged.
    pub(super) fn is_hot_pluggable(&self, place: PhysRange) -> bool {
        let region = self.memory_at(place.start());
        region.is_some_and(|region| region.flags.contains(RegionFlags::HOTPLUG))
    }

    fn try_set_nodes<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[NodeRange],
    ) -> Result<(), NodesError> {
        // What is claimed beside all RAM does not matter.
        let bound = PhysRange::new(PhysAddr::ZERO, self.span().end()).unwrap_or(PhysRange::EMPTY);
        let clipped = |claim: &NodeRange| NodeRange {
            range: claim.range.intersect(bound),
            ..*claim
        };
        let claims = || {
            ranges
                .iter()
                .map(clipped)
                .filter(|claim| !claim.range.is_empty())
        };
        for (index, claim) in claims().enumerate() {
            let mut rest = claims().skip(index);
            let collides =
                |other: &NodeRange| other.node != claim.node && other.range.overlaps(claim.range);
            if let Some(other) = rest.find(collides) {
                return Err(NodesError::Overlap(claim, other));
            }
        }
        for claim in claims() {
            for other in claims().filter(|other| other.node == claim.node) {
                let start = claim.range.start().min(other.range.start());
                let end = claim.range.end().max(other.range.end());
                let both = PhysRange::new(start, end).unwrap_or(claim.range);
                let mut others = claims().filter(|other| other.node != claim.node);
                if !others.any(|other| other.range.overlaps(both)) {
                    self.set_node(platform, both, claim.node)?;
                }
            }
            self.set_node(platform, claim.range, claim.node)?;
        }
        let uncovered = self.frames(None).filter(|ram| ram.node.is_none());
        let uncovered = uncovered.map(|ram| ram.frames.frames());
        let bytes = uncovered
            .fold(0, u64::saturating_add)
            .saturating_mul(PAGE_SIZE);
        match bytes >= UNCOVERED_LIMIT {
            true => Err(NodesError::Uncovered(bytes)),
            false => Ok(()),
        }
    }
}

impl fmt::Display for NodesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(one, other) => write!(
                f,
                "node {} at {} overlaps with node {} at {}",
                one.node, one.range, other.node, other.range
            ),
            Self::Uncovered(bytes) => write!(f, "{bytes} bytes of RAM belong to no node"),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for NodesError {}
