//! Grace periods on this machine's CPUs, and pages in NMI handlers.
#![expect(
    unsafe_code,
    reason = "frees of plain frame numbers, and handlers of NMIs, are unsafe"
)]

use crate::arch::trap::{self, Handled, TrapFrame, vector};
use crate::arch::{irq, local, probe, running, smp, time};
use crate::ktest::Failure;
use crate::memory::grace::{PATIENCE, stalls};
use crate::memory::{Kernel, MEMORY, Pages, free_frames};
use crate::sched::{self, hotplug, spawn};
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::sync::Arc;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::numa::{Mode, NodeMask, Policy};
use mm::platform::Platform;

/// Waits until something is so, ten seconds at most.
fn soon(is_so: impl Fn() -> bool) -> bool {
    let start = time::now_ns();
    while !is_so() {
        if time::now_ns().saturating_sub(start) > 10_000_000_000 || sched::sleep_ms(1).is_err() {
            return is_so();
        }
    }
    true
}

fn page() -> Result<Pages, Failure> {
    Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)
}

/// The last CPU that takes part.
fn last() -> u32 {
    smp::count().saturating_sub(1)
}

static CALLS: AtomicU64 = AtomicU64::new(0);

fn note(data: u64) {
    CALLS.fetch_add(data, Ordering::Relaxed);
}

