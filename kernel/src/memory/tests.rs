//! In-kernel tests of the memory core.
#![expect(unsafe_code, reason = "reads what the firmware left")]

use super::boot_memory;
use super::bring_up::boot_map;
use super::fixmap;
use super::holder::Holder;
use super::ledger::Ledger;
use super::{Kernel, MEMORY, Pages, free_frames};
use crate::arch::time;
use crate::ktest::Failure;
use crate::num::to_usize;
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::string::String;
use alloc::vec::Vec;
use mm::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange};
use mm::buddy::{Gfp, Step};
use mm::frame::FrameState;
use mm::kspace::early::EarlyMapError;
use mm::pagetable::Cache;
use mm::platform::Platform;
use mm::proc::Recording;
use mm::system::AllocError;

/// Takes all memory, block by block, largest first, the reserves too.
pub(crate) fn take_everything() -> Result<Ledger, Failure> {
    let frames = to_usize(MEMORY.managed_frames());
    let mut live = Ledger::new(frames).map_err(Failure::new)?;
    let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC | Gfp::NOWARN;
    for order in Order::all().rev() {
        loop {
            if live.is_full() {
                return Err(Failure::new("more blocks than the ledger holds"));
            }
            match Pages::alloc(Kernel, gfp, order) {
                Ok(pages) => drop(live.push(pages, 0)),
                Err(AllocError::OutOfMemory) => break,
                Err(error) => return Err(Failure::new(error)),
            }
        }
    }
    Ok(live)
}

ktest! {
    fn waiting_for_another_cpu_takes_as_long_as_the_library_believes() {
        let start = time::now_ns();
        ktest_assert!((0..1_000).all(|rounds| MEMORY.platform().relax(rounds)));
        let waited = time::now_ns().saturating_sub(start);
        ktest_assert!(waited >= 1_000_000, "{waited} ns in 1,000 rounds");
        ktest_assert!(!MEMORY.platform().relax(1_000_000), "waits for ever");
        Ok(())
    }

    fn every_page_handed_out_is_ram_that_nobody_uses() {
        let map = boot_map().ok_or_else(|| Failure::new("memory is not up"))?;
        let info = crate::boot_info().ok_or_else(|| Failure::new("no boot information"))?;
        let early = crate::heap::early_pages(info);
        let returned = crate::heap::give_back_early().map_err(Failure::new)?.returned_bytes;
        let (mut of_early, mut of_boot): (u64, u64) = (0, 0);
        let given = boot_memory::given();
        let free_before = free_frames();
        let mut live = take_everything()?;
        MEMORY.drain_all_pages();
        ktest_eq!(MEMORY.free_frames(), 0);
        let mut seen: u64 = 0;
        while let Some(entry) = live.swap_remove(0) {
            let mut pages = entry.map_err(|(_, error)| Failure::new(error))?.pages;
            let range = pages.frames().addrs();
            ktest_assert!(map.ram.iter().any(|ram| ram.covers(range)));
            for (taken, name) in &map.firmware.taken {
                // Part by part: a block may hold what came back from two places.
                let there = taken.intersect(range);
                let back = given.iter().copied().chain([early]);
                let back = back.map(|back| back.intersect(there).size()).fold(0, u64::saturating_add);
                ktest_assert!(back >= there.size(), "{range} was handed out, but holds {name}");
            }
            let boots = given.iter().map(|back| back.intersect(range).size()).fold(0, u64::saturating_add);
            if boots > 0 {
                // It can be used like any other.
                pages.bytes_mut().fill(0xa5);
                ktest_assert!(pages.bytes().iter().all(|&byte| byte == 0xa5));
            }
            of_boot = of_boot.saturating_add(boots);
            seen = seen.saturating_add(pages.frames().frames());
            of_early = of_early.saturating_add(early.intersect(range).size());
        }
        drop(live);
        ktest_assert!(of_early <= crate::num::to_u64(returned), "{of_early} bytes of {returned} of the early heap");
        ktest_assert!(given.is_empty() || of_boot > 0);
        ktest_assert!(seen > 0);
        ktest_eq!(free_frames(), free_before);
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }
}

