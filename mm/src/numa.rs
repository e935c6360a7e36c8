//! Nodes as a set, and what a task wants of them (Linux: `nodemask_t`, `struct mempolicy`).
//!
//! - [`NodeMask`]: a set of nodes, read and printed as Linux's lists (`0-3,5`).
//! - [`Policy`]: which nodes' memory to take, and how ([`Mode`]).
//! - [`NodeState`]: what a node has; [`Memory::node_states`](crate::system::Memory::node_states)
//!   answers which nodes.
//!
//! These are values without memory behind them, so that a [`Platform`](crate::platform::Platform)
//! can name them; [`Memory`](crate::system::Memory) applies them.
#![forbid(unsafe_code)]

mod mask;
mod policy;

pub use mask::{MAX_NODES, NodeList, NodeListError, NodeMask, NodeOutOfRange};
pub use policy::{Mode, Policy, PolicyError};

/// What a node can have (Linux: `enum node_states`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeState {
    /// It may come to be online (Linux: `N_POSSIBLE`).
    Possible,
    /// It has memory or CPUs (Linux: `N_ONLINE`).
    Online,
    /// It has memory that any request may get (Linux: `N_NORMAL_MEMORY`).
    NormalMemory,
    /// It has memory, if only for movable pages (Linux: `N_MEMORY`).
    Memory,
    /// It has CPUs (Linux: `N_CPU`).
    Cpu,
}
