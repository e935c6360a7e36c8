//! Page tables in the memory that they describe.
#![forbid(unsafe_code)]

use super::{AllocError, Memory};
use crate::addr::{Order, Pfn, VirtAddr, VirtRange};
use crate::buddy::{Gfp, Request, Told};
use crate::config::{Layout, LayoutError};
use crate::frame::FrameTable;
use crate::mem::Exclusive;
use crate::pagetable::{
    Leaf, Level, MapCounts, OutOfTables, PageSize, PageTable, Span, TableDamage, TableMemory, Walk,
};
use crate::platform::Platform;
use crate::report::Backing;
use crate::sync::atomic::Ordering;
use crate::sync::grace::Guard;

/// The kernel's half of the address space, as the library knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelSpace {
    /// Its tables.
    pub tables: PageTable,
    /// What lies where.
    pub layout: Layout,
    /// The largest pages that the direct map and the image may have.
    pub largest: PageSize,
}

/// Why the library was not told of the kernel's address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelSpaceError {
    /// Memory is not up.
    NotUp,
    /// It was told before.
    Known,
    /// The layout is not in order.
    Layout(LayoutError),
    /// The platform has no CPU forget translations ([`Platform::FLUSHES_TLB`]).
    NoFlush,
}

impl core::fmt::Display for KernelSpaceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotUp => f.write_str("memory is not up"),
            Self::Known => f.write_str("the kernel's address space is known already"),
            Self::Layout(error) => error.fmt(f),
            Self::NoFlush => f.write_str("the platform does not flush TLBs"),
        }
    }
}

impl core::error::Error for KernelSpaceError {}

impl<P: Platform> TableMemory for Memory<P> {
    type P = P;

    fn platform(&self) -> &P {
        Self::platform(self)
    }

    fn frames(&self) -> &FrameTable {
        Self::frames(self).unwrap_or(&FrameTable::EMPTY)
    }

    fn take_page(&self) -> Result<Exclusive, OutOfTables> {
        self.take_table(Gfp::KERNEL)
    }

    fn give_page(&self, page: Exclusive) {
        if let Some(core) = self.core() {
            core.table_frames.fetch_sub(1, Ordering::Relaxed);
        }
        self.release(page);
    }

    fn retire_page(&self, page: Exclusive) {
        let Some(core) = self.core() else {
            return self.release(page);
        };
        core.table_frames.fetch_sub(1, Ordering::Relaxed);
        self.free_block_after_grace(core, page);
    }

    fn free_block(&self, block: Exclusive) {
        self.release(block);
    }

    #[inline]
    fn read(&self) -> Option<Guard<'_, P>> {
        self.grace().pin()
    }

    fn map_counts(&self) -> Option<&MapCounts> {
        let counts = self.core().map(|core| &core.map_counts);
        counts.filter(|counts| counts.are_kept())
    }

    fn flush(&self, range: VirtRange, frees_tables: bool) {
        if frees_tables {
            self.flush_tlb_tables(range);
        } else {
            self.flush_tlb(range);
        }
    }
}

/// The machine, for tables that are made on behalf of a request: what that may not do to get memory, they may not either
/// (Linux: `memalloc_nofs_save` around the page tables of `vmalloc`).
#[derive(Debug)]
pub(crate) struct TablesFor<'m, P: Platform> {
    memory: &'m Memory<P>,
    gfp: Gfp,
}

impl<'m, P: Platform> TablesFor<'m, P> {
    /// What of a request's flags goes for its tables: where its pages lie does not.
    const HOW: Gfp = Gfp::KERNEL
        .union(Gfp::HIGH)
        .union(Gfp::NOWARN)
        .union(Gfp::NOFAIL);

    pub(crate) const fn new(memory: &'m Memory<P>, gfp: Gfp) -> Self {
        let gfp = gfp.intersection(Self::HOW);
        Self { memory, gfp }
    }

    pub(crate) const fn memory(&self) -> &'m Memory<P> {
        self.memory
    }

    /// The flags for what the request needs beside its pages.
    pub(crate) const fn gfp(&self) -> Gfp {
        self.gfp
    }
}

