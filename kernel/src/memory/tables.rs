//! The frame table's page tables: a walk that makes what is missing.
//!
//! They are made before there is memory, in the boot loader's tables, and the kernel's own tables take them over
//! (`address_space`). Entries are written as atomics, under the populate lock, in entries of 512 GiB that nothing else
//! uses. A walk takes no memory: who makes tables brings the pages.
#![expect(
    unsafe_code,
    reason = "walks and changes the page tables that the CPU uses"
)]

use super::KernelPlatform;
use crate::arch::cpu;
use crate::num::to_usize;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::{PhysAddr, VirtAddr};
use mm::platform::MapFrameTableError as WalkError;
use x86_64::registers::control::Cr3;

/// The lowest bit of an address that chooses an entry, in the root of five levels …
const FIFTH_ENTRY: u32 = 48;
/// … in the root of four, or the table of that level, …
const UPPERMOST_ENTRY: u32 = 39;
/// … in the next one, whose entries each map as much as a middle table, …
pub(super) const MIDDLE: u32 = 30;
/// … in a middle one …
const MIDDLE_ENTRY: u32 = 21;
/// … and in one of the lowest level.
const LOWEST: u32 = 12;
const ENTRIES: usize = 512;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What stands in places where nothing is mapped yet: a page of zeros, a table full of it, and a table full of that.
#[derive(Clone, Copy, Default)]
pub(super) struct Blank {
    /// The entry of the lowest level, …
    pub(super) page: u64,
    /// … of the one above …
    lowest: u64,
    /// … and of the one above that.
    middle: u64,
}

impl Blank {
    /// Makes it of three `pages`, the first of which holds zeros.
    ///
    /// # Errors
    /// `Unsupported` before memory is mapped.
    pub(super) fn new(platform: &KernelPlatform, pages: [PhysAddr; 3]) -> Result<Self, WalkError> {
        let offset = platform.physical_offset();
        let offset = offset.ok_or(WalkError::Unsupported)?;
        let [page, lowest, middle] = pages.map(PhysAddr::as_u64);
        let blank = Self {
            // Not global: what a CPU remembers of it goes with the next load of CR3.
            page: page | PRESENT | NO_EXECUTE,
            lowest: lowest | PRESENT | WRITABLE,
            middle: middle | PRESENT | WRITABLE,
        };
        fill(table_at(offset, page), 0);
        fill(table_at(offset, lowest), blank.page);
        fill(table_at(offset, middle), blank.lowest);
        Ok(blank)
    }
}

fn fill(table: &Table, bits: u64) {
    for entry in table {
        entry.store(bits, Ordering::Relaxed);
    }
}

/// A page table.
pub(super) type Table = [AtomicU64; ENTRIES];

/// The tables in use, from the fourth level down: what they map of the layout lies in the last 256 TiB, for which a root
/// of five levels has one entry.
#[derive(Clone, Copy)]
pub(super) struct Root {
    /// What to add to a physical address.
    offset: u64,
    table: &'static Table,
}

impl Root {
    /// Finds them.
    ///
    /// # Errors
    /// `Unsupported` before memory is mapped.
    pub(super) fn find(platform: &KernelPlatform) -> Result<Self, WalkError> {
        let offset = platform.physical_offset();
        let offset = offset.ok_or(WalkError::Unsupported)?;
        let (root, _) = Cr3::read();
        let mut table = table_at(offset, root.start_address().as_u64());
        if cpu::has_five_levels() {
            // It leads to a table: the kernel runs there.
            let entry = table.get(index(super::frame_table::BASE, FIFTH_ENTRY));
            let entry = entry.map_or(0, |entry| entry.load(Ordering::Acquire));
            if entry & PRESENT == 0 {
                return Err(WalkError::Unsupported);
            }
            table = table_at(offset, entry & ADDRESS);
        }
        Ok(Self { offset, table })
    }

    /// The entry of 512 GiB for an address.
    pub(super) fn entry_of(self, at: VirtAddr) -> u64 {
        let entry = self.table.get(index(at, UPPERMOST_ENTRY));
        entry.map_or(0, |entry| entry.load(Ordering::Acquire))
    }

