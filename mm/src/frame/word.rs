//! The state word: everything about a block that changes together, in one atomic word.
//!
//! | bits | field | meaningful in the first frame of |
//! |---|---|---|
//! | 0–3 | [`FrameState`] | every block; 0 in all other frames |
//! | 4–7 | order | free, reserved (0), owned blocks |
//! | 8–10 | migrate type of the request; high-atomic if it came from that reserve | owned blocks |
//! | 11 | compound: the frames of the block act as one page | owned blocks |
//! | 12–15 | zone index | every block |
//! | 16–25 | node | every block |
//! | 26–31 | [`Kind`] of use | owned blocks |
//! | 32–63 | [`PageFlags`] | owned blocks |
#![forbid(unsafe_code)]

use core::fmt;

use super::{Event, FrameState};
use crate::addr::{Order, conversions, to_index};
use crate::platform::NodeId;

const ORDER_SHIFT: u32 = 4;
const MOBILITY_SHIFT: u32 = 8;
const COMPOUND: u64 = 1 << 11;
const ZONE_SHIFT: u32 = 12;
const NODE_SHIFT: u32 = 16;
const KIND_SHIFT: u32 = 26;
const KIND_MASK: u64 = 0x3f << KIND_SHIFT;
const FLAGS_SHIFT: u32 = 32;
/// A flag that no page has: somebody is giving the block up right now (profile `debug`).
const GOING: u64 = 1 << 63;
const NIBBLE: u64 = 0xf;
const MOBILITY_MASK: u64 = 0x7;
const NODE_MASK: u64 = 0x3ff;
const HOME_MASK: u64 = (NIBBLE << ZONE_SHIFT) | (NODE_MASK << NODE_SHIFT);

bitflags::bitflags! {
    /// What is said about a page in use; names as in Linux `include/linux/page-flags.h`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PageFlags: u32 {
        /// Somebody is working on the contents; wait.
        const LOCKED = 1 << 0;
        /// Somebody waits for [`Self::LOCKED`] or [`Self::WRITEBACK`].
        const WAITERS = 1 << 1;
        /// Used recently.
        const REFERENCED = 1 << 2;
        /// The contents are valid.
        const UPTODATE = 1 << 3;
        /// The contents differ from what backs them.
        const DIRTY = 1 << 4;
        /// On a list of pages that reclaim looks at.
        const LRU = 1 << 5;
        /// On the active one of them.
        const ACTIVE = 1 << 6;
        /// Was refaulted while active.
        const WORKINGSET = 1 << 7;
        /// The last I/O on it failed.
        const ERROR = 1 << 8;
        /// For the owner's use.
        const OWNER_PRIV_1 = 1 << 9;
        /// For the architecture's use.
        const ARCH_1 = 1 << 10;
        /// The private word is in use.
        const PRIVATE = 1 << 11;
        /// Being written to what backs it.
        const WRITEBACK = 1 << 12;
        /// Reclaim wants it as soon as writeback ends.
        const RECLAIM = 1 << 13;
        /// Backed by swap.
        const SWAPBACKED = 1 << 14;
        /// Has a slot in swap.
        const SWAPCACHE = 1 << 15;
        /// Reclaim must leave it alone.
        const UNEVICTABLE = 1 << 16;
        /// Pinned by `mlock`.
        const MLOCKED = 1 << 17;
        /// The hardware reported an error in it.
        const HWPOISON = 1 << 18;
        /// Not accessed since it was marked idle.
        const IDLE = 1 << 19;
        /// Accessed since the last look at page tables.
        const YOUNG = 1 << 20;
    }
}

/// Where a frame belongs: its node and the index of its zone there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ZoneId {
    /// The node.
    pub node: NodeId,
    /// Index of the zone in its node.
    pub zone: u8,
}

impl ZoneId {
    const fn bits(self) -> u64 {
        let zone = widen(self.zone) & NIBBLE;
        (zone << ZONE_SHIFT) | ((widen16(self.node.0) & NODE_MASK) << NODE_SHIFT)
    }
}

/// What the owner of a block uses it for, where the library itself is the owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Whatever its owner likes.
    Plain = 0,
    /// Objects of a cache ([`crate::slab`]).
    Slab = 1,
    /// One of several blocks in a row that are one piece: what `kmalloc` hands out above the largest order.
    Run = 2,
    /// A page table ([`crate::pagetable`]).
    Table = 3,
}

