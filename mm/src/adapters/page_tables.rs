//! Changing page tables: whoever does decides what every reference in the kernel reaches.

use crate::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use crate::buddy::Gfp;
use crate::config::{Layout, MAX_PHYS_BITS, PAGE_SHIFT};
use crate::pagetable::{
    Attributes, Change, ChangeError, EachBy, Empties, FlushReceipt, Leaf, MapError, PageSize,
    PageTable, Protection, TableMemory,
};
use crate::platform::Platform;
use crate::report::{Backing, Corruption};
use crate::system::{Block, Home, KernelSpace, KernelSpaceError, Memory};

impl<P: Platform> Memory<P> {
    /// Maps frames in a row, with pages as large as fit, up to `largest`; tables are made as they are needed. Context:
    /// task, or atomic, where the reserves are asked for tables; not with a lock that a caller of [`Self::unmap_pages`]
    /// may hold around its sink.
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The addresses are the caller's to map, and what code does through them keeps the rules that hold for the frames.
    pub unsafe fn map_pages(
        &self,
        tables: &PageTable,
        row: (VirtAddr, PfnRange),
        attributes: Attributes,
        largest: PageSize,
    ) -> Result<(), MapError> {
        tables.map_row(self, row, attributes, largest)
    }

    /// Maps one frame after the other, those that `frame_of` names for the page numbers of the range from 0 on; it is asked
    /// with tables locked. Context: task, as [`Self::map_pages`].
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then. A frame above what the architecture can address is found while those before it
    /// are mapped already, which are taken away again; it is the last that is asked for.
    ///
    /// # Safety
    /// As [`Self::map_pages`].
    pub unsafe fn map_each_page(
        &self,
        tables: &PageTable,
        range: VirtRange,
        mut frame_of: impl FnMut(u64) -> Pfn,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let is_right = |pfn: &Pfn| pfn.as_u64() < 1 << (MAX_PHYS_BITS - PAGE_SHIFT);
        let frames = &mut EachBy(|page| Some(frame_of(page)).filter(is_right));
        tables.map(self, range, frames, attributes, Empties::Freed)
    }

    /// Maps frames in a row for user code, as [`Self::map_pages`], and says what they belong to. With `page_table_check=on`
    /// mappings are counted, and what Linux's table (`page_table_check.rst`) prohibits is refused and reported: an anonymous page that is
    /// mapped already is mapped again to be read only, and no page is anonymous here and named there. Frames of slabs and page
    /// tables and reserved ones are refused then, too ([`MapError::KernelOwned`]): who has users see one of his own maps it with
    /// [`Self::map_pages`]. Context: task, as [`Self::map_pages`].
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then.
    ///
    /// # Safety
    /// As [`Self::map_pages`].
    pub unsafe fn map_user_pages(
        &self,
        tables: &PageTable,
        (start, frames): (VirtAddr, PfnRange),
        attributes: Attributes,
        largest: PageSize,
        backing: Backing,
    ) -> Result<(), MapError> {
        let mut protection = attributes.protection | Protection::USER;
        let counts = self.map_counts();
        if let Some(counts) = counts {
            // Before anything is done for each frame of a row that may be absurdly long.
            tables.check(PageTable::addresses_of((start, frames))?)?;
            let is_owned = |pfn: &Pfn| {
                self.frames()
                    .is_some_and(|table| table.is_kernel_owned(*pfn))
            };
            if let Some(pfn) = frames.iter().find(is_owned) {
                return Err(MapError::KernelOwned(pfn));
            }
            let take = |order| self.take_tables(order, Gfp::KERNEL);
            counts.make_room(self.platform(), frames, take, |block| self.release(block))?;
            let is_writable = protection.contains(Protection::WRITE);
            if let Err(mapping) = counts.enter(frames, backing, is_writable) {
                self.platform()
                    .corruption(&Corruption::DoubleMapping(mapping));
                return Err(mapping.into());
            }
            protection |= Protection::COUNTED;
        }
        let attributes = Attributes {
            protection,
            ..attributes
        };
        let mapped = tables.map_row(self, (start, frames), attributes, largest);
        if let (Err(_), Some(counts)) = (mapped, counts) {
            // Counted just now.
            let _ = counts.leave(frames);
        }
        mapped
    }

