//! A built kernel's ELF file, and how much memory it needs just to be loaded.

use core::fmt;
use std::fs;
use std::path::PathBuf;

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::machine::Firmware;
use crate::size::MemorySize;

/// A built kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// The ELF file, with debug information.
    pub elf: PathBuf,
}

/// What a machine needs above the image for the kernel to come up: the firmware's tables at the
/// top (128 KiB in QEMU), page tables, the frame table where it does not fit below the image, and
/// some pages to hand out. The test `boot::least_memory` boots with no more.
const ROOM_ABOVE_IMAGE: u64 = 1 << 20;
/// What GRUB needs under SeaBIOS beside twice the kernel's file, debug sections and all, which it reads from a CD and keeps
/// until it has put the segments in their places: a file of 13 MB took 28 MiB, one of 17.9 MB more than 40.
const GRUB_UNDER_BIOS: u64 = 8 << 20;
/// The same under OVMF: a file of 13 MB took 72 MiB, one of 17.5 MB more than 64. With 56 MiB OVMF never gets to the CD.
const GRUB_UNDER_UEFI: u64 = 48 << 20;

/// A machine too small for the kernel, or for what loads it: QEMU would start it all the same,
/// and often end in nothing or without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// What the machine has.
    pub memory: MemorySize,
    /// What it needs.
    pub needed: MemorySize,
    /// What loads the kernel.
    pub firmware: Firmware,
    /// The physical address at which the kernel's image ends.
    pub image_end: u64,
}

impl KernelImage {
    /// The least memory with which the kernel comes up when `firmware` loads it; `None` for a
    /// file that is no 64-bit ELF.
    #[must_use]
    pub fn least_memory(&self, firmware: Firmware) -> Option<MemorySize> {
        least_memory(self.sizes()?, firmware)
    }

    /// Checks that the kernel can come up with `memory`.
    ///
    /// A file that is no 64-bit ELF passes: QEMU has its own words for it.
    pub(crate) fn fits_into(
        &self,
        memory: MemorySize,
        firmware: Firmware,
    ) -> Result<(), TooLittleMemory> {
        let Some(sizes) = self.sizes() else {
            return Ok(());
        };
        match least_memory(sizes, firmware) {
            Some(needed) if memory < needed => Err(TooLittleMemory {
                memory,
                needed,
                firmware,
                image_end: sizes.image_end,
            }),
            _ => Ok(()),
        }
    }

    /// The physical address after the last byte of the loaded image.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.sizes().map(|sizes| sizes.image_end)
    }

    fn sizes(&self) -> Option<Sizes> {
        let file = fs::read(&self.elf).ok()?;
        let data = file.as_slice();
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, data).ok()?;
        let loaded = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD);
        let image_end = loaded
            .map(|segment| {
                segment
                    .p_paddr(endian)
                    .saturating_add(segment.p_memsz(endian))
            })
            .max()?;
        let file = u64::try_from(data.len()).ok()?;
        Some(Sizes { image_end, file })
    }
}

/// What a kernel takes to be loaded.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// The physical address after the last byte of the loaded image.
    image_end: u64,
    /// Bytes of the file.
    file: u64,
}

fn least_memory(sizes: Sizes, firmware: Firmware) -> Option<MemorySize> {
    let with_room = sizes.image_end.saturating_add(ROOM_ABOVE_IMAGE);
    let for_grub = |more: u64| {
        let least = sizes.file.saturating_mul(2).saturating_add(more);
        with_room.max(least).checked_next_multiple_of(1 << 20)
    };
    MemorySize::of_pages_around(match firmware {
        Firmware::Direct => with_room,
        Firmware::Bios => for_grub(GRUB_UNDER_BIOS)?,
        Firmware::Uefi => for_grub(GRUB_UNDER_UEFI)?,
    })
}

impl core::error::Error for TooLittleMemory {}

impl fmt::Display for TooLittleMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            needed,
            firmware,
            image_end,
        } = self;
        let image_end = image_end.div_ceil(1024);
        write!(
            f,
            "--memory {memory} is too little: with --firmware {firmware} it takes {needed}; the \
             kernel alone is loaded up to {image_end}K"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{KernelImage, Sizes, least_memory};
    use crate::machine::Firmware;
    use crate::size::MemorySize;

    fn size(text: &str) -> MemorySize {
        text.parse().unwrap()
    }

    #[test]
    fn the_least_memory_is_enough_and_a_page_less_is_not() {
        let elf = std::env::current_exe().unwrap();
        let image = KernelImage { elf };
        let end = image.end().unwrap();
        assert!(end > 4096);
        for firmware in [Firmware::Direct, Firmware::Bios, Firmware::Uefi] {
            let least = image.least_memory(firmware).unwrap();
            assert_eq!(image.fits_into(least, firmware), Ok(()));
            let less = size(&(least.bytes() - 4096).to_string());
            let error = image.fits_into(less, firmware).unwrap_err();
            assert_eq!((error.needed, error.image_end), (least, end));
        }
        assert_eq!(
            image.fits_into(MemorySize::DEFAULT, Firmware::Direct),
            Ok(())
        );
    }

    #[test]
    fn the_message_says_what_it_takes_and_why() {
        let needs = |image_end, firmware| {
            let file = 17 << 20;
            let sizes = Sizes { image_end, file };
            least_memory(sizes, firmware).unwrap().to_string()
        };
        assert_eq!(needs(0x54_e000, Firmware::Direct), "6456K");
        assert_eq!(needs(0x54_d801, Firmware::Direct), "6456K");
        assert_eq!(needs(0x54_e000, Firmware::Bios), "42M");
        assert_eq!(needs(50 << 20, Firmware::Bios), "51M");
        assert_eq!(needs(0x54_e000, Firmware::Uefi), "82M");
        let error = super::TooLittleMemory {
            memory: size("5500K"),
            needed: size("6456K"),
            firmware: Firmware::Direct,
            image_end: 0x54_e000,
        };
        assert_eq!(
            error.to_string(),
            "--memory 5500K is too little: with --firmware direct it takes 6456K; the kernel \
             alone is loaded up to 5432K"
        );
    }

    #[test]
    fn a_file_that_is_no_elf_is_left_to_qemu() {
        let image = KernelImage {
            elf: "/dev/null".into(),
        };
        assert_eq!(image.fits_into(size("4K"), Firmware::Direct), Ok(()));
    }
}
