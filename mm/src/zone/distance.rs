//! How far nodes are from each other, and in which order they are asked for memory.
//!
//! [`Distances`] is the firmware's matrix (ACPI: SLIT), believed only as far as Linux believes
//! it. [`sort_by_nearness`] is Linux's `find_next_best_node` in one piece; tests compare it with the
//! fallback orders that Linux printed.
#![forbid(unsafe_code)]

use core::fmt;

use crate::platform::NodeId;

/// From a node to itself (Linux: `LOCAL_DISTANCE`).
pub const LOCAL: u8 = 10;
/// From a node to another, where nobody says more (Linux: `REMOTE_DISTANCE`).
pub const REMOTE: u8 = 20;

/// Why a matrix of distances is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DistanceError {
    /// There are not `nodes` × `nodes` distances.
    NotSquare {
        /// How many nodes it is for.
        nodes: usize,
        /// How many distances there are.
        distances: usize,
    },
    /// A node is not at distance 10 from itself, or another one at 10 or less.
    Impossible {
        /// From this node, …
        from: NodeId,
        /// … to this one, …
        to: NodeId,
        /// … it says so much.
        distance: u8,
    },
}

/// How far it is from each node to each other one, in tenths of a local access.
///
/// # Invariants
/// `matrix` holds `nodes` × `nodes` distances: [`LOCAL`] on the diagonal, more elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Distances<'a> {
    nodes: usize,
    matrix: &'a [u8],
}

impl Distances<'static> {
    /// What counts without a matrix: every other node is as far.
    pub const UNKNOWN: Self = Self {
        nodes: 0,
        matrix: &[],
    };
}

impl<'a> Distances<'a> {
    /// Takes a matrix, row by row, by Linux's rule for the firmware's (`slit_valid`). It need not be
    /// the same in both directions. Context: any.
    ///
    /// # Errors
    /// [`DistanceError`]: use [`Distances::UNKNOWN`] then.
    pub fn new(nodes: usize, matrix: &'a [u8]) -> Result<Self, DistanceError> {
        if nodes.checked_mul(nodes) != Some(matrix.len()) {
            let distances = matrix.len();
            return Err(DistanceError::NotSquare { nodes, distances });
        }
        let rows = (0..).map(NodeId).zip(matrix.chunks_exact(nodes.max(1)));
        for (from, row) in rows {
            for (to, &distance) in (0..).map(NodeId).zip(row) {
                let is_good = match from == to {
                    true => distance == LOCAL,
                    false => distance > LOCAL,
                };
                if !is_good {
                    return Err(DistanceError::Impossible { from, to, distance });
                }
            }
        }
        // INVARIANT: both were checked.
        Ok(Self { nodes, matrix })
    }

    /// How far it is; for nodes that the matrix does not know, 10 or 20.
    #[must_use]
    pub fn between(&self, from: NodeId, to: NodeId) -> u8 {
        let row = self.matrix.chunks_exact(self.nodes.max(1));
        let known = row
            .skip(usize::from(from.0))
            .map(|row| row.get(usize::from(to.0)));
        let default = if from == to { LOCAL } else { REMOTE };
        known.flatten().copied().next().unwrap_or(default)
    }
}

/// Brings the nodes with memory in `others`, `from` not among them, into the order in which `from`
/// falls back to them (Linux: `find_next_best_node`, `build_zonelists`): the nearest first. Of
/// those that are as near, nodes behind `from` come before nodes in front of it, then those that
/// were put first less often, then the lower number.
///
/// `load` counts, by node, how often a node was put first among those that are as near; it starts with
/// zeroes and is for all nodes of a machine, in their order. Linux also prefers nodes without CPUs,
/// but when it builds its lists no CPU has a node yet; neither is that done here.
pub fn sort_by_nearness(
    from: NodeId,
    distances: &Distances<'_>,
    load: &mut [u32],
    others: &mut [NodeId],
) {
    let mut before = LOCAL;
    for place in 0..others.len() {
        let rest = &mut others[place..];
        let cost = |node: NodeId| {
            let ahead = u16::from(node < from);
            let distance = u16::from(distances.between(from, node)).saturating_add(ahead);
            let load = load.get(usize::from(node.0)).copied();
            (distance, load.unwrap_or_default(), node)
        };
        let nearest = (0..rest.len()).min_by_key(|&index| cost(rest[index]));
        rest.swap(0, nearest.unwrap_or_default());
        let node = rest[0];
        let distance = distances.between(from, node);
        if distance != before
            && let Some(load) = load.get_mut(usize::from(node.0))
        {
            *load = load.saturating_add(1);
        }
        before = distance;
    }
}

impl fmt::Display for DistanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSquare { nodes, distances } => {
                write!(f, "{distances} distances between {nodes} nodes")
            }
            Self::Impossible { from, to, distance } => {
                write!(f, "a distance of {distance} from node {from} to node {to}")
            }
        }
    }
}

impl core::error::Error for DistanceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_does_not_believe_is_refused() {
        for (matrix, from, to, distance) in [
            ([11, 20, 20, 10], 0, 0, 11),
            ([10, 10, 20, 10], 0, 1, 10),
            ([10, 20, 0, 10], 1, 0, 0),
        ] {
            let (from, to) = (NodeId(from), NodeId(to));
            let error = DistanceError::Impossible { from, to, distance };
            assert_eq!(Distances::new(2, &matrix), Err(error));
        }
        let error = DistanceError::NotSquare {
            nodes: 2,
            distances: 3,
        };
        assert_eq!(Distances::new(2, &[10, 20, 20]), Err(error));
    }

    #[test]
    fn nodes_that_the_matrix_does_not_know_are_at_the_usual_distance() {
        let distances = Distances::new(2, &[10, 31, 32, 10]).unwrap();
        for (from, to, distance) in [(0, 1, 31), (1, 0, 32), (1, 2, 20), (2, 0, 20), (2, 2, 10)] {
            assert_eq!(distances.between(NodeId(from), NodeId(to)), distance);
            let unknown = if from == to { LOCAL } else { REMOTE };
            let unknown_distance = Distances::UNKNOWN.between(NodeId(from), NodeId(to));
            assert_eq!(unknown_distance, unknown);
        }
    }

    #[test]
    fn nodes_that_are_as_near_go_on_from_each_node_with_the_next() {
        let mut load = [0; 4];
        let mut orders = Vec::new();
        for from in (0..4).map(NodeId) {
            let mut others: Vec<NodeId> = (0..4).map(NodeId).filter(|node| *node != from).collect();
            sort_by_nearness(from, &Distances::UNKNOWN, &mut load, &mut others);
            orders.push(others.iter().map(|node| node.0).collect::<Vec<_>>());
        }
        assert_eq!(orders, [[1, 2, 3], [2, 3, 0], [3, 0, 1], [0, 1, 2]]);
    }
}
