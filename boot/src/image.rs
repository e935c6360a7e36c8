//! The kernel's image: where the linker put what, and whether the loader was right to put it
//! there.

use core::{fmt, slice};

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::handoff::RangeKind;
use crate::regions::Regions;

/// What is added to a physical address of the image to get its virtual one. The linker script of
/// `boot/build` and the entry code use the same number.
pub const VIRTUAL_OFFSET: u64 = 0xffff_ffff_8000_0000;

/// The image's layout in virtual addresses; sections as first and end address.
///
/// # Invariants
///
/// Made by the entry code only, whose table has this layout; the addresses are the linker's.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Image {
    pub(crate) all: (u64, u64),
    pub(crate) text: (u64, u64),
    pub(crate) rodata: (u64, u64),
    pub(crate) data: (u64, u64),
    pub(crate) stack_guard: u64,
    pub(crate) stack_bottom: u64,
    pub(crate) stack_top: u64,
    pub(crate) config: (u64, u64),
    pub(crate) entry: u64,
    /// The table of the identity map: an address in the image, as all of these.
    pub(crate) low_pointers: u64,
    pub(crate) map_form: u64,
    pub(crate) use_five_levels: u64,
    pub(crate) early_tables: (u64, u64),
}

/// Why an image cannot run where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// A part of the image lies on a region that is not usable.
    OnReserved {
        /// The image, physical.
        image: (u64, u64),
        /// The region.
        region: MemoryRegion,
    },
    /// A part of the image lies where the firmware reports no memory.
    OnNothing {
        /// The image, physical.
        image: (u64, u64),
        /// The first page without memory.
        at: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnReserved { image, region } => {
                write!(
                    out,
                    "the kernel image {:#x}-{:#x} was loaded over {:#x}-{:#x}, which the firmware reserves (",
                    image.0, image.1, region.start, region.end
                )?;
                match region.kind {
                    MemoryRegionKind::UnknownBios(kind) => write!(out, "E820 type {kind})"),
                    MemoryRegionKind::UnknownUefi(kind) => write!(out, "UEFI type {kind})"),
                    other => write!(out, "{other:?})"),
                }
            }
            Self::OnNothing { image, at } => write!(
                out,
                "the kernel image {:#x}-{:#x} was loaded where the firmware reports no memory, at {at:#x}",
                image.0, image.1
            ),
        }
    }
}

impl core::error::Error for ImageError {}

impl Image {
    /// Returns the kernel's serialised `BootloaderConfig`.
    pub(crate) fn config_bytes(&self) -> &'static [u8] {
        let (start, end) = self.config;
        let lengths = usize::try_from(start).ok().zip(
            end.checked_sub(start)
                .and_then(|length| usize::try_from(length).ok()),
        );
        let Some((start, length)) = lengths else {
            return &[];
        };
        // SAFETY: the linker script puts the section between these two symbols (Invariants); it
        // is read-only data of the image, mapped for good.
        unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(start), length) }
    }

    /// Returns the image's physical range.
    pub(crate) const fn physical(&self) -> (u64, u64) {
        (physical(self.all.0), physical(self.all.1))
    }

    /// Returns what of the image only the boot needs, in physical addresses of whole pages: a kernel that has tables
    /// and a stack of its own can use it for something else.
    pub(crate) const fn of_boot(&self) -> [(RangeKind, u64, u64); 2] {
        let tables = (physical(self.early_tables.0), physical(self.early_tables.1));
        // With the page below it, which guards it.
        let stack = (physical(self.stack_guard), physical(self.stack_top));
        [
            (RangeKind::EarlyTables, tables.0, tables.1),
            (RangeKind::BootStack, stack.0, stack.1),
        ]
    }
}

/// Returns the physical address of an address in the image.
pub(crate) const fn physical(address: u64) -> u64 {
    address.wrapping_sub(VIRTUAL_OFFSET)
}

/// Checks that the image at `image` (physical page addresses) lies in usable memory.
///
/// A map without any usable memory passes: what is missing then is reported
/// where it is needed.
///
/// # Errors
///
/// [`ImageError`] says what the image lies on.
pub fn check_placement(image: (u64, u64), regions: &Regions<'_>) -> Result<(), ImageError> {
    if !regions.has_usable() {
        return Ok(());
    }
    if let Some(region) = regions.obstacle(image.0, image.1) {
        return Err(ImageError::OnReserved { image, region });
    }
    match regions.first_gap(image.0, image.1) {
        Some(at) => Err(ImageError::OnNothing { image, at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

    use super::{ImageError, check_placement};
    use crate::regions::Regions;

    const IMAGE: (u64, u64) = (0x20_0000, 0x30_0000);

    fn placed(map: &[(u64, u64, u32)]) -> Result<(), ImageError> {
        let mut storage = [MemoryRegion::empty(); 8];
        let mut regions = Regions::new(&mut storage, 8);
        for (start, size, kind) in map {
            regions.push_bios(*start, *size, *kind);
        }
        check_placement(IMAGE, &regions)
    }

    #[test]
    fn usable_memory_in_several_regions_will_do() {
        assert_eq!(placed(&[(0, 0x100_0000, 1)]), Ok(()));
        let pieces = [(0x28_0000, 0x8_0000, 1), (0x10_0000, 0x18_0000, 1)];
        assert_eq!(placed(&pieces), Ok(()));
    }

    #[test]
    fn one_reserved_byte_is_one_too_many() {
        let region = MemoryRegion {
            start: 0x2f_ffff,
            end: 0x30_0000,
            kind: MemoryRegionKind::UnknownBios(4),
        };
        let image = IMAGE;
        assert_eq!(
            placed(&[(0, 0x100_0000, 1), (0x2f_ffff, 1, 4)]),
            Err(ImageError::OnReserved { image, region })
        );
        assert_eq!(placed(&[(0, 0x100_0000, 1), (0x30_0000, 1, 4)]), Ok(()));
        assert_eq!(placed(&[(0, 0x100_0000, 1), (0x1f_ffff, 1, 4)]), Ok(()));
    }

    #[test]
    fn a_page_without_memory_is_named() {
        let image = IMAGE;
        let at = 0x2f_f000;
        assert_eq!(
            placed(&[(0, 0x2f_ffff, 1)]),
            Err(ImageError::OnNothing { image, at })
        );
    }

    #[test]
    fn a_map_without_memory_is_left_to_others() {
        assert_eq!(placed(&[]), Ok(()));
        assert_eq!(placed(&[(0, u64::MAX, 2)]), Ok(()));
    }
}
