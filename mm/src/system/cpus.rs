//! What the machine knows of each CPU.
#![forbid(unsafe_code)]

use crate::mem::Array;
use crate::platform::{CpuId, NodeId};
use crate::sync::Presence;
use crate::zone::{AtHand, Node, Pages, ZoneKind};

/// Tables by CPU.
#[derive(Debug)]
pub(crate) struct Cpus {
    /// Which CPUs are there.
    pub(crate) presence: Presence,
    nodes: Array<NodeId>,
    pub(super) at_hand: AtHand,
}

impl Cpus {
    pub(super) const fn new(presence: Presence, nodes: Array<NodeId>, at_hand: AtHand) -> Self {
        Self {
            presence,
            nodes,
            at_hand,
        }
    }

    /// The node that a CPU belongs to.
    #[inline]
    pub(super) fn node(&self, cpu: CpuId) -> NodeId {
        self.nodes.at(u64::from(cpu.0)).copied().unwrap_or_default()
    }

    /// The nodes of all CPUs.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied()
    }

    /// Makes each CPU's ways to its lists. Pages that somebody touches on their way in have none.
    pub(super) fn find_ways(&mut self, nodes: &[Node], new: Pages, free: Pages) {
        for (cpu, home) in (0..).map(CpuId).zip(self.nodes.iter()) {
            let Some(node) = nodes.get(usize::from(home.0)) else {
                continue;
            };
            if free == Pages::AsTheyAre {
                self.at_hand.set_own(cpu, node);
            }
            let others = node.others().iter();
            let others = others.filter_map(|other| nodes.get(usize::from(other.0)));
            for highest in ZoneKind::ALL {
                let mut all = core::iter::once(node).chain(others.clone());
                if let Some(zone) = all.find_map(|node| node.zonelist(highest).next()) {
                    self.at_hand.set_first(cpu, highest, new, zone);
                }
            }
        }
    }
}
