//! Kernel stacks: pages mapped in a range of their own, each stack above a page that is not.
//!
//! Linux counterpart: `vmalloc`ed stacks (`CONFIG_VMAP_STACK`). The range lies between the map of
//! physical memory and vmalloc's. A stack that is given back is unmapped, forgotten by all CPUs, and
//! only then its pages are free and its addresses may be used again. Page tables stay.
#![expect(unsafe_code, reason = "changes the page tables that the CPU uses")]

use super::{Kernel, MEMORY, Pages};
use crate::arch::lock::IrqLock;
use crate::arch::smp;
use crate::arch::stack::{GUARD_BYTES, StackExtent};
use crate::num::to_u64;
use alloc::vec::Vec;
use core::fmt;
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::system::AllocError;
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

/// Where the first stack's guard page lies, and where the range ends.
const START: u64 = 0xffff_c880_0000_0000;
const END: u64 = 0xffff_c900_0000_0000;

/// What of the range is in use. The lock also orders changes of the tables.
static RANGE: IrqLock<Range> = IrqLock::new(Range {
    next: START,
    free: Vec::new(),
});

/// The range's addresses.
struct Range {
    /// Where the next stack's guard page goes, …
    next: u64,
    /// … unless one of these, which were used before, is of the right size.
    free: Vec<StackExtent>,
}

impl Range {
    /// Addresses for a stack of `bytes`, which are whole pages.
    fn take(&mut self, bytes: u64) -> Option<StackExtent> {
        let fits = |free: &StackExtent| free.top.saturating_sub(free.bottom) == bytes;
        if let Some(index) = self.free.iter().position(fits) {
            return Some(self.free.swap_remove(index));
        }
        let guard = self.next;
        let bottom = guard.saturating_add(to_u64(GUARD_BYTES));
        let top = bottom.checked_add(bytes).filter(|&top| top <= END)?;
        self.next = top;
        Some(StackExtent { guard, bottom, top })
    }

    /// Keeps addresses for the next stack. Without room for the note they are never used again.
    fn put(&mut self, extent: StackExtent) {
        if self.free.try_reserve(1).is_ok() {
            self.free.push(extent);
        }
    }
}

/// Why there is no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StackError {
    /// No pages.
    OutOfMemory(AllocError),
    /// No pages for page tables.
    OutOfTables,
    /// No addresses, or something else is mapped there.
    NoRoom,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(error) => error.fmt(f),
            Self::OutOfTables => f.write_str("no memory for page tables"),
            Self::NoRoom => f.write_str("no addresses left for stacks"),
        }
    }
}

/// Gives page tables from the allocator.
struct TablePages;

// SAFETY: the allocator gives each page once, and nobody gives these back.
unsafe impl FrameAllocator<Size4KiB> for TablePages {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let page = MEMORY.alloc_page(Gfp::KERNEL.union(Gfp::ZERO)).ok()?;
        frame(page)
    }
}

fn frame(pfn: Pfn) -> Option<PhysFrame> {
    let address = pfn.as_u64().checked_mul(PAGE_SIZE)?;
    PhysFrame::from_start_address(PhysAddr::try_new(address).ok()?).ok()
}

/// A mapped stack, with the pages under it.
///
/// To be given back by [`free`]: a stack that is dropped keeps its pages and its addresses.
#[derive(Debug)]
#[must_use = "a stack is given back by `free`"]
pub(crate) struct Stack {
    extent: StackExtent,
    pages: Vec<Pages>,
}

impl Stack {
    /// Makes a stack of `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// [`StackError`]; nothing is kept.
    ///
    /// # Context
    /// Task, memory up.
    pub(crate) fn new(bytes: u64) -> Result<Self, StackError> {
        let bytes = bytes.checked_next_multiple_of(PAGE_SIZE);
        let bytes = bytes.ok_or(StackError::NoRoom)?;
        let count = usize::try_from(bytes.wrapping_div(PAGE_SIZE)).unwrap_or(usize::MAX);
        let mut pages = Vec::new();
        pages
            .try_reserve_exact(count)
            .map_err(|_| StackError::OutOfMemory(AllocError::OutOfMemory))?;
        for _ in 0..count {
            let page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO);
            pages.push(page.map_err(StackError::OutOfMemory)?);
        }

