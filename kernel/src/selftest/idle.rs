//! Idle CPUs are idle, and their time is counted.

use crate::arch::{apic, smp, time};
use crate::ktest::Failure;
use crate::memory::tests::take_everything;
use crate::sched::thread::Affinity;
use crate::sched::{self, idle, spawn};
use crate::shell::keys::Keys;
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

const MS: u64 = 1_000_000;

fn spin_ms(ms: u64) {
    let start = time::now_ns();
    while time::now_ns().saturating_sub(start) < ms.saturating_mul(MS) {
        spin_loop();
    }
}

/// The last CPU, which mostly has nothing to do; none but the boot CPU: nothing.
fn last() -> Option<&'static crate::arch::local::CpuLocal> {
    smp::cpus().last().filter(|cpu| cpu.id() != 0)
}

/// All objects that can be had.
fn take_the_heap(taken: &mut Vec<Vec<u8>>) {
    let mut bytes: usize = 1 << 20;
    while bytes >= 8 && taken.len() < taken.capacity() {
        let mut block = Vec::new();
        if block.try_reserve_exact(bytes).is_ok() {
            taken.push(block);
        } else {
            bytes >>= 1;
        }
    }
}

ktest! {
    fn time_that_a_thread_runs_is_not_idle_time() {
        const BUSY_MS: u64 = 100;
        let Some(cpu) = last() else { return Ok(()) };
        let idle = || cpu.sched.idle_time.ns();
        let (start, before) = (time::now_ns(), idle());
        smp::run_on(cpu.id(), || spin_ms(BUSY_MS)).map_err(Failure::new)?;
        // It is idle once more, and has counted.
        sched::sleep_ms(20).map_err(Failure::new)?;
        let (grown, passed) = (idle().saturating_sub(before), time::now_ns().saturating_sub(start));
        let busy = passed.saturating_sub(grown);
        ktest_assert!(busy >= BUSY_MS.saturating_mul(MS), "{} us of {} us", busy / 1000, passed / 1000);
        Ok(())
    }

    fn time_asleep_counts_before_the_cpu_wakes() {
        const MOST_NS: u64 = 400 * MS;
        let Some(cpu) = last() else { return Ok(()) };
        sched::sleep_ms(20).map_err(Failure::new)?;
        // Without a look at the CPU in between: nothing wakes it.
        let (start, before) = (time::now_ns(), cpu.sched.idle_time.ns());
        spin_ms(400);
        let (grown, passed) = (cpu.sched.idle_time.ns().saturating_sub(before), time::now_ns().saturating_sub(start));
        // Others may have had work for it.
        let is_moving = crate::params::get("sched").is_some();
        ktest_assert!(is_moving || grown >= MOST_NS / 2, "{} us of {} us", grown / 1000, passed / 1000);
        ktest_assert!(grown <= passed.saturating_add(MS), "{} us of {} us", grown / 1000, passed / 1000);
        Ok(())
    }

    fn nobody_at_the_prompt_leaves_the_cpu_in_peace() {
        if !apic::is_in_use() {
            return Ok(());
        }
        let switches = || sched::with_running(|thread| thread.switches()).unwrap_or_default();
        let before = switches();
        let deadline = time::now_ns().saturating_add(1_000 * MS);
        let key = Keys::default().next_before(deadline);
        ktest_eq!(key, None);
        let looks = switches().saturating_sub(before);
        ktest_assert!(looks <= 30, "looked {looks} times in a second");
        Ok(())
    }

    fn ended_threads_are_cleared_away_without_memory_for_notes() {
        let go = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&go);
        drop(spawn("ends", Affinity::Any, move || {
            while !theirs.load(Ordering::Relaxed) {
                if sched::sleep_ms(1).is_err() {
                    return;
                }
            }
        }).map_err(Failure::new)?);
        sched::sleep_ms(5).map_err(Failure::new)?;
        let mut heap = Vec::with_capacity(16_384);
        let pages = take_everything()?;
        take_the_heap(&mut heap);
        go.store(true, Ordering::Relaxed);
        let start = time::now_ns();
        // It ends, and some CPU is idle meanwhile.
        let mut slept = sched::sleep_ms(20);
        while idle::ended() > 0 && time::now_ns().saturating_sub(start) < 5_000 * MS {
            slept = sched::sleep_ms(1);
        }
        let left = idle::ended();
        let blocks = heap.len();
        drop((heap, pages));
        ktest_eq!(slept, Ok(()));
        ktest_assert!((2..16_384).contains(&blocks), "memory was not used up: {blocks} objects");
        ktest_eq!(left, 0);
        Ok(())
    }
}
