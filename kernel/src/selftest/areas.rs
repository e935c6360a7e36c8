//! Areas of kernel addresses, by the page tables that the CPU has and by what it does: nothing is mapped before or behind one,
//! and a byte too far is a page fault.
#![expect(unsafe_code, reason = "areas by address are given back by address")]

use crate::arch::expect::Fault;
use crate::arch::smp;
use crate::ktest::{Failure, Outcome};
use crate::memory::{MEMORY, settle_areas};
use crate::num::{to_u64, to_usize};
use crate::selftest::traps::fault_of_a_write;
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::vec::Vec;
use core::ptr::NonNull;
use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::pagetable::PageTable;
use mm_workload::Random;

const PAGE: u64 = 4096;
/// Areas that are made: of 1 to 100 pages, at multiples of 4 KiB to 4 MiB. A tenth of them where there are several CPUs, each of
/// which the emulator has to be told of every purge.
const AREAS: u64 = 10_000;
/// One in so many is overrun, at both ends.
const PER_OVERRUN: u64 = 10;

struct Area {
    first: NonNull<u8>,
    pages: u64,
}

impl Area {
    fn new(random: &mut Random, pages: u64) -> Result<Self, Failure> {
        let align = PAGE << random.below(11);
        let size = to_usize(pages.wrapping_mul(PAGE));
        let first = MEMORY.vmalloc_align(size, to_usize(align), Gfp::KERNEL);
        let area = Self {
            first: first.map_err(Failure::new)?,
            pages,
        };
        ktest_eq!(area.start() & align.wrapping_sub(1), 0);
        Ok(area)
    }

    fn start(&self) -> u64 {
        to_u64(self.first.addr().get())
    }

    /// The first byte behind it.
    fn end(&self) -> u64 {
        self.start().wrapping_add(self.pages.wrapping_mul(PAGE))
    }

    /// The last byte before it.
    fn before(&self) -> u64 {
        self.start().wrapping_sub(1)
    }

    /// All of it is mapped, and nothing beside it.
    fn check(&self, tables: &PageTable) -> Outcome {
        let is_mapped = |at| MEMORY.walk(tables, VirtAddr::new(at)).leaf().is_some();
        let inside = [self.start(), self.end().wrapping_sub(1)];
        ktest_assert!(inside.into_iter().all(is_mapped), "not mapped");
        let beside = [self.before(), self.end()];
        ktest_assert!(!beside.into_iter().any(is_mapped), "no guard page");
        Ok(())
    }

    /// Looks at it once more, since others came beside it, and gives it back.
    fn end_it(self, tables: &PageTable) -> Outcome {
        self.check(tables)?;
        // SAFETY: it is the test's, which forgets it.
        unsafe { MEMORY.vfree(self.first) }.map_err(Failure::new)
    }
}

/// Whether a write had a page fault there, on a page that is not present.
fn is_overrun(fault: Fault, at: u64) -> bool {
    const PRESENT: u64 = 1 << 0;
    fault.address == at && fault.error_code & PRESENT == 0
}

ktest! {
    fn ten_thousand_areas_end_in_a_fault_at_both_ends() {
        let space = MEMORY.kernel_space().ok_or(Failure::new("no kernel space"))?;
        let tables = &space.tables;
        let areas = if smp::count() > 1 { AREAS / 10 } else { AREAS };
        settle_areas();
        let before = MEMORY.vmalloc_stats();
        let mut random = Random::new(0x5eed_a4ea);
        // What can be had at once on a small machine, too.
        let most = MEMORY.managed_frames() / 8;
        let mut live: Vec<Area> = Vec::new();
        let (mut pages, mut overruns) = (0_u64, 0_u64);
        for number in 0..areas {
            let wanted = random.below(100).saturating_add(1);
            while pages.saturating_add(wanted) > most && !live.is_empty() {
                let old = live.swap_remove(random.below_index(live.len()));
                pages = pages.saturating_sub(old.pages);
                old.end_it(tables)?;
            }
            let area = Area::new(&mut random, wanted)?;
            area.check(tables)?;
            if number.is_multiple_of(PER_OVERRUN) {
                for at in [area.end(), area.before()] {
                    overruns = overruns.saturating_add(u64::from(is_overrun(fault_of_a_write(at)?, at)));
                }
            }
            pages = pages.saturating_add(wanted);
            live.push(area);
        }
        for area in live {
            area.end_it(tables)?;
        }
        ktest_eq!(overruns, areas.wrapping_div(PER_OVERRUN).wrapping_mul(2));
        settle_areas();
        let after = MEMORY.vmalloc_stats();
        ktest_eq!(after.lazy_pages, 0);
        ktest_assert!(after.areas.saturating_sub(after.ready) <= before.areas.saturating_sub(before.ready));
        MEMORY.validate_vmalloc().map_err(Failure::new)?;
        Ok(())
    }
}
