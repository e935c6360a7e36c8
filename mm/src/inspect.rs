//! What a machine's memory says of itself to whoever looks at it from outside.
//!
//! A viewer on the host maps the guest's RAM, or a file with a copy of it, and reads there. It asks nobody and stops nobody, so
//! it also works on a kernel that hangs. What it needs to find its way is written down once by
//! [`Memory::publish`](crate::system::Memory::publish): pages of [`Entry`] after [`Entry`], each of which says where in memory
//! something is — never what its value is right now, but for names and sizes that stay the same. The values are read where the
//! kernel itself keeps them. **Nothing is written for a viewer while the machine works**, except when there is something new: a
//! cache, or more records of areas.
//!
//! # Layout, version 1
//!
//! All numbers are little-endian. The sheet is a chain of pages; the first is found by [`MAGIC`] at its start and its own
//! address in it, which no copy of it has.
//!
//! | offset | bytes | [`Header`] |
//! |--:|--:|---|
//! | 0 | 16 | [`MAGIC`] |
//! | 16 | 4 | [`VERSION`] |
//! | 20 | 4 | bytes of a record of a frame |
//! | 24 | 8 | the physical address of this page |
//! | 32 | 8 | the physical address of the next page, or 0 |
//! | 40 | 8 | entries in this page |
//! | 48 | 8 | where physical address 0 is in the direct map |
//! | 56 | 8 | the physical address of the kernel's root page table, or 0 |
//! | 64 | 8 | levels of page tables |
//! | 72 | 8 | frames there may be: all numbers are below |
//! | 80 | 8 | frames of a section |
//! | 88 | 8 | the profile: 0 plain, 1 hardened, 2 debug |
//! | 96 | 32 | a source location as an example: its address, and its file name's address and length, line and column |
//! | 128 | | [`Entry`], 64 bytes each, as many as fit |
//!
//! Further pages are alike, but only what is said of pages holds for them: magic, version, both addresses and the number of
//! entries.
//!
//! Addresses in entries are the kernel's virtual ones. Those of the direct map need a subtraction, others a walk through the page
//! tables.
#![forbid(unsafe_code)]

mod format;
mod owner;
mod owners;
mod publish;
mod record;
pub mod ring;

pub use format::{Entry, EntryKind, Header, MAGIC, NotASheet, SampleLocation, VERSION};
pub use owner::{Owner, Rgb, latent_section};
pub use owners::owners;
pub(crate) use publish::Sheet;
pub use record::{Record, SlabRecord};
pub use ring::{EventCell, EventRing};
