//! Waiting: no wake is missed, deadlines are kept, and who may not sleep is caught.
#![expect(unsafe_code, reason = "registers an interrupt handler")]

use crate::arch::irq::IrqGuard;
use crate::arch::lock::IrqLock;
use crate::arch::pin::Pin;
use crate::arch::trap::{self, Handled, TrapFrame};
use crate::arch::{local, probe, smp, time};
use crate::ktest::Failure;
use crate::sched::mutex::Mutex;
use crate::sched::spawn::JoinError;
use crate::sched::team::{TeamError, scoped};
use crate::sched::thread::Affinity;
use crate::sched::wait::{Completion, WaitQueue, Waited};
use crate::sched::{self, Atomic, hotplug, spawn};
use crate::{ktest, ktest_assert, ktest_eq};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Sleeps until so many wait, for a while at most.
fn wait_for_waiters(queue: &WaitQueue, count: u32) -> bool {
    for _ in 0..10_000 {
        if queue.len() == count {
            return true;
        }
        if sched::sleep_ms(1).is_err() {
            return false;
        }
    }
    false
}

/// What `try_to_sleep` said, while it was called in an interrupt.
static IN_INTERRUPT: IrqLock<Option<Result<(), Atomic>>> = IrqLock::new(None);

fn try_in_interrupt(_: &mut TrapFrame) -> Handled {
    *IN_INTERRUPT.lock() = Some(sched::might_sleep());
    Handled::Yes
}

