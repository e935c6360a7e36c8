//! Which nodes' memory a task wants.
#![forbid(unsafe_code)]

use core::fmt;

use super::NodeMask;
use crate::platform::NodeId;

/// How a policy uses its nodes (Linux: `MPOL_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// As if there were no policy: near to the CPU first. Takes no nodes.
    Default,
    /// One node first, then those near to it.
    Preferred,
    /// These nodes only, those near to the CPU first.
    Bind,
    /// These nodes by turns, a request each; when one has nothing, those near to it.
    Interleave,
    /// Near to the CPU first. Takes no nodes.
    Local,
    /// These nodes first, those near to the CPU before others; then all.
    PreferredMany,
    /// As [`Self::Interleave`], but as many requests in a row to a node as it has weight.
    WeightedInterleave,
}

impl Mode {
    /// Its name, as `numactl --show` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Preferred => "preferred",
            Self::Bind => "bind",
            Self::Interleave => "interleave",
            Self::Local => "local",
            Self::PreferredMany => "preferred-many",
            Self::WeightedInterleave => "weighted-interleave",
        }
    }

    const fn takes_nodes(self) -> bool {
        !matches!(self, Self::Default | Self::Local)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why there is no such policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyError {
    /// This mode needs nodes, and none were named.
    NoNodes(Mode),
    /// This mode takes no nodes, and some were named.
    TakesNoNodes(Mode),
    /// The machine has no such node.
    NoSuchNode(NodeId),
    /// None of the nodes has memory.
    NoMemory,
    /// A weight of 0.
    NoWeight,
    /// Memory is not up yet.
    NotUp,
}

/// Which nodes' memory requests want, and where it stands if nodes take turns (Linux:
/// `struct mempolicy`, with `il_prev` and `il_weight` of the task).
///
/// [`Memory::policy`](crate::system::Memory::policy) makes one that fits the machine.
///
/// # Invariants
/// `nodes` is empty exactly in the modes that take none, and has one node in
/// [`Mode::Preferred`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    mode: Mode,
    nodes: NodeMask,
    /// The node whose turn it was last.
    last: Option<NodeId>,
    /// How many more requests in a row that one gets.
    rest: u8,
}

impl Policy {
    /// As if there were none.
    pub const DEFAULT: Self = Self::without_nodes(Mode::Default);

    const fn without_nodes(mode: Mode) -> Self {
        Self {
            mode,
            nodes: NodeMask::EMPTY,
            last: None,
            rest: 0,
        }
    }

    /// A policy of its own kind (Linux: `mpol_new`). [`Mode::Preferred`] keeps the first node, and
    /// without one it is [`Mode::Local`].
    ///
    /// # Errors
    /// [`PolicyError::NoNodes`], [`PolicyError::TakesNoNodes`].
    pub fn new(mode: Mode, nodes: &NodeMask) -> Result<Self, PolicyError> {
        let Some(first) = nodes.first() else {
            return match mode {
                Mode::Default | Mode::Local => Ok(Self::without_nodes(mode)),
                Mode::Preferred => Ok(Self::without_nodes(Mode::Local)),
                _ => Err(PolicyError::NoNodes(mode)),
            };
        };
        if !mode.takes_nodes() {
            return Err(PolicyError::TakesNoNodes(mode));
        }
        let nodes = match mode {
            // It came out of such a set.
            Mode::Preferred => NodeMask::one(first).unwrap_or(*nodes),
            _ => *nodes,
        };
        // INVARIANT: not empty, one node if preferred.
        Ok(Self {
            nodes,
            ..Self::without_nodes(mode)
        })
    }

    /// The mode.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The nodes; none in modes that take none.
    #[must_use]
    pub const fn nodes(&self) -> &NodeMask {
        &self.nodes
    }

