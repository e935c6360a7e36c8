//! The CPUs: each answers, each is itself, locks exclude, stacks end where they should.
#![expect(
    unsafe_code,
    reason = "provoking an exception abandons the code that raised it"
)]

use crate::arch::apic::{self, vector};
use crate::arch::expect::expect_fault;
use crate::arch::irq::IrqGuard;
use crate::arch::lock::IrqLock;
use crate::arch::{local, probe, registers, smp, time, trap};
use crate::ktest::Failure;
use crate::memory::{Kernel, MEMORY, Pages, free_frames};
use crate::num::{to_u64, to_usize};
use crate::{ktest, ktest_assert, ktest_eq, logger, sched};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::Order;
use mm::buddy::Gfp;

/// A counter for each CPU.
fn counters() -> Vec<AtomicU64> {
    smp::cpus().map(|_| AtomicU64::new(0)).collect()
}

fn counter(counters: &[AtomicU64], cpu: u32) -> &AtomicU64 {
    &counters[to_usize(u64::from(cpu))]
}

fn write(address: u64) {
    // SAFETY: the test passes addresses of guard pages, where writing faults.
    unsafe { probe::poke(address) };
}

/// The first complaint of any CPU.
fn complaint(of: &IrqLock<Option<String>>) -> Result<(), Failure> {
    of.lock().take().map_or(Ok(()), |text| Err(text.into()))
}

