//! What an entry says about a page that is not in memory, or on its way.
//!
//! The format is Linux's on x86_64 (`pgtable_64.h`): the type in the uppermost bits, below it the offset, inverted, so
//! that a CPU which speculates on an entry that is not present (L1TF) looks where no RAM is.
#![forbid(unsafe_code)]

use super::{Entry, GLOBAL, PRESENT};
use crate::addr::Pfn;

const TYPE_BITS: u32 = 5;
const TYPE_SHIFT: u32 = 64 - TYPE_BITS;
const OFFSET_SHIFT: u32 = 9;
/// Bits of an offset.
const OFFSET_BITS: u32 = TYPE_SHIFT - OFFSET_SHIFT;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// Linux: `_PAGE_SWP_SOFT_DIRTY`, `_PAGE_SWP_EXCLUSIVE`.
const SOFT_DIRTY: u64 = 1 << 1;
const EXCLUSIVE: u64 = 1 << 3;

/// Types from here on are not swap areas (Linux: `SWP_MIGRATION_READ` and its kin).
const MIGRATION_READ: u8 = 27;

/// Where the contents of a page are: an area of swap and a slot in it, or something else by a type of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SwapEntry {
    kind: u8,
    offset: u64,
}

/// A page that moves to another frame: whoever needs it waits (Linux: `make_readable_migration_entry` and its kin).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Migration {
    /// It could be read.
    Read,
    /// It could be read, and has one owner.
    ReadExclusive,
    /// It could be written to.
    Write,
}

impl SwapEntry {
    /// Types that there are room for.
    pub const TYPES: u8 = 1 << TYPE_BITS;
    /// Swap areas that there can be.
    pub const AREAS: u8 = MIGRATION_READ;

    /// Slot `offset` of swap area `area`, if there can be such.
    #[must_use]
    pub const fn new(area: u8, offset: u64) -> Option<Self> {
        // The last offset of area 0 would be an entry of nothing but zeroes.
        if area >= Self::AREAS || offset >= OFFSET_MASK {
            return None;
        }
        Some(Self { kind: area, offset })
    }

    /// A page that moves away from a frame.
    #[must_use]
    pub const fn migration(from: Pfn, how: Migration) -> Self {
        let kind = match how {
            Migration::Read => MIGRATION_READ,
            Migration::ReadExclusive => MIGRATION_READ + 1,
            Migration::Write => MIGRATION_READ + 2,
        };
        // Frame numbers have 40 bits at most.
        let offset = from.as_u64() & OFFSET_MASK;
        Self { kind, offset }
    }

    /// The swap area, if it is in one.
    #[must_use]
    pub const fn area(self) -> Option<u8> {
        if self.kind < Self::AREAS {
            return Some(self.kind);
        }
        None
    }

    /// The slot, or the frame that the page leaves.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// The frame that the page leaves, and how, if it is on its way.
    #[must_use]
    pub const fn as_migration(self) -> Option<(Pfn, Migration)> {
        let how = match self.kind.wrapping_sub(MIGRATION_READ) {
            0 => Migration::Read,
            1 => Migration::ReadExclusive,
            2 => Migration::Write,
            _ => return None,
        };
        Some((Pfn::new(self.offset), how))
    }
}

impl Entry {
    /// The entry for a page that is elsewhere (Linux: `swp_entry_to_pte`).
    #[must_use]
    pub const fn swap(swap: SwapEntry) -> Self {
        let [kind, offset] = [widen(swap.kind), !swap.offset & OFFSET_MASK];
        Self(kind << TYPE_SHIFT | offset << OFFSET_SHIFT)
    }

    /// Where the page is, if the entry says so (Linux: `pte_to_swp_entry`).
    #[must_use]
    pub const fn as_swap(self) -> Option<SwapEntry> {
        if self.is_none() || self.0 & (PRESENT | GLOBAL) != 0 {
            return None;
        }
        let [kind, ..] = (self.0 >> TYPE_SHIFT).to_le_bytes();
        let offset = !(self.0 >> OFFSET_SHIFT) & OFFSET_MASK;
        Some(SwapEntry { kind, offset })
    }

    /// Whether a swapped page has one owner (Linux: `pte_swp_exclusive`).
    #[must_use]
    pub const fn is_swap_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    /// The same swap entry, exclusive or not (Linux: `pte_swp_mkexclusive`).
    #[must_use]
    pub const fn with_swap_exclusive(self, is_exclusive: bool) -> Self {
        Self(if is_exclusive {
            self.0 | EXCLUSIVE
        } else {
            self.0 & !EXCLUSIVE
        })
    }

    /// Whether a swapped page was written to since somebody last asked (Linux: `pte_swp_soft_dirty`).
    #[must_use]
    pub const fn is_swap_soft_dirty(self) -> bool {
        self.0 & SOFT_DIRTY != 0
    }

    /// The same swap entry, soft-dirty or not (Linux: `pte_swp_mksoft_dirty`).
    #[must_use]
    pub const fn with_swap_soft_dirty(self, is_dirty: bool) -> Self {
        Self(if is_dirty {
            self.0 | SOFT_DIRTY
        } else {
            self.0 & !SOFT_DIRTY
        })
    }
}

const fn widen(byte: u8) -> u64 {
    u64::from_le_bytes([byte, 0, 0, 0, 0, 0, 0, 0])
}
