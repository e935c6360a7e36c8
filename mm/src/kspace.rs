//! Kernel virtual memory: what is virtually contiguous (Linux: `mm/vmalloc.c`), what each CPU has a copy of
//! ([`percpu`]), and a few slots for the time before there is anything else ([`early`]).
//!
//! An *area* is a range of addresses with one owner, and a page behind it that is never mapped. What is mapped in it is
//! frames of its own (`vmalloc`), frames of somebody else's (`vmap`), or registers of a device (`ioremap`).
//!
//! # Life of an area
//!
//! ```text
//!             take                    retire                    purge
//!  (a gap) ─────────► busy, mapped ─────────► lazy, unmapped ─────────► (a gap)
//!     ▲                    ▲                  its frames still its own    │
//!     │                    └──────────────── cached ◄─────────────────────┤
//!     └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is retired is unmapped at once, but CPUs may remember where it was. So its frames stay its own, and its addresses
//! nobody's, until a *purge* has had all CPUs forget many areas at one time. **No frame is freed, and no address
//! handed out anew, before every CPU has forgotten the translation.**
//!
//! Small areas that a purge gives back keep their place, and lie ready for the CPU that purged:
//! to take one is to take the newest off a stack, without a lock.
//!
#![doc = include_str!("kspace/in_your_kernel.md")]

mod area;
mod arena;
pub mod early;
mod hints;
mod map;
pub mod percpu;
mod purge;
pub(crate) mod raw;
mod shelf;
mod space;

pub use area::AreaKind;
pub(crate) use area::{Area, AreaState};
pub(crate) use map::{InLargeBlocks, InPages};
pub(crate) use purge::Patience;
pub(crate) use raw::{MOST_BLOCKS, Pile, Supply};
pub(crate) use space::{AreaInfo, IsLocked, NoArea, NotNoted, Space, Wanted};
