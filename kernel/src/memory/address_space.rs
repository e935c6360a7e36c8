//! The kernel's own address space, in place of the boot loader's.
//!
//! The map of memory holds RAM and nothing else, with the largest pages that fit; the image has its parts as their names
//! say, nothing both writable and executable, and its guard pages are not there at all. The frame table's tables are taken
//! over as they are. The lower half is empty. `docs/virtual-memory.md` has the picture.
#![expect(
    unsafe_code,
    reason = "makes the page tables that all CPUs use, and uses them"
)]

use super::{MEMORY, fixmap, frame_table};
use crate::arch::{self, cpu, image};
use crate::boot_info;
use crate::num::to_u64;
use alloc::vec::Vec;
use core::fmt;
use mm::addr::{Pfn, PfnRange, PhysAddr, PhysRange, VirtAddr, VirtRange};
use mm::config::{Layout, PAGE_SIZE};
use mm::pagetable::{
    Attributes, Cache, Change, ChangeError, Entry, Level, MapError, OutOfTables, PageSize,
    PageTable, ProtectError,
};
use mm::system::KernelSpaceError;

/// What lies where.
pub(crate) const LAYOUT: Layout = Layout::LINUX_LIKE;

/// Why the kernel has no tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpaceError {
    /// The boot loader mapped memory elsewhere than the layout has it.
    Elsewhere(u64),
    /// No memory for tables.
    OutOfTables,
    /// Something could not be mapped.
    Map(MapError),
    /// Something could not be changed.
    Change(ChangeError),
    /// A part of the image could not be made read-only.
    Protect(ProtectError),
    /// The library does not take it.
    Refused(KernelSpaceError),
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere(offset) => write!(f, "memory is mapped at {offset:#x}"),
            Self::OutOfTables => OutOfTables.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Change(error) => error.fmt(f),
            Self::Protect(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl From<MapError> for SpaceError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<ChangeError> for SpaceError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<ProtectError> for SpaceError {
    fn from(error: ProtectError) -> Self {
        Self::Protect(error)
    }
}

/// Makes the kernel's tables and leaves the boot loader's for them. Context: boot, when memory is up and no other CPU is.
///
/// # Errors
/// [`SpaceError`]; the boot loader's tables are still in use then.
pub(super) fn install() -> Result<(), SpaceError> {
    let offset = MEMORY.platform().physical_offset().unwrap_or_default();
    if offset != LAYOUT.direct_map.start().as_u64() {
        return Err(SpaceError::Elsewhere(offset));
    }
    let root = if cpu::has_five_levels() {
        Level::PGD
    } else {
        Level::P4D
    };
    let tables = MEMORY.new_page_table(root);
    let tables = tables.map_err(|_| SpaceError::OutOfTables)?;
    log::info!("x86/mm: page tables of {} levels", tables.levels());
    let largest = largest_pages();
    fill(&tables, largest)?;
    fixmap::close_early();
    // SAFETY: (1) code, stacks and data lie in the image, and everything else that is in use in RAM or in the frame table:
    // all are mapped where they were; the guard pages are not; (2) this is the only CPU that runs.
    unsafe { arch::use_tables(tables.root()) };
    // SAFETY: other CPUs start on this CPU's tables; nobody else maps in the regions of the layout.
    let adopted = unsafe { MEMORY.adopt_kernel_space(tables, LAYOUT, largest) };
    adopted.map_err(SpaceError::Refused)?;
    keep_image()
}

/// The largest pages that RAM is mapped with.
fn largest_pages() -> PageSize {
    // Free pages come and go one by one, where no table can be made.
    if MEMORY.hides_free_pages() {
        return PageSize::Size4K;
    }
    // Pages of the sampling guard pool are out of reach already, each by itself.
    if cpu::has_gigabyte_pages() && MEMORY.kfence_stats().is_err() {
        PageSize::Size1G
    } else {
        PageSize::Size2M
    }
}

fn fill(tables: &PageTable, largest: PageSize) -> Result<(), SpaceError> {
    map_memory(tables, largest)?;
    map_image(tables)?;
    map_framebuffer(tables)?;
    adopt_frame_table(tables)
}

/// Maps frames in a row.
pub(super) fn map(
    tables: &PageTable,
    at: VirtAddr,
    frames: PfnRange,
    attributes: Attributes,
    largest: PageSize,
) -> Result<(), MapError> {
    if frames.is_empty() {
        return Ok(());
    }
    // SAFETY: what this module maps is where the boot loader had it, with the rights that its use asks for.
    unsafe { MEMORY.map_pages(tables, (at, frames), attributes, largest) }
}

/// RAM, at the offset.
fn map_memory(tables: &PageTable, largest: PageSize) -> Result<(), SpaceError> {
    for ram in MEMORY.platform().mapped() {
        let frames = ram.whole_frames();
        let at = direct(frames.first());
        map(tables, at, frames, Attributes::KERNEL, largest)?;
    }
    if MEMORY.kfence_stats().is_ok() {
        let offset = LAYOUT.direct_map.start().as_u64();
        for page in arch::hidden_pages(offset, MEMORY.platform().mapped()) {
            protect(tables, page, false)?;
        }
    }
    Ok(())
}

/// Where a frame is in the map of memory.
fn direct(pfn: Pfn) -> VirtAddr {
    let start = LAYOUT.direct_map.start();
    start.checked_add(pfn.addr().as_u64()).unwrap_or(start)
}

/// The image: code is executed, constants are read, the rest is data; guard pages are not there.
fn map_image(tables: &PageTable) -> Result<(), SpaceError> {
    let Some(info) = boot_info() else {
        return Ok(());
    };
    let parts = image::parts(info);
    let rights = [
        Attributes::KERNEL_RX,
        Attributes::KERNEL_RO,
        Attributes::KERNEL,
        Attributes::KERNEL,
    ];
    for (part, attributes) in parts.iter().zip(rights) {
        let at = VirtAddr::new(image::virtual_address(part.range.start(), info));
        let frames = part.range.touched_frames();
        map(tables, at, frames, attributes, PageSize::Size2M)?;
    }
    for guard in arch::guard_pages() {
        let page = VirtRange::from_size(VirtAddr::new(guard), PAGE_SIZE).unwrap_or_default();
        // SAFETY: a guard page is never used; nobody runs on these tables yet.
        let receipt = unsafe { MEMORY.unmap_pages(tables, page, |_, _| ()) }?;
        receipt.complete();
    }
    Ok(())
}

/// Code and constants are not written through the map of memory either.
fn keep_image() -> Result<(), SpaceError> {
    let Some(info) = boot_info() else {
        return Ok(());
    };
    for part in image::parts(info).iter().take(2) {
        let frames = part.range.touched_frames();
        let bytes = frames.frames().saturating_mul(PAGE_SIZE);
        let alias = VirtRange::from_size(direct(frames.first()), bytes).unwrap_or_default();
        // SAFETY: nobody writes there.
        unsafe { MEMORY.set_memory_ro(alias) }?;
    }
    Ok(())
}

/// The framebuffer, where the boot loader has it.
fn map_framebuffer(tables: &PageTable) -> Result<(), SpaceError> {
    let found = boot_info().and_then(|info| info.framebuffer.as_ref());
    let Some(framebuffer) = found else {
        return Ok(());
    };
    let at = VirtAddr::from_ptr(framebuffer.buffer().as_ptr());
    let bytes = to_u64(framebuffer.buffer().len());
    let Some(first) = arch::physical(LAYOUT.direct_map.start().as_u64(), at.as_u64()) else {
        return Ok(());
    };
    let range = PhysRange::from_size(PhysAddr::new(first), bytes);
    let attributes = Attributes::KERNEL.with_cache(Cache::WriteCombining);
    let at = at.align_down(PAGE_SIZE);
    map(
        tables,
        at,
        range.touched_frames(),
        attributes,
        PageSize::Size2M,
    )?;
    Ok(())
}

/// The frame table's tables, as the boot made them: they stay for good.
fn adopt_frame_table(tables: &PageTable) -> Result<(), SpaceError> {
    let entries: Vec<(VirtAddr, Pfn)> = frame_table::upper_entries(Level::P4D.entry_bytes())
        .filter_map(|(at, bits)| Some((at, Entry::from_bits(bits).table_pfn()?)))
        .collect();
    for (at, table) in entries {
        // SAFETY: the frame table's tables lie in early memory and are never given back.
        unsafe { MEMORY.adopt_table(tables, at, table) }?;
    }
    Ok(())
}

/// Puts a page of the map of memory out of everybody's reach, or back; what other CPUs know of it stays as it is for some
/// time.
///
/// # Errors
/// It is not mapped, or there is no memory to split a large page.
pub(super) fn protect(
    tables: &PageTable,
    page: PhysAddr,
    is_reachable: bool,
) -> Result<(), ChangeError> {
    let at = direct(page.frame());
    let range = VirtRange::from_size(at, PAGE_SIZE).unwrap_or_default();
    let change = if is_reachable {
        Change::Reachable
    } else {
        Change::Unreachable
    };
    // A handler that frees an object of the pool must not find its table locked.
    let _irq = arch::irq::IrqGuard::new();
    // SAFETY: who asks is the library, for pages that nobody but their wrong users touches.
    let receipt = unsafe { MEMORY.change_pages(tables, range, change) }?;
    receipt.leave_stale();
    arch::forget_page(at.as_u64());
    Ok(())
}