impl Kind {
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    const fn bits(self) -> u64 {
        (self as u64) << KIND_SHIFT
    }
}

/// A value of the state word.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Word(u64);

impl Word {
    /// The word of a frame that starts no block.
    pub const INTERIOR: Self = Self(0);

    /// The word of the first frame of a free block.
    #[inline]
    #[must_use]
    pub const fn free(home: ZoneId, order: Order) -> Self {
        Self::head(FrameState::Free, home, order)
    }

    /// The word of a reserved frame.
    #[inline]
    #[must_use]
    pub const fn reserved(home: ZoneId) -> Self {
        Self::head(FrameState::Reserved, home, Order::ZERO)
    }

    /// The word of the first frame of a block with one owner; `mobility` is the index of the
    /// request's migrate type.
    #[inline]
    #[must_use]
    pub const fn unique(home: ZoneId, order: Order, mobility: u8) -> Self {
        let base = Self::head(FrameState::Unique, home, order).0;
        Self(base | ((widen(mobility) & MOBILITY_MASK) << MOBILITY_SHIFT))
    }

    const fn head(state: FrameState, home: ZoneId, order: Order) -> Self {
        Self(state.bits() | (widen(order.as_u8()) << ORDER_SHIFT) | home.bits())
    }
}

impl Word {
    /// Reads a stored word.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word to be stored.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The state, or `None` if the word is no state at all (it was overwritten).
    #[inline]
    #[must_use]
    pub const fn state(self) -> Option<FrameState> {
        FrameState::from_bits(self.0 & NIBBLE)
    }

    /// Whether the word is in `state`.
    #[inline]
    #[must_use]
    pub const fn is(self, state: FrameState) -> bool {
        self.0 & NIBBLE == state.bits()
    }

    /// The same word after `event`, or `None` if that may not happen to the block: what
    /// [`FrameState::after`] says. The record of an interior frame says nothing else.
    #[inline]
    #[must_use]
    pub const fn after(self, event: Event) -> Option<Self> {
        let Some(state) = self.state() else {
            return None;
        };
        match state.after(event) {
            Some(FrameState::Interior) => Some(Self::INTERIOR),
            Some(next) => Some(self.with_state(next)),
            None => None,
        }
    }

    /// The same word in another state.
    #[inline]
    #[must_use]
    pub const fn with_state(self, state: FrameState) -> Self {
        Self((self.0 & !NIBBLE) | state.bits())
    }

    /// The order of the block that starts here; a number above the largest order (an overwritten
    /// word) reads as the largest.
    #[inline]
    #[must_use]
    pub const fn order(self) -> Order {
        match Order::new(narrow((self.0 >> ORDER_SHIFT) & NIBBLE)) {
            Some(order) => order,
            None => Order::MAX,
        }
    }

    /// The same word for a block of another order.
    #[inline]
    #[must_use]
    pub const fn with_order(self, order: Order) -> Self {
        Self((self.0 & !(NIBBLE << ORDER_SHIFT)) | (widen(order.as_u8()) << ORDER_SHIFT))
    }

    /// Index of the migrate type of the request that the block serves.
    #[inline]
    #[must_use]
    pub const fn mobility(self) -> u8 {
        narrow((self.0 >> MOBILITY_SHIFT) & MOBILITY_MASK)
    }

