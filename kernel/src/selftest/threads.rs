//! Threads come, end, and leave nothing behind.

use crate::arch::{local, smp, time};
use crate::ktest::Failure;
use crate::memory::{MEMORY, free_frames, free_or_table_frames};
use crate::sched::spawn::{self as ending, JoinError};
use crate::sched::team::scoped;
use crate::sched::thread::{self, Affinity, SpawnError, Status};
use crate::sched::wait::{Completion, Waited};
use crate::sched::{self, spawn};
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Sleeps until `condition` holds, for some seconds at most.
fn wait_for(condition: impl Fn() -> bool) -> bool {
    let start = time::now_ns();
    while time::now_ns().saturating_sub(start) < 20 * time::NS_PER_SECOND {
        if condition() {
            return true;
        }
        if sched::sleep_ms(1).is_err() {
            return false;
        }
    }
    false
}

/// Spawns and joins `count` threads, all there at the same time.
fn crowd(count: u32) -> Result<u64, Failure> {
    let handles: Result<Vec<_>, _> = (0..count)
        .map(|number| spawn("one", Affinity::Any, move || u64::from(number)))
        .collect();
    let mut sum: u64 = 0;
    for handle in handles.map_err(Failure::new)? {
        sum = sum.wrapping_add(handle.join().map_err(Failure::new)?);
    }
    Ok(sum)
}