        let mut range = RANGE.lock();
        let extent = range.take(bytes).ok_or(StackError::NoRoom)?;
        let outcome = map(extent, &pages);
        drop(range);
        let stack = Self { extent, pages };
        match outcome {
            Ok(()) => Ok(stack),
            Err(error) => {
                free(alloc::vec![stack]);
                Err(error)
            }
        }
    }

    /// Where it lies.
    pub(crate) const fn extent(&self) -> StackExtent {
        self.extent
    }
}

/// Makes a stack of `bytes`, rounded up to whole pages, for good.
///
/// # Errors
/// [`StackError`].
///
/// # Context
/// Task, memory up.
pub(crate) fn allocate(bytes: u64) -> Result<StackExtent, StackError> {
    let stack = Stack::new(bytes)?;
    for page in stack.pages {
        let _pfn = page.into_raw();
    }
    Ok(stack.extent)
}

/// Gives stacks back that nobody runs on any more, their pages and their addresses.
///
/// # Context
/// Task, holding no lock: all CPUs are interrupted, once for all of the stacks.
pub(crate) fn free(stacks: Vec<Stack>) {
    if stacks.is_empty() {
        return;
    }
    {
        let _range = RANGE.lock();
        for stack in &stacks {
            unmap(stack.extent);
        }
    }
    smp::call_on_all(&|_| {
        for page in stacks.iter().flat_map(|stack| pages_of(stack.extent)) {
            tlb::flush(page.start_address());
        }
    });
    // Nobody has a way to the pages any more.
    for stack in stacks {
        drop(stack.pages);
        RANGE.lock().put(stack.extent);
    }
}

fn pages_of(extent: StackExtent) -> impl Iterator<Item = Page<Size4KiB>> {
    let page = |at| Page::containing_address(VirtAddr::new_truncate(at));
    Page::range(page(extent.bottom), page(extent.top))
}

/// The tables in use. The caller holds the lock of [`RANGE`].
fn mapper(offset: u64) -> OffsetPageTable<'static> {
    let (root, _) = Cr3::read();
    let root = offset.wrapping_add(root.start_address().as_u64());
    let root = VirtAddr::new_truncate(root).as_mut_ptr::<PageTable>();
    // SAFETY: CR3 names the table in use, which is mapped at the offset, as all RAM is; whoever
    // else adds to it does so before other CPUs run, or holds the lock.
    let root = unsafe { &mut *root };
    // SAFETY: the offset is that of the boot loader's map of all RAM.
    unsafe { OffsetPageTable::new(root, VirtAddr::new_truncate(offset)) }
}

fn map(extent: StackExtent, pages: &[Pages]) -> Result<(), StackError> {
    let offset = MEMORY.platform().physical_offset();
    let mut mapper = mapper(offset.ok_or(StackError::NoRoom)?);
    for (page, pages) in pages_of(extent).zip(pages) {
        map_page(&mut mapper, page, pages.pfn())?;
    }
    Ok(())
}

/// Unmaps what is mapped of a stack. The caller holds the lock of [`RANGE`].
fn unmap(extent: StackExtent) {
    let Some(offset) = MEMORY.platform().physical_offset() else {
        return;
    };
    let mut mapper = mapper(offset);
    for page in pages_of(extent) {
        // A stack that could be made in part only has pages that are not mapped.
        if let Ok((_, flush)) = mapper.unmap(page) {
            // `free` has all CPUs do that.
            flush.ignore();
        }
    }
}

fn map_page(
    mapper: &mut OffsetPageTable<'_>,
    page: Page<Size4KiB>,
    pfn: Pfn,
) -> Result<(), StackError> {
    const RIGHTS: PageTableFlags = PageTableFlags::PRESENT
        .union(PageTableFlags::WRITABLE)
        .union(PageTableFlags::NO_EXECUTE)
        .union(PageTableFlags::GLOBAL);
    let frame = frame(pfn).ok_or(StackError::NoRoom)?;
    // SAFETY: the range is this module's alone, and the page was allocated for it just now.
    match unsafe { mapper.map_to(page, frame, RIGHTS, &mut TablePages) } {
        Ok(flush) => {
            // Nothing was mapped here, or all CPUs have forgotten it since.
            flush.ignore();
            Ok(())
        }
        Err(MapToError::FrameAllocationFailed) => Err(StackError::OutOfTables),
        Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {
            Err(StackError::NoRoom)
        }
    }
}