ktest! {
    fn wakes_one_or_all_in_order() {
        let queue = WaitQueue::new();
        let (tickets, served) = (AtomicU32::new(0), AtomicU32::new(0));
        let failed = AtomicU32::new(0);
        let seen = scoped("waiter", 4, &|_| {
            let take = |tickets: u32| tickets.checked_sub(1);
            let waited = queue.wait_until(|| {
                tickets.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
            });
            failed.fetch_add(u32::from(waited.is_err()), Ordering::Relaxed);
            served.fetch_add(1, Ordering::AcqRel);
        }, || {
            let all = wait_for_waiters(&queue, 4);
            // Without a ticket a wake changes nothing.
            queue.wake_all();
            let back = wait_for_waiters(&queue, 4);
            tickets.fetch_add(1, Ordering::Release);
            let one = queue.wake_one();
            let left = wait_for_waiters(&queue, 3) && served.load(Ordering::Acquire) <= 1;
            tickets.fetch_add(3, Ordering::Release);
            queue.wake_all();
            (all, back, one, left)
        }).map_err(Failure::new)?;
        ktest_eq!(seen, (true, true, true, true));
        ktest_eq!((served.load(Ordering::Relaxed), failed.load(Ordering::Relaxed)), (4, 0));
        ktest_assert!(queue.is_empty() && !queue.wake_one());
        Ok(())
    }

    fn a_wait_that_times_out_leaves_the_queue() {
        let queue = WaitQueue::new();
        let start = time::now_ns();
        ktest_eq!(queue.wait_until_timeout(3, || false), Ok(Waited::TimedOut));
        ktest_assert!(time::now_ns().saturating_sub(start) >= 3_000_000);
        ktest_assert!(queue.is_empty());
        ktest_eq!(queue.wait_until_timeout(1_000, || true), Ok(Waited::Met));
        ktest_eq!(queue.wait_until(|| true), Ok(()));
        Ok(())
    }

    fn no_wake_is_missed_between_two_threads() {
        const ROUNDS: u32 = 300;
        let (queue, ball) = (WaitQueue::new(), AtomicU32::new(0));
        let failed = AtomicU32::new(0);
        scoped("player", 2, &|me| {
            for _ in 0..ROUNDS {
                let waited = queue.wait_until(|| ball.load(Ordering::Acquire) % 2 == me);
                failed.fetch_add(u32::from(waited.is_err()), Ordering::Relaxed);
                ball.fetch_add(1, Ordering::AcqRel);
                queue.wake_all();
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(ball.load(Ordering::Relaxed), ROUNDS * 2);
        ktest_eq!(failed.load(Ordering::Relaxed), 0);
        Ok(())
    }

    fn a_wake_between_announcement_and_leaving_is_not_missed() {
        let queue = WaitQueue::new();
        let mut looks = 0_u32;
        // The second look is the one on the queue, and it wakes the very thread that looks.
        let waited = queue.wait_until(|| {
            looks = looks.wrapping_add(1);
            if looks == 2 {
                queue.wake_all();
            }
            looks > 2
        });
        ktest_eq!((waited, looks), (Ok(()), 3));
        Ok(())
    }

    fn wakes_race_with_deadlines_and_lose_nobody() {
        let (queue, tokens) = (WaitQueue::new(), AtomicU32::new(0));
        let (got, missed) = (AtomicU32::new(0), AtomicU32::new(0));
        scoped("taker", 4, &|_| {
            let take = |tokens: u32| tokens.checked_sub(1);
            for _ in 0..25 {
                let waited = queue.wait_until_timeout(1, || {
                    tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
                });
                let counter = if waited == Ok(Waited::Met) { &got } else { &missed };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }, || {
            for _ in 0..60 {
                tokens.fetch_add(1, Ordering::AcqRel);
                queue.wake_one();
                let _ = sched::yield_now();
            }
        }).map_err(Failure::new)?;
        let (got, missed) = (got.load(Ordering::Relaxed), missed.load(Ordering::Relaxed));
        ktest_eq!(got.wrapping_add(missed), 100);
        // What nobody took in time is still there.
        ktest_eq!(got.wrapping_add(tokens.load(Ordering::Relaxed)), 60);
        ktest_assert!(queue.is_empty());
        Ok(())
    }

    fn a_mutex_excludes_threads_that_sleep_while_they_have_it() {
        let counted = Mutex::new(0_u64);
        let wrong = AtomicU64::new(0);
        scoped("owner", 4, &|_| {
            for round in 0..25 {
                let Ok(mut count) = counted.lock() else {
                    wrong.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let seen = *count;
                let gave_way = if round % 8 == 0 { sched::sleep_ms(1) } else { sched::yield_now() };
                wrong.fetch_add(u64::from(gave_way.is_err()), Ordering::Relaxed);
                *count = seen.wrapping_add(1);
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(counted.lock().map(|count| *count), Ok(100));
        ktest_eq!(wrong.load(Ordering::Relaxed), 0);
        let held = counted.try_lock();
        ktest_assert!(held.is_some() && counted.try_lock().is_none());
        Ok(())
    }

    fn who_may_not_sleep_is_caught() {
        let before = sched::violations();
        ktest_eq!(sched::might_sleep(), Ok(()));
        {
            let _irq = IrqGuard::new();
            ktest_eq!(sched::sleep_ms(1), Err(Atomic::InterruptsOff));
        }
        {
            let _pin = Pin::new();
            ktest_eq!(sched::yield_now(), Err(Atomic::Pinned));
            let free = WaitQueue::new();
            // It would not even have to wait.
            ktest_eq!(free.wait_until(|| true), Err(Atomic::Pinned));
            ktest_assert!(Mutex::new(()).lock().is_err());
            ktest_eq!(Completion::new(0).wait(), Err(Atomic::Pinned));
            ktest_eq!(scoped("none", 1, &|_| (), || ()), Err(TeamError::Atomic(Atomic::Pinned)));
        }
        // SAFETY: the handler takes a lock that is only held with interrupts off, and leaves the
        // frame alone.
        unsafe { trap::set_handler(probe::PROBE_VECTOR, Some(try_in_interrupt)) };
        ktest_assert!(probe::software_interrupt(probe::PROBE_VECTOR));
        // SAFETY: taking a handler away is always possible.
        unsafe { trap::set_handler(probe::PROBE_VECTOR, None) };
        ktest_eq!(IN_INTERRUPT.lock().take(), Some(Err(Atomic::InInterrupt)));
        ktest_eq!(sched::violations(), before.wrapping_add(7));
        ktest_eq!(sched::might_sleep(), Ok(()));
        Ok(())
    }

    fn calls_from_other_cpus_may_not_sleep() {
        for cpu in smp::cpus().filter(|cpu| cpu.id() != local::current_id()) {
            ktest_eq!(smp::call_on(cpu.id(), sched::may_sleep), Ok(Err(Atomic::InInterrupt)));
            ktest_eq!(smp::run_on(cpu.id(), sched::may_sleep), Ok(Ok(())));
        }
        Ok(())
    }

    fn joining_under_a_pin_leaves_the_thread_to_itself() {
        let handle = spawn("alone", Affinity::Any, || ()).map_err(Failure::new)?;
        let pin = Pin::new();
        let joined = handle.join();
        drop(pin);
        ktest_eq!(joined, Err(JoinError::Atomic(Atomic::Pinned)));
        Ok(())
    }

    fn an_idle_cpu_waits_for_whoever_acts_for_it() {
        let Some(cpu) = smp::cpu(1).filter(|cpu| hotplug::is_online(cpu)) else {
            return Ok(());
        };
        ktest_assert!(local::current().presence.claim().is_none(), "this CPU runs");
        let (go, ran) = (Completion::new(1), AtomicBool::new(false));
        let place = [Affinity::Cpu(1)].into_iter();
        let body = |_| ran.store(go.wait().is_ok(), Ordering::Release);
        let early = sched::team::scoped_on("late", place, &body, || {
            // Until it sleeps, and its CPU is idle.
            for _ in 0..10_000 {
                let claim = cpu.presence.claim();
                if let Some(claim) = claim {
                    let twice = cpu.presence.claim().is_some();
                    go.complete();
                    let start = time::now_ns();
                    while time::now_ns().saturating_sub(start) < 3_000_000 {
                        core::hint::spin_loop();
                    }
                    let early = ran.load(Ordering::Acquire);
                    drop(claim);
                    return Some((twice, early));
                }
                if sched::sleep_ms(1).is_err() {
                    break;
                }
            }
            go.complete();
            None
        }).map_err(Failure::new)?;
        ktest_eq!(early, Some((false, false)));
        ktest_assert!(ran.load(Ordering::Acquire));
        Ok(())
    }
}
