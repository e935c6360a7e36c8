//! The raw-memory room of kernel virtual memory: what the page tables are asked for, and frames that belong to areas.
//!
//! Elsewhere in [`kspace`](super) addresses are numbers.

mod map;
mod pile;

pub(crate) use map::Mapping;
pub use map::{CacheMode, KernelMap, MapAccess, MapAttributes, MapError};
pub(crate) use pile::{MOST_BLOCKS, Pile, PileSlot, Supply};
