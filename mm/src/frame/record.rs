//! The 32-byte record of a frame.
#![forbid(unsafe_code)]

use super::{FrameState, PageFlags, Word};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Dropped, RefCount};

/// What the library knows about one page frame: four words, all atomic, all zero while nobody
/// has been told of the frame. See the [module's](super) table for what they hold in which state.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Frame {
    state: AtomicU64,
    refs: RefCount,
    maps: AtomicU32,
    link: AtomicU64,
    private: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Frame>() == 32, "32 bytes a frame is a promise");

impl Frame {
    /// The record of a frame that nobody has been told of.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            refs: RefCount::zero(),
            maps: AtomicU32::new(0),
            link: AtomicU64::new(0),
            private: AtomicU64::new(0),
        }
    }

    /// The state word. Context: any.
    #[inline]
    #[must_use]
    pub fn word(&self) -> Word {
        Word::from_bits(self.state.load(Ordering::Relaxed))
    }

    /// The state word, ordered after what its writer did before (pairs with the Release store
    /// that published it).
    #[inline]
    #[must_use]
    pub fn word_acquire(&self) -> Word {
        Word::from_bits(self.state.load(Ordering::Acquire))
    }

    /// Replaces the state word; what was done to the block before is visible to whoever sees it.
    #[inline]
    pub(crate) fn publish(&self, word: Word) {
        self.state.store(word.bits(), Ordering::Release);
    }

    /// Replaces the state word if it still is `from`.
    ///
    /// # Errors
    /// The word that stands there instead.
    #[inline]
    pub(crate) fn exchange(&self, from: Word, to: Word) -> Result<(), Word> {
        self.state
            .compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(Word::from_bits)
    }

    /// Moves the block from one state to another and leaves the flags, which others may be
    /// changing, as they are: one read-modify-write. `to` is `from` in another state, and the
    /// caller knows that the state still is that of `from`.
    #[inline]
    pub(crate) fn change_state(&self, from: Word, to: Word) {
        self.state
            .fetch_xor(from.bits() ^ to.bits(), Ordering::AcqRel);
    }

    /// Sets flags; answers those that were set before. Context: any; the caller owns the page
    /// or holds a reference.
    pub(crate) fn set_flags(&self, flags: PageFlags) -> PageFlags {
        Word::from_bits(
            self.state
                .fetch_or(Word::flag_bits(flags), Ordering::AcqRel),
        )
        .flags()
    }

    /// Clears flags; answers those that were set before. Context: as [`Self::set_flags`].
    pub(crate) fn clear_flags(&self, flags: PageFlags) -> PageFlags {
        Word::from_bits(
            self.state
                .fetch_and(!Word::flag_bits(flags), Ordering::AcqRel),
        )
        .flags()
    }

    /// Sets one flag; answers whether it was set before. Context: as [`Self::set_flags`].
    pub(crate) fn test_and_set(&self, flag: PageFlags) -> bool {
        self.set_flags(flag).contains(flag)
    }

    /// Whether all of `flags` are set. Context: any.
    #[must_use]
    pub fn test(&self, flags: PageFlags) -> bool {
        self.word().flags().contains(flags)
    }

    /// References to a [`Shared`](FrameState::Shared) block.
    #[inline]
    #[must_use]
    pub(crate) fn refs(&self) -> &RefCount {
        &self.refs
    }

    /// The third field; see the table in the [module](super).
    #[inline]
    pub(in crate::frame) const fn maps(&self) -> &AtomicU32 {
        &self.maps
    }

    /// Makes a block with one owner, who is the caller, reference-counted; the caller has the first
    /// reference. `shared` is `unique` in the other state.
    ///
    /// A reader that still knows the block from an earlier life takes a reference only once
    /// the count says so, and by then the state must say shared.
    #[inline]
    pub(crate) fn share(&self, unique: Word, shared: Word) {
        self.change_state(unique, shared);
        self.refs.set(1);
    }

    /// Takes a reference if the block is shared and not going away (Linux:
    /// `get_page_unless_zero`).
    ///
    /// The count is non-zero only while the block is shared, so a successful increment proves the
    /// state as of then, and keeps it.
    #[inline]
    pub(crate) fn try_get(&self) -> bool {
        self.word_acquire().is(FrameState::Shared) && self.refs.inc_not_zero()
    }

    /// Drops a reference; after the last one the block is the caller's alone, and says so.
    /// `unique` is `shared` in the other state.
    #[inline]
    pub(crate) fn put(&self, shared: Word, unique: Word) -> Dropped {
        let dropped = self.refs.dec();
        if dropped == Dropped::Last {
            self.change_state(shared, unique);
        }
        dropped
    }

    /// The list word; see the table in the [module](super).
    #[inline]
    pub(crate) fn link(&self) -> u64 {
        self.link.load(Ordering::Relaxed)
    }

    /// Stores the list word.
    #[inline]
    pub(crate) fn set_link(&self, link: u64) {
        self.link.store(link, Ordering::Relaxed);
    }

    /// The word that belongs to the block's owner (Linux: `page_private`).
    #[inline]
    #[must_use]
    pub fn private(&self) -> u64 {
        self.private.load(Ordering::Relaxed)
    }

    /// Stores the owner's word (Linux: `set_page_private`).
    #[inline]
    pub(crate) fn set_private(&self, value: u64) {
        self.private.store(value, Ordering::Relaxed);
    }
}
