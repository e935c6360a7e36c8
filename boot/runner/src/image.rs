//! A built kernel's ELF file, and how much memory it needs just to be loaded.

use core::fmt;
use std::fs;
use std::path::PathBuf;

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::size::MemorySize;

/// A built kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// The ELF file, with debug information.
    pub elf: PathBuf,
}

/// A machine too small to load the kernel into: QEMU would start it all the same, and the CPU
/// would run into nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// What the machine has.
    pub memory: MemorySize,
    /// The physical address at which the kernel's image ends.
    pub needed: u64,
}

impl KernelImage {
    /// Checks that the image lies inside `memory`.
    ///
    /// A file that is no 64-bit ELF passes: QEMU has its own words for it.
    pub(crate) fn fits_into(&self, memory: MemorySize) -> Result<(), TooLittleMemory> {
        match self.end() {
            Some(needed) if needed > memory.bytes() => Err(TooLittleMemory { memory, needed }),
            _ => Ok(()),
        }
    }

    /// The physical address after the last byte of the loaded image.
    fn end(&self) -> Option<u64> {
        let file = fs::read(&self.elf).ok()?;
        let data = file.as_slice();
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, data).ok()?;
        let loaded = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD);
        loaded
            .map(|segment| {
                segment
                    .p_paddr(endian)
                    .saturating_add(segment.p_memsz(endian))
            })
            .max()
    }
}

impl core::error::Error for TooLittleMemory {}

impl fmt::Display for TooLittleMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, needed } = self;
        let needed = needed.div_ceil(1024);
        write!(
            f,
            "--memory {memory} is too little: the kernel alone is loaded up to {needed}K"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::KernelImage;
    use crate::size::MemorySize;

    #[test]
    fn an_image_fits_when_its_last_byte_does() {
        let elf = std::env::current_exe().unwrap();
        let image = KernelImage { elf };
        let end = image.end().unwrap();
        assert!(end > 4096);
        let error = image.fits_into("4K".parse().unwrap()).unwrap_err();
        assert_eq!(error.needed, end);
        assert!(error.to_string().starts_with("--memory 4K is too little"));
        assert_eq!(image.fits_into(MemorySize::DEFAULT), Ok(()));
    }

    #[test]
    fn a_file_that_is_no_elf_is_left_to_qemu() {
        let image = KernelImage {
            elf: "/dev/null".into(),
        };
        assert_eq!(image.fits_into("4K".parse().unwrap()), Ok(()));
    }
}
