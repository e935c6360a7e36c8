//! What the machine knows of each CPU.
#![forbid(unsafe_code)]

use crate::frame::ZoneId;
use crate::mem::Array;
use crate::platform::{CpuId, NodeId};
use crate::sync::Presence;
use crate::zone::{Node, ZoneKind};

/// The zone to ask first, for each highest zone of a request.
pub(super) type Nearest = [ZoneId; 8];

/// A zone that does not exist.
pub(super) const NOWHERE: ZoneId = ZoneId {
    node: NodeId(u16::MAX),
    zone: 0,
};

/// Tables by CPU.
#[derive(Debug)]
pub(crate) struct Cpus {
    /// Which CPUs are there.
    pub(crate) presence: Presence,
    nodes: Array<NodeId>,
    nearest: Array<Nearest>,
}

impl Cpus {
    pub(super) const fn new(
        presence: Presence,
        nodes: Array<NodeId>,
        nearest: Array<Nearest>,
    ) -> Self {
        Self {
            presence,
            nodes,
            nearest,
        }
    }

    /// The node that a CPU belongs to.
    #[inline]
    pub(super) fn node(&self, cpu: CpuId) -> NodeId {
        self.nodes.at(u64::from(cpu.0)).copied().unwrap_or_default()
    }

    /// The zone that a CPU's requests ask first.
    #[inline]
    pub(super) fn nearest(&self, cpu: CpuId, highest: ZoneKind) -> Option<ZoneId> {
        Some(self.nearest.at(u64::from(cpu.0))?[highest.index() & 7])
    }

    /// Finds those zones.
    pub(super) fn find_nearest(&mut self, nodes: &[Node]) {
        for (home, nearest) in self.nodes.iter().zip(self.nearest.iter_mut()) {
            let Some(node) = nodes.get(usize::from(home.0)) else {
                continue;
            };
            let others = node.others().iter();
            let others = others.filter_map(|other| nodes.get(usize::from(other.0)));
            for (place, highest) in nearest.iter_mut().zip(ZoneKind::ALL) {
                let mut all = core::iter::once(node).chain(others.clone());
                if let Some(zone) = all.find_map(|node| node.zonelist(highest).next()) {
                    *place = zone.id();
                }
            }
        }
    }
}
