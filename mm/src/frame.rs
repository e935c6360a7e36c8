//! Frame metadata: one 32-byte record per page frame (Linux: `struct page`, 64 bytes).
//!
//! # Blocks and their first frames
//!
//! Memory is handed about in naturally aligned blocks of `2^order` frames. **Only the first
//! frame of a block says anything**; the records of the others are all zero
//! ([`FrameState::Interior`]). So handing out a 2 MiB block writes one record, not 512, and a
//! section of metadata nobody has touched is valid as it is: zero. Which block an interior frame
//! belongs to is found by looking at the at most eleven places where its first frame can be
//! ([`FrameTable::head`]).
//!
//! # Layout of a record
//!
//! | word | free | cached | unique | shared | slab | anonymous, file *(later)* | page table |
//! |---|---|---|---|---|---|---|---|
//! | state | state, order, home | + mobility | + kind, flags | same | same | same | same |
//! | refs (32 bits) | – | number of objects that wait with the page | – | reference count | cache and node, in every frame | reference count | – |
//! | maps (32 bits) | – | – | – | – | objects taken, first free one, first that never had an owner; in other frames the distance to the first | mapping count | lock, entries in use |
//! | link | neighbours in the pageblock's free list | the next one on the CPU's list | – | – | next slab of the list | mapping | next one to be freed |
//! | private | – | – | owner's word | owner's word | slab before it | index, or swap slot | level |
//!
//! Pages that reclaim looks at use `link` and `private` for mapping and index; their age is a
//! generation in the state word's flags, found by scanning a section, so no list links are
//! needed beside them. Bits of the state word: [`Word`].
//!
//! # Ownership
//!
//! A block is **unique** (one owner, plain stores) or **shared** (counted, every change a
//! read-modify-write). `share` publishes; a speculative [`FrameTable::try_get`] on anything that
//! is not shared is refused; the last put makes the block unique again, so that whoever dropped
//! the last reference may free it. What may happen to the first frame of a block stands in
//! [`FrameState::after`]; the other frames only become interior, or first ones of their own.

#[cfg(not(loom))]
mod by_frame;
#[cfg(not(loom))]
mod last_free;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod page;
mod record;
#[cfg(not(loom))]
pub(crate) mod slab;
mod stack;
mod state;
#[cfg(not(loom))]
mod table;
mod table_lock;
mod word;

#[cfg(not(loom))]
pub use by_frame::ByFrame;
#[cfg(not(loom))]
pub use last_free::{LastFree, LastFrees};
#[cfg(not(loom))]
pub use page::Page;
pub use record::Frame;

pub use stack::FrameStack;
pub use state::{Event, FrameState};
#[cfg(not(loom))]
pub use table::{
    AddSectionError, FrameTable, FreeError, Origin, Origins, PutOutcome, Reference, SectionFrames,
};
#[cfg(not(loom))]
pub(crate) use table::{HeldBlocks, Offer, Record, SlabFrame, TablePage};
pub(crate) use table_lock::{IsDead, TableLock};
pub use word::{CachedWord, Kind, PageFlags, Word, ZoneId};
