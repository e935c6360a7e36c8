//! The frame table's place in the address space, and a small mapper for it.
//!
//! Until the kernel has page tables of its own, these mappings go into the boot loader's. The upper tables
//! are made at boot. Those of the lowest level come with the sections that are mapped, so that nothing has
//! to be allocated for them when a section is populated.
#![expect(
    unsafe_code,
    reason = "walks and changes the page tables that the CPU uses"
)]

use super::KernelPlatform;
use crate::arch::lock::IrqLock;
use crate::num::to_usize;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::{Pfn, PhysAddr, PhysRange, VirtAddr};
use mm::config::PAGE_SIZE;
use mm::frame::FrameTable;
use mm::memblock::{AllocError, Memblock, Request};
use mm::platform::MapFrameTableError;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};

/// Where the frame table starts: as the address space of `docs/architecture.md` has it.
pub(super) const BASE: VirtAddr = VirtAddr::new(0xffff_ea00_0000_0000);

/// One table of the lowest level, for two sections; the upper ones are there by then.
pub(super) const TABLE_PAGES: u64 = 1;

/// The lowest bit of an address that chooses an entry, in the root table …
const UPPERMOST_ENTRY: u32 = 39;
/// … in the next one, whose entries each map as much as a middle table, …
const MIDDLE: u32 = 30;
/// … in a middle one …
const MIDDLE_ENTRY: u32 = 21;
/// … and in one of the lowest level.
const LOWEST: u32 = 12;
/// Bytes that a middle table maps.
const SPAN: u64 = 1 << MIDDLE;
const ENTRIES: usize = 512;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Why the upper tables could not be made.
#[derive(Debug)]
pub(super) enum PrepareError {
    /// Early memory ran out.
    NoMemory(AllocError),
    /// The address space has no room for them.
    Map(MapFrameTableError),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory(error) => write!(f, "no memory for page tables: {error}"),
            Self::Map(error) => write!(f, "no place for the frame table: {error:?}"),
        }
    }
}

/// A page table.
type Table = [AtomicU64; ENTRIES];

/// Tables that nobody needed yet: each names the next one in its first entry.
static SPARE: IrqLock<Option<PhysAddr>> = IrqLock::new(None);

