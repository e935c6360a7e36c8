//! Kernel stacks: pages mapped in a range of their own, each stack above a page that is not.
//!
//! Linux counterpart: `vmalloc`ed stacks (`CONFIG_VMAP_STACK`). The range lies between the map of
//! physical memory and vmalloc's; addresses are never used again.
#![expect(unsafe_code, reason = "changes the page tables that the CPU uses")]

use super::MEMORY;
use crate::arch::lock::IrqLock;
use crate::arch::stack::{GUARD_BYTES, StackExtent};
use crate::num::to_u64;
use core::fmt;
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::system::AllocError;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

/// Where the first stack's guard page lies, and where the range ends.
const START: u64 = 0xffff_c880_0000_0000;
const END: u64 = 0xffff_c900_0000_0000;

/// Where the next stack's guard page goes. The lock also orders changes of the tables.
static NEXT: IrqLock<u64> = IrqLock::new(START);

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

/// Makes a stack of `bytes`, rounded up to whole pages, for good.
///
/// # Errors
/// [`StackError`]; pages of a stack that could be made in part only are lost.
///
/// # Context
/// Task, memory up.
pub(crate) fn allocate(bytes: u64) -> Result<StackExtent, StackError> {
    let offset = MEMORY.platform().physical_offset();
    let offset = offset.ok_or(StackError::NoRoom)?;
    let bytes = bytes.checked_next_multiple_of(PAGE_SIZE);
    let bytes = bytes.ok_or(StackError::NoRoom)?;

    let mut next = NEXT.lock();
    let guard = *next;
    let bottom = guard.saturating_add(to_u64(GUARD_BYTES));
    let top = bottom.checked_add(bytes).filter(|&top| top <= END);
    let top = top.ok_or(StackError::NoRoom)?;
    *next = top;

    let (root, _) = Cr3::read();
    let root = offset.wrapping_add(root.start_address().as_u64());
    let root = VirtAddr::new_truncate(root).as_mut_ptr::<PageTable>();
    // SAFETY: CR3 names the table in use, which is mapped at the offset, as all RAM is; whoever
    // else adds to it does so before other CPUs run, or holds this lock.
    let root = unsafe { &mut *root };
    // SAFETY: the offset is that of the boot loader's map of all RAM.
    let mut mapper = unsafe { OffsetPageTable::new(root, VirtAddr::new_truncate(offset)) };
    let mut at = bottom;
    while at < top {
        map_page(&mut mapper, at)?;
        at = at.saturating_add(PAGE_SIZE);
    }
    Ok(StackExtent { guard, bottom, top })
}

fn map_page(mapper: &mut OffsetPageTable<'_>, at: u64) -> Result<(), StackError> {
    const RIGHTS: PageTableFlags = PageTableFlags::PRESENT
        .union(PageTableFlags::WRITABLE)
        .union(PageTableFlags::NO_EXECUTE)
        .union(PageTableFlags::GLOBAL);
    let pfn = MEMORY
        .alloc_pages(Gfp::KERNEL, Order::ZERO)
        .map_err(StackError::OutOfMemory)?;
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new_truncate(at));
    let frame = frame(pfn).ok_or(StackError::NoRoom)?;
    // SAFETY: the range is this module's alone, and the page was allocated for it just now.
    match unsafe { mapper.map_to(page, frame, RIGHTS, &mut TablePages) } {
        Ok(flush) => {
            // Nothing was mapped here, so no CPU can have cached anything.
            flush.ignore();
            Ok(())
        }
        Err(MapToError::FrameAllocationFailed) => Err(StackError::OutOfTables),
        Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {
            Err(StackError::NoRoom)
        }
    }
}