ktest! {
    fn a_joined_thread_gives_its_result() {
        let handle = spawn("answer", Affinity::Any, || 6_u64.wrapping_mul(7)).map_err(Failure::new)?;
        let thread = Arc::clone(handle.thread());
        ktest_eq!(thread.name(), "answer");
        ktest_eq!(handle.join(), Ok(42));
        ktest_assert!(thread.is_ended());
        ktest_eq!(thread.status(), Status::Ended);
        ktest_assert!(!thread::all().iter().any(|other| other.id() == thread.id()));
        Ok(())
    }

    fn a_thread_that_exits_has_no_result() {
        let handle = spawn("early", Affinity::Any, || -> u64 { ending::exit() }).map_err(Failure::new)?;
        ktest_eq!(handle.join(), Err(JoinError::NoResult));
        Ok(())
    }

    fn a_bound_thread_runs_where_it_is_bound_to() {
        for cpu in smp::cpus() {
            let place = Affinity::Cpu(cpu.id());
            let handle = spawn("bound", place, || {
                let before = local::current_id();
                let slept = sched::sleep_ms(1);
                (before, slept, local::current_id())
            }).map_err(Failure::new)?;
            ktest_eq!(handle.join(), Ok((cpu.id(), Ok(()), cpu.id())));
        }
        let nowhere = spawn("lost", Affinity::Cpu(smp::count()), || ()).map(|_| ());
        ktest_eq!(nowhere, Err(SpawnError::NoSuchCpu(smp::count())));
        Ok(())
    }

    fn joined_threads_leave_no_pages_behind() {
        const AREAS: u32 = 1024;
        ktest_eq!(crowd(20)?, 190);
        let free = free_or_table_frames(AREAS).map_err(Failure::new)?;
        for _ in 0..3 {
            crowd(20)?;
        }
        ktest_assert!(wait_for(|| free_or_table_frames(AREAS) == Ok(free)),
            "{:?} pages, {free} before", free_or_table_frames(AREAS));
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }

    fn threads_that_nobody_joins_leave_no_pages_behind() {
        MEMORY.vmalloc_reserve(1024).map_err(Failure::new)?;
        crowd(8)?;
        let free = free_frames();
        let ran = Arc::new(AtomicU32::new(0));
        for _ in 0..8 {
            let ran = Arc::clone(&ran);
            drop(spawn("loose", Affinity::Any, move || ran.fetch_add(1, Ordering::Relaxed)).map_err(Failure::new)?);
        }
        ktest_assert!(wait_for(|| ran.load(Ordering::Relaxed) == 8));
        ktest_assert!(wait_for(|| free_frames() == free),
            "{} pages, {free} before", free_frames());
        Ok(())
    }

    fn a_handle_dropped_after_the_end_leaves_no_pages_behind() {
        crowd(1)?;
        let free = free_frames();
        let handle = spawn("gone", Affinity::Any, || ()).map_err(Failure::new)?;
        ktest_assert!(wait_for(|| handle.thread().is_ended()));
        drop(handle);
        ktest_assert!(wait_for(|| free_frames() == free),
            "{} pages, {free} before", free_frames());
        Ok(())
    }

    fn all_cpus_take_part_when_there_is_enough_to_do() {
        let count = smp::count();
        let seen: Vec<AtomicU32> = smp::cpus().map(|_| AtomicU32::new(0)).collect();
        let busy = AtomicU32::new(0);
        scoped("spread", count, &|_| {
            busy.fetch_add(1, Ordering::Relaxed);
            let start = time::now_ns();
            // Until all are busy at once, for a while: then each has been somewhere.
            while busy.load(Ordering::Relaxed) < count
                && time::now_ns().saturating_sub(start) < 10 * time::NS_PER_SECOND {
                core::hint::spin_loop();
            }
            if let Some(seen) = seen.get(crate::num::to_usize(u64::from(local::current_id()))) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(busy.load(Ordering::Relaxed), count);
        let used = seen.iter().filter(|seen| seen.load(Ordering::Relaxed) > 0).count();
        ktest_assert!(used >= crate::num::to_usize(u64::from(count.min(2))), "{used} CPUs used");
        Ok(())
    }

    fn sleep_lasts_as_long_as_it_should() {
        for ms in [0, 1, 3, 12] {
            let start = time::now_ns();
            ktest_eq!(sched::sleep_ms(ms), Ok(()));
            let slept = time::now_ns().saturating_sub(start);
            ktest_assert!(slept >= ms.saturating_mul(1_000_000), "{slept} ns, not {ms} ms");
        }
        Ok(())
    }

    fn many_sleepers_are_all_woken() {
        let early = AtomicU32::new(0);
        scoped("sleeper", 12, &|number| {
            let ms = u64::from(number % 5);
            let start = time::now_ns();
            let slept = sched::sleep_ms(ms);
            let took = time::now_ns().saturating_sub(start);
            early.fetch_add(u32::from(slept.is_err() || took < ms.saturating_mul(1_000_000)), Ordering::Relaxed);
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(early.load(Ordering::Relaxed), 0);
        Ok(())
    }

    fn threads_of_one_cpu_take_turns_when_they_give_way() {
        let turns = AtomicU32::new(0);
        let wrong = AtomicU32::new(0);
        let here = Affinity::Cpu(local::current_id());
        sched::team::scoped_on("turn", [here, here].into_iter(), &|number| {
            for round in 0..50_u32 {
                let turn = round.wrapping_mul(2).wrapping_add(number);
                while turns.load(Ordering::Relaxed) != turn {
                    wrong.fetch_add(u32::from(sched::yield_now().is_err()), Ordering::Relaxed);
                }
                turns.store(turn.wrapping_add(1), Ordering::Relaxed);
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!((turns.load(Ordering::Relaxed), wrong.load(Ordering::Relaxed)), (100, 0));
        Ok(())
    }

    fn a_thread_knows_its_name_and_the_shell_is_one() {
        let name = sched::with_running(|thread| alloc::string::String::from(thread.name()));
        ktest_eq!(name.as_deref(), Some("shell"));
        let sp = crate::arch::registers::stack_pointer();
        ktest_assert!(sched::running_stack().holds(sp, 8));
        let inside = spawn("inside", Affinity::Any, || {
            sched::running_stack().holds(crate::arch::registers::stack_pointer(), 8)
        }).map_err(Failure::new)?;
        ktest_eq!(inside.join(), Ok(true));
        Ok(())
    }

    fn the_guard_page_of_a_thread_guards() {
        let fault = spawn("guard", Affinity::Any, || {
            crate::selftest::traps::fault_of_a_write(sched::running_stack().guard)
        }).map_err(Failure::new)?.join().map_err(Failure::new)?;
        ktest_assert!(fault.is_ok_and(|fault| fault.error_code == 2));
        Ok(())
    }

    fn a_completion_waits_for_all_or_for_a_time() {
        let done = Completion::new(3);
        let waited = scoped("part", 3, &|_| done.complete(), || done.wait()).map_err(Failure::new)?;
        ktest_eq!(waited, Ok(()));
        let never = Completion::new(1);
        ktest_eq!(never.wait_timeout(2), Ok(Waited::TimedOut));
        never.complete();
        never.complete();
        ktest_eq!(never.wait_timeout(2), Ok(Waited::Met));
        Ok(())
    }
}
