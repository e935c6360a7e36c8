//! The raw-memory room of kernel virtual memory: frames that belong to areas, and who owns which bytes of what each CPU
//! has.
//!
//! Elsewhere in [`kspace`](super) addresses are numbers.

mod link;
mod page_box;
pub(crate) mod percpu;
mod pile;

pub(crate) use link::Linked;
pub(crate) use page_box::PageBox;
pub(crate) use pile::{MOST_BLOCKS, Pile, PileSlot, Returned, Supply};

/// Which area stands somewhere.
pub(crate) type Link = link::Link<super::Area>;
