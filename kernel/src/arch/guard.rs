//! Taking guard pages out of the boot loader's page tables.
//!
//! The boot tables map the kernel image with large pages. [`unmap`] splits the large page around
//! a guard page and clears the one entry. It works on whatever tables are current; a kernel that
//! installs tables of its own must leave the pages of [`CpuLocal::stacks`] unmapped itself.
//!
//! [`CpuLocal::stacks`]: super::local::CpuLocal::stacks

use super::lock::IrqLock;
use crate::num::to_usize;
use core::fmt;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{PageTable, PageTableFlags};
use x86_64::{PhysAddr, VirtAddr};

/// Page tables for splitting: one per 2 MiB of image that has guard pages, and one per 1 GiB.
const SPARE_TABLES: usize = 6;

static SPARE: IrqLock<Spare> = IrqLock::new(Spare {
    tables: [const { PageTable::new() }; SPARE_TABLES],
    used: 0,
});

struct Spare {
    tables: [PageTable; SPARE_TABLES],
    used: usize,
}

/// Why a guard page stays mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardError {
    /// The page was not mapped to begin with: it guards already.
    NotMapped,
    /// All spare tables are used up.
    NoTable,
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMapped => "the guard page is not mapped",
            Self::NoTable => "no page table left to split a large page with",
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
    fn leaf(self, page: VirtAddr) -> Option<(&'static mut PageTableEntry, Level)> {
        let (root, _) = Cr3::read();
        let mut table = root.start_address().as_u64();
        let mut level = Level::root();
        loop {
            let entry = self.entry(table, level.index(page));
            let flags = entry.flags();
            if !flags.contains(PageTableFlags::PRESENT) {
                return None;
            }
            match level.lower() {
                Some(lower) if !flags.contains(PageTableFlags::HUGE_PAGE) => {
                    table = entry.addr().as_u64();
                    level = lower;
                }
                _ => return Some((entry, level)),
            }
        }
    }

    fn entry(self, table: u64, index: usize) -> &'static mut PageTableEntry {
        let address = to_usize(table.wrapping_add(self.physical_offset));
        let table = core::ptr::with_exposed_provenance_mut::<PageTable>(address);
        // SAFETY: `table` came from CR3 or from a present entry, so a page table lies there, and
        // the boot loader mapped all physical memory at the offset. Only this module changes
        // tables while the boot tables are in use, one caller at a time (`SPARE` is held).
        let table = unsafe { &mut *table };
        &mut table[index]
    }

    fn physical(self, address: VirtAddr) -> Option<u64> {
        let (entry, level) = self.leaf(address)?;
        // In a large page's entry a low address bit selects a memory type: mask it.
        let base = entry.addr().as_u64() & !level.offset_mask();
        Some(base | address.as_u64() & level.offset_mask())
    }
}

/// Unmaps the page at `page`, splitting large pages on the way.
///
/// # Safety
///
/// 1. Nothing uses the page, now or later.
/// 2. `tables` describes the current address space, and nobody else changes it meanwhile.
pub(super) unsafe fn unmap(tables: Tables, page: VirtAddr) -> Result<(), GuardError> {
    let mut spare = SPARE.lock();
    loop {
        let (entry, level) = tables.leaf(page).ok_or(GuardError::NotMapped)?;
        if level == Level::PAGE {
            entry.set_unused();
            tlb::flush(page);
            return Ok(());
        }
        split(&mut spare, tables, entry, level)?;
    }
}

/// Replaces a large page by a table of 512 smaller ones that map the same.
fn split(
    spare: &mut Spare,
    tables: Tables,
    entry: &mut PageTableEntry,
    level: Level,
) -> Result<(), GuardError> {
    let used = spare.used;
    let table = spare.tables.get_mut(used).ok_or(GuardError::NoTable)?;
    let table_physical = tables
        .physical(VirtAddr::from_ptr(table))
        .ok_or(GuardError::NotMapped)?;
    let lower = level.lower().ok_or(GuardError::NotMapped)?;
    spare.used = used.saturating_add(1);

    let mut flags = entry.flags();
    if lower == Level::PAGE {
        // In a level-one entry this bit would select a memory type.
        flags.remove(PageTableFlags::HUGE_PAGE);
    }
    let mut physical = entry.addr().as_u64() & !level.offset_mask();
    for small in table.iter_mut() {
        small.set_addr(PhysAddr::new_truncate(physical), flags);
        physical = physical.wrapping_add(lower.span());
    }

    // The rights stay with the small pages; the link allows everything.
    let link = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    entry.set_addr(PhysAddr::new_truncate(table_physical), link);
    tlb::flush_all();
    Ok(())
}
