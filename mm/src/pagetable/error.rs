//! What can be wrong with a request.
#![forbid(unsafe_code)]

use core::fmt;

use super::memory::OutOfTables;
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::report::DoubleMapping;

/// A range that cannot be mapped, or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// There is nothing in it.
    Empty,
    /// It does not start and end at pages.
    Misaligned(VirtRange),
    /// Part of it is not a canonical address, or it reaches from one half of the space into the other.
    NotCanonical(VirtRange),
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the range is empty"),
            Self::Misaligned(range) => write!(f, "{range:?} does not start and end at pages"),
            Self::NotCanonical(range) => write!(f, "{range:?} is not canonical"),
        }
    }
}

impl core::error::Error for RangeError {}

/// Why something was not mapped. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The range is wrong.
    Range(RangeError),
    /// Frames above what the architecture can address.
    Frames,
    /// Something is mapped here already.
    Occupied(VirtAddr),
    /// A table on the way is not the library's own.
    Foreign(VirtAddr),
    /// No memory for tables.
    OutOfTables,
    /// The page is mapped elsewhere, and may not be here as well.
    Prohibited(DoubleMapping),
    /// The frame is the kernel's own: of a slab, a page table, or reserved.
    KernelOwned(Pfn),
}

impl From<RangeError> for MapError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<OutOfTables> for MapError {
    fn from(_: OutOfTables) -> Self {
        Self::OutOfTables
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::Frames => f.write_str("frames above the physical address space"),
            Self::Occupied(at) => write!(f, "{at:?} is mapped already"),
            Self::Foreign(at) => write!(f, "a table on the way to {at:?} is somebody else's"),
            Self::OutOfTables => OutOfTables.fmt(f),
            Self::Prohibited(mapping) => mapping.fmt(f),
            Self::KernelOwned(pfn) => write!(f, "frame {pfn} is the kernel's own"),
        }
    }
}

impl From<DoubleMapping> for MapError {
    fn from(mapping: DoubleMapping) -> Self {
        Self::Prohibited(mapping)
    }
}

impl core::error::Error for MapError {}

/// Why mappings were not changed, or taken away. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// The range is wrong.
    Range(RangeError),
    /// Nothing is mapped here.
    NotMapped(VirtAddr),
    /// A table on the way is not the library's own.
    Foreign(VirtAddr),
    /// No memory for the tables that a large page is split into.
    OutOfTables,
    /// The page is mapped elsewhere too, and may not be written to.
    Prohibited(DoubleMapping),
}

impl From<RangeError> for ChangeError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<OutOfTables> for ChangeError {
    fn from(_: OutOfTables) -> Self {
        Self::OutOfTables
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::NotMapped(at) => write!(f, "nothing is mapped at {at:?}"),
            Self::Foreign(at) => write!(f, "a table on the way to {at:?} is somebody else's"),
            Self::OutOfTables => OutOfTables.fmt(f),
            Self::Prohibited(mapping) => mapping.fmt(f),
        }
    }
}

impl From<DoubleMapping> for ChangeError {
    fn from(mapping: DoubleMapping) -> Self {
        Self::Prohibited(mapping)
    }
}

impl core::error::Error for ChangeError {}

/// Why what the kernel may do with its own pages was not changed. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectError {
    /// The library was not told of the kernel's address space.
    NoKernelSpace,
    /// Part of it lies neither in the direct map nor in the kernel's image, nor among areas.
    Outside(VirtRange),
    /// No one area has all of it that somebody has from `vmalloc` or `vmap`.
    NoArea(VirtRange),
    /// The page here could be both written and executed then: no kernel page ever is.
    WriteExecute(VirtAddr),
    /// The range is wrong, or is not mapped, or there are no tables.
    Change(ChangeError),
}

impl From<ChangeError> for ProtectError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<RangeError> for ProtectError {
    fn from(error: RangeError) -> Self {
        Self::Change(ChangeError::Range(error))
    }
}

impl fmt::Display for ProtectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernelSpace => f.write_str("the kernel's address space is not known"),
            Self::Outside(range) => write!(
                f,
                "{range:?} lies neither in the direct map nor in the kernel's image"
            ),
            Self::NoArea(range) => write!(f, "no area of vmalloc or vmap has all of {range:?}"),
            Self::WriteExecute(at) => {
                write!(f, "the page at {at:?} could be both written and executed")
            }
            Self::Change(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ProtectError {}
