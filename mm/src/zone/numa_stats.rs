//! Where the memory of a zone went: to those who wanted it, and to those who did not (Linux:
//! `zone_statistics`).
//!
//! Each block counts once, whatever its order. What a request wanted is the first zone of its list:
//! a *hit* is a block from the node of that one, a *miss* a block from another node, which is
//! *foreign* for the node that was wanted. It is *local* if the CPU that asks is of the zone's node.
//!
//! The hot path counts nothing for this. How many blocks a CPU took off its lists follows from
//! what came and went ([`PageSetStats::blocks`]), whether they are local is the same for all of
//! them, and a miss is never taken there at once. What is left is counted by each CPU for itself.
#![forbid(unsafe_code)]

use crate::mem::Array;
use crate::platform::CpuId;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Blocks of a zone or a node since boot, by who got them. The names are those of `numastat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NumaStats {
    /// Taken from here, as wanted.
    pub numa_hit: u64,
    /// Taken from here, though another node was wanted.
    pub numa_miss: u64,
    /// Wanted here, but taken from another node.
    pub numa_foreign: u64,
    /// Taken from here because it was this node's turn, by a policy that interleaves.
    pub interleave_hit: u64,
    /// Taken from here by a CPU of this node.
    pub local_node: u64,
    /// Taken from here by a CPU of another node.
    pub other_node: u64,
}

impl NumaStats {
    /// The sums of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            numa_hit: self.numa_hit.wrapping_add(other.numa_hit),
            numa_miss: self.numa_miss.wrapping_add(other.numa_miss),
            numa_foreign: self.numa_foreign.wrapping_add(other.numa_foreign),
            interleave_hit: self.interleave_hit.wrapping_add(other.interleave_hit),
            local_node: self.local_node.wrapping_add(other.local_node),
            other_node: self.other_node.wrapping_add(other.other_node),
        }
    }
}

/// What a CPU counts in a zone, beside its page lists.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct NumaGauges {
    /// Whether the CPU is of the zone's node.
    is_local: bool,
    /// Blocks that did not come off the CPU's lists.
    unlisted: AtomicU64,
    miss: AtomicU64,
    foreign: AtomicU64,
    interleaved: AtomicU64,
}

/// Something to be counted that does not happen on the hot path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumaEvent {
    /// A block came from the free areas.
    Unlisted,
    /// A block was taken here that was wanted on another node.
    Miss,
    /// A block was wanted here and taken on another node.
    Foreign,
    /// A block was taken here because it was this node's turn.
    Interleaved,
}

impl NumaGauges {
    /// Nothing yet, for a CPU of the zone's node or of another one.
    pub(crate) fn new(is_local: bool) -> Self {
        Self {
            is_local,
            unlisted: AtomicU64::new(0),
            miss: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            interleaved: AtomicU64::new(0),
        }
    }
}

/// The counts of a zone, by CPU.
#[derive(Debug)]
pub(super) struct NumaCounts(Array<NumaGauges>);

impl NumaCounts {
    /// Nobody counts.
    pub(super) const fn none() -> Self {
        Self(Array::empty())
    }

    pub(super) const fn new(gauges: Array<NumaGauges>) -> Self {
        Self(gauges)
    }

    /// Counts `blocks`. The caller may be interrupted, and even move away: each CPU's counts are
    /// its own only in order not to be in the way of the others.
    #[inline]
    pub(super) fn count(&self, cpu: CpuId, event: NumaEvent, blocks: u64) {
        let Some(gauges) = self.0.at(u64::from(cpu.0)) else {
            return;
        };
        let counter = match event {
            NumaEvent::Unlisted => &gauges.unlisted,
            NumaEvent::Miss => &gauges.miss,
            NumaEvent::Foreign => &gauges.foreign,
            NumaEvent::Interleaved => &gauges.interleaved,
        };
        counter.fetch_add(blocks, Ordering::Relaxed);
    }

    /// The counts, with what CPUs took off their lists.
    pub(super) fn read(&self, mut listed: impl Iterator<Item = u64>) -> NumaStats {
        let mut stats = NumaStats::default();
        for gauges in self.0.iter() {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let listed = listed.next().unwrap_or_default();
            let blocks = load(&gauges.unlisted).wrapping_add(listed);
            let miss = load(&gauges.miss);
            stats = stats.and(NumaStats {
                // A miss may be seen before its block is.
                numa_hit: blocks.saturating_sub(miss),
                numa_miss: miss,
                numa_foreign: load(&gauges.foreign),
                interleave_hit: load(&gauges.interleaved),
                local_node: if gauges.is_local { blocks } else { 0 },
                other_node: if gauges.is_local { 0 } else { blocks },
            });
        }
        stats
    }
}
