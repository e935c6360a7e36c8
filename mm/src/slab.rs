//! Objects smaller than pages (Linux: `mm/slub.c`).
//!
//! A cache hands out objects of one size. They lie in slabs, blocks of pages that the cache takes
//! from the page allocator; the frame records of a slab say whose it is, how many of its objects
//! are taken, and which is the first free one. Each free object names the next one.
//!
//! Every CPU has some objects at hand, which it takes and puts without a lock, an atomic
//! read-modify-write or masked interrupts (the protocol of page lists). When it runs out
//! of them, or has too many, many move at once from or to the slabs of a node, under one hold of the lock of
//! that node's slabs. Objects of other nodes go back there directly.
//!
//! `kmalloc` is a cache for each size class and family.

pub(crate) mod at_hand;
mod cache;
mod caches;
mod debug;
mod definition;
mod flags;
mod kmalloc;
mod magazine;
mod object;
mod partial;
mod shape;
mod slabs;
mod validate;

pub use cache::{BadFree, CacheStats};
pub(crate) use cache::{Cache, Ground};
pub use caches::CacheError;
pub(crate) use caches::{Caches, Setup, Wish};
pub(crate) use debug::{Ask, Places, Tally, Treatment};
pub use debug::{BadSlubDebug, NamePattern, SlubDebug};
pub use flags::SlabFlags;
pub(crate) use kmalloc::{Family, cache_of, size_for};
pub use kmalloc::{KMALLOC_MAX_CACHE_SIZE, size_roundup};
pub(crate) use object::Object;
pub use shape::ShapeError;
