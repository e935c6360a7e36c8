//! What the CPU and the kernel note in an entry: young, dirty, soft-dirty and the like.
#![forbid(unsafe_code)]

use super::{ACCESSED, DIRTY, Entry, GLOBAL, PRESENT, WRITE};

bitflags::bitflags! {
    /// Bits of an entry that are left to software, with the uses that Linux has for them
    /// (`_PAGE_BIT_SOFTW1` to `_PAGE_BIT_SOFTW4`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SoftBits: u64 {
        /// No frame record belongs to the page (Linux: `_PAGE_SPECIAL`).
        const SPECIAL = 1 << 9;
        /// Write-protected on behalf of user space (Linux: `_PAGE_UFFD_WP`).
        const UFFD_WP = 1 << 10;
        /// Written to since somebody last asked (Linux: `_PAGE_SOFT_DIRTY`).
        const SOFT_DIRTY = 1 << 11;
        /// Memory of a device (Linux: `_PAGE_DEVMAP`).
        const DEVMAP = 1 << 58;
    }
}

impl Entry {
    const fn test(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    const fn with(self, bit: u64, is_set: bool) -> Self {
        Self(if is_set { self.0 | bit } else { self.0 & !bit })
    }

    /// Whether the CPU used the page since the bit was cleared (Linux: `pte_young`).
    #[must_use]
    pub const fn is_young(self) -> bool {
        self.test(ACCESSED)
    }

    /// The same, used or not (Linux: `pte_mkyoung`, `pte_mkold`).
    #[must_use]
    pub const fn with_young(self, is_young: bool) -> Self {
        self.with(ACCESSED, is_young)
    }

    /// Whether the CPU wrote to the page since the bit was cleared (Linux: `pte_dirty`).
    #[must_use]
    pub const fn is_dirty(self) -> bool {
        self.test(DIRTY)
    }

    /// The same, written to or not (Linux: `pte_mkdirty`, `pte_mkclean`). What is dirty is soft-dirty too.
    #[must_use]
    pub const fn with_dirty(self, is_dirty: bool) -> Self {
        let marked = self.with(DIRTY, is_dirty);
        if is_dirty {
            return marked.with(SoftBits::SOFT_DIRTY.bits(), true);
        }
        marked
    }

    /// Whether the page can be written to (Linux: `pte_write`).
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.test(WRITE)
    }

    /// The same, writable or not (Linux: `pte_mkwrite`, `pte_wrprotect`); what was written stays noted.
    #[must_use]
    pub const fn with_write(self, is_writable: bool) -> Self {
        self.with(WRITE, is_writable)
    }

    /// The bits left to software.
    #[must_use]
    pub const fn soft(self) -> SoftBits {
        SoftBits::from_bits_truncate(self.0)
    }

    /// The same with such bits set.
    #[must_use]
    pub const fn with_soft(self, bits: SoftBits) -> Self {
        Self(self.0 | bits.bits())
    }

    /// The same with such bits clear.
    #[must_use]
    pub const fn without_soft(self, bits: SoftBits) -> Self {
        Self(self.0 & !bits.bits())
    }

    /// Whether the page is there, but nobody may touch it (Linux: `pte_protnone`): the bit that means global in an entry
    /// that is present.
    #[must_use]
    pub const fn is_protnone(self) -> bool {
        self.0 & (PRESENT | GLOBAL) == GLOBAL
    }

    /// The page of a present entry, out of everybody's reach; the frame stays noted (Linux: `PAGE_NONE`).
    #[must_use]
    pub const fn to_protnone(self) -> Self {
        Self(self.0 & !PRESENT | GLOBAL)
    }

    /// The page that [`Self::to_protnone`] put out of reach; `is_global` as it was.
    #[must_use]
    pub const fn from_protnone(self, is_global: bool) -> Self {
        self.with(PRESENT, true).with(GLOBAL, is_global)
    }

    /// The same entry, not present for the CPU; the frame stays noted (Linux: `pmd_mkinvalid`).
    #[must_use]
    pub const fn invalidated(self) -> Self {
        self.with(PRESENT, false).with(GLOBAL, true)
    }
}
