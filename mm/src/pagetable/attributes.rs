//! What a page may be used for, and how it is cached.
#![forbid(unsafe_code)]

use core::fmt;

bitflags::bitflags! {
    /// Who may do what with a page. Reading is always allowed.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Protection: u8 {
        /// May be written to.
        const WRITE = 1 << 0;
        /// May be executed.
        const EXECUTE = 1 << 1;
        /// User code has it too.
        const USER = 1 << 2;
        /// Is the same in all address spaces: stays in the TLB when the root changes. All pages of the kernel's half are, asked
        /// for or not: so one instruction has a CPU forget such a page in all address spaces.
        const GLOBAL = 1 << 3;
        /// Its mappings are counted: the library sets it
        /// ([`Memory::map_user_pages`](crate::system::Memory::map_user_pages)).
        const COUNTED = 1 << 4;
    }
}

/// How a page is cached (SDM vol. 3A, 12.12). The values are the entries of the page attribute table that
/// [`PAT`] fills.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Cache {
    /// Write-back: RAM.
    #[default]
    WriteBack = 0,
    /// Write-combining: framebuffers.
    WriteCombining = 1,
    /// Uncached, unless an MTRR says write-combining.
    UncachedMinus = 2,
    /// Uncached: device registers.
    Uncached = 3,
    /// Write-protect.
    WriteProtect = 5,
    /// Write-through.
    WriteThrough = 7,
}

impl Cache {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::WriteBack,
        Self::WriteCombining,
        Self::UncachedMinus,
        Self::Uncached,
        Self::WriteProtect,
        Self::WriteThrough,
    ];

    /// Which entry of the page attribute table it is.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// What an entry of the page attribute table, 0 to 7, means.
    #[inline]
    #[must_use]
    pub const fn from_index(index: u8) -> Self {
        match index & 7 {
            1 => Self::WriteCombining,
            2 | 6 => Self::UncachedMinus,
            3 => Self::Uncached,
            5 => Self::WriteProtect,
            7 => Self::WriteThrough,
            _ => Self::WriteBack,
        }
    }

    /// The memory type's encoding in the `IA32_PAT` register (SDM vol. 3A, table 12-10).
    const fn encoding(self) -> u64 {
        match self {
            Self::WriteBack => 6,
            Self::WriteCombining => 1,
            Self::UncachedMinus => 7,
            Self::Uncached => 0,
            Self::WriteProtect => 5,
            Self::WriteThrough => 4,
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WriteBack => "WB",
            Self::WriteCombining => "WC",
            Self::UncachedMinus => "UC-",
            Self::Uncached => "UC",
            Self::WriteProtect => "WP",
            Self::WriteThrough => "WT",
        })
    }
}

/// What every CPU's `IA32_PAT` register (number 0x277) must hold for [`Cache`] to be true: the table that Linux
/// uses. A CPU without it, or before it is written, takes entries 1 and 7 for others.
pub const PAT: u64 = {
    let mut table = 0;
    let mut index: u8 = 8;
    while index > 0 {
        index = index.wrapping_sub(1);
        table = table << 8 | Cache::from_index(index).encoding();
    }
    table
};

/// What a page may be used for, and how it is cached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attributes {
    /// Who may do what.
    pub protection: Protection,
    /// How it is cached.
    pub cache: Cache,
}

impl Attributes {
    /// Data of the kernel (Linux: `PAGE_KERNEL`).
    pub const KERNEL: Self = Self::cached(Protection::WRITE.union(Protection::GLOBAL));
    /// Constants of the kernel (Linux: `PAGE_KERNEL_RO`).
    pub const KERNEL_RO: Self = Self::cached(Protection::GLOBAL);
    /// Code of the kernel (Linux: `PAGE_KERNEL_ROX`).
    pub const KERNEL_RX: Self = Self::cached(Protection::EXECUTE.union(Protection::GLOBAL));
    /// Registers of a device (Linux: `PAGE_KERNEL_NOCACHE`, but strictly so).
    pub const KERNEL_IO: Self = Self {
        protection: Protection::WRITE.union(Protection::GLOBAL),
        cache: Cache::Uncached,
    };

    const fn cached(protection: Protection) -> Self {
        Self {
            protection,
            cache: Cache::WriteBack,
        }
    }

    /// The same, cached otherwise.
    #[must_use]
    pub const fn with_cache(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// The same in the kernel's half of the addresses, all of whose pages are global.
    #[inline]
    #[must_use]
    pub(crate) const fn in_kernel(self) -> Self {
        let protection = self.protection.union(Protection::GLOBAL);
        Self { protection, ..self }
    }

    /// Whether the page can be both written and executed: what no kernel wants.
    #[must_use]
    pub const fn is_write_execute(self) -> bool {
        self.protection
            .contains(Protection::WRITE.union(Protection::EXECUTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_table_is_the_one_of_linux() {
        // `pat_init`: WB WC UC- UC WB WP UC- WT, entry 0 in the lowest byte.
        assert_eq!(PAT, 0x0407_0506_0007_0106);
        for cache in Cache::ALL {
            assert_eq!(Cache::from_index(cache.index()), cache);
        }
    }

    #[test]
    fn no_preset_can_be_written_and_executed() {
        let presets = [
            Attributes::KERNEL,
            Attributes::KERNEL_RO,
            Attributes::KERNEL_RX,
            Attributes::KERNEL_IO,
        ];
        assert!(!presets.iter().any(|preset| preset.is_write_execute()));
        let both = Protection::WRITE | Protection::EXECUTE;
        assert!(Attributes::cached(both).is_write_execute());
    }
}
