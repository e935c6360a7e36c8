//! The page tables a kernel starts with.
//!
//! | Virtual | What | Rights |
//! |---|---|---|
//! | 0 to 4 GiB | the same physical addresses | write, no execute |
//! | physical-memory offset + RAM | all RAM of the firmware's map | write, no execute |
//! | the same, below 4 GiB and not RAM | devices, ACPI tables | write, no execute, uncached |
//! | −2 GiB + load address | kernel image, boot stack above an unmapped page | by section |
//! | −1 GiB | the framebuffer, if any | write, no execute, uncached |
//!
//! RAM above 4 GiB is mapped only where the map says so: what lies between may be reserved for
//! devices. Below, `bootloader_api` promises that everything is mapped. The largest pages that
//! fit are used. With four levels and with five the same is mapped at the same addresses: the offset
//! is one that four levels can translate. Tables are reached through [`Tables`], so that host tests walk
//! them too.

use core::fmt;

use crate::image::{Image, VIRTUAL_OFFSET, physical};
use crate::levels::Levels;
use crate::regions::Regions;

/// The map of physical memory's address unless the kernel fixes one.
pub const DEFAULT_PHYSICAL_OFFSET: u64 = 0xffff_8880_0000_0000;
/// Where the framebuffer is mapped.
pub const FRAMEBUFFER_WINDOW: u64 = 0xffff_ffff_c000_0000;
/// The longest framebuffer that is mapped: what is left above −1 GiB, less the last 2 MiB.
pub(crate) const FRAMEBUFFER_LIMIT: u64 = 0x3fe0_0000;

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITE: u64 = 1 << 1;
/// Write-through and cache-disable: entry 3 of the PAT at reset, uncached.
pub(crate) const UNCACHED: u64 = 1 << 3 | 1 << 4;
/// Cache-disable only: uncached unless an MTRR says write-combining.
const UNCACHED_MINUS: u64 = 1 << 4;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const PAGE: u64 = 0x1000;
const GIB: u64 = 1 << 30;
const FOUR_GIB: u64 = 4 * GIB;
const LOWER_HALF_END: u64 = 1 << 47;
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;

/// Page-table pages: where they come from and how their entries are reached.
pub(crate) trait Tables {
    /// Returns the physical address of a zeroed page.
    fn allocate(&mut self) -> Option<u64>;
    /// Reads entry `index` (below 512) of the table at `table`.
    fn read(&self, table: u64, index: u64) -> u64;
    /// Writes entry `index` (below 512) of the table at `table`.
    fn write(&mut self, table: u64, index: u64, entry: u64);
}

/// Why page tables could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// There is no usable memory left for page tables below 4 GiB.
    OutOfTables,
    /// Two mappings want the same address.
    Occupied {
        /// The virtual address.
        at: u64,
    },
    /// The kernel asks for physical memory at an address that no map can start at.
    Offset {
        /// The address asked for.
        offset: u64,
    },
    /// The map of physical memory does not fit between its offset and the kernel image, or the
    /// end of the lower half.
    NoRoom {
        /// The offset.
        offset: u64,
        /// The first physical address without room.
        at: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfTables => {
                out.write_str("no usable memory for page tables below 4 GiB in the firmware's map")
            }
            Self::Occupied { at } => write!(out, "two mappings want virtual address {at:#x}"),
            Self::Offset { offset } => write!(
                out,
                "physical memory cannot be mapped at {offset:#x}: not a canonical page address"
            ),
            Self::NoRoom { offset, at } => write!(
                out,
                "memory from {at:#x} on does not fit into the map at offset {offset:#x}"
            ),
        }
    }
}

impl core::error::Error for MapError {}

/// What to map.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) regions: &'a Regions<'a>,
    pub(crate) image: &'a Image,
    /// How many levels the tables have.
    pub(crate) levels: Levels,
    /// Where physical memory is mapped.
    pub(crate) offset: u64,
    /// The end of what the CPU can address.
    pub(crate) physical_end: u64,
    /// The largest page size of the CPU.
    pub(crate) largest: PageSize,
    /// Physical address and length of the framebuffer.
    pub(crate) framebuffer: Option<(u64, u64)>,
}

