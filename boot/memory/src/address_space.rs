//! Page tables of the library's own, with all that the boot loader mapped in them.
//!
//! Each entry of 512 GiB that the loader's tables have leads to the same table from here on: code, stack, `BootInfo` and the map of
//! memory are where they were, in either half. What is left of the upper half the library has for areas.

use core::ptr::NonNull;

use mm::addr::{Pfn, PhysRange, VirtAddr, VirtRange};
use mm::config::{Layout, PAGE_SIZE};
use mm::pagetable::{ENTRIES, Entry, Level, PageSize};
use mm::platform::Platform;
use mm::system::Memory;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::structures::paging::PhysFrame;

use crate::error::Error;
use crate::one_cpu::OneCpu;

/// Bytes of an entry.
const ENTRY: usize = 8;

/// Makes the tables, uses them, and has the library map areas there. Context: boot, when memory is up.
///
/// # Errors
/// [`Error`]; before the last step the boot loader's tables are still in use.
///
/// # Safety
///
/// CR3 leads to tables of the boot loader in RAM that nobody changes any more; one CPU runs, and nobody else writes CR3.
pub(crate) unsafe fn take_over(memory: &Memory<OneCpu>) -> Result<(), Error> {
    let platform = memory.platform();
    let root = match Cr4::read().contains(Cr4Flags::L5_PAGING) {
        true => Level::PGD,
        false => Level::P4D,
    };
    let layout = layout(platform);
    let tables = memory.new_page_table(root)?;
    let (old, flags) = Cr3::read();
    let old = mm::addr::PhysAddr::new(old.start_address().as_u64()).frame();
    for (at, table) in tables_of_512_gib(platform, old, root) {
        let table = table?;
        for region in [layout.vmalloc, layout.percpu] {
            let entry = VirtRange::from_size(at, Level::P4D.entry_bytes());
            if entry.is_some_and(|entry| entry.overlaps(region)) {
                return Err(Error::Occupied(at, region));
            }
        }
        // SAFETY: the caller's word: a table of the boot loader, which stays.
        unsafe { memory.adopt_table(&tables, at, table) }?;
    }
    let new = x86_64::PhysAddr::new_truncate(tables.root().addr().as_u64());
    // SAFETY: what was mapped is mapped, by the same tables; what is not was not.
    unsafe { Cr3::write(PhysFrame::containing_address(new), flags) };
    // SAFETY: the only CPU uses them; nothing was mapped in the two regions, and nobody else knows the tables.
    unsafe { memory.adopt_kernel_space(tables, layout, PageSize::Size2M) }?;
    Ok(())
}

/// What lies where: the map of memory where the loader has it, areas and memory for each CPU where Linux has them.
fn layout(platform: &OneCpu) -> Layout {
    let map = platform.direct_map.get();
    let ram = map.map(|map| map.ram()).unwrap_or_default();
    let end = ram.iter().map(|range| range.end()).max();
    let base = map.map(|map| map.base()).unwrap_or_default();
    let bytes = end.unwrap_or_default().as_u64();
    Layout {
        direct_map: VirtRange::from_size(base, bytes).unwrap_or_default(),
        vmemmap: VirtRange::EMPTY,
        fixmap: VirtRange::EMPTY,
        image: VirtRange::EMPTY,
        ..Layout::LINUX_LIKE
    }
}

/// The tables that entries of 512 GiB lead to, and which addresses those map.
fn tables_of_512_gib(
    platform: &OneCpu,
    root: Pfn,
    level: Level,
) -> impl Iterator<Item = (VirtAddr, Result<Pfn, Error>)> {
    // With four levels the root is the only table of such entries.
    let above = (level == Level::PGD).then(|| entries(platform, root));
    let above = above.into_iter().flatten();
    let uppers = above.filter_map(|(index, entry)| Some((index, entry.ok()?.table_pfn()?)));
    let only = (level == Level::P4D).then_some((0, root));
    only.into_iter()
        .chain(uppers)
        .flat_map(move |(high, table)| {
            entries(platform, table).filter_map(move |(low, entry)| {
                let at = address(level, high, low);
                match entry {
                    Ok(entry) => Some((at, Ok(entry.table_pfn()?))),
                    Err(error) => Some((at, Err(error))),
                }
            })
        })
}

/// Where an entry of 512 GiB begins: the highest bit of its level's addresses stands for all above.
fn address(root: Level, high: usize, low: usize) -> VirtAddr {
    let bit = |index: usize, level: Level| {
        let index = u64::try_from(index).unwrap_or_default();
        index.wrapping_mul(level.entry_bytes())
    };
    let bits = bit(high, Level::PGD) | bit(low, Level::P4D);
    let top = root.entry_bytes().wrapping_mul(1 << 8);
    VirtAddr::new(match bits & top {
        0 => bits,
        _ => bits | top.wrapping_neg(),
    })
}

/// The entries of a table with their indices.
fn entries(platform: &OneCpu, table: Pfn) -> impl Iterator<Item = (usize, Result<Entry, Error>)> {
    let bytes = platform.direct_map(PhysRange::from_size(table.addr(), PAGE_SIZE));
    (0..ENTRIES).map(move |index| {
        let first = bytes.ok_or(Error::TablesElsewhere);
        (index, first.map(|first| read(first, index)))
    })
}

/// An entry of the table that starts at `first`.
fn read(first: NonNull<u8>, index: usize) -> Entry {
    let offset = index.wrapping_mul(ENTRY);
    // SAFETY: a table has that many entries, and the map of memory reaches all of its page.
    let entry = unsafe { first.add(offset) }.cast::<u64>();
    // SAFETY: as above; nobody but the CPU, which sets bits, writes there.
    Entry::from_bits(unsafe { entry.read_volatile() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_canonical_addresses() {
        for (root, high, low, expected) in [
            (Level::P4D, 0, 0, 0),
            (Level::P4D, 0, 255, 0x0000_7f80_0000_0000),
            (Level::P4D, 0, 256, 0xffff_8000_0000_0000),
            (Level::P4D, 0, 511, 0xffff_ff80_0000_0000),
            (Level::PGD, 0, 256, 0x0000_8000_0000_0000),
            (Level::PGD, 255, 511, 0x00ff_ff80_0000_0000),
            (Level::PGD, 256, 0, 0xff00_0000_0000_0000),
            (Level::PGD, 511, 511, 0xffff_ff80_0000_0000),
        ] {
            assert_eq!(address(root, high, low), VirtAddr::new(expected));
        }
    }
}
