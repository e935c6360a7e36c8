//! What the machine knows of each CPU.
#![forbid(unsafe_code)]

use super::AtHand;
use crate::frame::ZoneId;
use crate::mem::Array;
use crate::platform::{CpuId, NodeId};
use crate::slab::{Cache, at_hand::trusting};
use crate::sync::Presence;
use crate::zone::{Node, Pages, Zone, ZoneKind};

/// Tables by CPU.
#[derive(Debug)]
pub(crate) struct Cpus {
    /// Which CPUs are there.
    pub(crate) presence: Presence,
    near: Array<Near>,
    pub(super) at_hand: AtHand,
}

/// Where a CPU is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    node: NodeId,
    /// The zones to ask first, by the highest one that a request may use; as many places as a mask
    /// bounds.
    first: [Option<ZoneId>; 8],
}

impl Near {
    /// On a node; the zones are not known yet.
    pub(super) const fn new(node: NodeId) -> Self {
        let first = [None; 8];
        Self { node, first }
    }
}

impl Cpus {
    pub(super) const fn new(presence: Presence, near: Array<Near>, at_hand: AtHand) -> Self {
        Self {
            presence,
            near,
            at_hand,
        }
    }

    /// The node that a CPU belongs to.
    #[inline]
    pub(super) fn node(&self, cpu: CpuId) -> NodeId {
        let near = self.near.at(u64::from(cpu.0));
        near.map(|near| near.node).unwrap_or_default()
    }

    /// The node that memory for the kernel comes from where a CPU is (Linux: `numa_mem_id`): its own, or the
    /// nearest one that has any.
    #[inline]
    pub(super) fn memory_node(&self, cpu: CpuId) -> NodeId {
        let zone = self.first_zone(cpu, ZoneKind::Normal);
        zone.map_or_else(|| self.node(cpu), |zone| zone.node)
    }

    /// The zone that a CPU asks first for a request.
    #[inline]
    pub(super) fn first_zone(&self, cpu: CpuId, highest: ZoneKind) -> Option<ZoneId> {
        let near = self.near.at(u64::from(cpu.0))?;
        near.first[highest.index() & 7]
    }

    /// The nodes of all CPUs.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.near.iter().map(|near| near.node)
    }

    /// Finds for each CPU the zones that it asks first.
    pub(super) fn find_zones(&mut self, nodes: &[Node]) {
        for near in self.near.iter_mut() {
            let Some(node) = nodes.get(usize::from(near.node.0)) else {
                continue;
            };
            let others = node.others().iter();
            let others = others.filter_map(|other| nodes.get(usize::from(other.0)));
            for highest in ZoneKind::ALL {
                let mut all = core::iter::once(node).chain(others.clone());
                let zone = all.find_map(|node| node.zonelist(highest).next());
                near.first[highest.index() & 7] = zone.map(Zone::id);
            }
        }
    }

    /// Makes the ways of CPUs to what they have of a cache; `trusts`: with those that take a caller's word.
    pub(super) fn make_way(&self, cache: &Cache, trusts: bool) {
        if let Some((way, cells)) = cache.way() {
            self.at_hand.ways().set_others(way, cells);
            if trusts {
                self.at_hand.ways().set_others(trusting(way), cells);
            }
        }
    }

    /// Makes each CPU's ways to its lists, for pages of a kind on their way out and in. Pages that
    /// somebody touches on their way in have none. After [`Self::find_zones`].
    pub(super) fn find_ways(&self, nodes: &[Node], new: Pages, free: Pages) {
        for (cpu, near) in (0..).map(CpuId).zip(self.near.iter()) {
            let Some(node) = nodes.get(usize::from(near.node.0)) else {
                continue;
            };
            if free == Pages::AsTheyAre {
                self.at_hand.set_own(cpu, node);
            }
            for (highest, zone) in ZoneKind::ALL.into_iter().zip(near.first) {
                let home = zone.and_then(|id| Some((nodes.get(usize::from(id.node.0))?, id.zone)));
                let zone = home.and_then(|(node, zone)| node.zones().get(usize::from(zone)));
                if let Some(zone) = zone {
                    self.at_hand.set_first(cpu, highest, new, zone);
                }
            }
        }
    }
}
