//! Taking guard pages out of the boot loader's page tables.
//!
//! The boot tables map the kernel image with large pages. [`unmap`] splits the large page around
//! a guard page and clears the one entry. It works on whatever tables are current; a kernel that
//! installs tables of its own must leave the pages of [`CpuLocal::stacks`] unmapped itself.
//!
//! [`CpuLocal::stacks`]: super::local::CpuLocal::stacks

use crate::num::{to_u64, to_usize};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use mm::addr::PhysRange;
use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};

/// Entries of a page table.
const ENTRIES: usize = 512;
/// Bits of an entry (SDM vol. 3A, "4-Level Paging and 5-Level Paging").
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// Write-through or not cached at all: device memory.
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page tables for splitting: one per 2 MiB of image that has guard pages, and one per 1 GiB; two more for the sampling
/// guard pool in the map of memory; up to four for the slots of [`set_entry`].
const SPARE_TABLES: usize = 12;

static SPARE: [Table; SPARE_TABLES] = [const { Table::new() }; SPARE_TABLES];
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

/// A page table; atomic, because the CPU reads it at any time.
#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }
}

/// Why a guard page stays mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardError {
    /// The page was not mapped to begin with: it guards already.
    NotMapped,
    /// All spare tables are used up.
    NoTable,
    /// Something else is mapped there.
    Taken,
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMapped => "the guard page is not mapped",
            Self::NoTable => "no page table left to split a large page with",
            Self::Taken => "something else is mapped there",
        })
    }
}

/// How high a table stands: 1 maps pages, the root is 4 or 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level(u32);

impl Level {
    const PAGE: Self = Self(1);

    fn root() -> Self {
        let five = Cr4::read().contains(Cr4Flags::L5_PAGING);
        Self(if five { 5 } else { 4 })
    }

    fn lower(self) -> Option<Self> {
        self.0.checked_sub(1).filter(|&level| level > 0).map(Self)
    }

    /// Address bits below the ones that index a table of this level.
    const fn shift(self) -> u32 {
        self.0
            .saturating_sub(1)
            .saturating_mul(9)
            .saturating_add(12)
    }

    /// Bytes that one entry maps.
    const fn span(self) -> u64 {
        1_u64.wrapping_shl(self.shift())
    }

    /// The low bits of an address that an entry passes through.
    const fn offset_mask(self) -> u64 {
        self.span().wrapping_sub(1)
    }

    fn index(self, address: VirtAddr) -> usize {
        to_usize(address.as_u64().wrapping_shr(self.shift()) & 0x1ff)
    }
}

/// The tables in use, reached through the boot loader's mapping of physical memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    /// What to add to a physical address.
    pub(super) physical_offset: u64,
}

impl Tables {
    /// The entry that maps `page`, and its level: a large page's entry is above level one.
    fn leaf(self, page: VirtAddr) -> Option<(&'static AtomicU64, Level)> {
        let (entries, level) = self.look_up(page)?;
        let entry = entries.first()?;
        (entry.load(Ordering::Relaxed) & PRESENT != 0).then_some((entry, level))
    }

    /// The lowest table on the way to `page`, from the entry for `page` on, and its level.
    fn look_up(self, page: VirtAddr) -> Option<(&'static [AtomicU64], Level)> {
        let (root, _) = Cr3::read();
        let mut table = root.start_address().as_u64();
        let mut level = Level::root();
        loop {
            let entries = self.table(table).get(level.index(page)..)?;
            let bits = entries.first()?.load(Ordering::Relaxed);
            match level.lower() {
                Some(lower) if leads_down(bits) => {
                    table = bits & ADDRESS;
                    level = lower;
                }
                _ => return Some((entries, level)),
            }
        }
    }

    /// Cuts `range` of physical memory into the runs that are mapped as ordinary memory at the
    /// offset, lowest first.
    pub(super) fn mapped_runs(self, range: PhysRange) -> Vec<PhysRange> {
        let mut runs = Vec::new();
        let mut run = PhysRange::from_size(range.start(), 0);
        let mut at = range.start();
        while at < range.end() {
            let page = VirtAddr::new_truncate(at.as_u64().wrapping_add(self.physical_offset));
            let Some((entries, level)) = self.look_up(page) else {
                break;
            };
            for entry in entries {
                let bits = entry.load(Ordering::Relaxed);
                let is_lowest = level == Level::PAGE;
                if at >= range.end() || (!is_lowest && leads_down(bits)) {
                    break;
                }
                // The offset is aligned to the largest pages, so physical and virtual borders agree.
                let here = at.align_down(level.span());
                let next = here.saturating_add(level.span()).min(range.end());
                if bits & PRESENT == 0 || bits & UNCACHED != 0 {
                    runs.extend((!run.is_empty()).then_some(run));
                    run = PhysRange::from_size(next, 0);
                } else {
                    run = PhysRange::new(run.start(), next).unwrap_or(run);
                }
                at = next;
            }
        }
        runs.extend((!run.is_empty()).then_some(run));
        runs
    }

