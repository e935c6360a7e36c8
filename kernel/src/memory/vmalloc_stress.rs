//! `stress vmalloc N`: random areas of kernel addresses, made, handed about and freed, with everything checked.
//!
//! As `stress slab`, with areas of one page to a few megabytes, some in large pages: each page is stamped, and read again
//! before the area is freed, on whatever CPU. Purges come in between. At the end there are as many areas as before,
//! none waits, and page tables and areas recount themselves.

use super::object_stress::{Piece, run};
use super::random::Random;
use super::stress::wanted;
use super::{Kernel, MEMORY};
use crate::kprintln;
use crate::num::to_usize;
use crate::shell::{CommandError, CommandResult};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::adapters::Vmalloc;
use mm::buddy::Gfp;
use mm::system::VmallocStats;

const PAGE: u64 = 4096;
/// One in so many is in large pages.
const PER_HUGE: u64 = 64;

impl Piece for Vmalloc<Kernel> {
    const KEPT: usize = 48;
    /// Every page is touched at least twice.
    const STRIDE: usize = 2047;

    fn alloc(random: &mut Random) -> Option<(Self, bool)> {
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        if random.below(PER_HUGE) == 0 {
            let len = random.below(2).saturating_add(1) << 21;
            return Self::alloc_huge(Kernel, to_usize(len), gfp)
                .ok()
                .map(|area| (area, false));
        }
        let largest = PAGE << random.below(7);
        let len = random.below(largest).saturating_add(1);
        let wants_zeroes = random.below(4) == 0;
        let gfp = if wants_zeroes { gfp | Gfp::ZERO } else { gfp };
        let area = Self::alloc(Kernel, to_usize(len), gfp).ok()?;
        Some((area, wants_zeroes))
    }

    fn shrink() -> u64 {
        MEMORY.vmalloc_purge()
    }
}

/// `stress vmalloc [--cpus CPUS] N [SEED]`.
pub(super) fn stress_vmalloc(arguments: &[String]) -> CommandResult {
    let (cpus, operations, seed) = wanted(arguments)?;
    kprintln!("stress: {operations} operations on areas on {cpus} CPUs, seed {seed}");
    // Stacks of ended threads are areas, too.
    super::settle_areas();
    let before = MEMORY.vmalloc_stats();
    let counts = run::<Vmalloc<Kernel>>("stress vmalloc", (cpus, operations, seed))?;
    super::settle_areas();
    MEMORY.validate().map_err(CommandError::failed)?;
    MEMORY.validate_vmalloc().map_err(CommandError::failed)?;
    let tables = match MEMORY.kernel_space() {
        Some(space) => MEMORY
            .validate_page_table(&space.tables)
            .map_err(CommandError::failed)?,
        None => 0,
    };
    let after = MEMORY.vmalloc_stats();
    let taken = |stats: &VmallocStats| stats.areas.saturating_sub(stats.ready);
    if taken(&after) != taken(&before) || after.lazy_pages != 0 {
        return Err(CommandError::failed(format_args!(
            "areas before: {before:?}, after: {after:?}"
        )));
    }
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    kprintln!(
        "stress: {} allocations, {} left for any thread to free, {} times out of memory, {} purges",
        load(&counts.allocations),
        load(&counts.elsewhere),
        load(&counts.exhausted),
        after.purges.saturating_sub(before.purges)
    );
    kprintln!("stress: no violations, areas and {tables} page tables recounted");
    Ok(())
}
