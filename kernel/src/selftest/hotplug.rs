//! CPUs go offline and come back, and nothing is lost on the way.

use crate::arch::{local, smp};
use crate::ktest::Failure;
use crate::sched::hotplug::{self, PlugError};
use crate::sched::team::scoped;
use crate::sched::thread::{Affinity, SpawnError};
use crate::sched::wait::Completion;
use crate::sched::{self, spawn};
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A CPU other than the boot CPU.
fn some_cpu() -> Option<u32> {
    smp::count().checked_sub(1).filter(|&last| last > 0)
}

fn take_offline(id: u32) -> Result<(), Failure> {
    hotplug::offline(id).map_err(|error| Failure::new(format_args!("CPU {id} offline: {error}")))
}

fn bring_online(id: u32) -> Result<(), Failure> {
    hotplug::online(id).map_err(|error| Failure::new(format_args!("CPU {id} online: {error}")))
}

ktest! {
    fn cpus_go_offline_and_come_back_while_threads_run() {
        const ROUNDS: u32 = 3;
        let stop = AtomicBool::new(false);
        let (turns, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        scoped("runner", smp::count().min(8), &|number| {
            while !stop.load(Ordering::Relaxed) {
                turns.fetch_add(1, Ordering::Relaxed);
                let gave_way = if number % 2 == 0 { sched::sleep_ms(1) } else { sched::yield_now() };
                lost.fetch_add(u64::from(gave_way.is_err()), Ordering::Relaxed);
            }
        }, || {
            let round = || -> Result<(), Failure> {
                for id in 1..smp::count().min(5) {
                    take_offline(id)?;
                    bring_online(id)?;
                }
                Ok(())
            };
            let outcome = (0..ROUNDS).try_for_each(|_| round());
            // A single CPU has been here all the time.
            while turns.load(Ordering::Relaxed) == 0 && sched::sleep_ms(1).is_ok() {}
            stop.store(true, Ordering::Relaxed);
            outcome
        }).map_err(Failure::new)??;
        ktest_assert!(turns.load(Ordering::Relaxed) > 0);
        ktest_eq!(lost.load(Ordering::Relaxed), 0);
        ktest_assert!(smp::cpus().all(hotplug::is_online));
        Ok(())
    }

    fn an_offline_cpu_is_left_out() {
        let Some(id) = some_cpu() else { return Ok(()) };
        take_offline(id)?;
        let told = (
            smp::call_on(id, || ()),
            smp::run_on(id, || ()),
            spawn("nowhere", Affinity::Cpu(id), || ()).map(|_| ()),
            hotplug::offline(id),
        );
        let seen = AtomicU64::new(0);
        let note = |cpu: u32| {
            seen.fetch_add(u64::from(cpu == id), Ordering::Relaxed);
        };
        smp::call_on_all(&note);
        let ran = smp::run_on_each(u32::MAX, &note);
        let cpu = smp::cpu(id).ok_or("it has gone")?;
        let is_claimed = cpu.presence.claim().map(|_claim| cpu.presence.claim().is_some());
        bring_online(id)?;
        ktest_eq!(told, (
            Err(smp::NoSuchCpu(id)),
            Err(smp::NoSuchCpu(id)),
            Err(SpawnError::NoSuchCpu(id)),
            Err(PlugError::Already),
        ));
        ktest_eq!((seen.load(Ordering::Relaxed), ran), (0, smp::count().wrapping_sub(1)));
        // Anybody may act for it, one at a time.
        ktest_eq!(is_claimed, Some(false));
        ktest_eq!(smp::run_on(id, local::current_id), Ok(id));
        ktest_eq!(smp::call_on(id, local::current_id), Ok(id));
        Ok(())
    }

    fn who_is_bound_to_a_cpu_keeps_it_online() {
        let Some(id) = some_cpu() else { return Ok(()) };
        let go = Arc::new(Completion::new(1));
        let theirs = Arc::clone(&go);
        let bound = spawn("bound", Affinity::Cpu(id), move || theirs.wait()).map_err(Failure::new)?;
        let refused = hotplug::offline(id);
        go.complete();
        ktest_eq!(bound.join(), Ok(Ok(())));
        ktest_eq!(refused, Err(PlugError::InUse));
        // Now nothing does.
        take_offline(id)?;
        bring_online(id)
    }

    fn what_cannot_be_is_refused() {
        ktest_eq!(hotplug::offline(0), Err(PlugError::BootCpu));
        ktest_eq!(hotplug::online(0), Err(PlugError::Already));
        let count = smp::count();
        ktest_eq!(hotplug::offline(count), Err(PlugError::NoSuchCpu(count)));
        ktest_eq!(hotplug::online(u32::MAX), Err(PlugError::NoSuchCpu(u32::MAX)));
        Ok(())
    }

    fn a_sleeper_is_woken_though_its_cpu_went_offline() {
        let Some(id) = some_cpu() else { return Ok(()) };
        // Where the sleepers start is up to the scheduler: as many as there are CPUs.
        let late = AtomicU64::new(0);
        scoped("sleeper", smp::count().min(8), &|_| {
            let slept = sched::sleep_ms(20);
            late.fetch_add(u64::from(slept.is_err()), Ordering::Relaxed);
        }, || take_offline(id)).map_err(Failure::new)??;
        ktest_eq!(late.load(Ordering::Relaxed), 0);
        bring_online(id)
    }
}