    fn table(self, table: u64) -> &'static [AtomicU64] {
        let address = to_usize(table.wrapping_add(self.physical_offset));
        let table = core::ptr::with_exposed_provenance::<Table>(address);
        // SAFETY: `table` came from CR3 or from a present entry, so a page table lies there for
        // as long as it is in use, and the boot loader mapped all physical memory at the offset.
        let table = unsafe { &*table };
        &table.0
    }

    pub(super) fn physical(self, address: VirtAddr) -> Option<u64> {
        let (entry, level) = self.leaf(address)?;
        Some(base_of(entry, level) | address.as_u64() & level.offset_mask())
    }
}

/// Whether an entry leads to a table.
const fn leads_down(bits: u64) -> bool {
    bits & PRESENT != 0 && bits & LARGE == 0
}

/// The physical address that a leaf entry maps; in a large page's entry one address bit selects
/// a memory type and is masked.
fn base_of(entry: &AtomicU64, level: Level) -> u64 {
    entry.load(Ordering::Relaxed) & ADDRESS & !level.offset_mask()
}

/// Unmaps the page at `page`, splitting large pages on the way.
///
/// # Safety
///
/// 1. Nothing uses the page, now or later.
/// 2. `tables` describes the current address space, and nobody else changes it meanwhile.
pub(super) unsafe fn unmap(tables: Tables, page: VirtAddr) -> Result<(), GuardError> {
    loop {
        let (entry, level) = tables.leaf(page).ok_or(GuardError::NotMapped)?;
        if level == Level::PAGE {
            entry.store(0, Ordering::Relaxed);
            tlb::flush(page);
            return Ok(());
        }
        split(tables, entry, level)?;
    }
}

/// Makes a page that nobody can touch, or one that everybody can, splitting large pages on the way. Other CPUs
/// may know it as it was for some time.
///
/// # Safety
///
/// 1. Whoever touches the page while nobody can expects the page fault.
/// 2. `tables` describes the current address space, and nobody else splits pages meanwhile.
pub(super) unsafe fn set_present(
    tables: Tables,
    page: VirtAddr,
    is_present: bool,
) -> Result<(), GuardError> {
    loop {
        let (entries, level) = tables.look_up(page).ok_or(GuardError::NotMapped)?;
        let entry = entries.first().ok_or(GuardError::NotMapped)?;
        let bits = entry.load(Ordering::Relaxed);
        if level == Level::PAGE {
            match is_present {
                true => entry.fetch_or(PRESENT, Ordering::Relaxed),
                false => entry.fetch_and(!PRESENT, Ordering::Relaxed),
            };
            tlb::flush(page);
            return Ok(());
        }
        match (bits & PRESENT != 0, is_present) {
            (false, _) => return Err(GuardError::NotMapped),
            (true, true) => return Ok(()),
            (true, false) => split(tables, entry, level)?,
        }
    }
}

/// Writes the entry for a page that nothing is mapped at, or that this has mapped; tables are made on the way. Whoever knows
/// the page as it was still does.
///
/// # Errors
///
/// Something else is mapped there, or there is no spare table.
///
/// # Safety
///
/// 1. Nobody uses the page for anything but what the entry is for.
/// 2. `tables` describes the current address space, and nobody else changes it meanwhile.
pub(super) unsafe fn set_entry(
    tables: Tables,
    page: VirtAddr,
    bits: u64,
) -> Result<(), GuardError> {
    loop {
        let (entries, level) = tables.look_up(page).ok_or(GuardError::NotMapped)?;
        let entry = entries.first().ok_or(GuardError::NotMapped)?;
        let is_taken = entry.load(Ordering::Relaxed) != 0;
        if is_taken && (level != Level::PAGE || bits != 0) {
            return Err(GuardError::Taken);
        }
        if level == Level::PAGE {
            entry.store(bits, Ordering::Release);
            return Ok(());
        }
        let (_, table_physical) = spare_table(tables)?;
        entry.store(table_physical | PRESENT | WRITABLE, Ordering::Release);
    }
}

/// A table of zeroes that nobody uses yet, and where it is.
fn spare_table(tables: Tables) -> Result<(&'static Table, u64), GuardError> {
    let spare = SPARE_USED.fetch_add(1, Ordering::Relaxed);
    let table = SPARE.get(spare).ok_or(GuardError::NoTable)?;
    let physical = tables.physical(VirtAddr::from_ptr(table));
    Ok((table, physical.ok_or(GuardError::NotMapped)?))
}

/// Replaces a large page by a table of 512 smaller ones that map the same.
fn split(tables: Tables, entry: &AtomicU64, level: Level) -> Result<(), GuardError> {
    let lower = level.lower().ok_or(GuardError::NotMapped)?;
    let (table, table_physical) = spare_table(tables)?;

    let mut rights = entry.load(Ordering::Relaxed) & !ADDRESS;
    if lower == Level::PAGE {
        // In a level-one entry this bit would select a memory type.
        rights &= !LARGE;
    }
    let base = base_of(entry, level);
    for (index, small) in table.0.iter().enumerate() {
        let offset = to_u64(index).wrapping_mul(lower.span());
        small.store(base.wrapping_add(offset) | rights, Ordering::Relaxed);
    }

    // The rights stay with the small pages; the link allows everything.
    entry.store(table_physical | PRESENT | WRITABLE, Ordering::Release);
    tlb::flush_all();
    Ok(())
}
