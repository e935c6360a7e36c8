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
mod bulk;
mod cache;
mod caches;
mod construct;
mod debug;
mod definition;
mod drain;
mod flags;
mod ground;
mod inspect;
mod kfence;
mod kmalloc;
mod magazine;
mod neighbours;
mod object;
mod partial;
mod shape;
mod slabs;
mod story;
mod traced;
mod validate;

pub use cache::BadFree;
pub(crate) use cache::Cache;
pub use caches::CacheError;
pub(crate) use caches::{Caches, Reach, Setup, Wish};
pub(crate) use debug::{Ask, Places, Tally, Treatment};
pub use debug::{BadSlubDebug, NamePattern, SlubDebug};
pub use definition::Ctor;
pub use flags::SlabFlags;
pub(crate) use ground::{Effort, Ground};
pub use inspect::CacheStats;
pub(crate) use inspect::FreeMap;
pub(crate) use kfence::{Freed, Kfence};
pub use kfence::{KFENCE_OBJECTS, KfenceStats};
pub use kmalloc::{KMALLOC_MAX_CACHE_SIZE, size_roundup};
pub(crate) use kmalloc::{cache_for, size_for};
pub(crate) use neighbours::Neighbours;
pub(crate) use object::Object;
pub use shape::ShapeError;
pub(crate) use story::{ObjectStory, Owned};