ktest! {
    fn calls_and_pages_put_off_on_every_cpu_are_done() {
        const EACH: u64 = 20;
        let free = free_frames();
        CALLS.store(0, Ordering::Relaxed);
        let refused = AtomicU64::new(0);
        let cpus = smp::run_on_each(u32::MAX, &|_| {
            for _ in 0..EACH {
                drop(MEMORY.grace().pin());
                let called = MEMORY.grace().call(note, 1);
                let page = page().map(Pages::defer_free);
                if called.is_err() || page.is_err() {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        ktest_eq!(refused.load(Ordering::Relaxed), 0);
        ktest_assert!(soon(|| MEMORY.grace().pending() == 0), "{} left", MEMORY.grace().pending());
        ktest_eq!(CALLS.load(Ordering::Relaxed), EACH.saturating_mul(u64::from(cpus)));
        MEMORY.grace().validate().map_err(Failure::new)?;
        ktest_eq!(free_frames(), free);
        Ok(())
    }

    fn synchronize_waits_for_a_reader_on_another_cpu() {
        if smp::count() < 2 {
            return Ok(());
        }
        let (reading, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (theirs, end) = (Arc::clone(&reading), Arc::clone(&done));
        let reader = spawn("reader", sched::thread::Affinity::Cpu(last()), move || {
            let guard = MEMORY.grace().pin();
            theirs.store(true, Ordering::Release);
            while !end.load(Ordering::Acquire) {
                spin_loop();
            }
            drop(guard);
        }).map_err(Failure::new)?;
        ktest_assert!(soon(|| reading.load(Ordering::Acquire)));
        let cookie = MEMORY.grace().start();
        for _ in 0..20 {
            ktest_assert!(!MEMORY.grace().poll(cookie), "a reader was not waited for");
            sched::sleep_ms(1).map_err(Failure::new)?;
        }
        done.store(true, Ordering::Release);
        ktest_assert!(soon(|| MEMORY.grace().poll(cookie)));
        reader.join().map_err(|_| Failure::new("the reader is lost"))?;
        Ok(())
    }

    fn a_cpu_that_spins_with_interrupts_off_is_reported() {
        if smp::count() < 2 {
            return Ok(());
        }
        let (spins, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (theirs, end) = (Arc::clone(&spins), Arc::clone(&done));
        let spinner = spawn("spinner", sched::thread::Affinity::Cpu(last()), move || {
            drop(MEMORY.grace().pin());
            irq::without(|| {
                theirs.store(true, Ordering::Release);
                while !end.load(Ordering::Acquire) {
                    spin_loop();
                }
            });
        }).map_err(Failure::new)?;
        ktest_assert!(soon(|| spins.load(Ordering::Acquire)));
        let before = stalls();
        MEMORY.grace().set_patience(20);
        page()?.defer_free();
        let reported = soon(|| stalls() > before);
        let pending = MEMORY.grace().pending();
        done.store(true, Ordering::Release);
        MEMORY.grace().set_patience(PATIENCE);
        spinner.join().map_err(|_| Failure::new("the spinner is lost"))?;
        ktest_assert!(reported, "no report");
        ktest_assert!(pending > 0, "the page was freed meanwhile");
        ktest_assert!(soon(|| MEMORY.grace().pending() == 0));
        Ok(())
    }

    fn a_cpu_that_never_switches_threads_passes_by_interrupts() {
        if smp::count() < 2 {
            return Ok(());
        }
        let (spins, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (theirs, end) = (Arc::clone(&spins), Arc::clone(&done));
        let spinner = spawn("spinner", sched::thread::Affinity::Cpu(last()), move || {
            drop(MEMORY.grace().pin());
            theirs.store(true, Ordering::Release);
            while !end.load(Ordering::Acquire) {
                spin_loop();
            }
        }).map_err(Failure::new)?;
        ktest_assert!(soon(|| spins.load(Ordering::Acquire)));
        page()?.defer_free();
        let freed = soon(|| MEMORY.grace().pending() == 0);
        done.store(true, Ordering::Release);
        spinner.join().map_err(|_| Failure::new("the spinner is lost"))?;
        ktest_assert!(freed);
        Ok(())
    }

    fn what_a_cpu_put_off_before_it_went_offline_is_done() {
        if smp::count() < 2 {
            return Ok(());
        }
        let free = free_frames();
        CALLS.store(0, Ordering::Relaxed);
        let put_off = smp::run_on(last(), || {
            drop(MEMORY.grace().pin());
            (MEMORY.grace().call(note, 1), page().map(Pages::defer_free).is_ok())
        });
        ktest_eq!(put_off.map_err(Failure::new)?, (Ok(()), true));
        hotplug::offline(last()).map_err(Failure::new)?;
        let done = soon(|| MEMORY.grace().pending() == 0);
        hotplug::online(last()).map_err(Failure::new)?;
        ktest_assert!(done);
        ktest_eq!(CALLS.load(Ordering::Relaxed), 1);
        ktest_eq!(free_frames(), free);
        Ok(())
    }
}

/// What a call finds: whether it has the policy, and whether it has the rights, of the thread that
/// it interrupts.
static HAS_POLICY: AtomicU64 = AtomicU64::new(0);
static RECLAIMS: AtomicU64 = AtomicU64::new(0);

fn look_around(_: u64) {
    let platform = MEMORY.platform();
    platform.with_policy(&mut |_| {
        HAS_POLICY.fetch_add(1, Ordering::Relaxed);
    });
    if platform.is_reclaiming() == Some(true) {
        RECLAIMS.fetch_add(1, Ordering::Relaxed);
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
}

ktest! {
    fn a_call_at_the_end_of_an_interrupt_is_not_the_interrupted_thread() {
        if smp::count() < 2 {
            return Ok(());
        }
        for count in [&CALLS, &HAS_POLICY, &RECLAIMS] {
            count.store(0, Ordering::Relaxed);
        }
        let called = smp::run_on(last(), || {
            let policy = Policy::new(Mode::Local, &NodeMask::EMPTY).ok();
            let before = running::set_policy(policy);
            let was_reclaiming = sched::with_running(|thread| thread.set_reclaiming(true));
            let called = MEMORY.grace().call(look_around, 0);
            // Leaves its CPU to nobody: an interrupt does it.
            let start = time::now_ns();
            while CALLS.load(Ordering::Relaxed) == 0 && time::now_ns().saturating_sub(start) < 10_000_000_000 {
                spin_loop();
            }
            sched::with_running(|thread| thread.set_reclaiming(was_reclaiming == Some(true)));
            running::set_policy(before);
            called
        });
        ktest_eq!(called.map_err(Failure::new)?, Ok(()));
        ktest_eq!(CALLS.load(Ordering::Relaxed), 1);
        ktest_eq!(HAS_POLICY.load(Ordering::Relaxed), 0);
        ktest_eq!(RECLAIMS.load(Ordering::Relaxed), 0);
        Ok(())
    }
}

/// Pages that the handler got, and NMIs that found none.
static GOT: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes pages and gives them back.
fn on_nmi(_: &mut TrapFrame) -> Handled {
    for order in [0, 0, 2] {
        let order = Order::new(order).unwrap_or_default();
        if let Ok(pfn) = MEMORY.alloc_pages_nolock(Gfp::KERNEL, order) {
            // SAFETY: allocated just now.
            let freed = unsafe { MEMORY.free_pages_nolock(pfn, order) };
            if freed.is_ok() {
                GOT.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    TAKEN.fetch_add(1, Ordering::Relaxed);
    Handled::Yes
}

ktest! {
    fn an_nmi_takes_pages_on_a_cpu_that_runs_and_on_one_that_is_idle() {
        let free = free_frames();
        GOT.store(0, Ordering::Relaxed);
        TAKEN.store(0, Ordering::Relaxed);
        // SAFETY: the handler takes locks by trying only, and leaves the frame alone.
        unsafe { trap::set_handler(vector::NMI, Some(on_nmi)) };
        let raised = probe::software_interrupt(vector::NMI);
        let idle = smp::cpus().filter(|cpu| cpu.id() != local::current_id()).last();
        let mut sent: u64 = 1;
        for _ in 0..100 {
            if let Some(cpu) = idle
                && smp::send_nmi(cpu)
            {
                sent = sent.saturating_add(1);
                soon(|| TAKEN.load(Ordering::Relaxed) >= sent);
            }
        }
        // SAFETY: taking a handler away is always possible; all that were sent have come.
        unsafe { trap::set_handler(vector::NMI, None) };
        ktest_assert!(raised);
        ktest_eq!(TAKEN.load(Ordering::Relaxed), sent);
        let got = GOT.load(Ordering::Relaxed);
        ktest_assert!(got >= 3, "{got} pages in {sent} NMIs");
        ktest_eq!(free_frames(), free);
        ktest_eq!(MEMORY.grace().pending(), 0);
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }
}
