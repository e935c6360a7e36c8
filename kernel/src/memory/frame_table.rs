//! The frame table's place in the address space, and a small mapper for it.
//!
//! Until the kernel has page tables of its own, these mappings go into the boot loader's. Tables
//! for them come from a pool that is filled from early memory, since by the time the frame table
//! is built memblock belongs to the builder.
#![expect(
    unsafe_code,
    reason = "walks and changes the page tables that the CPU uses"
)]

use super::KernelPlatform;
use crate::arch::lock::IrqLock;
use alloc::vec::Vec;
use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::config::{PAGE_SIZE, SECTION_FRAMES};
use mm::frame::FrameTable;
use mm::mem::EarlyRam;
use mm::memblock::{AllocError, Memblock, Request};
use mm::platform::MapFrameTableError;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};

/// Where the frame table starts: as the address space of `docs/architecture.md` has it.
pub(super) const BASE: VirtAddr = VirtAddr::new(0xffff_ea00_0000_0000);

/// Bytes that one table of the lowest level maps, of the next, and of the one above it.
const SPANS: [u64; 3] = [1 << 21, 1 << 30, 1 << 39];

static POOL: IrqLock<Pool> = IrqLock::new(Pool { rest: Vec::new() });

/// Zeroed pages for page tables.
struct Pool {
    rest: Vec<EarlyRam>,
}

// SAFETY: each page is a token's own, so it is unused and given out once.
unsafe impl FrameAllocator<Size4KiB> for Pool {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let page = self.rest.pop()?.leak();
        PhysFrame::from_start_address(x86_64::PhysAddr::new(page.start().as_u64())).ok()
    }
}

/// Puts as many pages aside as mapping the records of all of `memblock`'s RAM can take.
///
/// # Errors
/// Early memory ran out.
pub(super) fn prepare(
    platform: &KernelPlatform,
    memblock: &mut Memblock,
) -> Result<(), AllocError> {
    let mut tables: u64 = 0;
    for span in SPANS {
        let mut last = None;
        for ram in memblock.frames(None) {
            let first = table_of(ram.frames.first().section(), span);
            let end = ram.frames.end().as_u64().div_ceil(SECTION_FRAMES);
            let final_table = table_of(end.saturating_sub(1), span);
            let fresh = if last == Some(first) { 0 } else { 1 };
            tables = tables.saturating_add(final_table.saturating_sub(first).saturating_add(fresh));
            last = Some(final_table);
        }
    }
    let request = Request::bytes(PAGE_SIZE).align(PAGE_SIZE);
    for _ in 0..tables {
        let page = memblock.alloc(platform, &request)?;
        POOL.lock().rest.push(page);
    }
    Ok(())
}

/// Which table of those that map `span` bytes each holds the records of a section.
fn table_of(section: u64, span: u64) -> u64 {
    let offset = section.saturating_mul(FrameTable::SECTION_BYTES);
    offset.checked_div(span).unwrap_or_default()
}

/// Pages of the pool that were not needed.
pub(super) fn take_rest() -> Vec<EarlyRam> {
    core::mem::take(&mut POOL.lock().rest)
}

/// Maps `ram` at `at`, page by page.
pub(super) fn map(
    platform: &KernelPlatform,
    at: VirtAddr,
    ram: PhysRange,
) -> Result<(), MapFrameTableError> {
    let offset = platform
        .physical_offset()
        // The mapper knows four levels.
        .filter(|_| !Cr4::read().contains(Cr4Flags::L5_PAGING))
        .ok_or(MapFrameTableError::Unsupported)?;
    let (root, _) = Cr3::read();
    let root = offset.wrapping_add(root.start_address().as_u64());
    let root = x86_64::VirtAddr::new_truncate(root).as_mut_ptr::<PageTable>();
    // SAFETY: CR3 names the table in use, which is mapped at the offset, as all RAM is; memory
    // comes up on one CPU, and nobody else changes tables meanwhile.
    let root = unsafe { &mut *root };
    // SAFETY: as above: the offset is that of the boot loader's map of all RAM.
    let mut mapper = unsafe { OffsetPageTable::new(root, x86_64::VirtAddr::new_truncate(offset)) };
    let mut pool = POOL.lock();

    for step in 0..ram.size().checked_div(PAGE_SIZE).unwrap_or_default() {
        let bytes = step.saturating_mul(PAGE_SIZE);
        let place = at
            .checked_add(bytes)
            .ok_or(MapFrameTableError::Unsupported)?;
        map_page(
            &mut mapper,
            &mut pool,
            place,
            ram.start().saturating_add(bytes),
        )?;
    }
    Ok(())
}

fn map_page(
    mapper: &mut OffsetPageTable<'_>,
    pool: &mut Pool,
    at: VirtAddr,
    ram: PhysAddr,
) -> Result<(), MapFrameTableError> {
    const RIGHTS: PageTableFlags = PageTableFlags::PRESENT
        .union(PageTableFlags::WRITABLE)
        .union(PageTableFlags::NO_EXECUTE)
        .union(PageTableFlags::GLOBAL);
    let page = Page::<Size4KiB>::containing_address(x86_64::VirtAddr::new_truncate(at.as_u64()));
    let frame = PhysFrame::containing_address(x86_64::PhysAddr::new_truncate(ram.as_u64()));
    // SAFETY: the range from `BASE` on is the frame table's alone, and the memory is its token's.
    match unsafe { mapper.map_to(page, frame, RIGHTS, pool) } {
        Ok(flush) => {
            // Nothing was mapped here, so no CPU can have cached anything.
            flush.ignore();
            Ok(())
        }
        Err(MapToError::FrameAllocationFailed) => Err(MapFrameTableError::OutOfTables),
        Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {
            Err(MapFrameTableError::Occupied(at))
        }
    }
}