    /// The table above the lowest level on the way to `at`. Tables that are missing are made of `pages`.
    ///
    /// # Errors
    /// `OutOfTables` where there are not enough `pages`: those that were taken are in place. `Occupied`
    /// by a large page.
    pub(super) fn middle(
        self,
        at: VirtAddr,
        blank: Blank,
        pages: &mut dyn FnMut() -> Option<PhysAddr>,
    ) -> Result<&'static Table, WalkError> {
        let upper = self.next(self.table, (at, UPPERMOST_ENTRY), (0, 0), pages)?;
        self.next(upper, (at, MIDDLE), (blank.middle, blank.lowest), pages)
    }

    /// Lets all that the entry for `at` above the middle tables leads to read as zeros, if it leads nowhere yet.
    ///
    /// # Errors
    /// As [`Self::middle`].
    pub(super) fn leave_blank(
        self,
        at: VirtAddr,
        blank: Blank,
        pages: &mut dyn FnMut() -> Option<PhysAddr>,
    ) -> Result<(), WalkError> {
        let upper = self.next(self.table, (at, UPPERMOST_ENTRY), (0, 0), pages)?;
        let entry = upper.get(index(at, MIDDLE)).ok_or(WalkError::Unsupported)?;
        if entry.load(Ordering::Acquire) == 0 {
            entry.store(blank.middle, Ordering::Release);
        }
        Ok(())
    }

    /// The entries of the table of the lowest level from that of `at` on.
    ///
    /// # Errors
    /// As [`Self::middle`].
    pub(super) fn lowest(
        self,
        at: VirtAddr,
        blank: Blank,
        pages: &mut dyn FnMut() -> Option<PhysAddr>,
    ) -> Result<&'static [AtomicU64], WalkError> {
        let middle = self.middle(at, blank, pages)?;
        let both = (blank.lowest, blank.page);
        let lowest = self.next(middle, (at, MIDDLE_ENTRY), both, pages)?;
        lowest
            .get(index(at, LOWEST)..)
            .ok_or(WalkError::Unsupported)
    }

    /// The table that an entry leads to; a new one full of `inside` if it leads nowhere yet, which `nowhere` says, too.
    fn next(
        self,
        table: &'static Table,
        (at, shift): (VirtAddr, u32),
        (nowhere, inside): (u64, u64),
        pages: &mut dyn FnMut() -> Option<PhysAddr>,
    ) -> Result<&'static Table, WalkError> {
        let entry = table.get(index(at, shift)).ok_or(WalkError::Unsupported)?;
        let found = entry.load(Ordering::Acquire);
        if found & LARGE != 0 {
            return Err(WalkError::Occupied(at));
        }
        // The CPU notes in an entry that it was used.
        if found & PRESENT != 0 && (found ^ nowhere) & ADDRESS != 0 {
            return Ok(table_at(self.offset, found & ADDRESS));
        }
        let page = pages().ok_or(WalkError::OutOfTables)?.as_u64();
        let next = table_at(self.offset, page);
        fill(next, inside);
        entry.store(page | PRESENT | WRITABLE, Ordering::Release);
        Ok(next)
    }
}

/// Whether an entry of the lowest level leads to the page of zeros.
pub(super) fn is_blank(entry: &AtomicU64, blank: Blank) -> bool {
    (entry.load(Ordering::Relaxed) ^ blank.page) & ADDRESS == 0
}

/// Maps `page` for data, for good.
pub(super) fn set(entry: &AtomicU64, page: PhysAddr) {
    let data = page.as_u64() | PRESENT | WRITABLE | GLOBAL | NO_EXECUTE;
    entry.store(data, Ordering::Release);
}

/// The table at a physical address.
fn table_at(offset: u64, table: u64) -> &'static Table {
    let table = core::ptr::with_exposed_provenance(to_usize(offset.wrapping_add(table)));
    // SAFETY: `table` is the root that the CPU uses, or an entry of a table names it, or it is a page
    // that was given for a table: mapped at the offset, as all RAM is, and a table for good. After boot
    // entries are read and written in this module only, as atomics.
    unsafe { &*table }
}

fn index(at: VirtAddr, shift: u32) -> usize {
    to_usize(at.as_u64().wrapping_shr(shift) & 0x1ff)
}