    /// Bits 8 to 15: zone, compound flag and mobility side by side; and the mobility alone.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn ways(self) -> (usize, usize) {
        let byte = to_index(self.0 >> MOBILITY_SHIFT) & 0xff;
        (byte, byte & to_index(MOBILITY_MASK))
    }

    /// Whether the block is used for `kind`.
    #[inline]
    #[must_use]
    pub const fn is_for(self, kind: Kind) -> bool {
        self.0 & KIND_MASK == kind.bits()
    }

    /// The same word for another use.
    #[inline]
    #[must_use]
    pub(crate) const fn for_kind(self, kind: Kind) -> Self {
        Self((self.0 & !KIND_MASK) | kind.bits())
    }

    /// Whether this is the first frame of a slab: one comparison.
    #[inline]
    #[must_use]
    pub(crate) const fn is_slab(self) -> bool {
        self.0 & (KIND_MASK | NIBBLE) == Kind::Slab.bits() | FrameState::Unique.bits()
    }

    /// Whether this is the first frame of a block that is part of a run.
    #[must_use]
    pub(crate) const fn is_run(self) -> bool {
        self.0 & (KIND_MASK | NIBBLE) == Kind::Run.bits() | FrameState::Unique.bits()
    }

    /// Whether this is the frame of a page table.
    #[inline]
    #[must_use]
    pub(crate) const fn is_table(self) -> bool {
        self.0 & (KIND_MASK | NIBBLE) == Kind::Table.bits() | FrameState::Unique.bits()
    }

    /// Whether this is the first frame of a compound block with one owner, for plain use: one comparison.
    #[inline]
    #[must_use]
    pub(crate) const fn is_compound_block(self) -> bool {
        self.0 & (KIND_MASK | COMPOUND | NIBBLE) == COMPOUND | FrameState::Unique.bits()
    }

    /// The order of a compound block with one owner, for plain use, if a CPU has blocks of it at hand and this is its
    /// first frame: one comparison for each.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn listed_compound(self) -> Option<Order> {
        const WHOLE: u64 = KIND_MASK | COMPOUND | NIBBLE << ORDER_SHIFT | NIBBLE;
        const UNIQUE: u64 = COMPOUND | FrameState::Unique.bits();
        const ONE: u64 = UNIQUE | 1 << ORDER_SHIFT;
        const TWO: u64 = UNIQUE | 2 << ORDER_SHIFT;
        const THREE: u64 = UNIQUE | 3 << ORDER_SHIFT;
        match self.0 & WHOLE {
            TWO => Order::new(2),
            THREE => Order::new(3),
            ONE => Order::new(1),
            _ => None,
        }
    }

    /// Whether this is the first frame of a block of exactly `order` with one owner, for plain use: one
    /// comparison.
    #[inline]
    #[must_use]
    pub(crate) const fn is_unique_block(self, order: Order) -> bool {
        let mask = KIND_MASK | NIBBLE << ORDER_SHIFT | NIBBLE;
        self.0 & mask == widen(order.as_u8()) << ORDER_SHIFT | FrameState::Unique.bits()
    }

    /// The same word, of a block that somebody is giving up right now.
    #[inline]
    #[must_use]
    pub(crate) const fn going(self) -> Self {
        Self(self.0 | GOING)
    }

    /// The same word without flags: what an owner's block of this zone, order and mobility has.
    #[inline]
    #[must_use]
    pub(crate) const fn owned(self) -> Self {
        Self(self.0 & ((1 << FLAGS_SHIFT) - 1) & !COMPOUND)
    }

    /// The word of the same block, free.
    #[inline]
    #[must_use]
    pub(crate) const fn freed(self) -> Self {
        Self(self.0 & (HOME_MASK | NIBBLE << ORDER_SHIFT) | FrameState::Free.bits())
    }

    /// Whether the frames of the block act as one page.
    #[inline]
    #[must_use]
    pub const fn is_compound(self) -> bool {
        self.0 & COMPOUND != 0
    }

    /// The same word, not compound.
    #[inline]
    #[must_use]
    pub(crate) const fn simple(self) -> Self {
        Self(self.0 & !COMPOUND)
    }

    /// The same word, compound.
    #[inline]
    #[must_use]
    pub const fn compound(self) -> Self {
        Self(self.0 | COMPOUND)
    }

    /// Node and zone.
    #[inline]
    #[must_use]
    pub const fn zone_id(self) -> ZoneId {
        ZoneId {
            node: NodeId(narrow16((self.0 >> NODE_SHIFT) & NODE_MASK)),
            zone: narrow((self.0 >> ZONE_SHIFT) & NIBBLE),
        }
    }

    /// The same word of a free block for another order. Faster than [`Self::with_order`], for
    /// words of order 0 only.
    #[inline]
    #[must_use]
    pub(crate) const fn plus_order(self, order: Order) -> Self {
        Self(self.0 | widen(order.as_u8()) << ORDER_SHIFT)
    }

    /// Whether this is the first frame of a free block of exactly `order` that belongs to `home`:
    /// one comparison.
    #[inline]
    #[must_use]
    pub const fn is_free_block(self, home: ZoneId, order: Order) -> bool {
        self.0 == Self::free(home, order).0
    }

    /// Whether the frame belongs to `home`. Only for frames that start a block.
    #[inline]
    #[must_use]
    pub const fn belongs_to(self, home: ZoneId) -> bool {
        self.0 & HOME_MASK == home.bits()
    }

    /// The flags.
    #[inline]
    #[must_use]
    pub const fn flags(self) -> PageFlags {
        PageFlags::from_bits_retain(narrow32(self.0 >> FLAGS_SHIFT))
    }

    /// The bits that stand for `flags` in a word.
    #[inline]
    #[must_use]
    pub const fn flag_bits(flags: PageFlags) -> u64 {
        widen32(flags.bits()) << FLAGS_SHIFT
    }
}

