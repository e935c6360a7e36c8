//! Which nodes and zones a machine gets: pure computation over memblock's memory table.
//!
//! [`Plan::compute`] fills one [`NodePlan`] per node, in memory that the caller gives: spans,
//! present frames, the start of the Movable zone. [`Plan::unavailable`] finds the frames in holes
//! that still get records, [`Plan::lines`] says it all in Linux's words.
//! Numbers are exactly those of Linux 6.1 (`free_area_init`, `calculate_node_totalpages`,
//! `find_zone_movable_pfns_for_nodes`, `init_unavailable_range`); tests compare them with what
//! Linux printed on real machines.
//!
//! A node's zone *spans* the node's frames from first to last, clipped to the zone's limits,
//! holes included; *present* are those that are RAM. RAM without a node counts as node 0's.
#![forbid(unsafe_code)]

mod holes;
mod lines;
mod movable;

pub use holes::Unavailable;
pub use lines::PlanLine;

use core::fmt;

use super::ZoneKind;
use super::distance::Distances;
use crate::addr::{Pfn, PfnRange, PhysAddr};
use crate::config::{DMA_LIMIT, DMA32_LIMIT};
use crate::memblock::Memblock;
use crate::memblock::params::{CoreSize, Params};
use crate::platform::NodeId;

/// One zone of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZonePlan {
    /// What the zone spans, holes included; empty at frame 0 if nothing.
    pub frames: PfnRange,
    /// Frames of RAM among them.
    pub present: u64,
}

/// One node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodePlan {
    /// From the node's first frame of RAM to its last, holes included; empty without RAM.
    pub frames: PfnRange,
    /// Frames of RAM.
    pub present: u64,
    /// Where the Movable zone starts, if the node has one.
    pub movable_start: Option<Pfn>,
    /// The zones, by [`ZoneKind::index`].
    pub zones: [ZonePlan; ZoneKind::COUNT],
}

impl ZonePlan {
    /// A zone without frames.
    pub const EMPTY: Self = Self {
        frames: PfnRange::EMPTY,
        present: 0,
    };
}

impl NodePlan {
    /// A node without memory.
    pub const EMPTY: Self = Self {
        frames: PfnRange::EMPTY,
        present: 0,
        movable_start: None,
        zones: [ZonePlan::EMPTY; ZoneKind::COUNT],
    };

    /// The node's zone of a kind.
    #[must_use]
    pub const fn zone(&self, kind: ZoneKind) -> &ZonePlan {
        &self.zones[kind.index()]
    }
}

/// How much memory movable allocations may not, or alone may, take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoreWish {
    /// `kernelcore=`
    pub kernelcore: Option<CoreSize>,
    /// `movablecore=`
    pub movablecore: Option<CoreSize>,
    /// `movable_node`: what is marked [`RegionFlags::HOTPLUG`] in memblock is movable, and the two
    /// sizes do not count.
    ///
    /// [`RegionFlags::HOTPLUG`]: crate::memblock::RegionFlags::HOTPLUG
    pub movable_node: bool,
}

impl From<&Params> for CoreWish {
    fn from(params: &Params) -> Self {
        Self {
            kernelcore: params.kernelcore,
            movablecore: params.movablecore,
            movable_node: params.movable_node,
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// No frame of RAM.
    NoMemory,
    /// RAM on a node for which no [`NodePlan`] was given.
    TooManyNodes {
        /// The node.
        node: NodeId,
        /// How many were given.
        given: usize,
    },
}

/// The nodes and zones of a machine.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What each zone may span on any node, by [`ZoneKind::index`]; Movable takes its frames
    /// from the others.
    limits: [PfnRange; ZoneKind::COUNT],
    nodes: &'a mut [NodePlan],
    distances: Distances<'a>,
}

impl<'a> Plan<'a> {
    /// Plans nodes and zones. Node `n` goes into `nodes[n]`; what `nodes` held is overwritten.
    /// The plan borrows them, and is needed until memory is up: an array on the boot stack will
    /// do, `[NodePlan::EMPTY; 1]` on a machine without NUMA. Context: boot.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn compute(
        memblock: &Memblock,
        wish: CoreWish,
        nodes: &'a mut [NodePlan],
    ) -> Result<Self, PlanError> {
        let plan = Self {
            limits: zone_limits(memblock)?,
            nodes,
            distances: Distances::UNKNOWN,
        };
        plan.nodes.fill(NodePlan::EMPTY);
        for ram in memblock.frames(None) {
            let node = ram.node.unwrap_or_default();
            let given = plan.nodes.len();
            let slot = plan.nodes.get_mut(usize::from(node.0));
            let slot = slot.ok_or(PlanError::TooManyNodes { node, given })?;
            slot.frames = enclosing(slot.frames, ram.frames);
            slot.present = slot.present.saturating_add(ram.frames.frames());
        }

        let highest = plan.limits[plan.highest_zone().index()];
        movable::find_starts(memblock, wish, highest.first(), plan.nodes);
        for (index, node) in plan.nodes.iter_mut().enumerate() {
            for kind in ZoneKind::ALL {
                let limit = match (kind, node.movable_start) {
                    // Movable reaches as high as the highest zone, which it takes from.
                    (ZoneKind::Movable, Some(start)) => {
                        PfnRange::new(start, highest.end()).unwrap_or_default()
                    }
                    (_, Some(start)) => below(plan.limits[kind.index()], start),
                    (_, None) => plan.limits[kind.index()],
                };
                let frames = node.frames.intersect(limit);
                if !frames.is_empty() {
                    let present = present_in(memblock, index, frames);
                    node.zones[kind.index()] = ZonePlan { frames, present };
                }
            }
        }
        Ok(plan)
    }

