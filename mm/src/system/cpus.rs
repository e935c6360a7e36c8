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
    nearest: Array<Nearest>,
}

impl Cpus {
    pub(super) const fn new(presence: Presence, nearest: Array<Nearest>) -> Self {
        Self { presence, nearest }
    }

    /// The zone that a CPU's requests ask first.
    #[inline]
    pub(super) fn nearest(&self, cpu: CpuId, highest: ZoneKind) -> Option<ZoneId> {
        Some(self.nearest.at(u64::from(cpu.0))?[highest.index() & 7])
    }

    /// Finds those zones.
    pub(super) fn find_nearest(&mut self, nodes: &[Node]) {
        let Some(node) = nodes.first() else { return };
        for nearest in self.nearest.iter_mut() {
            for (place, highest) in nearest.iter_mut().zip(ZoneKind::ALL) {
                if let Some(zone) = node.zonelist(highest).next() {
                    *place = zone.id();
                }
            }
        }
    }
}