/// Makes the tables above the lowest level for the records of all of `memblock`'s RAM: one for each
/// 128 GiB.
///
/// # Errors
/// Early memory ran out, or the tables cannot be made.
pub(super) fn prepare(
    platform: &KernelPlatform,
    memblock: &mut Memblock,
) -> Result<(), PrepareError> {
    let mut places: Vec<u64> = Vec::new();
    for ram in memblock.frames(None) {
        let last = ram.frames.end().as_u64().saturating_sub(1);
        for place in table_of(ram.frames.first())..=table_of(Pfn::new(last)) {
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }
    let root = Root::find(platform).map_err(PrepareError::Map)?;
    let request = Request::bytes(PAGE_SIZE).align(PAGE_SIZE);
    for place in places {
        let at = place
            .checked_mul(SPAN)
            .and_then(|offset| BASE.checked_add(offset))
            .ok_or(PrepareError::Map(MapFrameTableError::Unsupported))?;
        let mut failed = None;
        let mut page = || match memblock.alloc_raw(platform, &request) {
            Ok(page) => Some(page.leak().start()),
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        let walked = root.middle(at, &mut page);
        if let Some(error) = failed {
            return Err(PrepareError::NoMemory(error));
        }
        let _ = walked.map_err(PrepareError::Map)?;
    }
    Ok(())
}

/// Which table of the level above the lowest maps the record of a frame.
fn table_of(pfn: Pfn) -> u64 {
    let offset = pfn.section().saturating_mul(FrameTable::SECTION_BYTES);
    offset.wrapping_shr(MIDDLE)
}

/// Maps the records of a section, which end in the same 2 MiB as they start, at `at`. `tables` is one
/// page; every other section does without.
pub(super) fn map(
    platform: &KernelPlatform,
    at: VirtAddr,
    ram: PhysRange,
    tables: PhysRange,
) -> Result<(), MapFrameTableError> {
    let root = Root::find(platform)?;
    let middle = root.middle(at, &mut || None)?;
    let mut page = Some(tables.start());
    let lowest = root.next(middle, (at, MIDDLE_ENTRY), &mut || page.take())?;
    if let Some(page) = page {
        give_spare(platform, page);
    }

    let first = index(at, LOWEST);
    let pages = to_usize(ram.size().checked_div(PAGE_SIZE).unwrap_or_default());
    let entries = lowest.get(first..first.saturating_add(pages));
    let entries = entries.ok_or(MapFrameTableError::Unsupported)?;
    if entries
        .iter()
        .any(|entry| entry.load(Ordering::Relaxed) != 0)
    {
        return Err(MapFrameTableError::Occupied(at));
    }
    let mut page = ram.start().as_u64();
    for entry in entries {
        // Nothing was mapped here, so no CPU can have cached anything.
        let rights = PRESENT | WRITABLE | GLOBAL | NO_EXECUTE;
        entry.store(page | rights, Ordering::Release);
        page = page.wrapping_add(PAGE_SIZE);
    }
    Ok(())
}

/// Keeps a page for a table that somebody will need.
fn give_spare(platform: &KernelPlatform, page: PhysAddr) {
    let Some(offset) = platform.physical_offset() else {
        return;
    };
    let mut first = SPARE.lock();
    let [link, ..] = table_at(offset, page.as_u64());
    link.store(first.map_or(0, PhysAddr::as_u64), Ordering::Relaxed);
    *first = Some(page);
}

/// A page for a page table that the frame table did not need. It holds anything.
pub(super) fn take_spare(platform: &KernelPlatform) -> Option<PhysAddr> {
    let offset = platform.physical_offset()?;
    let mut first = SPARE.lock();
    let page = (*first)?;
    let [link, ..] = table_at(offset, page.as_u64());
    let next = link.load(Ordering::Relaxed);
    *first = (next != 0).then_some(PhysAddr::new(next));
    Some(page)
}

/// The tables in use.
#[derive(Clone, Copy)]
struct Root {
    /// What to add to a physical address.
    offset: u64,
    table: &'static Table,
}

impl Root {
    fn find(platform: &KernelPlatform) -> Result<Self, MapFrameTableError> {
        let offset = platform
            .physical_offset()
            // The walk knows four levels.
            .filter(|_| !Cr4::read().contains(Cr4Flags::L5_PAGING))
            .ok_or(MapFrameTableError::Unsupported)?;
        let (root, _) = Cr3::read();
        let table = table_at(offset, root.start_address().as_u64());
        Ok(Self { offset, table })
    }

    /// The table above the lowest level on the way to `at`.
    fn middle(
        self,
        at: VirtAddr,
        pages: &mut dyn FnMut() -> Option<PhysAddr>,
    ) -> Result<&'static Table, MapFrameTableError> {
        let upper = self.next(self.table, (at, UPPERMOST_ENTRY), pages)?;
        self.next(upper, (at, MIDDLE), pages)
    }

    /// The table that an entry leads to; a new one if it leads nowhere yet.
    fn next(
        self,
        table: &'static Table,
        (at, shift): (VirtAddr, u32),
        pages: &mut dyn FnMut() -> Option<PhysAddr>,
    ) -> Result<&'static Table, MapFrameTableError> {
        let entry = table.get(index(at, shift));
        let entry = entry.ok_or(MapFrameTableError::Unsupported)?;
        let found = entry.load(Ordering::Acquire);
        if found & LARGE != 0 {
            return Err(MapFrameTableError::Occupied(at));
        }
        if found & PRESENT != 0 {
            return Ok(table_at(self.offset, found & ADDRESS));
        }
        let page = pages().ok_or(MapFrameTableError::OutOfTables)?.as_u64();
        let next = table_at(self.offset, page);
        for entry in next {
            entry.store(0, Ordering::Relaxed);
        }
        entry.store(page | PRESENT | WRITABLE, Ordering::Release);
        Ok(next)
    }
}

/// The table at a physical address.
fn table_at(offset: u64, table: u64) -> &'static Table {
    let table = core::ptr::with_exposed_provenance(to_usize(offset.wrapping_add(table)));
    // SAFETY: `table` is the root that the CPU uses, or an entry of a table names it, or it is a page
    // that was given for a table: mapped at the offset, as all RAM is, and a table for good. Entries
    // are read and written as atomics here; those of the frame table are this module's alone.
    unsafe { &*table }
}

fn index(at: VirtAddr, shift: u32) -> usize {
    to_usize(at.as_u64().wrapping_shr(shift) & 0x1ff)
}
