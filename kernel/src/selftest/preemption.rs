//! Threads lose their CPU at any instruction, and nothing else; pins hold.

use crate::arch::pin::Pin;
use crate::arch::{apic, local, probe, smp, time};
use crate::ktest::Failure;
use crate::sched::team::{scoped, scoped_on};
use crate::sched::thread::Affinity;
use crate::sched::wait::{Completion, Waited};
use crate::sched::{self, tick};
use crate::{ktest, ktest_assert, ktest_eq};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Short time slices, each of which ends on another CPU, until it is dropped.
struct Storm {
    was_migrating: bool,
    slice: u64,
}

impl Storm {
    fn begin() -> Self {
        Self {
            was_migrating: tick::set_migrating(true),
            slice: tick::set_slice_ns(Some(100_000)),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        tick::set_migrating(self.was_migrating);
        tick::set_slice_ns(Some(self.slice));
    }
}

/// Repeats `step` until it answers true, for some seconds at most; answers whether it did.
fn repeat(mut step: impl FnMut() -> bool) -> bool {
    let start = time::now_ns();
    while time::now_ns().saturating_sub(start) < 20 * time::NS_PER_SECOND {
        if step() {
            return true;
        }
    }
    false
}

/// Preemptions and migrations of the running thread.
fn interruptions() -> (u64, u64) {
    sched::with_running(|thread| (thread.preemptions(), thread.migrations())).unwrap_or_default()
}

ktest! {
    fn a_thread_that_never_yields_does_not_stop_others() {
        if !apic::is_in_use() {
            return Ok(());
        }
        for cpu in smp::cpus() {
            let place = Affinity::Cpu(cpu.id());
            let (stop, late) = (AtomicBool::new(false), AtomicBool::new(false));
            let body = |number: u32| {
                if number == 1 {
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
                // Never leaves its CPU by itself.
                if !repeat(|| stop.load(Ordering::Relaxed)) {
                    late.store(true, Ordering::Relaxed);
                }
            };
            scoped_on("hog", [place, place].into_iter(), &body, || ()).map_err(Failure::new)?;
            ktest_assert!(!late.load(Ordering::Relaxed), "cpu {}", cpu.id());
        }
        Ok(())
    }

    fn nothing_of_a_thread_is_lost_when_it_is_moved_at_any_instruction() {
        const THREADS: u32 = 4;
        // Each move to an idle CPU takes long where the host has few.
        let enough: u64 = if smp::count() <= 4 { 1_000 } else { 150 };
        let _storm = Storm::begin();
        let (changed, few, moved) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
        scoped("mover", THREADS, &|number| {
            let mark = 0x5100_0000_u64.wrapping_add(u64::from(number).wrapping_mul(0x1_0001));
            let has_been = repeat(|| {
                changed.fetch_add(probe::state_changed_in_a_loop(500, mark), Ordering::Relaxed);
                interruptions().0 >= enough
            });
            few.fetch_add(u32::from(!has_been), Ordering::Relaxed);
            moved.fetch_add(interruptions().1, Ordering::Relaxed);
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(changed.load(Ordering::Relaxed), 0);
        if apic::is_in_use() {
            ktest_eq!(few.load(Ordering::Relaxed), 0);
        }
        let moved = moved.load(Ordering::Relaxed);
        ktest_assert!(smp::count() == 1 || moved > enough, "moved {moved} times only");
        Ok(())
    }

    fn nothing_is_lost_when_a_thread_gives_way() {
        let changed = AtomicU64::new(0);
        scoped("yielder", 3, &|number| {
            for round in 0..200_u64 {
                let mark = u64::from(number).wrapping_add(round);
                changed.fetch_add(probe::state_changed_in_a_loop(3, mark), Ordering::Relaxed);
                changed.fetch_add(u64::from(sched::yield_now().is_err()), Ordering::Relaxed);
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(changed.load(Ordering::Relaxed), 0);
        Ok(())
    }

    fn control_words_are_a_threads_own() {
        let lost = AtomicU32::new(0);
        let here = Affinity::Cpu(local::current_id());
        scoped_on("rounder", [here; 4].into_iter(), &|number| {
            for round in 0..20_u32 {
                let kept = probe::rounding_modes_kept(number.wrapping_add(round), || {
                    let _ = sched::yield_now();
                });
                lost.fetch_add(u32::from(!kept), Ordering::Relaxed);
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(lost.load(Ordering::Relaxed), 0);
        Ok(())
    }

    fn a_pinned_thread_stays_and_an_unpinned_one_moves() {
        let _storm = Storm::begin();
        let (moved, strayed) = (AtomicU64::new(0), AtomicU64::new(0));
        scoped("pinned", 3, &|_| {
            let mut last = local::current_id();
            // Until it has moved between two pins, for a while.
            let mut moves: u64 = 0;
            repeat(|| {
                let pin = Pin::new();
                let (here, switches) = (pin.cpu().id(), sched::with_running(|me| me.switches()));
                moves = moves.wrapping_add(u64::from(here != last));
                last = here;
                // Longer than a slice, so that the timer wants the CPU.
                let start = time::now_ns();
                let mut strayed_now = false;
                while time::now_ns().saturating_sub(start) < 250_000 {
                    let inner = Pin::new();
                    strayed_now |= local::current_id() != here;
                    drop(inner);
                    strayed_now |= !core::ptr::eq(local::current(), pin.cpu());
                    spin_loop();
                }
                strayed_now |= sched::with_running(|me| me.switches()) != switches;
                strayed.fetch_add(u64::from(strayed_now), Ordering::Relaxed);
                drop(pin);
                moves >= 50 || smp::count() == 1 && switches >= Some(50)
            });
            moved.fetch_add(moves, Ordering::Relaxed);
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(strayed.load(Ordering::Relaxed), 0);
        let moved = moved.load(Ordering::Relaxed);
        ktest_assert!(smp::count() == 1 || moved >= 150, "moved {moved} times only");
        Ok(())
    }

    fn a_deadline_far_away_keeps_nobody_waiting() {
        let other = smp::count().saturating_sub(1);
        if other == 0 {
            return Ok(());
        }
        // The other CPU's timer is set for a time to come, and one thread has the CPU for itself.
        let (far, stop) = (Completion::new(1), AtomicBool::new(false));
        let (spins, timed_out) = (AtomicBool::new(false), AtomicBool::new(false));
        let body = |number: u32| {
            if number == 0 {
                timed_out.store(far.wait_timeout(8_000) != Ok(Waited::Met), Ordering::Relaxed);
                return;
            }
            // Not before the other one sleeps: both are bound to this CPU.
            let _ = sched::sleep_ms(2);
            spins.store(true, Ordering::Relaxed);
            repeat(|| stop.load(Ordering::Relaxed));
        };
        let place = Affinity::Cpu(other);
        scoped_on("far", [place, place].into_iter(), &body, || {
            repeat(|| spins.load(Ordering::Relaxed));
            let quick = |_| stop.store(true, Ordering::Relaxed);
            let outcome = scoped_on("quick", [place].into_iter(), &quick, || ());
            far.complete();
            outcome
        }).map_err(Failure::new)?.map_err(Failure::new)?;
        ktest_assert!(!timed_out.load(Ordering::Relaxed), "it waited for the timer");
        Ok(())
    }

    fn what_was_due_under_a_pin_happens_when_it_goes() {
        if !apic::is_in_use() {
            return Ok(());
        }
        let (go, ran) = (AtomicBool::new(false), AtomicBool::new(false));
        let here = [Affinity::Cpu(local::current_id())].into_iter();
        // Gives way until the other one is pinned.
        let body = |_| {
            let _ = repeat(|| go.load(Ordering::Relaxed) || sched::yield_now().is_err());
            ran.store(true, Ordering::Relaxed);
        };
        let early = scoped_on("due", here, &body, || {
            let pin = Pin::new();
            go.store(true, Ordering::Relaxed);
            // The slice ends, and the other thread does not run.
            let is_due = repeat(|| pin.cpu().is_switch_due());
            let early = is_due && ran.load(Ordering::Relaxed);
            drop(pin);
            (early, ran.load(Ordering::Relaxed))
        }).map_err(Failure::new)?;
        ktest_eq!(early, (false, true));
        Ok(())
    }

    fn interrupts_off_keep_a_thread_where_it_is() {
        let _storm = Storm::begin();
        let strayed = AtomicU64::new(0);
        scoped("masked", 3, &|_| {
            for _ in 0..20 {
                let _irq = crate::arch::irq::IrqGuard::new();
                let here = local::current_id();
                let start = time::now_ns();
                while time::now_ns().saturating_sub(start) < 250_000 {
                    strayed.fetch_add(u64::from(local::current_id() != here), Ordering::Relaxed);
                }
            }
        }, || ()).map_err(Failure::new)?;
        ktest_eq!(strayed.load(Ordering::Relaxed), 0);
        Ok(())
    }

    fn an_exception_that_cuts_code_off_takes_its_pins_back() {
        let before = crate::arch::pin::depth();
        let fault = crate::selftest::traps::fault_under_a_pin();
        ktest_assert!(fault.is_ok(), "{fault:?}");
        ktest_eq!(crate::arch::pin::depth(), before);
        Ok(())
    }
}
