//! The raw-memory room of kernel virtual memory: what the page tables are asked for, frames that belong to areas, and who owns
//! which bytes of what each CPU has.
//!
//! Elsewhere in [`kspace`](super) addresses are numbers.

mod map;
mod page_box;
pub(crate) mod percpu;
mod pile;

pub(crate) use map::Mapping;
pub use map::{CacheMode, KernelMap, MapAccess, MapAttributes, MapError};
pub(crate) use page_box::PageBox;
pub(crate) use pile::{MOST_BLOCKS, Pile, PileSlot, Supply};
