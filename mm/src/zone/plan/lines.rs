//! The plan in Linux's words, for the boot log.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Plan, Unavailable, ZoneKind};
use crate::addr::{Pfn, PfnRange};
use crate::memblock::Memblock;
use crate::platform::NodeId;

/// A line of the boot log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanLine {
    /// Before the first zone.
    ZonesHeading,
    /// What a zone may span.
    Zone(ZoneKind, PfnRange),
    /// Before the first start of a Movable zone.
    MovableHeading,
    /// Where a node's Movable zone starts.
    MovableStart(NodeId, Pfn),
    /// Before the first range.
    RangesHeading,
    /// A range of RAM.
    NodeRange(NodeId, PfnRange),
    /// What a node spans.
    NodeSpan(NodeId, PfnRange),
    /// Frames in holes that get records.
    Unavailable(Unavailable),
}

impl Plan<'_> {
    /// Gives the boot log's lines, in Linux's order.
    pub fn lines(&self, memblock: &Memblock, log: &mut dyn FnMut(&PlanLine)) {
        log(&PlanLine::ZonesHeading);
        for kind in ZoneKind::ALL {
            if kind != ZoneKind::Movable {
                log(&PlanLine::Zone(kind, self.limits(kind)));
            }
        }
        log(&PlanLine::MovableHeading);
        for (id, node) in self.with_memory() {
            if let Some(start) = node.movable_start {
                log(&PlanLine::MovableStart(id, start));
            }
        }
        log(&PlanLine::RangesHeading);
        for ram in memblock.frames(None) {
            log(&PlanLine::NodeRange(
                ram.node.unwrap_or_default(),
                ram.frames,
            ));
        }
        for (id, node) in self.with_memory() {
            log(&PlanLine::NodeSpan(id, node.frames));
        }
        self.unavailable(memblock, &mut |found| log(&PlanLine::Unavailable(found)));
    }
}

impl fmt::Display for PlanLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZonesHeading => f.write_str("Zone ranges:"),
            Self::Zone(kind, frames) if frames.is_empty() => write!(f, "  {kind:<8} empty"),
            Self::Zone(kind, frames) => write!(f, "  {kind:<8} {}", frames.addrs()),
            Self::MovableHeading => f.write_str("Movable zone start for each node"),
            Self::MovableStart(node, start) => {
                write!(f, "  Node {node}: {:#018x}", start.addr().as_u64())
            }
            Self::RangesHeading => f.write_str("Early memory node ranges"),
            Self::NodeRange(node, frames) => write!(f, "  node {:>3}: {}", node.0, frames.addrs()),
            Self::NodeSpan(node, frames) => {
                write!(f, "Initmem setup node {node} {}", frames.addrs())
            }
            Self::Unavailable(Unavailable { node, zone, frames }) => {
                write!(
                    f,
                    "On node {node}, zone {zone}: {frames} pages in unavailable ranges"
                )
            }
        }
    }
}
