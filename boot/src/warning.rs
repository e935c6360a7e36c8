//! What was odd but did not stop the boot.

use core::fmt;

use bootloader_api::info::MemoryRegion;

use crate::handoff::ReservedRange;

/// An oddity in what the loader or the kernel's configuration said, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The firmware map has more regions than are kept; the rest is missing from the `BootInfo`.
    RegionsLost {
        /// How many the firmware gave.
        given: usize,
        /// How many were kept.
        kept: usize,
    },
    /// A region lies, in part, where the CPU cannot address; that part is not mapped.
    RegionBeyondCpu {
        /// The region, as given.
        region: MemoryRegion,
        /// The CPU's physical address bits.
        bits: u32,
    },
    /// A range that should be reserved had no place in the list.
    RangeLost(ReservedRange),
    /// The command line was too long and was cut.
    CommandLineCut {
        /// Its length in bytes.
        given: usize,
        /// How many bytes were kept.
        kept: usize,
    },
    /// The command line was not UTF-8; each wrong byte became a `?`.
    CommandLineNotUtf8 {
        /// How many bytes were replaced.
        replaced: usize,
    },
    /// There is more than one module; all are reserved, the first is the ramdisk.
    ModulesIgnored {
        /// How many besides the first.
        count: usize,
    },
    /// The ramdisk does not lie in usable memory; it is not passed on.
    ModuleOutsideMemory(ReservedRange),
    /// The firmware's E820-like map is missing; the EFI map was taken instead.
    EfiMapOnly,
    /// EFI boot services are still running; their memory is not usable.
    EfiBootServices,
    /// The framebuffer has a form that `BootInfo` cannot describe, or nonsense sizes.
    FramebufferIgnored,
    /// The kernel's configuration wishes for a mapping that `boot` does not make.
    WishIgnored(Wish),
}

/// A wish in a `BootloaderConfig` that is not fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A fixed address for the kernel stack: it lies in the image.
    KernelStack,
    /// A fixed kernel base: the linker script decides it.
    KernelBase,
    /// A fixed address for the `BootInfo`: it lies in the image.
    BootInfo,
    /// A fixed address for the framebuffer: it has a window of its own.
    Framebuffer,
    /// A fixed address for the ramdisk: it is seen through the map of physical memory.
    Ramdisk,
    /// A recursive page-table entry.
    RecursiveTables,
    /// Randomised addresses.
    Aslr,
}

impl Wish {
    const fn name(self) -> &'static str {
        match self {
            Self::KernelStack => "mappings.kernel_stack",
            Self::KernelBase => "mappings.kernel_base",
            Self::BootInfo => "mappings.boot_info",
            Self::Framebuffer => "mappings.framebuffer",
            Self::Ramdisk => "mappings.ramdisk_memory",
            Self::RecursiveTables => "mappings.page_table_recursive",
            Self::Aslr => "mappings.aslr",
        }
    }
}

impl Warning {
    /// What unused places of a list hold.
    pub(crate) const MODULES_IGNORED_FILLER: Self = Self::ModulesIgnored { count: 0 };
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegionsLost { given, kept } => write!(
                out,
                "the firmware map has {given} regions, only the first {kept} were kept"
            ),
            Self::RegionBeyondCpu { region, bits } => write!(
                out,
                "region {:#x}-{:#x} is beyond the {bits} physical address bits of this CPU",
                region.start, region.end
            ),
            Self::RangeLost(range) => write!(
                out,
                "no place to note {} {:#x}-{:#x}",
                range.kind.name(),
                range.start,
                range.end
            ),
            Self::CommandLineCut { given, kept } => {
                write!(out, "command line of {given} bytes cut to {kept}")
            }
            Self::CommandLineNotUtf8 { replaced } => write!(
                out,
                "command line is not UTF-8: {replaced} bytes replaced by '?'"
            ),
            Self::ModulesIgnored { count } => {
                write!(
                    out,
                    "{count} modules besides the ramdisk are reserved but not passed on"
                )
            }
            Self::ModuleOutsideMemory(range) => write!(
                out,
                "ramdisk {:#x}-{:#x} does not lie in usable memory and is ignored",
                range.start, range.end
            ),
            Self::EfiMapOnly => out.write_str("no E820-like memory map, taking the EFI one"),
            Self::EfiBootServices => {
                out.write_str("EFI boot services are still running, their memory is not usable")
            }
            Self::FramebufferIgnored => {
                out.write_str("framebuffer ignored: not linear RGB, or nonsense sizes")
            }
            Self::WishIgnored(wish) => {
                write!(out, "BootloaderConfig wish not fulfilled: {}", wish.name())
            }
        }
    }
}