/// The page sizes of the architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PageSize {
    Size4KiB,
    Size2MiB,
    Size1GiB,
}

impl PageSize {
    const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Bits of the offset in a page; also the position of the index into the last table.
    const fn shift(self) -> u32 {
        match self {
            Self::Size4KiB => 12,
            Self::Size2MiB => 21,
            Self::Size1GiB => 30,
        }
    }
}

/// A page to map.
#[derive(Debug, Clone, Copy)]
struct Page {
    at: u64,
    physical: u64,
    size: PageSize,
}

/// Makes the tables and returns the physical address of the top one.
pub(crate) fn build(tables: &mut impl Tables, plan: &Plan<'_>) -> Result<u64, MapError> {
    let is_canonical = plan.offset < LOWER_HALF_END || plan.offset >= UPPER_HALF;
    if !is_canonical || !plan.offset.is_multiple_of(PAGE) {
        return Err(MapError::Offset {
            offset: plan.offset,
        });
    }

    let root = tables.allocate().ok_or(MapError::OutOfTables)?;
    let root_shift = plan.levels.root_shift();
    let mut mapper = Mapper {
        tables,
        root,
        root_shift,
    };
    let lowest = match plan.levels {
        Levels::Four => root,
        Levels::Five => mapper.next_table(root, 0, 0)?,
    };
    let low = serve_on(mapper.tables, plan.image);
    mapper.tables.write(lowest, 0, low);
    map_image(&mut mapper, plan.image)?;
    map_physical(&mut mapper, plan)?;
    if let Some((start, length)) = plan.framebuffer {
        map_framebuffer(&mut mapper, start, length)?;
    }
    Ok(root)
}

/// Has the entry code's identity map serve on, without the right to execute; returns the entry that leads to it. Its own entries
/// lose that right too: who takes the table over need not know of the one above.
fn serve_on<T: Tables>(tables: &mut T, image: &Image) -> u64 {
    let table = physical(image.low_pointers);
    for index in 0..FOUR_GIB / GIB {
        let entry = tables.read(table, index);
        tables.write(table, index, entry | NO_EXECUTE);
    }
    table | PRESENT | WRITE | NO_EXECUTE
}

fn map_image<T: Tables>(mapper: &mut Mapper<'_, T>, image: &Image) -> Result<(), MapError> {
    let rights = [
        (image.text, 0),
        (image.rodata, NO_EXECUTE),
        ((image.data.0, image.stack_guard), WRITE | NO_EXECUTE),
        ((image.stack_bottom, image.data.1), WRITE | NO_EXECUTE),
    ];
    for ((start, end), flags) in rights {
        let physical = start.wrapping_sub(VIRTUAL_OFFSET);
        let length = end.saturating_sub(start);
        mapper.map(start, physical, length, flags, PageSize::Size4KiB)?;
    }
    Ok(())
}

fn map_physical<T: Tables>(mapper: &mut Mapper<'_, T>, plan: &Plan<'_>) -> Result<(), MapError> {
    let ceiling = if plan.offset < LOWER_HALF_END {
        LOWER_HALF_END
    } else {
        VIRTUAL_OFFSET
    };
    let room = ceiling.saturating_sub(plan.offset);

    let mut at = 0;
    while at < plan.physical_end {
        let (end, is_ram) = longest_run(plan, at);
        let wanted = is_ram || at < FOUR_GIB;
        if wanted && end > room {
            return Err(MapError::NoRoom {
                offset: plan.offset,
                at: room.max(at),
            });
        }
        if wanted {
            let cache = if is_ram { 0 } else { UNCACHED };
            let flags = WRITE | NO_EXECUTE | cache;
            let target = plan.offset.saturating_add(at);
            mapper.map(target, at, end.saturating_sub(at), flags, plan.largest)?;
        }
        at = end;
    }
    Ok(())
}

