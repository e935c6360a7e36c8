//! The frame table's place in the address space, and its mappings.
//!
//! The upper tables are made at boot. Those of the lowest level come with the sections that are mapped, so
//! that nothing has to be allocated for them when a section is populated. Until then one page of zeros stands in all places:
//! whoever looks for a record finds that of no block.

use super::KernelPlatform;
use super::tables::{self, Blank, MIDDLE, Root};
use crate::num::to_usize;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::{Pfn, PhysAddr, PhysRange, VirtAddr};
use mm::config::PAGE_SIZE;
use mm::frame::FrameTable;
use mm::memblock::{AllocError, Memblock, Request};
use mm::platform::MapFrameTableError;
use spin::Once;

/// Where the frame table starts: as the address space of `docs/architecture.md` has it.
pub(super) const BASE: VirtAddr = VirtAddr::new(0xffff_ea00_0000_0000);

/// One table of the lowest level, for two sections; the upper ones are there by then.
pub(super) const TABLE_PAGES: u64 = 1;

/// Bytes that a table of the level above the lowest maps.
const SPAN: u64 = 1 << MIDDLE;

/// What stands where no section is mapped.
static BLANK: Once<Blank> = Once::new();

/// How much of the array can be read.
static READABLE: AtomicU64 = AtomicU64::new(0);

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

/// Makes the tables above the lowest level for the records of all of `memblock`'s RAM: one for each
/// 128 GiB. Where there is no RAM between, and in all of them, records read as zeros.
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
    let mut failed = None;
    let mut page = || match memblock.alloc_raw(platform, &request) {
        Ok(page) => Some(page.leak().start()),
        Err(error) => {
            failed = Some(error);
            None
        }
    };
    let made = tables(platform, root, &places, &mut page);
    if let Some(error) = failed {
        return Err(PrepareError::NoMemory(error));
    }
    let blank = made.map_err(PrepareError::Map)?;
    BLANK.call_once(|| blank);
    let end = places.last().map_or(0, |last| last.saturating_add(1));
    READABLE.store(end.saturating_mul(SPAN), Ordering::Relaxed);
    Ok(())
}

fn tables(
    platform: &KernelPlatform,
    root: Root,
    places: &[u64],
    page: &mut dyn FnMut() -> Option<PhysAddr>,
) -> Result<Blank, MapFrameTableError> {
    let mut blank = [PhysAddr::ZERO; 3];
    for place in &mut blank {
        *place = page().ok_or(MapFrameTableError::OutOfTables)?;
    }
    let blank = Blank::new(platform, blank)?;
    let mut next = 0;
    for &place in places {
        for hole in next..place {
            root.leave_blank(start_of(hole)?, blank, page)?;
        }
        let _ = root.middle(start_of(place)?, blank, page)?;
        next = place.saturating_add(1);
    }
    Ok(blank)
}

/// The first address that a table above the lowest level maps.
fn start_of(place: u64) -> Result<VirtAddr, MapFrameTableError> {
    let at = place
        .checked_mul(SPAN)
        .and_then(|offset| BASE.checked_add(offset));
    at.ok_or(MapFrameTableError::Unsupported)
}

/// How many bytes can be read: those of all records up to the last one of RAM.
pub(super) fn readable() -> u64 {
    READABLE.load(Ordering::Relaxed)
}

/// The entries of 512 GiB that lead to the frame table's tables, each with the first address it maps; `bytes` is what one
/// maps.
pub(super) fn upper_entries(bytes: u64) -> impl Iterator<Item = (VirtAddr, u64)> {
    let region = super::address_space::LAYOUT.vmemmap;
    let root = Root::find(super::MEMORY.platform()).ok();
    let count = region.size().checked_div(bytes).unwrap_or_default();
    (0..count).filter_map(move |index| {
        let at = BASE.checked_add(index.saturating_mul(bytes))?;
        Some((at, root?.entry_of(at)))
    })
}

/// Which table of the level above the lowest maps the record of a frame.
fn table_of(pfn: Pfn) -> u64 {
    let offset = pfn.section().saturating_mul(FrameTable::SECTION_BYTES);
    offset.wrapping_shr(MIDDLE)
}

/// Maps the records of a section, which end in the same 2 MiB as they start, at `at`. `spare` is one page for
/// a table; every other section does without, and the page stays as it is.
pub(super) fn map(
    platform: &KernelPlatform,
    at: VirtAddr,
    ram: PhysRange,
    spare: PhysRange,
) -> Result<(), MapFrameTableError> {
    let mut page = Some(spare.start());
    let root = Root::find(platform)?;
    let blank = *BLANK.get().ok_or(MapFrameTableError::Unsupported)?;
    let entries = root.lowest(at, blank, &mut || page.take())?;

    let pages = to_usize(ram.size().checked_div(PAGE_SIZE).unwrap_or_default());
    let entries = entries
        .get(..pages)
        .ok_or(MapFrameTableError::Unsupported)?;
    if !entries.iter().all(|entry| tables::is_blank(entry, blank)) {
        return Err(MapFrameTableError::Occupied(at));
    }
    let mut page = ram.start();
    for entry in entries {
        // A CPU that remembers the page of zeros goes on reading that for some time, as the library knows.
        tables::set(entry, page);
        page = page.saturating_add(PAGE_SIZE);
    }
    Ok(())
}
