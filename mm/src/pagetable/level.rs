//! Levels of tables, and the sizes of pages.
#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::{VirtAddr, to_index};
use crate::config::PAGE_SHIFT;

/// Entries in a table of any level.
pub const ENTRIES: usize = 512;
/// log2 of [`ENTRIES`].
const INDEX_BITS: u32 = 9;

/// How high a table stands, 1 to 5: an entry of level 1 maps a page (SDM vol. 3A, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Level(u8);

impl Level {
    /// Entries map pages of 4 KiB (Linux: `pte`).
    pub const PTE: Self = Self(1);
    /// Entries map pages of 2 MiB, or lead to tables of pages (Linux: `pmd`).
    pub const PMD: Self = Self(2);
    /// Entries map pages of 1 GiB, or lead on (Linux: `pud`).
    pub const PUD: Self = Self(3);
    /// The root with 4 levels (Linux: `p4d`, which is the `pgd` then).
    pub const P4D: Self = Self(4);
    /// The root with 5 levels (Linux: `pgd`).
    pub const PGD: Self = Self(5);

    /// The level with this number.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1..=5 => Some(Self(number)),
            _ => None,
        }
    }

    /// The level's number.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The level that entries of this one lead to.
    #[inline]
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self.0 {
            2..=5 => Some(Self(self.0.wrapping_sub(1))),
            _ => None,
        }
    }

    /// The lowest address bit that chooses an entry.
    #[inline]
    #[must_use]
    pub const fn shift(self) -> u32 {
        // From 12 to 48.
        match self.0 {
            1 => PAGE_SHIFT,
            2 => PAGE_SHIFT + INDEX_BITS,
            3 => PAGE_SHIFT + 2 * INDEX_BITS,
            4 => PAGE_SHIFT + 3 * INDEX_BITS,
            _ => PAGE_SHIFT + 4 * INDEX_BITS,
        }
    }

    /// Bytes that an entry maps.
    #[inline]
    #[must_use]
    pub const fn entry_bytes(self) -> u64 {
        1_u64.wrapping_shl(self.shift())
    }

    /// Which entry of a table of this level is for an address.
    #[inline]
    #[must_use]
    pub const fn index(self, at: VirtAddr) -> usize {
        to_index(at.as_u64() >> self.shift()) & (ENTRIES - 1)
    }

    /// The size of the pages that entries of this level can map.
    #[inline]
    #[must_use]
    pub const fn page_size(self) -> Option<PageSize> {
        match self.0 {
            1 => Some(PageSize::Size4K),
            2 => Some(PageSize::Size2M),
            3 => Some(PageSize::Size1G),
            _ => None,
        }
    }

    /// Linux's name of the level, as its dumps print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "PTE",
            2 => "PMD",
            3 => "PUD",
            4 => "P4D",
            _ => "PGD",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The sizes of pages that the architecture has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB, where CPUID has it (`PDPE1GB`).
    Size1G,
}

impl PageSize {
    /// All of them, smallest first.
    pub const ALL: [Self; 3] = [Self::Size4K, Self::Size2M, Self::Size1G];

    /// The level whose entries map such pages.
    #[inline]
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Size4K => Level::PTE,
            Self::Size2M => Level::PMD,
            Self::Size1G => Level::PUD,
        }
    }

    /// Bytes in a page.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.level().entry_bytes()
    }

    /// Frames in a page.
    #[inline]
    #[must_use]
    pub const fn frames(self) -> u64 {
        self.bytes() >> PAGE_SHIFT
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Size4K => "4K",
            Self::Size2M => "2M",
            Self::Size1G => "1G",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_chooses_an_entry_at_each_level() {
        // Bits 56..48, 47..39, 38..30, 29..21, 20..12.
        let at = VirtAddr::new(
            0x01 << 48 | 0x102 << 39 | 0x1ff << 30 | 0x155 << 21 | 0x0aa << 12 | 0xfff,
        );
        let found = [5, 4, 3, 2, 1].map(|number| Level::new(number).unwrap().index(at));
        assert_eq!(found, [0x01, 0x102, 0x1ff, 0x155, 0x0aa]);
        assert_eq!(Level::new(0), None);
        assert_eq!(Level::new(6), None);
    }

    #[test]
    fn sizes_are_those_of_the_architecture() {
        let bytes = PageSize::ALL.map(PageSize::bytes);
        assert_eq!(bytes, [4 << 10, 2 << 20, 1 << 30]);
        for size in PageSize::ALL {
            assert_eq!(size.level().page_size(), Some(size));
        }
        assert_eq!(Level::P4D.page_size(), None);
        assert_eq!(Level::PTE.below(), None);
        assert_eq!(Level::PGD.below(), Some(Level::P4D));
    }
}