ktest! {
    fn what_only_the_boot_needed_is_memory_like_any_other() {
        let table = MEMORY.frames().ok_or_else(|| Failure::new("memory is not up"))?;
        let space = MEMORY.kernel_space().ok_or_else(|| Failure::new("no tables"))?;
        let info = crate::boot_info().ok_or_else(|| Failure::new("no boot information"))?;
        let given = boot_memory::given();
        let of_loader = boot::reserved_ranges().iter().filter(|range| {
            let kinds = [boot::RangeKind::PageTables, boot::RangeKind::EarlyTables, boot::RangeKind::BootStack];
            kinds.contains(&range.kind)
        });
        ktest_eq!(given.len(), of_loader.count());
        ktest_assert!(given.len() >= 3);
        let image = crate::arch::image::physical(info);
        for range in given {
            for pfn in range.touched_frames().iter() {
                let state = table.head(pfn).and_then(|head| head.state());
                ktest_assert!(state != Some(FrameState::Reserved), "{pfn} of {range} is still reserved");
                // What the image mapped there is gone.
                let at = crate::arch::image::virtual_address(pfn.addr(), info);
                let leaf = MEMORY.walk(&space.tables, mm::addr::VirtAddr::new(at)).leaf();
                ktest_assert!(!image.covers(*range) || leaf.is_none(), "{at:#x} is still mapped");
            }
        }
        // Nobody walks other tables than the kernel's.
        let root = space.tables.root().addr().as_u64();
        let others = core::sync::atomic::AtomicU32::new(0);
        crate::arch::smp::call_on_all(&|_| {
            let cr3 = crate::arch::registers::control().cr3;
            if cr3 & !0xfff != root {
                others.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            }
        });
        ktest_eq!(others.into_inner(), 0);
        Ok(())
    }

    fn the_firmwares_tables_were_read_through_early_mappings() {
        let stats = fixmap::early_stats();
        let tables = &crate::acpi::get().tables;
        ktest_assert!(!tables.is_empty());
        // Those of the first MiB are read without.
        let above = tables.iter().filter(|&&(_, at)| at >= 1 << 20).count();
        ktest_assert!(to_usize(stats.made.into()) >= above, "{stats:?}");
        ktest_eq!((stats.used, stats.most), (0, above.min(1)));
        // What was read then is what is there now.
        for &(signature, at) in tables {
            let at = PhysAddr::new(at);
            // SAFETY: a table of the firmware's, which nobody writes to.
            let mapped = unsafe { MEMORY.memremap(at, 36, Cache::WriteBack) }.map_err(Failure::new)?;
            // SAFETY: as above; it starts with four letters.
            let name = unsafe { mapped.cast::<[u8; 4]>().read_unaligned() };
            // SAFETY: nobody uses it.
            unsafe { MEMORY.memunmap(mapped) }.map_err(Failure::new)?;
            ktest_eq!(name, signature.0);
        }
        // There are areas by now.
        // SAFETY: refused.
        let late = unsafe { fixmap::early_memremap(PhysAddr::new(0xfee0_0000), 1) };
        ktest_eq!(late.map(drop), Err(EarlyMapError::Closed));
        Ok(())
    }

    fn what_the_firmware_keeps_is_not_in_the_zones() {
        let map = boot_map().ok_or_else(|| Failure::new("memory is not up"))?;
        let (phys_bits, _) = crate::arch::cpu::address_bits();
        let usable: Vec<PhysRange> = map.firmware.usable(phys_bits).collect();
        let added_by_hand = map.params.edits().iter().count() > 0;
        for ram in &map.ram {
            let known = usable.iter().any(|range| range.covers(*ram));
            ktest_assert!(known || added_by_hand, "{ram} is not usable by the firmware's map");
        }
        Ok(())
    }
}

ktest! {
    fn a_dropped_block_is_free_again_and_zeroed_when_asked() {
        let before = free_frames();
        let order = Order::new(3).unwrap_or_default();
        let mut pages = Pages::alloc(Kernel, Gfp::KERNEL, order).map_err(Failure::new)?;
        pages.bytes_mut().fill(0xff);
        let pfn = pages.pfn();
        ktest_eq!(free_frames(), before.saturating_sub(8));
        drop(pages);
        let zeroed = Pages::alloc(Kernel, Gfp::KERNEL.union(Gfp::ZERO), order).map_err(Failure::new)?;
        ktest_eq!(zeroed.pfn(), pfn);
        ktest_assert!(zeroed.bytes().iter().all(|&byte| byte == 0));
        drop(zeroed);
        ktest_eq!(free_frames(), before);
        Ok(())
    }
}

ktest! {
    fn references_keep_a_block_until_the_last_is_dropped() {
        let before = free_frames();
        let pages = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
        let pfn = pages.pfn();
        ktest_assert!(MEMORY.get_page(pfn).is_none(), "a block with one owner gave a reference");
        let first = pages.share().map_err(|_| Failure::new("could not share"))?;
        let second = first.clone();
        ktest_eq!(second.count(), 2);
        drop(first);
        ktest_eq!(MEMORY.page(pfn).and_then(|page| page.state()), Some(FrameState::Shared));
        drop(second);
        ktest_eq!(free_frames(), before);
        Ok(())
    }
}