    /// The same with what is known of the distances between nodes.
    #[must_use]
    pub const fn with_distances(mut self, distances: Distances<'a>) -> Self {
        self.distances = distances;
        self
    }

    /// How far nodes are from each other.
    #[must_use]
    pub const fn distances(&self) -> &Distances<'a> {
        &self.distances
    }

    /// What a zone may span on any node; empty if no RAM lies there. Movable's is empty: it
    /// takes from the others, node by node.
    #[must_use]
    pub const fn limits(&self, kind: ZoneKind) -> PfnRange {
        self.limits[kind.index()]
    }

    /// The nodes, by number; some may be without memory.
    #[must_use]
    pub fn nodes(&self) -> &[NodePlan] {
        self.nodes
    }

    /// Nodes with memory, with their numbers.
    pub fn with_memory(&self) -> impl Iterator<Item = (NodeId, &NodePlan)> {
        let nodes = (0..).map(NodeId).zip(self.nodes.iter());
        nodes.filter(|(_, node)| node.present > 0)
    }

    /// Frames of RAM on all nodes.
    #[must_use]
    pub fn present(&self) -> u64 {
        let present = self.nodes.iter().map(|node| node.present);
        present.fold(0, u64::saturating_add)
    }

    /// Frames that the nodes span, holes included.
    #[must_use]
    pub fn spanned(&self) -> u64 {
        let spanned = self.nodes.iter().map(|node| node.frames.frames());
        spanned.fold(0, u64::saturating_add)
    }

    /// The first frame above all RAM.
    #[must_use]
    pub fn end(&self) -> Pfn {
        let ends = self.nodes.iter().map(|node| node.frames.end());
        ends.max().unwrap_or(Pfn::ZERO)
    }

    /// The highest zone with room: the one that Movable takes from.
    fn highest_zone(&self) -> ZoneKind {
        let filled = |kind: &&ZoneKind| !self.limits[kind.index()].is_empty();
        let kinds = [ZoneKind::Normal, ZoneKind::Dma32];
        kinds.iter().find(filled).copied().unwrap_or(ZoneKind::Dma)
    }
}

/// The limits of DMA, DMA32 and Normal: 16 MiB, 4 GiB, and where RAM starts and ends.
fn zone_limits(memblock: &Memblock) -> Result<[PfnRange; ZoneKind::COUNT], PlanError> {
    let mut span = PfnRange::EMPTY;
    for ram in memblock.frames(None) {
        span = enclosing(span, ram.frames);
    }
    if span.is_empty() {
        return Err(PlanError::NoMemory);
    }
    let mut limits = [PfnRange::EMPTY; ZoneKind::COUNT];
    let mut from = span.first();
    for (kind, limit) in [
        (ZoneKind::Dma, PhysAddr::new(DMA_LIMIT).frame()),
        (ZoneKind::Dma32, PhysAddr::new(DMA32_LIMIT).frame()),
        (ZoneKind::Normal, Pfn::new(u64::MAX)),
    ] {
        let end = limit.min(span.end()).max(from);
        limits[kind.index()] = PfnRange::new(from, end).unwrap_or_default();
        from = end;
    }
    Ok(limits)
}

/// The part of `frames` below `start`.
fn below(frames: PfnRange, start: Pfn) -> PfnRange {
    frames.intersect(PfnRange::from_numbers(0, start.as_u64()))
}

/// The smallest range around both; empty ones do not count.
fn enclosing(one: PfnRange, other: PfnRange) -> PfnRange {
    if one.is_empty() {
        return other;
    }
    let first = one.first().min(other.first());
    PfnRange::new(first, one.end().max(other.end())).unwrap_or(one)
}

/// Frames of RAM of a node inside `frames`.
fn present_in(memblock: &Memblock, node: usize, frames: PfnRange) -> u64 {
    let ours = memblock
        .frames(None)
        .filter(|ram| usize::from(ram.node.unwrap_or_default().0) == node);
    let inside = ours.map(|ram| ram.frames.intersect(frames).frames());
    inside.fold(0, u64::saturating_add)
}

/// So many frames, or per cent of `total` frames.
fn core_frames(size: CoreSize, total: u64) -> u64 {
    match size {
        CoreSize::Bytes(bytes) => PhysAddr::new(bytes).frame().as_u64(),
        CoreSize::Percent(percent) => total.saturating_mul(u64::from(percent)).div_euclid(100),
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory on any node"),
            Self::TooManyNodes { node, given } => {
                write!(
                    f,
                    "memory on node {node}, but there is room for {given} nodes"
                )
            }
        }
    }
}

impl core::error::Error for PlanError {}
