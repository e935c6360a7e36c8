//! What each CPU has of its own: variables, and objects made at run time.

use crate::arch::irq::IrqGuard;
use crate::arch::local;
use crate::arch::percpu::{self, Variable};
use crate::arch::pin::Pin;
use crate::arch::smp;
use crate::ktest::Failure;
use crate::memory::{Kernel, MEMORY, free_frames};
use crate::num::to_u64;
use crate::{ktest, ktest_assert, ktest_eq, percpu, sched};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::platform::CpuId;
use mm::system::PerCpuBox;

percpu! {
    /// Counted by tests.
    counter Counted;
}
percpu! {
    /// Has a first value that is not zero.
    static First: AtomicU32 = AtomicU32::new(0x1234_5678);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn counter() -> Result<PerCpuBox<AtomicU64, Kernel>, Failure> {
    let zero = |_| AtomicU64::new(0);
    PerCpuBox::new_with(Kernel, Gfp::KERNEL, zero).map_err(Failure::new)
}

ktest! {
    fn every_cpu_has_a_copy_with_the_first_value() {
        let mut seen: Vec<usize> = Vec::new();
        First::for_each_cpu(|_, first| seen.push(core::ptr::from_ref(first).addr()));
        ktest_eq!(to_u64(seen.len()), u64::from(smp::count()));
        seen.sort_unstable();
        seen.dedup();
        ktest_eq!(to_u64(seen.len()), u64::from(smp::count()));
        ktest_eq!(First::sum(|first| u64::from(first.load(Ordering::Relaxed))),
            0x1234_5678_u64.saturating_mul(u64::from(smp::count())));
        // What a CPU finds through its GS base is what others find behind its state.
        for cpu in smp::cpus() {
            let is_same = smp::run_on(cpu.id(), || {
                let pin = Pin::new();
                core::ptr::eq(First::this_cpu(&pin), First::of(cpu))
            });
            ktest_eq!(is_same, Ok(true));
        }
        Ok(())
    }

    fn each_cpu_counts_in_its_own_copy() {
        let before: Vec<u64> = smp::cpus().map(|cpu| read(Counted::of(cpu))).collect();
        smp::run_on_each(u32::MAX, &|cpu| {
            let _irq = IrqGuard::new();
            for _ in 0..u64::from(cpu).saturating_add(10) {
                Counted::inc();
            }
            Counted::add(1_000_000_000_000);
        });
        for (cpu, before) in smp::cpus().zip(before) {
            let grown = read(Counted::of(cpu)).wrapping_sub(before);
            ktest_eq!(grown, u64::from(cpu.id()).saturating_add(1_000_000_000_010));
        }
        Ok(())
    }

    fn interrupts_are_counted_where_they_come() {
        for cpu in smp::cpus() {
            let vector = crate::arch::apic::vector::CALL;
            let before = cpu.count(vector);
            let others = |cpu: u32| smp::cpus().filter(move |other| other.id() != cpu);
            if smp::count() > 1 {
                let target = others(cpu.id()).next().map_or(0, local::CpuLocal::id);
                let called = smp::run_on(target, || smp::call_on(cpu.id(), || ()));
                ktest_eq!(called, Ok(Ok(())));
                ktest_assert!(cpu.count(vector) > before, "CPU {} did not count", cpu.id());
            }
        }
        Ok(())
    }

    fn counters_made_at_run_time_lose_nothing() {
        const EACH: u64 = 20_000;
        let counter = counter()?;
        smp::run_on_each(u32::MAX, &|_| {
            // With interrupts on, and threads that are preempted.
            for _ in 0..EACH {
                percpu::add(&counter, 1, &Pin::new());
            }
        });
        counter.for_each_cpu(|cpu, count| {
            if cpu.0 < smp::count() && read(count) != EACH {
                log::error!("CPU {} counted {}", cpu.0, read(count));
            }
        });
        ktest_eq!(counter.sum(read), EACH.saturating_mul(u64::from(smp::count())));
        Ok(())
    }

    fn each_copy_is_on_the_node_of_its_cpu() {
        let space = MEMORY.kernel_space().ok_or("no address space")?;
        // As large as a unit, so that it is not in one that is older than the areas.
        let counters = || core::array::from_fn::<_, 4096, _>(|_| AtomicU64::new(0));
        let values = PerCpuBox::new_with(Kernel, Gfp::KERNEL, |_| counters());
        let values = values.map_err(Failure::new)?;
        let mut far: u32 = 0;
        for (cpu, copy) in values.iter() {
            let at = VirtAddr::from_ptr(core::ptr::from_ref(copy));
            ktest_assert!(space.layout.percpu.contains(at), "{cpu:?}: {at:?}");
            for page in 0..8_u64 {
                let page = at.checked_add(page.saturating_mul(PAGE_SIZE)).unwrap_or(at);
                let found = MEMORY.walk(&space.tables, page).phys(page).ok_or("not mapped")?;
                let node = MEMORY.zone_of(found.frame()).map(|zone| zone.id().node);
                far = far.saturating_add(u32::from(node != Some(MEMORY.node_of(cpu))));
            }
        }
        // A CPU's node may have no memory, or none left.
        let has_memory = |cpu| MEMORY.zones().any(|zone| {
            zone.id().node == MEMORY.node_of(cpu) && zone.free_frames() > 1_000
        });
        if smp::cpus().all(|cpu| has_memory(CpuId(cpu.id()))) {
            ktest_eq!(far, 0);
        }
        ktest_eq!(MEMORY.validate_percpu(), Ok(()));
        Ok(())
    }

    fn copies_come_zeroed_and_go_back() {
        // Page tables and records of areas stay.
        drop(counter()?);
        MEMORY.shrink_percpu();
        let (before, chunks) = (free_frames(), MEMORY.percpu_stats().chunks);
        let mut kept = Vec::new();
        for round in 0..2_000_u64 {
            let counter = counter()?;
            ktest_eq!(counter.sum(read), 0);
            let pin = mm::sync::Pin::new(MEMORY.platform());
            counter.this_cpu(&pin).store(u64::MAX, Ordering::Relaxed);
            drop(pin);
            if round.checked_rem(3) == Some(0) {
                kept.push(counter);
            }
            if round.checked_rem(500) == Some(0) {
                let _ = sched::yield_now();
            }
        }
        ktest_eq!(MEMORY.validate_percpu(), Ok(()));
        let last = kept.first().and_then(|counter| counter.get(CpuId(0)).map(read));
        ktest_assert!(last.is_some());
        drop(kept);
        MEMORY.shrink_percpu();
        ktest_eq!(MEMORY.percpu_stats().chunks, chunks);
        let after = free_frames();
        ktest_assert!(after >= before, "{before} frames were free, now {after}");
        Ok(())
    }
}
