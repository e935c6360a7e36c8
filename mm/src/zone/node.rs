//! A memory node and its zones.
#![forbid(unsafe_code)]

use super::{NumaStats, Zone, ZoneKind};
use crate::addr::PfnRange;
use crate::mem::Array;
use crate::platform::NodeId;
use crate::sync::atomic::AtomicU32;

/// Memory at one distance from its CPUs (Linux: `pg_data_t`).
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    span: PfnRange,
    present: u64,
    zones: [Zone; ZoneKind::COUNT],
    others: Array<NodeId>,
    /// Runs of kswapd in a row that brought nothing.
    pub(crate) kswapd_failures: AtomicU32,
}

impl Node {
    /// A node that falls back to no other yet.
    pub(crate) const fn new(
        id: NodeId,
        span: PfnRange,
        present: u64,
        zones: [Zone; ZoneKind::COUNT],
    ) -> Self {
        Self {
            id,
            span,
            present,
            zones,
            others: Array::empty(),
            kswapd_failures: AtomicU32::new(0),
        }
    }

    /// Sets which nodes to ask when this one has nothing.
    pub(crate) fn install_others(&mut self, others: Array<NodeId>) {
        self.others = others;
    }

    /// The node's number. Context: any.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// From the first to behind the last frame, holes included. Context: any.
    #[must_use]
    pub const fn span(&self) -> PfnRange {
        self.span
    }

    /// Frames of RAM. Context: any.
    #[must_use]
    pub const fn present(&self) -> u64 {
        self.present
    }

    /// Its zones, lowest first, empty ones included. Context: any.
    #[must_use]
    pub const fn zones(&self) -> &[Zone; ZoneKind::COUNT] {
        &self.zones
    }

    /// The zone of a kind. Context: any.
    #[inline]
    #[must_use]
    pub const fn zone(&self, kind: ZoneKind) -> &Zone {
        &self.zones[kind.index()]
    }

    /// The sums of its zones' [`Zone::numa_stats`] (Linux: the node's `numastat`). Context: any.
    #[must_use]
    pub fn numa_stats(&self) -> NumaStats {
        let zones = self.zones.iter().map(Zone::numa_stats);
        zones.fold(NumaStats::default(), NumaStats::and)
    }

    pub(crate) fn zones_mut(&mut self) -> impl Iterator<Item = &mut Zone> {
        self.zones.iter_mut()
    }

    pub(crate) const fn zone_mut(&mut self, kind: ZoneKind) -> &mut Zone {
        &mut self.zones[kind.index()]
    }

    /// The other nodes with memory, in the order in which they are asked when this one has none
    /// (Linux: "Fallback order"). Context: any.
    #[inline]
    #[must_use]
    pub fn others(&self) -> &[NodeId] {
        &self.others
    }

    /// Zones that may serve a request whose highest zone is `highest`, best first: from there
    /// downwards, those with managed memory (Linux: a node's `zonelist`). Context: any.
    #[inline]
    pub fn zonelist(&self, highest: ZoneKind) -> impl Iterator<Item = &Zone> {
        let (zones, _) = self.zones.split_at(highest.index().wrapping_add(1));
        zones.iter().rev().filter(|zone| zone.is_managed())
    }
}