ktest! {
    fn an_exact_range_can_be_taken_and_given_back() {
        let before = free_frames();
        let probe = Pages::alloc(Kernel, Gfp::KERNEL, Order::MAX).map_err(Failure::new)?;
        let first = probe.pfn();
        drop(probe);
        let range = PfnRange::from_count(first.saturating_add(3), 700).unwrap_or_default();
        let run = MEMORY.alloc_contig_range(range, Gfp::KERNEL).map_err(Failure::new)?;
        ktest_eq!(run.frames(), range);
        ktest_eq!(free_frames(), before.saturating_sub(700));
        ktest_assert!(MEMORY.alloc_contig_range(range, Gfp::KERNEL).is_err());
        drop(run);
        ktest_eq!(free_frames(), before);
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }
}

ktest! {
    /// The first one may turn a pageblock over, as any allocation does.
    fn explain_leaves_the_free_blocks_as_it_found_them() {
        // What holds the texts is there before.
        let mut texts = [String::with_capacity(16_000), String::with_capacity(16_000)].into_iter();
        let mut blocks = || {
            MEMORY.drain_all_pages();
            let mut text = texts.next().unwrap_or_default();
            mm::proc::pagetypeinfo(&MEMORY, &mut text).map(|()| text).map_err(Failure::new)
        };
        let explain = || {
            let words = [String::from("alloc"), String::from("0")];
            crate::shell::run("explain", &words).map_err(Failure::new)
        };
        drop(Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?);
        // What it allocates comes from objects at hand then.
        explain()?;
        let before = blocks()?;
        explain()?;
        ktest_eq!(blocks()?, before);
        Ok(())
    }
}

ktest! {
    fn a_reserved_frame_is_held_by_somebody() {
        let map = boot_map().ok_or_else(|| Failure::new("memory is not up"))?;
        let info = crate::boot_info().ok_or_else(|| Failure::new("no boot information"))?;
        let at = |address: PhysAddr| super::holder::of(address.frame());
        let image = crate::arch::image::physical(info);
        ktest_eq!(at(image.start()), Some(Holder::Taken("kernel image")));
        for (range, name) in &map.firmware.taken {
            let is_back = boot_memory::given().iter().any(|back| back.covers(*range));
            ktest_assert!(at(range.start()).is_none() == is_back, "{name}");
        }
        ktest_assert!(at(PhysAddr::ZERO).is_some());
        ktest_eq!(super::holder::of(Pfn::new(u64::MAX)), None);

        let pages = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
        let pfn = pages.pfn();
        ktest_eq!(super::holder::of(pfn), None);
        drop(pages);
        ktest_eq!(super::holder::of(pfn), None);
        // Early memory comes from the top.
        let mut frames = map.ram.iter().rev().flat_map(|ram| ram.whole_frames().iter().rev());
        let is_early = |pfn| super::holder::of(pfn) == Some(Holder::Early);
        ktest_assert!(frames.any(is_early), "the frame table is held by nobody");
        Ok(())
    }
}

ktest! {
    fn a_recorded_trace_matches_the_counters() {
        let splits = || MEMORY.zones().map(|zone| zone.snapshot(MEMORY.platform()).stats.splits).sum::<u64>();
        let before = splits();
        let mut steps = Recording::new();
        let pages = Pages::alloc_traced(Kernel, Gfp::KERNEL, Order::ZERO, &mut steps)
            .map_err(Failure::new)?;
        let split = steps.steps().filter(|step| matches!(step, Step::Split { .. })).count();
        ktest_eq!(splits().wrapping_sub(before), crate::num::to_u64(split));
        let got = |step| matches!(step, Step::Found { pfn, .. } | Step::Listed { pfn, .. } if pfn == pages.pfn());
        ktest_assert!(steps.steps().any(got));
        Ok(())
    }
}

ktest! {
    fn a_page_given_back_is_the_next_one_handed_out_and_asks_nobody() {
        let pfn = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?.pfn();
        let mut steps = Recording::new();
        let pages = Pages::alloc_traced(Kernel, Gfp::KERNEL, Order::ZERO, &mut steps)
            .map_err(Failure::new)?;
        let lists_are_on = MEMORY.options().is_some_and(|options| options.page_lists.are_on());
        if lists_are_on {
            let listed = Step::Listed { pfn, order: Order::ZERO };
            ktest_assert!(steps.steps().eq([listed]), "{steps}");
        }
        ktest_eq!(pages.pfn(), pfn);
        Ok(())
    }

    fn nothing_is_on_lists_after_a_drain() {
        crate::arch::smp::run_on_each(u32::MAX, &|_| {
            drop(Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO));
        });
        ktest_assert!(MEMORY.drain_all_pages(), "a CPU did not answer");
        let sets = MEMORY.zones().flat_map(|zone| zone.pagesets().chain(zone.cold_pagesets()));
        ktest_eq!(sets.map(|set| set.count).sum::<u64>(), 0);
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }
}