impl<P: Platform> TableMemory for TablesFor<'_, P> {
    type P = P;

    fn platform(&self) -> &P {
        self.memory.platform()
    }

    fn frames(&self) -> &FrameTable {
        TableMemory::frames(self.memory)
    }

    fn take_page(&self) -> Result<Exclusive, OutOfTables> {
        self.memory.take_table(self.gfp)
    }

    fn give_page(&self, page: Exclusive) {
        self.memory.give_page(page);
    }

    fn retire_page(&self, page: Exclusive) {
        self.memory.retire_page(page);
    }

    fn free_block(&self, block: Exclusive) {
        self.memory.release(block);
    }

    #[inline]
    fn read(&self) -> Option<Guard<'_, P>> {
        self.memory.read()
    }

    fn map_counts(&self) -> Option<&MapCounts> {
        TableMemory::map_counts(self.memory)
    }

    fn flush(&self, range: VirtRange, frees_tables: bool) {
        self.memory.flush(range, frees_tables);
    }
}

impl<P: Platform> Memory<P> {
    /// A page for a table.
    fn take_table(&self, gfp: Gfp) -> Result<Exclusive, OutOfTables> {
        let page = self.take_tables(Order::ZERO, gfp | Gfp::ZERO)?;
        if let Some(core) = self.core() {
            core.table_frames.fetch_add(1, Ordering::Relaxed);
        }
        Ok(page)
    }

    /// A block for tables: in atomic context, the reserves are asked, whatever the flags allow.
    pub(crate) fn take_tables(&self, order: Order, gfp: Gfp) -> Result<Exclusive, OutOfTables> {
        let gfp = match self.platform().may_sleep() {
            true => gfp,
            false => gfp.difference(Gfp::KERNEL | Gfp::NOFAIL) | Gfp::ATOMIC,
        };
        let request = Request::new(gfp, order);
        let taken = request.map_err(AllocError::from);
        let taken =
            taken.and_then(|request| self.alloc_request(&request, &mut Told(&self.platform)));
        taken.map_err(|_| OutOfTables)
    }

    /// The kernel's address space, if the library was told of it
    /// ([`adopt_kernel_space`](Self::adopt_kernel_space)). Context: any.
    #[must_use]
    pub fn kernel_space(&self) -> Option<&KernelSpace> {
        self.core()?.kernel_space.get()
    }

    /// Frames that are page tables, but for those that were made before memory was up (Linux: `nr_page_table_pages`). Those
    /// that wait for the end of a grace period do not count. Context: any; stale when it arrives.
    #[must_use]
    pub fn page_table_frames(&self) -> u64 {
        let core = self.core();
        core.map_or(0, |core| core.table_frames.load(Ordering::Relaxed))
    }

    /// Makes page tables without an entry, of 4 levels or 5. Context: task, or atomic, where the reserves are asked.
    ///
    /// # Errors
    /// No memory for the root.
    pub fn new_page_table(&self, root: Level) -> Result<PageTable, OutOfTables> {
        PageTable::new(self, root)
    }

    /// The walk that the CPU makes for an address. Context: any but NMI.
    #[must_use]
    pub fn walk(&self, tables: &PageTable, at: VirtAddr) -> Walk {
        tables.walk(self, at)
    }

    /// The first page at or behind an address that can be used, and where it starts. Context: any but NMI.
    #[must_use]
    pub fn next_leaf(&self, tables: &PageTable, from: VirtAddr) -> Option<(VirtAddr, Leaf)> {
        tables.next_leaf(self, from)
    }

    /// The first pages at or behind an address that can be used: as many in a row as one table maps with the same rights.
    /// Context: any but NMI.
    #[must_use]
    pub fn next_span(&self, tables: &PageTable, from: VirtAddr) -> Option<Span> {
        tables.next_span(self, from)
    }

    /// Recounts tables; answers how many there are. Context: task; nothing else changes them.
    ///
    /// # Errors
    /// The first damage that was found.
    pub fn validate_page_table(&self, tables: &PageTable) -> Result<u64, TableDamage> {
        tables.validate(self)
    }

    /// What a frame is mapped as for user code, and how often, where that is counted (`page_table_check=on`). Context: any.
    #[must_use]
    pub fn mapped_as(&self, pfn: Pfn) -> Option<(Backing, u32)> {
        let (backing, count) = self.map_counts()?.get(pfn);
        backing.map(|backing| (backing, count))
    }

    /// Whether a frame is a page table of the library's own. Context: any.
    #[must_use]
    pub fn is_page_table(&self, pfn: Pfn) -> bool {
        self.frames()
            .is_some_and(|frames| frames.page_table(pfn).is_some())
    }
}
