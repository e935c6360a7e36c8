//! What the scheduler takes of a thread's stack, when the thread did not ask for it.

use crate::arch::context::ROOM;
use crate::arch::pin::Pin;
use crate::arch::stack::StackExtent;
use crate::arch::{apic, local, smp, time};
use crate::ktest::Failure;
use crate::memory::stacks::{self, Stack};
use crate::memory::{MEMORY, free_frames, settle_areas};
use crate::num::to_u64;
use crate::sched::team::scoped_on;
use crate::sched::thread::Affinity;
use crate::sched::{self, spawn};
use crate::selftest::traps::fault_of_a_write;
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::vec::Vec;
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What unused stack is filled with.
const PAINT: u64 = 0x5afe_57ac_5afe_57ac;
/// Words of stack that are painted: most of a thread's.
const PAINTED: usize = 9 * 1024 / 8;
/// Preemptions that are watched.
const ENOUGH: u64 = 20;

/// Time for them.
const DURATION_NS: u64 = 600_000_000;

static STOP: AtomicBool = AtomicBool::new(false);
/// How deep the watched thread's stack was used, and how often it was preempted.
static DEPTH: AtomicU64 = AtomicU64::new(0);
static TIMES: AtomicU64 = AtomicU64::new(0);

/// A call that needs more of the stack than a preemption looks for.
fn large(_: u64) {
    let words = [1_u64; 1024];
    black_box(&words);
}

#[inline(never)]
fn paint() {
    let paint = [PAINT; PAINTED];
    black_box(&paint);
}

/// Paints the stack below, runs `body`, and answers how many bytes below this function are not as
/// they were.
#[inline(never)]
fn bytes_used(body: impl FnOnce()) -> u64 {
    paint();
    let here = 0_u64;
    let top = to_u64(core::ptr::from_ref(black_box(&here)).addr());
    body();
    let stack = sched::running_stack();
    let lowest = top.saturating_sub(to_u64(PAINTED.saturating_mul(8)).saturating_sub(1024));
    let words = (lowest & !7..top).step_by(8);
    let mut used = words.filter(|&at| stack.read_word(at).is_some_and(|word| word != PAINT));
    top.saturating_sub(used.next().unwrap_or(top))
}

/// Goes down the stack until `left` bytes are left at most, and runs `body` there.
#[inline(never)]
fn deep(left: u64, body: &dyn Fn() -> bool) -> bool {
    let here = [0_u8; 512];
    let at = to_u64(black_box(&here).as_ptr().addr());
    let outcome = if at.saturating_sub(sched::running_stack().bottom) > left {
        deep(left, body)
    } else {
        body()
    };
    black_box(outcome)
}

/// Drops a pin under which a switch has become due; answers whether it happened then.
fn is_left_behind_a_pin() -> bool {
    let pin = Pin::new();
    let before = switches();
    while !pin.cpu().is_switch_due() {
        spin_loop();
    }
    drop(pin);
    switches() != before
}

fn switches() -> u64 {
    sched::with_running(|thread| thread.switches()).unwrap_or_default()
}

fn preemptions() -> u64 {
    sched::with_running(|thread| thread.preemptions()).unwrap_or_default()
}

/// Runs until somebody says stop, and needs next to nothing of the stack for it.
fn wait_on_the_cpu() {
    while !STOP.load(Ordering::Relaxed) {
        spin_loop();
    }
}

/// Gives the scheduler on this CPU all kinds of things to do, between two turns of another thread.
/// `until` is told how many times that was done.
#[inline(never)]
fn keep_the_scheduler_busy(here: Affinity, until: impl Fn(u64) -> bool) {
    for _ in (0..).take_while(|&times| !until(times)) {
        let _ = MEMORY.grace().call(large, 0);
        // A thread that ends with nobody waiting, and one that is waited for.
        drop(spawn("detached", here, || ()));
        if let Ok(thread) = spawn("joined", here, || ()) {
            let _ = thread.join();
        }
        let _ = sched::sleep_ms(1);
        let _ = sched::yield_now();
    }
}

