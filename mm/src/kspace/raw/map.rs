//! What page tables do for areas.

use core::fmt;

use crate::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange};

/// What may be done with mapped bytes. They are never executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MapAccess {
    /// They can be read.
    ReadOnly,
    /// They can be read and written.
    #[default]
    ReadWrite,
}

/// How the CPU caches mapped bytes (Linux: `enum page_cache_mode`; SDM vol. 3A, 12.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum CacheMode {
    /// Write-back: memory.
    #[default]
    WriteBack,
    /// Write-through.
    WriteThrough,
    /// Write-combining: frame buffers.
    WriteCombining,
    /// Uncached: registers of devices.
    Uncached,
}

impl CacheMode {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::WriteBack,
        Self::WriteThrough,
        Self::WriteCombining,
        Self::Uncached,
    ];

    /// A number for it.
    pub(crate) const fn bits(self) -> u64 {
        match self {
            Self::WriteBack => 0,
            Self::WriteThrough => 1,
            Self::WriteCombining => 2,
            Self::Uncached => 3,
        }
    }

    /// The name that Linux's reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteBack => "write-back",
            Self::WriteThrough => "write-through",
            Self::WriteCombining => "write-combining",
            Self::Uncached => "uncached",
        }
    }
}

/// How frames are mapped (Linux: `pgprot_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapAttributes {
    /// What may be done with them.
    pub access: MapAccess,
    /// How they are cached.
    pub cache: CacheMode,
}

/// Why nothing was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// No memory for page tables.
    OutOfTables,
    /// Something is mapped there already.
    Occupied(VirtAddr),
    /// The page tables have no pages of that size, or none with such attributes.
    Unsupported,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfTables => f.write_str("no memory for page tables"),
            Self::Occupied(at) => write!(f, "something is mapped at {at:?}"),
            Self::Unsupported => f.write_str("no such pages"),
        }
    }
}

impl core::error::Error for MapError {}

/// The kernel's page tables, as areas need them.
///
/// # Safety
///
/// The implementor's word:
///
/// 1. after [`map`](Self::map) answered `Ok`, the addresses reach these frames and no others, on every CPU, until
///    they are unmapped; where it answered an error, what is mapped is as before;
/// 2. after [`unmap`](Self::unmap), only what CPUs remember of its translations reaches the frames; no CPU remembers any
///    after a [`flush`](Self::flush) of these addresses that began later has come back;
/// 3. nothing else is ever mapped in the range that the library was given
///    ([`Memory::vmalloc_init`](crate::system::Memory::vmalloc_init)).
pub unsafe trait KernelMap: Sync {
    /// Maps blocks of `order`, 0 or 9, one behind the other from `at` on, which is aligned to them. Context: task.
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The addresses are the caller's and not mapped, and so are the frames, for as long as they are mapped and until
    /// they are flushed.
    unsafe fn map(
        &self,
        at: VirtAddr,
        blocks: &[Pfn],
        order: Order,
        how: MapAttributes,
    ) -> Result<(), MapError>;

    /// Takes everything out of the page tables that is mapped in a range. Context: task.
    ///
    /// # Safety
    ///
    /// The addresses are the caller's, and nobody uses them any more.
    unsafe fn unmap(&self, range: VirtRange);

    /// Has every CPU forget what it knows of some ranges, and waits until all have. Context: task, no lock held.
    fn flush(&self, ranges: &[VirtRange]);

    /// Where an address leads by the page tables. Context: any.
    fn translate(&self, at: VirtAddr) -> Option<PhysAddr>;

    /// Whether [`map`](Self::map) knows blocks of order 9. Default: no. Context: any.
    fn has_huge_pages(&self) -> bool {
        false
    }
}

/// Page tables, and the word that addresses of one range are the library's.
///
/// # Invariants
/// Whoever made it gave the word of [`Mapping::new`].
pub(crate) struct Mapping {
    tables: &'static dyn KernelMap,
}

impl Mapping {
    /// # Safety
    ///
    /// The addresses that [`Self::map`] and [`Self::unmap`] are asked for belong to the caller, each to one area, as
    /// long as that is mapped; and frames are let go after a flush only.
    pub(crate) const unsafe fn new(tables: &'static dyn KernelMap) -> Self {
        // INVARIANT: the caller's word.
        Self { tables }
    }

    pub(super) const fn tables(&self) -> &'static dyn KernelMap {
        self.tables
    }

    /// Maps blocks that belong to an area.
    pub(crate) fn map(
        &self,
        at: VirtAddr,
        blocks: &[Pfn],
        order: Order,
        how: MapAttributes,
    ) -> Result<(), MapError> {
        // SAFETY: the invariant.
        unsafe { self.tables().map(at, blocks, order, how) }
    }

    /// Unmaps what is mapped in a part of an area.
    pub(crate) fn unmap(&self, range: VirtRange) {
        // SAFETY: the invariant.
        unsafe { self.tables().unmap(range) }
    }

    /// Has all CPUs forget ranges.
    pub(crate) fn flush(&self, ranges: &[VirtRange]) {
        self.tables().flush(ranges);
    }

    /// Where an address leads.
    pub(crate) fn translate(&self, at: VirtAddr) -> Option<PhysAddr> {
        self.tables().translate(at)
    }

    /// Whether blocks of 2 MiB can be mapped as a whole.
    pub(crate) fn has_huge_pages(&self) -> bool {
        self.tables().has_huge_pages()
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").finish_non_exhaustive()
    }
}
