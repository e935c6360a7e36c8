//! `/proc/meminfo`: what all memory is used for.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use crate::platform::Platform;
use crate::slab::SlabFlags;
use crate::system::Memory;
use crate::zone::Zone;

/// Lines about what the library has no pages of: files, swap, programs. They are zero, as in a Linux without any.
const OF_FILES_AND_PROGRAMS: [&str; 10] = [
    "Buffers:",
    "Cached:",
    "SwapCached:",
    "Active:",
    "Inactive:",
    "SwapTotal:",
    "SwapFree:",
    "Dirty:",
    "Writeback:",
    "Mapped:",
];

/// Prints `/proc/meminfo`, in Linux's order: the lines that it has something to say of, and those that every Linux has and
/// whose readers insist on them. `PageTables` counts those of the kernel too, but for those that were made before memory was
/// up. Zeroes before memory is up; also of files, swap and pages of programs, of which the library has none. Context: any but NMI.
///
/// # Errors
/// Those of `out`.
pub fn meminfo<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    let free = memory.free_frames();
    let slabs = SlabPages::of(memory);
    let mut write = |name, frames| write_kib(&mut *out, name, frames);
    write("MemTotal:", memory.managed_frames())?;
    write("MemFree:", free)?;
    write("MemAvailable:", available(memory, free, &slabs))?;
    for none in OF_FILES_AND_PROGRAMS {
        write(none, 0)?;
    }
    write("Slab:", slabs.reclaimable.saturating_add(slabs.others))?;
    write("SReclaimable:", slabs.reclaimable)?;
    write("SUnreclaim:", slabs.others)?;
    write("PageTables:", memory.page_table_frames())?;
    write("Committed_AS:", 0)?;
    let (total, used) = memory.kspace().map_or((0, 0), |(space, _)| {
        let used = space.used_pages(memory.platform());
        (space.range().size() >> PAGE_SHIFT, used)
    });
    write("VmallocTotal:", total)?;
    write("VmallocUsed:", used)?;
    // Linux does not look for it any more either.
    write("VmallocChunk:", 0)?;
    write("Percpu:", copies(memory))?;
    let cma = memory.zones().map(Zone::cma);
    let (total, free) = cma.fold((0_u64, 0_u64), |(total, free), (its, its_free)| {
        (total.saturating_add(its), free.saturating_add(its_free))
    });
    write("CmaTotal:", total)?;
    write("CmaFree:", free)
}

fn write_kib(out: &mut dyn Write, name: &str, frames: u64) -> fmt::Result {
    let kib = frames.saturating_mul(1 << (PAGE_SHIFT - 10));
    writeln!(out, "{name:<16}{kib:>8} kB")
}

/// Pages of slabs.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct SlabPages {
    /// Of caches whose objects can be reclaimed.
    pub(super) reclaimable: u64,
    pub(super) others: u64,
}

impl SlabPages {
    pub(super) fn of<P: Platform>(memory: &Memory<P>) -> Self {
        let mut pages = Self::default();
        let caches = memory.caches().into_iter();
        for cache in caches.flat_map(crate::slab::Caches::iter) {
            let kind = match cache.flags().contains(SlabFlags::RECLAIM_ACCOUNT) {
                true => &mut pages.reclaimable,
                false => &mut pages.others,
            };
            *kind = kind.saturating_add(cache.stats(memory.platform()).pages);
        }
        pages
    }
}

/// What new programs could have without anybody having to wait for memory: free pages but for reserves, and half of
/// what can be reclaimed, or all of it but for the low marks (Linux: `si_mem_available`).
fn available<P: Platform>(memory: &Memory<P>, free: u64, slabs: &SlabPages) -> u64 {
    let (mut reserved, mut low) = (0_u64, 0_u64);
    for zone in memory.zones() {
        let marks = zone.watermarks().unboosted();
        let most = zone.watermarks().protection().into_iter().max();
        let kept = most.unwrap_or_default().saturating_add(marks.high);
        reserved = reserved.saturating_add(kept.min(zone.managed()));
        low = low.saturating_add(marks.low);
    }
    let stays = (slabs.reclaimable / 2).min(low);
    free.saturating_sub(reserved)
        .saturating_add(slabs.reclaimable.saturating_sub(stays))
}

/// Pages of what each CPU has a copy of.
fn copies<P: Platform>(memory: &Memory<P>) -> u64 {
    let stats = memory.percpu_stats();
    let units = stats.chunks.saturating_mul(stats.cpus);
    let bytes = units.saturating_mul(stats.unit_bytes);
    crate::addr::to_count(bytes).div_ceil(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_meminfo_is_what_linux_prints() {
        let mut text = String::new();
        write_kib(&mut text, "MemTotal:", 24_684_084 / 4).unwrap();
        write_kib(&mut text, "MemFree:", 0).unwrap();
        let expected = "\
MemTotal:       24684084 kB
MemFree:               0 kB
";
        assert_eq!(text, expected);
    }
}