ktest! {
    fn a_preemption_takes_no_more_of_a_stack_than_it_looks_for() {
        if !apic::is_in_use() {
            return Ok(());
        }
        STOP.store(false, Ordering::Relaxed);
        TIMES.store(0, Ordering::Relaxed);
        let here = Affinity::Cpu(local::current_id());
        let body = |number: u32| {
            if number == 0 {
                DEPTH.store(bytes_used(wait_on_the_cpu), Ordering::Relaxed);
                TIMES.store(preemptions(), Ordering::Relaxed);
                return;
            }
            let start = time::now_ns();
            // As often as is enough, also where the host is busy with other things.
            keep_the_scheduler_busy(here, |times| {
                let passed = time::now_ns().saturating_sub(start);
                let is_enough = times > ENOUGH.saturating_mul(2);
                passed > DURATION_NS && (is_enough || passed > DURATION_NS.saturating_mul(50))
            });
            STOP.store(true, Ordering::Relaxed);
        };
        scoped_on("deep", [here, here].into_iter(), &body, || ()).map_err(Failure::new)?;
        let (depth, times) = (DEPTH.load(Ordering::Relaxed), TIMES.load(Ordering::Relaxed));
        log::info!("{times} preemptions took {depth} bytes of the stack at most");
        ktest_assert!(times >= ENOUGH, "{times} preemptions only");
        ktest_assert!(depth <= ROOM, "{depth} bytes of the stack, {ROOM} are looked for");
        Ok(())
    }

    fn what_was_due_under_a_pin_waits_for_room_on_the_stack() {
        if !apic::is_in_use() {
            return Ok(());
        }
        STOP.store(false, Ordering::Relaxed);
        let (low, high) = (AtomicBool::new(true), AtomicBool::new(false));
        let here = Affinity::Cpu(local::current_id());
        let body = |number: u32| {
            if number == 1 {
                // Ends each of the other's slices.
                wait_on_the_cpu();
                return;
            }
            low.store(deep(ROOM - 1024, &is_left_behind_a_pin), Ordering::Relaxed);
            high.store(is_left_behind_a_pin(), Ordering::Relaxed);
            STOP.store(true, Ordering::Relaxed);
        };
        scoped_on("low", [here, here].into_iter(), &body, || ()).map_err(Failure::new)?;
        ktest_assert!(!low.load(Ordering::Relaxed), "switched with too little stack left");
        ktest_assert!(high.load(Ordering::Relaxed), "not switched with much stack left");
        Ok(())
    }

    fn stacks_get_the_page_tables_that_they_need() {
        // More than two tables of the lowest level map.
        const BYTES: u64 = 6 << 20;
        settle_areas();
        let free = free_frames();
        let mut stacks = Vec::new();
        for _ in 0..2 {
            stacks.push(Stack::new(BYTES).map_err(Failure::new)?);
        }
        let extents: Vec<StackExtent> = stacks.iter().map(Stack::extent).collect();
        let pages = |extent: &StackExtent| (extent.bottom..extent.top).step_by(4096);
        let unmapped = extents.iter().flat_map(pages);
        let unmapped = unmapped.filter(|&at| fault_of_a_write(at).is_ok()).count();
        let guards = extents.iter().filter(|extent| fault_of_a_write(extent.guard).is_ok());
        let guards = guards.count();
        stacks::free(stacks);
        settle_areas();
        ktest_eq!((unmapped, guards), (0, extents.len()));
        for extent in &extents {
            ktest_assert!(fault_of_a_write(extent.bottom).is_ok(), "still mapped");
        }
        // The tables stay: the next ones find them.
        let kept = free.saturating_sub(free_frames());
        ktest_assert!(kept <= 9, "{kept} pages are gone");
        let free = free_frames();
        stacks::free([Stack::new(BYTES).map_err(Failure::new)?]);
        settle_areas();
        ktest_eq!(free_frames(), free);
        Ok(())
    }

    fn a_cpu_keeps_stacks_of_ended_threads_for_new_ones() {
        // Elsewhere this thread may be moved to a CPU that keeps others.
        if smp::count() > 1 {
            return Ok(());
        }
        stacks::drain();
        let take = || Stack::new(stacks::THREAD_BYTES).map_err(Failure::new);
        let first = [take()?, take()?, take()?];
        let places = first.each_ref().map(|stack| stack.extent().bottom);
        stacks::free(first);
        // Two are kept, still mapped, and the third one is gone.
        let mapped = places.map(|at| fault_of_a_write(at).is_err());
        ktest_eq!(mapped, [true, true, false]);
        let again = [take()?, take()?];
        ktest_eq!(again.each_ref().map(|stack| stack.extent().bottom), [places[0], places[1]]);
        for stack in &again {
            ktest_assert!(fault_of_a_write(stack.extent().guard).is_ok(), "no guard page");
        }
        stacks::free(again);
        settle_areas();
        ktest_assert!(fault_of_a_write(places[0]).is_ok(), "still mapped");
        Ok(())
    }
}
