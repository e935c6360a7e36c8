//! The library's own page tables, for areas of kernel addresses.

use crate::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange, to_count, to_index};
use crate::config::PAGE_SIZE;
use crate::kspace::{CacheMode, KernelMap, MapAccess, MapAttributes, MapError};
use crate::pagetable::{Attributes, Cache, MapError as TableError, PageSize, PageTable};
use crate::platform::Platform;
use crate::system::Memory;

/// As page tables say it.
const fn attributes(how: MapAttributes) -> Attributes {
    let attributes = match how.access {
        MapAccess::ReadOnly => Attributes::KERNEL_RO,
        MapAccess::ReadWrite => Attributes::KERNEL,
    };
    attributes.with_cache(match how.cache {
        CacheMode::WriteBack => Cache::WriteBack,
        CacheMode::WriteThrough => Cache::WriteThrough,
        CacheMode::WriteCombining => Cache::WriteCombining,
        CacheMode::Uncached => Cache::Uncached,
    })
}

impl<P: Platform> Memory<P> {
    fn tables_of_kernel(&self) -> Option<&PageTable> {
        self.kernel_space().map(|space| &space.tables)
    }
}

// SAFETY: (1, 2) all CPUs use the tables (the word of `adopt_kernel_space`), and `flush_tlb` has them forget; (3) nobody
// else maps in the region for areas (the same).
unsafe impl<P: Platform> KernelMap for Memory<P> {
    unsafe fn map(
        &self,
        at: VirtAddr,
        blocks: &[Pfn],
        order: Order,
        how: MapAttributes,
    ) -> Result<(), MapError> {
        let tables = self.tables_of_kernel().ok_or(MapError::Unsupported)?;
        let bytes = to_count(blocks.len()).saturating_mul(order.bytes());
        let range = VirtRange::from_size(at, bytes).ok_or(MapError::Unsupported)?;
        let mut mapped = Ok(());
        if order == Order::ZERO {
            let frame_of = |page: u64| blocks.get(to_index(page)).copied().unwrap_or_default();
            // SAFETY: the caller's word.
            mapped = unsafe { self.map_each_page(tables, range, frame_of, attributes(how)) };
        } else {
            for (block, number) in blocks.iter().zip(0_u64..) {
                let start = at.checked_add(number.saturating_mul(order.bytes()));
                let start = start.ok_or(MapError::Unsupported)?;
                let row = (start, crate::addr::PfnRange::block(*block, order));
                // SAFETY: the caller's word.
                mapped = unsafe { self.map_pages(tables, row, attributes(how), PageSize::Size2M) };
                if mapped.is_err() {
                    let done = VirtRange::new(at, start).filter(|done| !done.is_empty());
                    // What was mapped just now is whole pages: this cannot fail.
                    let _ = done.map(|done| tables.clear(self, done));
                    break;
                }
            }
        }
        mapped.map_err(|error| match error {
            TableError::Occupied(at) => MapError::Occupied(at),
            TableError::OutOfTables => MapError::OutOfTables,
            _ => MapError::Unsupported,
        })
    }

    unsafe fn unmap(&self, range: VirtRange) {
        if let Some(tables) = self.tables_of_kernel() {
            // Large pages lie in areas as a whole, and the region's tables are the library's: this cannot fail.
            let cleared = tables.clear(self, range);
            debug_assert!(cleared.is_ok(), "{range:?}: {cleared:?}");
        }
    }

    fn flush(&self, ranges: &[VirtRange]) {
        // One flush for all of them: what lies between is forgotten too, if it is not too much for that.
        let all = ranges.iter().copied().reduce(VirtRange::hull);
        if let Some(all) = all {
            self.flush_tlb(all);
        }
    }

    fn translate(&self, at: VirtAddr) -> Option<PhysAddr> {
        self.walk(self.tables_of_kernel()?, at).phys(at)
    }

    fn has_huge_pages(&self) -> bool {
        true
    }
}

const _: () = assert!(Order::PAGEBLOCK.bytes() == 512 * PAGE_SIZE, "2 MiB");
