//! What firmware says about memory: raw entries and their kinds.
//!
//! [`FirmwareRegion`] is an entry as it came, believed in nothing; [`FirmwareKind`] names the
//! types of ACPI's address range descriptors (ACPI 6.5, table 15.14: what "E820" returns) and
//! those that Linux adds. Linux counterpart: `enum e820_type`, `struct e820_entry`.
#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::{PhysAddr, PhysRange};

/// One entry of a firmware map, as it came: in any order, overlapping, empty or wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FirmwareRegion {
    /// First byte.
    pub start: u64,
    /// Length in bytes; `start + size` may exceed 64 bits.
    pub size: u64,
    /// E820 type number.
    pub kind: u32,
}

impl FirmwareRegion {
    /// The bytes of the entry, clipped at the end of the 64-bit space. Context: any.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        PhysRange::from_size(PhysAddr::new(self.start), self.size)
    }

    /// Whether the entry runs past the 64-bit space. An end at exactly 2^64 does not. Context: any.
    #[must_use]
    pub const fn wraps(&self) -> bool {
        match self.size.checked_sub(1) {
            Some(reach) => self.start.checked_add(reach).is_none(),
            None => false,
        }
    }
}

/// What a range of physical addresses is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FirmwareKind {
    /// RAM for the operating system.
    Usable,
    /// Not for use.
    Reserved,
    /// ACPI tables: usable once they have been read.
    AcpiReclaimable,
    /// ACPI non-volatile storage: the firmware's own.
    AcpiNvs,
    /// RAM with errors.
    Unusable,
    /// Persistent memory (NVDIMM).
    Persistent,
    /// Persistent memory by the older, unofficial number, or by `memmap=size!start`.
    PersistentRam,
    /// RAM set aside for a device or an application (EFI "specific purpose" attribute).
    SoftReserved,
    /// A number that no document gives a meaning. 0 is none at all.
    Other(u32),
}

impl FirmwareKind {
    /// The kind behind an E820 type number. Context: any.
    #[must_use]
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            2 => Self::Reserved,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            7 => Self::Persistent,
            12 => Self::PersistentRam,
            0xefff_ffff => Self::SoftReserved,
            other => Self::Other(other),
        }
    }

    /// The E820 type number; where entries overlap, the highest number wins. Context: any.
    #[must_use]
    pub const fn as_e820(self) -> u32 {
        match self {
            Self::Usable => 1,
            Self::Reserved => 2,
            Self::AcpiReclaimable => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
            Self::Persistent => 7,
            Self::PersistentRam => 12,
            Self::SoftReserved => 0xefff_ffff,
            Self::Other(number) => number,
        }
    }

    /// The kind of an EFI memory descriptor (UEFI 2.10, table 7.6) once boot services are gone.
    /// Context: any.
    #[must_use]
    pub const fn from_efi(number: u32, attributes: EfiAttributes) -> Self {
        match number {
            // Loader code and data, boot services code and data, conventional memory.
            1..=4 | 7 if attributes.contains(EfiAttributes::SPECIFIC_PURPOSE) => Self::SoftReserved,
            1..=4 | 7 => Self::Usable,
            8 => Self::Unusable,
            9 => Self::AcpiReclaimable,
            10 => Self::AcpiNvs,
            14 => Self::Persistent,
            _ => Self::Reserved,
        }
    }

    /// Whether neighbours of this kind stay apart: their borders mean something to their users.
    pub(crate) const fn keeps_borders(self) -> bool {
        matches!(self, Self::PersistentRam | Self::SoftReserved)
    }
}

/// In Linux's words.
impl fmt::Display for FirmwareKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable => f.write_str("usable"),
            Self::Reserved => f.write_str("reserved"),
            Self::AcpiReclaimable => f.write_str("ACPI data"),
            Self::AcpiNvs => f.write_str("ACPI NVS"),
            Self::Unusable => f.write_str("unusable"),
            Self::Persistent | Self::PersistentRam => {
                write!(f, "persistent (type {})", self.as_e820())
            }
            Self::SoftReserved => f.write_str("soft reserved"),
            Self::Other(number) => write!(f, "type {number}"),
        }
    }
}

bitflags::bitflags! {
    /// Attributes of an EFI memory descriptor that decide what becomes of it.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct EfiAttributes: u64 {
        /// `EFI_MEMORY_SP`: meant for a particular device or application.
        const SPECIFIC_PURPOSE = 1 << 18;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        for number in (0..16).chain([0xefff_ffff, u32::MAX]) {
            assert_eq!(FirmwareKind::from_e820(number).as_e820(), number);
        }
    }

    #[test]
    fn an_end_at_the_top_of_the_space_does_not_wrap() {
        let entry = |start, size| FirmwareRegion {
            start,
            size,
            kind: 1,
        };
        assert!(!entry(u64::MAX, 1).wraps());
        assert!(entry(u64::MAX, 2).wraps());
        assert!(!entry(u64::MAX, 0).wraps());
    }

    #[test]
    fn specific_purpose_memory_is_not_for_everybody() {
        let plain = EfiAttributes::empty();
        let special = EfiAttributes::SPECIFIC_PURPOSE;
        assert_eq!(FirmwareKind::from_efi(7, plain), FirmwareKind::Usable);
        assert_eq!(
            FirmwareKind::from_efi(7, special),
            FirmwareKind::SoftReserved
        );
        assert_eq!(FirmwareKind::from_efi(5, special), FirmwareKind::Reserved);
    }
}