ktest! {
    fn every_cpu_answers_a_call_and_its_work() {
        for cpu in smp::cpus() {
            let id = cpu.id();
            ktest_eq!(smp::call_on(id, local::current_id), Ok(id));
            ktest_eq!(smp::run_on(id, local::current_id), Ok(id));
        }
        let count = smp::count();
        ktest_eq!(smp::call_on(count, || ()), Err(smp::NoSuchCpu(count)));
        ktest_eq!(smp::run_on(u32::MAX, || ()), Err(smp::NoSuchCpu(u32::MAX)));
        Ok(())
    }

    fn calls_run_without_interrupts_and_work_with_them() {
        let are_enabled = || {
            let flags = crate::arch::irq::save();
            let were = flags.were_enabled();
            crate::arch::irq::restore(flags);
            were
        };
        for cpu in smp::cpus() {
            ktest_eq!(smp::call_on(cpu.id(), are_enabled), Ok(false));
            ktest_eq!(smp::run_on(cpu.id(), are_enabled), Ok(true));
        }
        Ok(())
    }

    fn every_cpu_is_itself_and_like_the_boot_cpu() {
        let control = registers::control();
        let mut seen: Vec<u32> = Vec::new();
        for cpu in smp::cpus() {
            let (same, apic_id, theirs, stack) = smp::run_on(cpu.id(), || {
                let me = local::current();
                (core::ptr::eq(me, cpu), apic::id(), registers::control(), registers::stack_pointer())
            }).map_err(Failure::new)?;
            ktest_assert!(same, "CPU {} runs on another's state", cpu.id());
            ktest_eq!(apic_id, cpu.apic_id());
            ktest_assert!(!seen.contains(&apic_id), "APIC id {apic_id} twice");
            seen.push(apic_id);
            ktest_eq!((theirs.cr0, theirs.cr3, theirs.cr4, theirs.efer),
                (control.cr0, control.cr3, control.cr4, control.efer));
            // Its idle thread is on the CPU's own stack, its worker is not; CPU 0 is the shell's.
            ktest_eq!(cpu.main_stack().holds(stack, 8), cpu.id() == 0);
        }
        Ok(())
    }

    fn the_number_is_stable_while_interrupts_are_off() {
        let wrong = AtomicU64::new(0);
        smp::run_on_each(u32::MAX, &|cpu| {
            let _irq = IrqGuard::new();
            for _ in 0..10_000 {
                if local::current_id() != cpu || local::current().id() != cpu {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        ktest_eq!(wrong.load(Ordering::Relaxed), 0);
        Ok(())
    }

    fn storms_of_calls_lose_none() {
        const CALLS: u64 = 50;
        let made = counters();
        smp::run_on_each(u32::MAX, &|me| {
            // Everybody calls a neighbour, the next one, and so on.
            for step in 0..CALLS {
                let sum = u64::from(me).wrapping_add(step).wrapping_add(1);
                let target = sum.checked_rem(u64::from(smp::count())).unwrap_or(0);
                let target = u32::try_from(target).unwrap_or(0);
                let _ = smp::call_on(target, || {
                    counter(&made, local::current_id()).fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        let total: u64 = made.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        ktest_eq!(total, CALLS.saturating_mul(u64::from(smp::count())));
        let before = made.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        for _ in 0..10 {
            smp::call_on_all(&|cpu| {
                counter(&made, cpu).fetch_add(1, Ordering::Relaxed);
            });
        }
        for (count, before) in made.iter().zip(before) {
            ktest_eq!(count.load(Ordering::Relaxed), before.saturating_add(10));
        }
        Ok(())
    }

    fn cpus_that_call_each_other_with_interrupts_off_do_not_block() {
        let answers = counters();
        smp::run_on_each(2, &|me| {
            let other = 1_u32.saturating_sub(me).min(smp::count().saturating_sub(1));
            let _irq = IrqGuard::new();
            for _ in 0..50 {
                if smp::call_on(other, local::current_id) == Ok(other) {
                    counter(&answers, me).fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for count in answers.iter().take(2) {
            ktest_eq!(count.load(Ordering::Relaxed), 50);
        }
        Ok(())
    }

    fn locks_exclude_other_cpus() {
        const ROUNDS: u64 = 1_000;
        let counted = IrqLock::new(0_u64);
        smp::run_on_each(u32::MAX, &|_| {
            for _ in 0..ROUNDS {
                let mut count = counted.lock();
                let seen = *count;
                spin_loop();
                *count = seen.saturating_add(1);
            }
        });
        ktest_eq!(*counted.lock(), ROUNDS.saturating_mul(u64::from(smp::count())));
        Ok(())
    }

    fn a_lock_knows_whether_it_is_held_here() {
        let lock = IrqLock::new(());
        let held = lock.lock();
        ktest_assert!(lock.lock_unless_mine().is_none());
        drop(held);
        ktest_assert!(lock.lock_unless_mine().is_some());
        Ok(())
    }

    fn log_lines_of_all_cpus_arrive_whole() {
        let mark = time::tsc();
        smp::run_on_each(8, &|cpu| log::info!("smp test {mark:x} from cpu {cpu} here"));
        let mut log = String::new();
        logger::dump(&mut log).map_err(Failure::new)?;
        for cpu in 0..smp::count().min(8) {
            let line = format!("] smp test {mark:x} from cpu {cpu} here\n");
            ktest_eq!(log.matches(&line).count(), 1);
        }
        Ok(())
    }

    fn guard_pages_of_every_cpu_guard() {
        let wrong = IrqLock::new(None);
        smp::run_on_each(u32::MAX, &|id| {
            for (name, stack) in local::current().stacks() {
                for address in [stack.guard, stack.bottom.saturating_sub(1)] {
                    // SAFETY: the one instruction that faults owns nothing.
                    let fault = unsafe { expect_fault(trap::vector::PAGE_FAULT, || write(address)) };
                    if !fault.is_ok_and(|fault| (fault.address, fault.error_code) == (address, 2)) {
                        *wrong.lock() = Some(format!("{name} stack of CPU {id}: {fault:?}"));
                    }
                }
            }
        });
        complaint(&wrong)
    }

    fn stacks_of_all_cpus_are_disjoint() {
        let mut extents: Vec<_> = smp::cpus().flat_map(|cpu| cpu.stacks()).map(|(_, stack)| stack).collect();
        ktest_eq!(to_u64(extents.len()), u64::from(smp::count()).saturating_mul(8));
        extents.sort_unstable_by_key(|stack| stack.guard);
        for pair in extents.windows(2) {
            ktest_assert!(pair[0].top <= pair[1].guard, "{pair:?}");
        }
        Ok(())
    }

    fn timers_wake_on_every_cpu_and_then_stop() {
        if !apic::is_in_use() {
            return Ok(());
        }
        ktest_assert!(apic::timer_rate() > 1_000_000, "{} Hz", apic::timer_rate());
        let count = || local::current().count(vector::TIMER);
        for cpu in smp::cpus() {
            let slept = smp::run_on(cpu.id(), || {
                let (before, start) = (count(), time::now_ns());
                let outcome = sched::sleep_ms(2);
                (outcome, time::now_ns().saturating_sub(start), count().wrapping_sub(before))
            });
            let (outcome, ns, ticks) = slept.map_err(Failure::new)?;
            ktest_eq!(outcome, Ok(()));
            ktest_assert!(ns >= 2_000_000, "cpu {} slept {ns} ns", cpu.id());
            ktest_assert!(ticks >= 1, "cpu {} was not interrupted", cpu.id());
        }
        Ok(())
    }

    fn a_cpu_without_other_threads_has_no_tick() {
        // Those that the boot made may not have had their first turn yet.
        let _ = sched::sleep_ms(20);
        let cpu = local::current();
        let before = cpu.count(vector::TIMER);
        let start = time::now_ns();
        while time::now_ns().saturating_sub(start) < 50_000_000 {
            spin_loop();
        }
        let ticks = cpu.count(vector::TIMER).wrapping_sub(before);
        // A hundred a second would be five. The last slice may end, and a deadline come that a
        // test before has given up. With `sched=migrate` there is a tick in any case.
        ktest_assert!(ticks <= 2 || crate::params::get("sched").is_some(), "{ticks} interrupts");
        Ok(())
    }

    fn all_cpus_allocate_and_free_pages() {
        let free = free_frames();
        let wrong = IrqLock::new(None);
        smp::run_on_each(u32::MAX, &|cpu| {
            let mark = low_byte_of(cpu);
            for round in 0..40_u8 {
                let order = Order::new(round % 4).unwrap_or_default();
                let Ok(mut pages) = Pages::alloc(Kernel, Gfp::KERNEL, order) else {
                    *wrong.lock() = Some(format!("CPU {cpu} got no memory"));
                    return;
                };
                pages.bytes_mut().fill(mark);
                if pages.bytes().iter().any(|&byte| byte != mark) {
                    *wrong.lock() = Some(format!("CPU {cpu}: another wrote to {}", pages.pfn()));
                }
            }
        });
        complaint(&wrong)?;
        ktest_eq!(free_frames(), free);
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }

    fn blocks_may_be_freed_on_another_cpu() {
        let free = free_frames();
        for cpu in smp::cpus() {
            let pages = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
            smp::run_on(cpu.id(), move || drop(pages)).map_err(Failure::new)?;
        }
        ktest_eq!(free_frames(), free);
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }

    fn the_firmware_names_the_cpus_that_run() {
        let acpi = crate::acpi::get();
        let online = smp::records().iter().filter(|record| matches!(record.state, smp::State::Online(_))).count();
        ktest_eq!(to_u64(online), u64::from(smp::count()));
        if !acpi.cpus.is_empty() {
            ktest_assert!(acpi.tables.iter().any(|(name, _)| name.0 == *b"APIC"));
            ktest_assert!(acpi.cpus.iter().any(|cpu| cpu.apic_id == local::boot_cpu().apic_id() && cpu.is_enabled));
        }
        Ok(())
    }
}

ktest! {
    fn every_cpu_that_the_firmware_enables_takes_part_in_an_emulator() {
        let left_out = crate::params::is_set("nosmp")
            || ["maxcpus", "deaf"].into_iter().any(|name| crate::params::get(name).is_some());
        if !crate::arch::cpu::is_virtual() || left_out {
            return Ok(());
        }
        for record in smp::records() {
            ktest_assert!(matches!(record.state, smp::State::Online(_) | smp::State::Disabled), "{record:?}");
        }
        Ok(())
    }

    fn cpus_give_each_other_work() {
        let last = smp::count().saturating_sub(1);
        let back = smp::run_on(last, || smp::run_on(0, local::current_id)).map_err(Failure::new)?;
        ktest_eq!(back, Ok(0));
        Ok(())
    }
}

fn low_byte_of(number: u32) -> u8 {
    crate::num::low_byte(u64::from(number)) | 0x80
}
