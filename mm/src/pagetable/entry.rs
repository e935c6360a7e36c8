//! Entries of page tables.
//!
//! The bits are those of the SDM (vol. 3A, 4.5.4, tables 4-15 to 4-20), the uses of those that are left to
//! software are Linux's (`pgtable_types.h`).
#![forbid(unsafe_code)]

mod state;
mod swap;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may add")]
mod tests;

use core::fmt;

pub use state::SoftBits;
pub use swap::{Migration, SwapEntry};

use super::attributes::{Attributes, Cache, Protection};
use super::level::{Level, PageSize};
use crate::addr::{Pfn, PfnRange, PhysAddr};

pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Page-level write-through and cache-disable: the lower bits of the index into the attribute table.
const CACHE_LOW: u64 = 0b11 << CACHE_SHIFT;
const CACHE_SHIFT: u32 = 3;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
/// Above level 1: this is a page, not a table.
pub(super) const HUGE: u64 = 1 << 7;
/// The upper bit of the index into the attribute table, in a page of 4 KiB …
const PAT_SMALL: u64 = 1 << 7;
/// … and in larger ones.
const PAT_HUGE: u64 = 1 << 12;
pub(super) const GLOBAL: u64 = 1 << 8;
/// Left to software: the mapping is counted.
const COUNTED: u64 = 1 << 57;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
/// Where the physical address is; the lowest bits are others' in large pages.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry of a page table, of any level.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Entry(u64);

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Nothing.
    None,
    /// The way to the next table.
    Table(Pfn),
    /// A page.
    Leaf(Leaf),
    /// Not present for the CPU, but something for the kernel: a swap entry, or a page without access.
    NotPresent,
    /// A page where there can be none: the bit for large ones is set at a level that has none.
    Bad,
}

/// A page, as an entry maps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Leaf {
    /// The first frame.
    pub pfn: Pfn,
    /// How large it is.
    pub size: PageSize,
    /// Rights and caching.
    pub attributes: Attributes,
}

impl Leaf {
    /// Where it is in physical memory.
    #[must_use]
    pub const fn phys(&self) -> PhysAddr {
        self.pfn.addr()
    }

    /// Its frames.
    #[must_use]
    pub const fn frames(&self) -> PfnRange {
        let first = self.pfn.as_u64();
        PfnRange::from_numbers(first, first.saturating_add(self.size.frames()))
    }

    /// Whether the mapping is counted.
    pub(crate) const fn is_counted(&self) -> bool {
        self.attributes.protection.contains(Protection::COUNTED)
    }
}

impl Entry {
    /// Nothing (Linux: `pte_none`).
    pub const NONE: Self = Self(0);

    /// Takes 64 bits for an entry.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The way to a table. Everything is allowed on the way but what user code is not: rights are the leaf's.
    #[inline]
    #[must_use]
    pub const fn table(table: Pfn, user: bool) -> Self {
        let user = if user { USER } else { 0 };
        Self(table.addr().as_u64() & ADDRESS | PRESENT | WRITE | ACCESSED | user)
    }

    /// A page of `size` that starts at a frame. Accessed and dirty are set: nobody asks for kernel pages, and the
    /// CPU need not set them.
    #[inline]
    #[must_use]
    pub const fn leaf(first: Pfn, size: PageSize, attributes: Attributes) -> Self {
        Self(first.addr().as_u64() & address_mask(size) | leaf_bits(size, attributes))
    }

    /// Whether there is nothing (Linux: `pte_none`).
    #[inline]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether the CPU uses the entry.
    #[inline]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether an entry above level 1 leads to a table.
    #[inline]
    #[must_use]
    pub const fn leads_to_table(self) -> bool {
        self.0 & (PRESENT | HUGE) == PRESENT
    }

    /// The frame of the table that an entry above level 1 leads to, if it does.
    #[inline]
    #[must_use]
    pub const fn table_pfn(self) -> Option<Pfn> {
        if !self.leads_to_table() {
            return None;
        }
        Some(PhysAddr::new(self.0 & ADDRESS).frame())
    }

    /// The first frame of a page of `size` that the entry maps.
    #[inline]
    #[must_use]
    pub const fn leaf_pfn(self, size: PageSize) -> Pfn {
        PhysAddr::new(self.0 & address_mask(size)).frame()
    }

    /// What an entry of a table of `level` is.
    #[must_use]
    pub const fn decode(self, level: Level) -> Decoded {
        if self.is_none() {
            return Decoded::None;
        }
        if !self.is_present() {
            return Decoded::NotPresent;
        }
        let is_leaf = level.number() == 1 || self.0 & HUGE != 0;
        match (is_leaf, level.page_size()) {
            (false, _) => Decoded::Table(PhysAddr::new(self.0 & ADDRESS).frame()),
            (true, Some(size)) => Decoded::Leaf(self.as_leaf(size)),
            (true, None) => Decoded::Bad,
        }
    }

    /// The entry, which maps a page of `size`, taken apart.
    #[inline]
    #[must_use]
    pub const fn as_leaf(self, size: PageSize) -> Leaf {
        Leaf {
            pfn: self.leaf_pfn(size),
            size,
            attributes: self.attributes(size),
        }
    }