    /// Whether requests are served as if there were no policy.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        !self.mode.takes_nodes()
    }

    /// Whose turn is next, if nodes take turns (Linux: `get_mempolicy` with `MPOL_F_NODE`).
    #[must_use]
    pub fn next_turn(&self) -> Option<NodeId> {
        let is_weighted = match self.mode {
            Mode::Interleave => false,
            Mode::WeightedInterleave => true,
            _ => return None,
        };
        match self.last {
            None => self.nodes.first(),
            Some(last) if is_weighted && self.rest > 0 => Some(last),
            Some(last) => self.nodes.after(last),
        }
    }

    /// The same, and now it had its turn (Linux: `interleave_nodes`, `weighted_interleave_nodes`).
    /// `weight` says how many turns in a row a node gets.
    pub fn take_turn(&mut self, weight: impl FnOnce(NodeId) -> u8) -> Option<NodeId> {
        let node = self.next_turn()?;
        if self.mode == Mode::WeightedInterleave {
            if self.rest == 0 {
                self.rest = weight(node).max(1);
            }
            self.rest = self.rest.saturating_sub(1);
        }
        self.last = Some(node);
        Some(node)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNodes(mode) => write!(f, "{mode} needs nodes"),
            Self::TakesNoNodes(mode) => write!(f, "{mode} takes no nodes"),
            Self::NoSuchNode(node) => write!(f, "there is no node {node}"),
            Self::NoMemory => f.write_str("none of the nodes has memory"),
            Self::NoWeight => f.write_str("a weight is from 1 to 255"),
            Self::NotUp => f.write_str("memory is not up yet"),
        }
    }
}

impl core::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_NODES: [Mode; 5] = [
        Mode::Preferred,
        Mode::Bind,
        Mode::Interleave,
        Mode::PreferredMany,
        Mode::WeightedInterleave,
    ];

    fn mask(text: &str) -> NodeMask {
        text.parse().unwrap()
    }

    #[test]
    fn a_mode_has_nodes_or_it_has_none() {
        let none = NodeMask::EMPTY;
        for mode in [Mode::Default, Mode::Local] {
            assert!(Policy::new(mode, &none).unwrap().is_local());
            let refused = Policy::new(mode, &mask("1"));
            assert_eq!(refused, Err(PolicyError::TakesNoNodes(mode)));
        }
        for mode in WITH_NODES {
            let policy = Policy::new(mode, &mask("2-3")).unwrap();
            assert!(!policy.is_local());
            let nodes = if mode == Mode::Preferred { "2" } else { "2-3" };
            assert_eq!(*policy.nodes(), mask(nodes), "{mode}");
            let without = Policy::new(mode, &none);
            match mode {
                Mode::Preferred => assert_eq!(without.unwrap().mode(), Mode::Local),
                _ => assert_eq!(without, Err(PolicyError::NoNodes(mode))),
            }
        }
    }

    #[test]
    fn nodes_take_turns_from_the_lowest_on() {
        let mut policy = Policy::new(Mode::Interleave, &mask("1,3-4")).unwrap();
        let weight = |_| panic!("all are as heavy");
        let turns: Vec<u16> = (0..7)
            .map(|_| {
                let next = policy.next_turn();
                let taken = policy.take_turn(weight);
                assert_eq!(taken, next);
                taken.unwrap().0
            })
            .collect();
        assert_eq!(turns, [1, 3, 4, 1, 3, 4, 1]);
    }

    #[test]
    fn heavy_nodes_have_more_turns_in_a_row() {
        let mut policy = Policy::new(Mode::WeightedInterleave, &mask("0-2")).unwrap();
        let mut turns = |weights: [u8; 3], count: usize| -> Vec<u16> {
            let weight = |node: NodeId| weights[usize::from(node.0)];
            let turn = |_| {
                let next = policy.next_turn();
                assert_eq!(policy.take_turn(weight), next);
                next.unwrap().0
            };
            (0..count).map(turn).collect()
        };
        assert_eq!(turns([3, 1, 2], 8), [0, 0, 0, 1, 2, 2, 0, 0]);
        // A new weight counts from the node's next round on; none is as good as one.
        assert_eq!(turns([1, 0, 1], 5), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn nobody_has_turns_where_nodes_are_not_interleaved() {
        for mode in [Mode::Preferred, Mode::Bind, Mode::PreferredMany] {
            let mut policy = Policy::new(mode, &mask("1")).unwrap();
            assert_eq!(policy.take_turn(|_| 1), None);
        }
    }
}
