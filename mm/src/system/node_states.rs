//! What each node has, and how nodes stand to each other.
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::buddy::Request;
use crate::mem::Array;
use crate::numa::{NodeMask, NodeState};
use crate::platform::{NodeId, Platform};
use crate::sync::atomic::AtomicU8;
use crate::zone::{Node, Zone, ZoneKind};

/// What is known of the nodes beside their memory, from boot on.
#[derive(Debug)]
pub(crate) struct Numa {
    /// From each node to each, row by row.
    distances: Array<u8>,
    /// How many pages in a row each node gets where they are interleaved by weight.
    pub(super) weights: Array<AtomicU8>,
    /// Nodes with memory, …
    pub(super) memory: NodeMask,
    /// … and those with other than movable one.
    normal: NodeMask,
    /// The highest kind of zone that there is, Movable apart (Linux: `policy_zone`).
    highest: ZoneKind,
}

impl Numa {
    pub(super) fn new(nodes: &[Node], distances: Array<u8>, weights: Array<AtomicU8>) -> Self {
        let exists = |kind: &ZoneKind| nodes.iter().any(|node| node.zone(*kind).is_populated());
        let kinds = [ZoneKind::Normal, ZoneKind::Dma32];
        Self {
            distances,
            weights,
            memory: with(nodes, has_memory),
            normal: with(nodes, has_normal_memory),
            highest: kinds.into_iter().find(exists).unwrap_or(ZoneKind::Dma),
        }
    }

    /// Whether a set of nodes binds a request (Linux: `apply_policy_zone`).
    pub(super) fn is_bound(&self, nodes: &NodeMask, request: Request) -> bool {
        let lowest = match nodes.intersects(&self.normal) {
            true => self.highest,
            // They have movable memory only.
            false => ZoneKind::Movable,
        };
        request.highest() >= lowest
    }
}

impl<P: Platform> Memory<P> {
    /// How far it is from one node to another, in tenths of a local access (Linux:
    /// `node_distance`). Nothing for a node that does not exist. Context: any.
    #[must_use]
    pub fn distance(&self, from: NodeId, to: NodeId) -> Option<u8> {
        let core = self.core()?;
        let mut rows = core.numa.distances.chunks_exact(core.nodes.len().max(1));
        rows.nth(usize::from(from.0))?
            .get(usize::from(to.0))
            .copied()
    }

    /// The nodes that are in a state (Linux: `node_states[]`); none before memory is up. Context:
    /// any.
    ///
    /// A node that has neither memory nor CPUs is possible, but not online. CPUs count whether or
    /// not they run at the moment.
    #[must_use]
    pub fn node_states(&self, state: NodeState) -> NodeMask {
        let core = self.core();
        core.map_or(NodeMask::EMPTY, |core| core.node_states(state))
    }
}

impl Core {
    pub(super) fn node_states(&self, state: NodeState) -> NodeMask {
        match state {
            NodeState::Possible => with(&self.nodes, |_| true),
            NodeState::Memory => with(&self.nodes, has_memory),
            NodeState::NormalMemory => with(&self.nodes, has_normal_memory),
            NodeState::Cpu => collect(self.cpus.nodes()),
            NodeState::Online => {
                let with_memory = self.nodes.iter().filter(|node| has_memory(node));
                collect(with_memory.map(Node::id).chain(self.cpus.nodes()))
            }
        }
    }
}

fn has_memory(node: &Node) -> bool {
    node.present() > 0
}

fn has_normal_memory(node: &Node) -> bool {
    let (lower, _) = node.zones().split_at(ZoneKind::Movable.index());
    lower.iter().any(Zone::is_populated)
}

fn with(nodes: &[Node], has: fn(&Node) -> bool) -> NodeMask {
    collect(nodes.iter().filter(|node| has(node)).map(Node::id))
}

/// A set of nodes that exist: bring-up lets none have a higher number than a set has room for.
fn collect(nodes: impl Iterator<Item = NodeId>) -> NodeMask {
    let mut mask = NodeMask::EMPTY;
    for node in nodes {
        let _ = mask.insert(node);
    }
    mask
}