    /// Takes away what is mapped in a range and shows each page to `sink`, which runs with tables locked. Large pages that lie
    /// across an end are split. The frames are the caller's again when the receipt is completed, which can
    /// [keep](FlushReceipt::keep) them until then, and free them. Context: task, as [`Self::map_pages`].
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody uses the addresses any more.
    pub unsafe fn unmap_pages(
        &self,
        tables: &PageTable,
        range: VirtRange,
        mut sink: impl FnMut(VirtAddr, Leaf),
    ) -> Result<FlushReceipt<'_, Self>, ChangeError> {
        let Some(counts) = self.map_counts() else {
            return tables.unmap(self, range, sink);
        };
        tables.unmap(self, range, |at, leaf| {
            counts.end(self.platform(), &leaf);
            sink(at, leaf);
        })
    }

    /// Changes what every page of a range may be used for, all of which are mapped. Large pages that lie across an end are
    /// split. Context: task, as [`Self::map_pages`].
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// What is forbidden now nobody does any more, or whoever does expects the page fault; what is allowed now does no
    /// harm.
    pub unsafe fn change_pages(
        &self,
        tables: &PageTable,
        range: VirtRange,
        change: Change,
    ) -> Result<FlushReceipt<'_, Self>, ChangeError> {
        tables.change(self, range, change)
    }

    /// Puts pages of a range together to larger ones, up to `largest`, wherever tables map them in a row with the same rights.
    /// Addresses mean what they meant. Context: task, as [`Self::map_pages`].
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The CPUs have pages of `largest`; and in the kernel's own tables the library does not map in pages of 4 KiB what is in
    /// the range, for reasons of its own: areas, and with `debug_pagealloc=on` or KFENCE all of the direct map.
    pub unsafe fn join_pages(
        &self,
        tables: &PageTable,
        range: VirtRange,
        largest: PageSize,
    ) -> Result<FlushReceipt<'_, Self>, ChangeError> {
        tables.join(self, range, largest)
    }

    /// Lets the entry of 512 GiB for an address lead to a table that the library did not make, so that what that maps is mapped
    /// here too: an entry of the root with four levels, of the table below it with five. Its addresses stay its maker's affair:
    /// requests about them are refused. Context: task.
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// `table` is a page table of [`Level::PUD`](crate::pagetable::Level::PUD), whose entries lead to tables in RAM, all of which stay for good.
    pub unsafe fn adopt_table(
        &self,
        tables: &PageTable,
        at: VirtAddr,
        table: Pfn,
    ) -> Result<(), MapError> {
        tables.adopt(self, at, table)
    }

    /// Frees page tables with all that they map: the frames that are mapped stay whose they are. Context: task,
    /// as [`Self::map_pages`].
    ///
    /// # Safety
    ///
    /// No CPU uses the tables, nobody knows them any more, and no table in them was [adopted](Self::adopt_table).
    pub unsafe fn destroy_page_table(&self, tables: PageTable) {
        tables.destroy(self);
    }

    /// Tells the library which tables all CPUs use for the kernel's half of the address space, what lies where, and how large
    /// the pages of the direct map and of the image may be: no larger than the CPUs have. Context: task, once.
    ///
    /// # Errors
    /// [`KernelSpaceError`].
    ///
    /// # Safety
    ///
    /// 1. All CPUs use these tables, now and later.
    /// 2. The regions of the layout are as their documentation says: the library alone maps in those for vmalloc, per-CPU
    ///    areas and fixed slots.
    /// 3. A CPU that is started later calls [`tlb_lazy_leave`](Self::tlb_lazy_leave) before it uses an address that somebody may
    ///    unmap or map elsewhere, and [`tlb_catch_up`](Self::tlb_catch_up) when another one
    ///    [asks](Platform::kick_tlb) (the platform's obligation 12): until then the library frees what
    ///    that CPU still reaches. So does a CPU that [was lazy](Self::tlb_lazy_enter).
    pub unsafe fn adopt_kernel_space(
        &self,
        tables: PageTable,
        layout: Layout,
        largest: PageSize,
    ) -> Result<(), KernelSpaceError> {
        let core = self.core().ok_or(KernelSpaceError::NotUp)?;
        if !P::FLUSHES_TLB {
            return Err(KernelSpaceError::NoFlush);
        }
        layout
            .check(tables.levels())
            .map_err(KernelSpaceError::Layout)?;
        let space = KernelSpace {
            tables,
            layout,
            largest,
        };
        match core.kernel_space.set(space) {
            Ok(_) => Ok(()),
            Err(_) => Err(KernelSpaceError::Known),
        }
    }
}

impl<P: Platform> FlushReceipt<'_, Memory<P>> {
    /// Gives pages that were mapped up to the receipt: they are freed when it is completed, when no CPU reaches them any more,
    /// and never before. Context: as [`Memory::unmap_pages`].
    ///
    /// # Errors
    /// The pages, if they are another machine's.
    pub fn keep<H: Home<P = P>>(&mut self, pages: Block<H>) -> Result<(), Block<H>> {
        let (block, home) = pages.into_parts();
        let is_ours = core::ptr::eq(self.machine(), home.memory());
        let kept = match block {
            Some(block) if is_ours => self.keep_block(block),
            Some(block) => Err(block),
            None => Ok(()),
        };
        kept.map_err(|block| Block::new(block, home))
    }
}
