//! Why there is no memory.

use core::fmt;

use mm::addr::{VirtAddr, VirtRange};
use mm::memblock::GrowError;
use mm::memblock::setup::SetupError;
use mm::pagetable::{MapError, OutOfTables};
use mm::system::{BringUpError, KernelSpaceError, VmallocError};
use mm::zone::plan::PlanError;

/// Why memory did not come up.
#[derive(Debug)]
pub enum Error {
    /// The boot loader did not map physical memory: the kernel's `BootloaderConfig` has to ask for it.
    NoPhysicalMap,
    /// This was called before.
    Again,
    /// The map has no memory.
    Setup(SetupError),
    /// What is in use could not be reserved.
    Reserve(GrowError),
    /// Memory makes no zones.
    Plan(PlanError),
    /// The library refused.
    BringUp(BringUpError),
    /// No memory for page tables.
    OutOfTables,
    /// The boot loader's page tables lie outside of RAM.
    TablesElsewhere,
    /// The boot loader mapped something where the library wants to.
    Occupied(VirtAddr, VirtRange),
    /// Its tables could not be taken over.
    Map(MapError),
    /// The kernel's address space was refused.
    Space(KernelSpaceError),
    /// There are no addresses for areas.
    Vmalloc(VmallocError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPhysicalMap => f.write_str("the boot loader did not map physical memory"),
            Self::Again => f.write_str("memory was brought up before"),
            Self::Setup(error) => error.fmt(f),
            Self::Reserve(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::BringUp(error) => error.fmt(f),
            Self::OutOfTables => OutOfTables.fmt(f),
            Self::TablesElsewhere => f.write_str("the boot loader's page tables are not in RAM"),
            Self::Occupied(at, region) => {
                write!(f, "{at:?} is mapped already, in the region {region:?}")
            }
            Self::Map(error) => error.fmt(f),
            Self::Space(error) => error.fmt(f),
            Self::Vmalloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

/// Each error of a step is one of the whole.
macro_rules! from {
    ($($error:ty => $variant:ident),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(SetupError => Setup, GrowError => Reserve, PlanError => Plan, BringUpError => BringUp,
    MapError => Map, KernelSpaceError => Space, VmallocError => Vmalloc);

impl From<OutOfTables> for Error {
    fn from(_: OutOfTables) -> Self {
        Self::OutOfTables
    }
}
