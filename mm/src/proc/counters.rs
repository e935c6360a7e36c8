//! `/proc/vmstat`: counters of the whole machine.
//!
//! Lines stand in Linux's order; what is not maintained is missing. `pgalloc_*` and `pgfree`
//! count frames since boot, as Linux's do; memory that boot hands to the allocator counts as
//! neither.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use super::meminfo::SlabPages;
use super::{free_in_whole_pageblocks, numa_lines};
use crate::config::PAGE_SHIFT;
use crate::platform::Platform;
use crate::sync::shootdown::TlbStats;
use crate::system::{CmaStats, Memory, ReclaimStats};
use crate::zone::{NumaStats, ZoneKind};

/// Prints `/proc/vmstat`. Zeroes before memory is up. Context: any but NMI.
///
/// # Errors
/// Those of `out`.
pub fn vmstat<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    Totals::of(memory).write(out)
}

/// Sums over all zones.
#[derive(Default)]
struct Totals {
    free: u64,
    free_in_whole_pageblocks: u64,
    slabs: SlabPages,
    page_tables: u64,
    /// Frames of memory that frame records take.
    records: u64,
    /// Frames handed out, by kind of zone.
    allocated: [u64; ZoneKind::COUNT],
    freed: u64,
    numa: NumaStats,
    reclaim: ReclaimStats,
    free_cma: u64,
    cma: CmaStats,
    tlb: TlbStats,
}

impl Totals {
    fn of<P: Platform>(memory: &Memory<P>) -> Self {
        let mut totals = Self {
            slabs: SlabPages::of(memory),
            page_tables: memory.page_table_frames(),
            records: memory.summary().record_bytes >> PAGE_SHIFT,
            reclaim: memory.reclaim_stats(),
            cma: memory.cma_stats(),
            tlb: memory.tlb_stats(),
            ..Self::default()
        };
        for zone in memory.zones() {
            let numbers = zone.snapshot(memory.platform());
            let allocated = &mut totals.allocated[zone.kind().index()];
            *allocated = allocated.wrapping_add(numbers.stats.allocated);
            totals.numa = totals.numa.and(zone.numa_stats());
            totals.freed = totals.freed.wrapping_add(numbers.stats.freed);
            totals.free_cma = totals.free_cma.saturating_add(zone.cma().1);
            totals.free = totals.free.saturating_add(numbers.free);
            totals.free_in_whole_pageblocks = totals
                .free_in_whole_pageblocks
                .saturating_add(free_in_whole_pageblocks(&numbers));
        }
        totals
    }

    fn write(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "nr_free_pages {}", self.free)?;
        let whole = self.free_in_whole_pageblocks;
        writeln!(out, "nr_free_pages_blocks {whole}")?;
        writeln!(out, "nr_free_cma {}", self.free_cma)?;
        for (name, blocks) in numa_lines(&self.numa) {
            writeln!(out, "{name} {blocks}")?;
        }
        for (name, pages) in [
            ("nr_slab_reclaimable", self.slabs.reclaimable),
            ("nr_slab_unreclaimable", self.slabs.others),
            ("nr_page_table_pages", self.page_tables),
            ("nr_memmap_boot_pages", self.records),
        ] {
            writeln!(out, "{name} {pages}")?;
        }
        for (name, kind) in [
            ("pgalloc_dma", ZoneKind::Dma),
            ("pgalloc_dma32", ZoneKind::Dma32),
            ("pgalloc_normal", ZoneKind::Normal),
            ("pgalloc_movable", ZoneKind::Movable),
        ] {
            writeln!(out, "{name} {}", self.allocated[kind.index()])?;
        }
        for (name, kind) in [
            ("allocstall_dma", ZoneKind::Dma),
            ("allocstall_dma32", ZoneKind::Dma32),
            ("allocstall_normal", ZoneKind::Normal),
            ("allocstall_movable", ZoneKind::Movable),
        ] {
            writeln!(out, "{name} {}", self.reclaim.allocstall[kind.index()])?;
        }
        writeln!(out, "pgfree {}", self.freed)?;
        for (name, count) in [
            ("pgsteal_kswapd", self.reclaim.pgsteal_kswapd),
            ("pgsteal_direct", self.reclaim.pgsteal_direct),
            ("pgscan_kswapd", self.reclaim.pgscan_kswapd),
            ("pgscan_direct", self.reclaim.pgscan_direct),
            ("pageoutrun", self.reclaim.pageoutrun),
            ("cma_alloc_success", self.cma.success),
            ("cma_alloc_fail", self.cma.fail),
            ("nr_tlb_remote_flush", self.tlb.remote_flush),
            (
                "nr_tlb_remote_flush_received",
                self.tlb.remote_flush_received,
            ),
            ("nr_tlb_local_flush_all", self.tlb.local_flush_all),
            ("nr_tlb_local_flush_one", self.tlb.local_flush_one),
        ] {
            writeln!(out, "{name} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_in_linux_order() {
        let totals = Totals {
            free: 1,
            free_in_whole_pageblocks: 2,
            slabs: SlabPages {
                reclaimable: 27,
                others: 28,
            },
            page_tables: 29,
            records: 3,
            allocated: [4, 5, 6, 7, 8],
            freed: 9,
            numa: NumaStats {
                numa_hit: 20,
                numa_miss: 21,
                numa_foreign: 22,
                interleave_hit: 23,
                local_node: 24,
                other_node: 25,
            },
            reclaim: ReclaimStats {
                allocstall: [10, 11, 12, 13, 14],
                pgsteal_kswapd: 15,
                pgsteal_direct: 16,
                pgscan_kswapd: 17,
                pgscan_direct: 18,
                pageoutrun: 19,
            },
            free_cma: 20,
            cma: CmaStats {
                success: 21,
                fail: 22,
                ..CmaStats::default()
            },
            tlb: TlbStats {
                remote_flush: 23,
                remote_flush_received: 24,
                local_flush_all: 25,
                local_flush_one: 26,
            },
        };
        let mut text = String::new();
        totals.write(&mut text).unwrap();
        assert_eq!(text, VMSTAT);
    }

    const VMSTAT: &str = "\
nr_free_pages 1
nr_free_pages_blocks 2
nr_free_cma 20
numa_hit 20
numa_miss 21
numa_foreign 22
numa_interleave 23
numa_local 24
numa_other 25
nr_slab_reclaimable 27
nr_slab_unreclaimable 28
nr_page_table_pages 29
nr_memmap_boot_pages 3
pgalloc_dma 4
pgalloc_dma32 5
pgalloc_normal 6
pgalloc_movable 7
allocstall_dma 10
allocstall_dma32 11
allocstall_normal 12
allocstall_movable 13
pgfree 9
pgsteal_kswapd 15
pgsteal_direct 16
pgscan_kswapd 17
pgscan_direct 18
pageoutrun 19
cma_alloc_success 21
cma_alloc_fail 22
nr_tlb_remote_flush 23
nr_tlb_remote_flush_received 24
nr_tlb_local_flush_all 25
nr_tlb_local_flush_one 26
";
}