/// Returns the end of the memory of one nature that starts at `at`, however many regions it
/// takes; it does not cross 4 GiB or the end of what the CPU can address.
fn longest_run(plan: &Plan<'_>, at: u64) -> (u64, bool) {
    let limit = if at < FOUR_GIB {
        FOUR_GIB.min(plan.physical_end)
    } else {
        plan.physical_end
    };
    let first = plan.regions.run_at(at);
    let mut end = first.end;
    while end < limit {
        let next = plan.regions.run_at(end);
        if next.is_ram != first.is_ram {
            break;
        }
        end = next.end;
    }
    (end.min(limit), first.is_ram)
}

fn map_framebuffer<T: Tables>(
    mapper: &mut Mapper<'_, T>,
    start: u64,
    length: u64,
) -> Result<(), MapError> {
    let skipped = start % PAGE;
    let physical = start.saturating_sub(skipped);
    let length = length
        .saturating_add(skipped)
        .checked_next_multiple_of(PAGE)
        .ok_or(MapError::OutOfTables)?;
    let flags = WRITE | NO_EXECUTE | UNCACHED_MINUS;
    mapper.map(
        FRAMEBUFFER_WINDOW,
        physical,
        length,
        flags,
        PageSize::Size2MiB,
    )
}

/// Tables being filled.
struct Mapper<'a, T> {
    tables: &'a mut T,
    root: u64,
    /// The lowest bit of an address that chooses an entry of the root.
    root_shift: u32,
}

impl<T: Tables> Mapper<'_, T> {
    /// Maps `length` bytes (whole pages) with the largest pages that fit, up to `largest`.
    fn map(
        &mut self,
        start: u64,
        physical: u64,
        length: u64,
        flags: u64,
        largest: PageSize,
    ) -> Result<(), MapError> {
        let mut done = 0_u64;
        while done < length {
            let at = start.wrapping_add(done);
            let from = physical.wrapping_add(done);
            let size = fitting(at | from, length.saturating_sub(done), largest);
            let page = Page {
                at,
                physical: from,
                size,
            };
            self.install(page, flags)?;
            done = done.saturating_add(size.bytes());
        }
        Ok(())
    }

    fn install(&mut self, page: Page, flags: u64) -> Result<(), MapError> {
        let mut table = self.root;
        let mut shift = self.root_shift;
        while shift > page.size.shift() {
            table = self.next_table(table, index(page.at, shift), page.at)?;
            shift = shift.saturating_sub(9);
        }

        let place = index(page.at, shift);
        if self.tables.read(table, place) & PRESENT != 0 {
            return Err(MapError::Occupied { at: page.at });
        }
        let large = if page.size == PageSize::Size4KiB {
            0
        } else {
            LARGE
        };
        let entry = page.physical & ADDRESS | flags | large | PRESENT;
        self.tables.write(table, place, entry);
        Ok(())
    }

    fn next_table(&mut self, table: u64, place: u64, at: u64) -> Result<u64, MapError> {
        let entry = self.tables.read(table, place);
        if entry & PRESENT == 0 {
            let next = self.tables.allocate().ok_or(MapError::OutOfTables)?;
            self.tables.write(table, place, next | PRESENT | WRITE);
            return Ok(next);
        }
        // Tables of this module never forbid execution; the entry code's do, and are not ours.
        if entry & (LARGE | NO_EXECUTE) != 0 {
            return Err(MapError::Occupied { at });
        }
        Ok(entry & ADDRESS)
    }
}

fn fitting(alignment: u64, length: u64, largest: PageSize) -> PageSize {
    let fits = |size: &PageSize| {
        let bytes = size.bytes();
        *size <= largest && alignment.is_multiple_of(bytes) && length >= bytes
    };
    let candidates = [PageSize::Size1GiB, PageSize::Size2MiB];
    candidates
        .into_iter()
        .find(fits)
        .unwrap_or(PageSize::Size4KiB)
}

const fn index(at: u64, shift: u32) -> u64 {
    at.wrapping_shr(shift) & 511
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may add")]
mod tests;
