//! Files of `/sys/devices/system/node`, and the table that the `numastat` tool makes of some.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::config::PAGE_SHIFT;
use crate::numa::NodeState;
use crate::platform::{NodeId, Platform};
use crate::system::Memory;
use crate::zone::{Node, NumaStats, Zone};

/// Prints which nodes are in a state: `possible`, `online`, `has_normal_memory`, `has_memory` and
/// `has_cpu` in `/sys/devices/system/node`. Context: any.
///
/// # Errors
/// Those of `out`.
pub fn node_list<P: Platform>(
    memory: &Memory<P>,
    state: NodeState,
    out: &mut dyn Write,
) -> fmt::Result {
    writeln!(out, "{}", memory.node_states(state).list())
}

/// Prints a node's `meminfo`. Context: any.
///
/// # Errors
/// Those of `out`.
pub fn node_meminfo(node: &Node, out: &mut dyn Write) -> fmt::Result {
    let sum = |count: fn(&Zone) -> u64| {
        let frames = node.zones().iter().map(count).fold(0, u64::saturating_add);
        frames.saturating_mul(1 << (PAGE_SHIFT - 10))
    };
    let (total, free) = (sum(Zone::managed), sum(Zone::free_frames));
    let id = node.id();
    for (name, kib) in [
        ("MemTotal:", total),
        ("MemFree:", free),
        ("MemUsed:", total.saturating_sub(free)),
    ] {
        writeln!(out, "Node {id} {name:<15}{kib:>8} kB")?;
    }
    Ok(())
}

/// Prints a node's `numastat`. Context: any.
///
/// # Errors
/// Those of `out`.
pub fn node_numastat(node: &Node, out: &mut dyn Write) -> fmt::Result {
    let stats = node.numa_stats();
    ROWS.iter()
        .try_for_each(|(name, count)| writeln!(out, "{name} {}", count(&stats)))
}

/// Prints a node's `distance` to each online node. Context: any.
///
/// # Errors
/// Those of `out`.
pub fn node_distance<P: Platform>(
    memory: &Memory<P>,
    from: NodeId,
    out: &mut dyn Write,
) -> fmt::Result {
    let mut separator = "";
    for to in memory.node_states(NodeState::Online).iter() {
        if let Some(distance) = memory.distance(from, to) {
            write!(out, "{separator}{distance}")?;
            separator = " ";
        }
    }
    writeln!(out)
}

/// A line's name, and its number.
type Row = (&'static str, fn(&NumaStats) -> u64);

const ROWS: [Row; 6] = [
    ("numa_hit", |stats| stats.numa_hit),
    ("numa_miss", |stats| stats.numa_miss),
    ("numa_foreign", |stats| stats.numa_foreign),
    ("interleave_hit", |stats| stats.interleave_hit),
    ("local_node", |stats| stats.local_node),
    ("other_node", |stats| stats.other_node),
];

/// Prints the table of the `numastat` tool without arguments: a column for each online
/// node. Context: any.
///
/// # Errors
/// Those of `out`.
pub fn numastat<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    let online = memory.node_states(NodeState::Online);
    let nodes = || {
        let nodes = memory.nodes().iter();
        nodes.filter(|node| online.contains(node.id()))
    };
    write!(out, "{:16}", "")?;
    for node in nodes() {
        let number = node.id().0;
        let digits = number.checked_ilog10().unwrap_or_default();
        let blanks = usize::try_from(11_u32.saturating_sub(digits)).unwrap_or_default();
        write!(out, "{:blanks$}node{number}", "")?;
    }
    writeln!(out)?;
    for (name, count) in &ROWS {
        write!(out, "{name:16}")?;
        for node in nodes() {
            write!(out, "{:>16}", count(&node.numa_stats()))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
