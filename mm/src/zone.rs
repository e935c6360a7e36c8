//! Nodes and zones: memory by where it is and who can reach it (Linux: `pg_data_t`, `struct zone`).
//!
//! - [`ZoneKind`]: DMA, DMA32, Normal, Movable, Device.
//! - [`Zone`]: one kind's memory on one node, with its counts and its free areas behind a lock.
//! - [`Node`]: the zones of a node.
//! - [`distance`]: how far nodes are from each other, and whom they ask next.
//! - [`watermark`]: how much of a zone a request must leave.
//! - [`plan`]: which nodes and zones a machine gets, computed from memblock.
//!
//! `spanned` counts the frames between a zone's ends, `present` those of them that are RAM, and
//! `managed` those that were handed to the allocator.
#![forbid(unsafe_code)]

mod at_hand;
pub mod distance;
mod inspect;
mod kind;
mod latent;
mod latest;
mod listed;
mod lists;
mod lock;
mod node;
mod nolock;
mod numa_stats;
pub mod plan;
mod ranges;
mod runs;
mod state;
pub mod watermark;

pub(crate) use at_hand::{Anchors, AtHand, Here, Pages, Ways};
pub use kind::ZoneKind;
pub(crate) use listed::{Kept, Pause};
pub use node::Node;
pub(crate) use nolock::Contended;
pub use numa_stats::NumaStats;
pub(crate) use numa_stats::{NumaEvent, NumaGauges};
pub(crate) use state::ZoneParts;
pub use state::{Zone, ZoneSnapshot};