/// The word of the first frame of a block on a CPU's list.
///
/// # Invariants
/// Its state is [`FrameState::Cached`], its order at most the largest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedWord(Word);

impl CachedWord {
    /// The word for a block of a zone and order that serves requests of a mobility.
    #[must_use]
    pub const fn new(home: ZoneId, order: Order, mobility: u8) -> Self {
        // INVARIANT: the state is set here; `Order` bounds the order.
        Self(Word::unique(home, order, mobility).with_state(FrameState::Cached))
    }

    /// A word that stands in a record, if it is one of a block on a list.
    #[must_use]
    pub const fn found(word: Word) -> Option<Self> {
        let order = narrow((word.0 >> ORDER_SHIFT) & NIBBLE);
        if !word.is(FrameState::Cached) || Order::new(order).is_none() {
            return None;
        }
        // INVARIANT: both were looked at.
        Some(Self(word))
    }

    /// The word of a block on a list that is `unique` before.
    #[must_use]
    pub const fn of(unique: Word) -> Self {
        Self::new(unique.zone_id(), unique.order(), unique.mobility())
    }

    /// The word itself.
    #[inline]
    #[must_use]
    pub const fn word(self) -> Word {
        self.0
    }

    /// The order of the block.
    #[inline]
    #[must_use]
    pub const fn order(self) -> Order {
        self.0.order()
    }

    /// The word of the same block with an owner.
    #[inline]
    #[must_use]
    pub const fn unique(self) -> Word {
        self.0.with_state(FrameState::Unique)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state() {
            Some(state) => write!(
                f,
                "{} {:?} {:?}",
                state.name(),
                self.order(),
                self.zone_id()
            ),
            None => write!(f, "damaged {:#018x}", self.0),
        }
    }
}

// Narrowing ones get masked values.
conversions! {
    widen: u8 => u64;
    widen16: u16 => u64;
    widen32: u32 => u64;
    narrow: u64 => u8;
    narrow16: u64 => u16;
    narrow32: u64 => u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: ZoneId = ZoneId {
        node: NodeId(1023),
        zone: 3,
    };

    #[test]
    fn every_field_survives_beside_the_others() {
        for order in Order::all() {
            for mobility in 0..8 {
                let word = Word::unique(HOME, order, mobility).compound();
                let word = Word::from_bits(word.bits() | Word::flag_bits(PageFlags::all()));
                assert_eq!(word.state(), Some(FrameState::Unique));
                assert_eq!((word.order(), word.mobility()), (order, mobility));
                assert_eq!(word.zone_id(), HOME);
                assert!(word.is_compound() && word.belongs_to(HOME));
                assert_eq!(word.flags(), PageFlags::all());
                assert_eq!(
                    word.with_state(FrameState::Shared).state(),
                    Some(FrameState::Shared)
                );
            }
        }
    }

    #[test]
    fn all_zero_is_the_interior_of_something() {
        assert_eq!(Word::from_bits(0).state(), Some(FrameState::Interior));
    }

    #[test]
    fn a_free_block_is_recognised_by_order_and_home() {
        let order = Order::new(4).unwrap();
        let word = Word::free(HOME, order);
        assert!(word.is_free_block(HOME, order));
        assert!(!word.is_free_block(HOME, Order::ZERO));
        assert!(!word.is_free_block(ZoneId { zone: 2, ..HOME }, order));
        assert!(
            !word
                .with_state(FrameState::Unique)
                .is_free_block(HOME, order)
        );
    }

    #[test]
    fn an_overwritten_word_is_no_state() {
        assert_eq!(Word::from_bits(0x6b6b_6b6b_6b6b_6b6b).state(), None);
    }
}