    /// Rights and caching of the page of `size` that the entry maps.
    #[must_use]
    pub const fn attributes(self, size: PageSize) -> Attributes {
        // Asked for each page that is looked at: each bit is moved to its place, none is branched on.
        let bits = self.0;
        let moved = bits >> 1 & 1 | !bits >> 62 & 2 | bits & USER | bits >> 5 & 8 | bits >> 53 & 16;
        let [protection, ..] = moved.to_le_bytes();
        let high = if self.0 & pat_bit(size) == 0 { 0 } else { 4 };
        let [low, ..] = ((self.0 & CACHE_LOW) >> CACHE_SHIFT).to_le_bytes();
        Attributes {
            protection: Protection::from_bits_truncate(protection),
            cache: Cache::from_index(low | high),
        }
    }

    /// The same page of `size` with other rights and caching (Linux: `pte_modify`); everything else stays.
    #[inline]
    #[must_use]
    pub const fn with_attributes(self, size: PageSize, attributes: Attributes) -> Self {
        let kept = self.0 & !(attribute_mask() | pat_bit(size));
        Self(kept | attribute_bits(size, attributes))
    }

    /// Whether a page belongs to the entry: one that can be used, or one out of everybody's reach. Only for entries that
    /// lead to no table.
    #[inline]
    #[must_use]
    pub const fn is_mapped(self) -> bool {
        self.is_present() || self.is_protnone()
    }

    /// Whether another entry of a table of `level` maps a page with the same rights and caching, wherever it is.
    #[inline]
    #[must_use]
    pub(super) const fn is_like(self, other: Self, level: Level) -> bool {
        // Bit 7 is the attribute table's in small pages.
        let caching = if level.number() == 1 { 0 } else { PAT_HUGE };
        let mask = attribute_mask() | PRESENT | HUGE | caching;
        (self.0 ^ other.0) & mask == 0
    }

    /// Whether another entry leads where this one leads.
    #[inline(always)]
    #[must_use]
    pub(super) const fn leads_alike(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(ACCESSED | DIRTY) == 0
    }

    /// Whether user code may go here.
    #[inline]
    #[must_use]
    pub const fn is_user(self) -> bool {
        self.0 & USER != 0
    }

    /// The entry for a page of size `to` that starts with this one of size `from`, with the same rights.
    #[must_use]
    pub const fn joined(self, from: PageSize, to: PageSize) -> Self {
        let rest = self.0 & !(HUGE | pat_bit(from) | attribute_mask());
        Self(rest | attribute_bits(to, self.attributes(from)) | HUGE)
    }

    /// The entry for the first of the 512 smaller pages that a page of `size` is cut into, `None` for the smallest. The others
    /// differ in their addresses.
    #[must_use]
    pub const fn first_piece(self, size: PageSize) -> Option<Self> {
        let smaller = match size {
            PageSize::Size4K => return None,
            PageSize::Size2M => PageSize::Size4K,
            PageSize::Size1G => PageSize::Size2M,
        };
        let rest = self.0 & !(HUGE | pat_bit(size) | attribute_mask());
        let bits = attribute_bits(smaller, self.attributes(size));
        let huge = if matches!(smaller, PageSize::Size4K) {
            0
        } else {
            HUGE
        };
        Some(Self(rest | bits | huge))
    }
}

/// The bits of a leaf but for its address.
#[inline]
#[must_use]
pub(super) const fn leaf_bits(size: PageSize, attributes: Attributes) -> u64 {
    let huge = if matches!(size, PageSize::Size4K) {
        0
    } else {
        HUGE
    };
    attribute_bits(size, attributes) | PRESENT | ACCESSED | DIRTY | huge
}

const _: () = {
    let all = Entry(WRITE | USER | GLOBAL | COUNTED).attributes(PageSize::Size4K);
    assert!(
        all.protection.bits() == Protection::all().bits(),
        "bits are moved to their places"
    );
    assert!(
        Entry(NO_EXECUTE)
            .attributes(PageSize::Size4K)
            .protection
            .is_empty()
    );
};

/// All bits that [`Attributes`] are made of, but for the one of the attribute table that depends on the size.
const fn attribute_mask() -> u64 {
    WRITE | USER | GLOBAL | COUNTED | NO_EXECUTE | CACHE_LOW
}

const fn attribute_bits(size: PageSize, attributes: Attributes) -> u64 {
    let protection = attributes.protection;
    let mut bits = 0;
    if protection.contains(Protection::WRITE) {
        bits |= WRITE;
    }
    if !protection.contains(Protection::EXECUTE) {
        bits |= NO_EXECUTE;
    }
    if protection.contains(Protection::USER) {
        bits |= USER;
    }
    if protection.contains(Protection::GLOBAL) {
        bits |= GLOBAL;
    }
    if protection.contains(Protection::COUNTED) {
        bits |= COUNTED;
    }
    let [index, ..] = [attributes.cache.index()];
    let low = u64::from_le_bytes([index & 3, 0, 0, 0, 0, 0, 0, 0]) << CACHE_SHIFT;
    let high = if index & 4 == 0 { 0 } else { pat_bit(size) };
    bits | low | high
}

/// The upper bit of the index into the attribute table: it moves where bit 7 says that a page is large.
const fn pat_bit(size: PageSize) -> u64 {
    match size {
        PageSize::Size4K => PAT_SMALL,
        PageSize::Size2M | PageSize::Size1G => PAT_HUGE,
    }
}

const fn address_mask(size: PageSize) -> u64 {
    ADDRESS & !size.bytes().wrapping_sub(1)
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:#018x})", self.0)
    }
}
