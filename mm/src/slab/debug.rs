//! Caches that look at every object which comes or goes (Linux: `slub_debug`).
//!
//! A cache with one of [`SlabFlags::DEBUG`](super::SlabFlags::DEBUG) has more around each object
//! ([`Layout`]): red zones, a word that says whether it is free, who allocated and who freed it. CPUs have
//! none of its objects at hand, so that each allocation and each free goes the long way, under the lock
//! of the slab, where the bytes are checked; the short way knows nothing of all this.
//!
//! What is wrong is told once, with what is known of who did it, and put right.
//!
//! Lists know an object of such a cache by the start of its place, owners by the start of the object. So whoever adds a way
//! between owners and slabs asks [`Shape::is_guarded`](super::shape::Shape::is_guarded) first, and leaves those
//! to `alloc_guarded` and `free_guarded`.
#![forbid(unsafe_code)]

mod check;
mod full;
mod layout;
mod list;
mod owners;
mod switches;
mod ways;

pub(super) use check::Guard;
pub(super) use full::Full;
pub(super) use layout::{Inside, Layout, Outside, Word, Wrong};
pub(super) use list::Bits;
pub(crate) use owners::{Places, Tally};
pub use switches::{BadSlubDebug, NamePattern, SlubDebug};
pub(crate) use ways::{Ask, Treatment};
