//! The buddy allocator: free memory in naturally aligned blocks of `2^order` frames
//! (Linux: `mm/page_alloc.c`).
//!
//! - [`Gfp`] says what a request may do; [`Request`] is a checked one.
//! - [`MigrateType`] keeps pages that can be moved apart from those that cannot.
//! - `FreeAreas` holds a zone's free blocks: `take` (which block, splitting it), `give`
//!   (merging), `index` (where to look), `fallback`
//!   (other types' blocks; the rules are in [`policy`]), `contig` (isolation, exact ranges), `runs` (where there is room for larger ones),
//!   `bulk` (many blocks at once), `cma` (pageblocks on loan), `high_atomic` (pageblocks kept for who cannot wait), `validate`
//!   (the recount behind the oracles).
//! - [`pageset`]: what each CPU has at hand.
//! - [`relief`]: whom to ask when there is not enough.
//!
//! # Protocol
//!
//! A zone's free areas are used under the zone lock only. Frames go in as
//! [`Exclusive`](crate::mem::Exclusive) tokens and come out as such. A free block's record says
//! free and its order; taking it checks that, so a block that was handed out already is refused
//! even if the lists are wrong.
#![forbid(unsafe_code)]

mod area;
mod bulk;
pub(crate) mod chain;
mod cma;
mod contig;
mod fallback;
mod free_areas;
mod gfp;
mod gfp_text;
mod give;
mod high_atomic;
mod index;
mod latest;
mod migrate;
pub mod pageset;
pub mod policy;
pub mod relief;
mod runs;
mod take;
mod trace;
mod validate;

pub(crate) use area::Area;
pub use contig::RangeError;
pub(crate) use fallback::Mixing;
pub(crate) use free_areas::{AreaSlots, FreeAreas};
pub use gfp::{Gfp, GfpError, Request};
pub(crate) use high_atomic::Keep;
pub use migrate::MigrateType;
pub(crate) use pageset::{List, PageSet, Taken};
pub use trace::{Step, Trace};
pub(crate) use trace::{Told, tell, tell_block};
pub use validate::Census;

/// What a zone's allocator did since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Frames handed out.
    pub allocated: u64,
    /// Frames given back.
    pub freed: u64,
    /// Blocks halved.
    pub splits: u64,
    /// Buddies merged.
    pub merges: u64,
    /// Pageblocks taken over by another type.
    pub claims: u64,
    /// Blocks taken out of pageblocks of another type.
    pub steals: u64,
}

impl Stats {
    /// Nothing done yet.
    pub const ZERO: Self = Self {
        allocated: 0,
        freed: 0,
        splits: 0,
        merges: 0,
        claims: 0,
        steals: 0,
    };
}
