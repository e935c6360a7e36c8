//! Grace periods: what a reader sees is not freed before it has gone, and everything is in the end.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::{FrameState, FreeError};
use mm::platform::CpuId;
use mm::report::GraceStall;
use mm::sync::grace::{Cookie, Guard};
use mm::system::{Block, GraceError, Memory, QueueFull};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, Plain, SimConfig, SimPlatform, Usual, Vmemmap};
use mm_tests::threads::join;

const MIB: u64 = 1 << 20;

type Handle<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

fn machine<C: SimConfig>(cpus: u32) -> Machine<C> {
    Machine::new().ram(0, 24 * MIB).cpus(cpus).boot()
}

fn page<C: SimConfig>(machine: &Machine<C>, stamp: u8) -> Handle<'_, C> {
    let mut page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    page.bytes_mut().fill(stamp);
    page
}

/// Ends a machine when all that was put off is done.
fn finish<C: SimConfig>(machine: Machine<C>) {
    machine.grace().barrier().unwrap();
    assert_eq!(machine.grace().pending(), 0);
    machine.grace().validate().unwrap();
    machine.finish();
}

/// A reader at work, and what it found: which page, and what stood there.
struct Reading<'m, C: SimConfig> {
    guard: Guard<'m, SimPlatform<C>>,
    found: Vec<(Pfn, u8)>,
}

impl<C: SimConfig> Reading<'_, C> {
    fn check(&self, machine: &Machine<C>) {
        for &(pfn, stamp) in &self.found {
            let first = machine.hardware().ram().peek(pfn.checked_addr().unwrap());
            assert_eq!(first, stamp, "a reader sees that page {pfn} was freed");
        }
    }
}

/// CPUs take steps in an order by chance: readers begin, read and end, pages are replaced by others and
/// freed when their grace period is over, memory is used for other things, CPUs go away and come back.
fn schedule<C: SimConfig>(seed: u64, steps: u64) {
    const CPUS: u32 = 4;
    const SLOTS: usize = 6;
    let machine = machine::<C>(CPUS);
    let mut random = Random::new(seed);
    let mut stamp = 1;
    let mut linked: Vec<_> = (0..SLOTS).map(|_| (page(&machine, stamp), stamp)).collect();
    let mut readers: [Option<Reading<'_, C>>; CPUS as usize] = [const { None }; CPUS as usize];
    let mut away = [false; CPUS as usize];
    let mut cookies: Vec<(Cookie, Vec<u32>)> = Vec::new();
    for _ in 0..steps {
        let cpu = random.below(u64::from(CPUS)) as u32;
        let index = cpu as usize;
        // CPU 0 is this thread's already.
        let _here = (cpu != 0).then(|| machine.hardware().cpu(cpu));
        if away[index] {
            machine.return_cpu();
            away[index] = false;
        }
        match random.below(12) {
            0..=2 => {
                if let Some(reading) = readers[index].take() {
                    reading.check(&machine);
                    drop(reading.guard);
                    for (_, blockers) in &mut cookies {
                        blockers.retain(|&blocker| blocker != cpu);
                    }
                } else {
                    let guard = machine.grace().pin().unwrap();
                    let found = linked.iter().map(|(page, stamp)| (page.pfn(), *stamp));
                    let found = found.collect();
                    readers[index] = Some(Reading { guard, found });
                }
            }
            3..=4 => {
                stamp = if stamp == 250 { 1 } else { stamp + 1 };
                let slot = random.below_index(SLOTS);
                let new = (page(&machine, stamp), stamp);
                let (old, _) = std::mem::replace(&mut linked[slot], new);
                old.defer_free();
            }
            5..=6 => {
                let is_reading = readers[index].is_some();
                assert_eq!(machine.grace().quiescent(), !is_reading);
            }
            7 => {
                let readers = (0..CPUS).filter(|&cpu| readers[cpu as usize].is_some());
                cookies.push((machine.grace().start(), readers.collect()));
            }
            8 => {
                machine.grace().tend();
            }
            9 if readers[index].is_none() => {
                // SAFETY: nothing runs on this CPU until it returns, above.
                unsafe { machine.leave_cpu() };
                away[index] = true;
            }
            _ => drop(page(&machine, 0xff)),
        }
        for reading in readers.iter().flatten() {
            reading.check(&machine);
        }
        for (cookie, blockers) in &cookies {
            let is_over = machine.grace().poll(*cookie);
            assert!(!is_over || blockers.is_empty(), "{blockers:?} still read");
        }
        machine.grace().validate().unwrap();
    }
    for (index, reading) in readers.into_iter().enumerate() {
        let _here = (index != 0).then(|| machine.hardware().cpu(index as u32));
        machine.return_cpu();
        drop(reading);
        machine.grace().quiescent();
    }
    assert!(
        cookies
            .iter()
            .all(|(cookie, _)| machine.grace().poll(*cookie))
    );
    // Nobody runs on the others any more.
    for cpu in 1..CPUS {
        drop(machine.cpu(cpu));
    }
    drop(linked);
    finish(machine);
}

#[test]
fn a_reader_never_sees_freed_memory_in_any_order_of_steps() {
    let seed = seed("grace_schedule");
    for round in 0..30 {
        schedule::<Listed<Usual>>(seed ^ round, 400);
        schedule::<Usual>(seed ^ round, 200);
    }
    for round in 0..5 {
        schedule::<Listed<Checked>>(seed ^ round, 300);
        schedule::<Listed<(Plain, Vmemmap)>>(seed ^ round, 400);
    }
}

/// Three CPUs at once: the writer replaces a page, the readers look at it.
fn race<C: SimConfig>(rounds: u32) {
    let machine = machine::<C>(4);
    let linked = AtomicU64::new(page(&machine, 1).into_raw().as_u64());
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let read = |cpu| {
            let (machine, linked, done, seen) = (&machine, &linked, &done, &seen);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                while !done.load(Ordering::Relaxed) {
                    let guard = machine.grace().pin().unwrap();
                    let pfn = Pfn::new(linked.load(Ordering::Acquire));
                    let at = pfn.checked_addr().unwrap();
                    for offset in [0, 1, 4095] {
                        let found = machine.hardware().ram().peek(at.saturating_add(offset));
                        assert_eq!(found, 1, "{pfn} was freed under a reader");
                    }
                    drop(guard);
                    seen.fetch_add(1, Ordering::Relaxed);
                    machine.grace().quiescent();
                }
            })
        };
        let readers = [1, 2].map(read);
        let here = machine.cpu(3);
        while seen.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        for round in 0..rounds {
            // A reader that the host does not run keeps all that comes later; memory is small.
            while machine.grace().pending() > 2_000 {
                thread::yield_now();
                machine.grace().tend();
            }
            let new = page(&machine, 1).into_raw();
            let old = linked.swap(new.as_u64(), Ordering::AcqRel);
            // SAFETY: the page that was linked was given up for its number.
            let old = unsafe { Block::from_raw(&*machine, Pfn::new(old), Order::ZERO) }.unwrap();
            old.defer_free();
            drop(page(&machine, 0xff));
            machine.grace().tend();
            if round % 64 == 0 {
                thread::yield_now();
            }
        }
        drop(here);
        done.store(true, Ordering::Relaxed);
        join(readers);
    });
    assert!(seen.into_inner() > 0);
    // SAFETY: as above.
    let last = unsafe { Block::from_raw(&*machine, Pfn::new(linked.into_inner()), Order::ZERO) };
    drop(last.unwrap());
    finish(machine);
}

#[test]
fn readers_on_other_cpus_never_see_freed_memory() {
    race::<Listed<Usual>>(6_000);
    race::<Listed<(Plain, Vmemmap)>>(6_000);
}

#[test]
fn a_page_waits_for_readers_that_were_there_and_for_no_others() {
    let machine = machine::<Listed<Usual>>(3);
    let guard = {
        let _here = machine.hardware().cpu(1);
        machine.grace().pin().unwrap()
    };
    let pfn = {
        let page = page(&machine, 7);
        let pfn = page.pfn();
        page.defer_free();
        pfn
    };
    assert_eq!(machine.page(pfn).unwrap().state(), Some(FrameState::Cached));
    assert_eq!(machine.grace().pending(), 1);
    // SAFETY: deliberately none: the call must refuse.
    let again = unsafe { machine.free_pages(pfn, Order::ZERO) };
    assert_eq!(again, Err(FreeError::AlreadyFree));
    machine.check();
    for _ in 0..3 {
        assert!(machine.grace().tend());
    }
    // A reader that begins now sees nothing of it, and is not waited for.
    let late = {
        let _here = machine.hardware().cpu(2);
        machine.grace().pin().unwrap()
    };
    let _here = machine.hardware().cpu(1);
    assert!(!machine.grace().quiescent());
    assert!(!machine.grace().note_quiescent());
    drop(guard);
    assert!(machine.grace().quiescent());
    drop(_here);
    assert!(!machine.grace().tend());
    assert_eq!(machine.grace().pending(), 0);
    drop(late);
    finish(machine);
}

#[test]
fn whoever_waits_inside_of_a_reader_or_must_not_sleep_is_told() {
    let machine = machine::<Usual>(2);
    let cookie = machine.grace().start();
    let guard = machine.grace().pin().unwrap();
    assert_eq!(machine.grace().synchronize(), Err(GraceError::InReader));
    drop(guard);
    let atomic = machine
        .hardware()
        .in_atomic(|| machine.grace().synchronize());
    assert_eq!(atomic, Err(GraceError::Atomic));
    assert_eq!(machine.grace().wait(cookie), Ok(()));
    assert_eq!(machine.grace().synchronize(), Ok(()));
    finish(machine);
}

#[test]
fn a_cpu_that_stays_in_a_reader_is_reminded_and_reported() {
    let machine = machine::<Usual>(3);
    let guard = {
        let _here = machine.hardware().cpu(2);
        machine.grace().pin().unwrap()
    };
    machine.grace().set_patience(10);
    // Nobody waits: nobody is late.
    for _ in 0..20 {
        machine.grace().tend();
    }
    assert_eq!(machine.hardware().take_stalls(), []);
    let cookie = machine.grace().start();
    for _ in 0..10 {
        assert_eq!(machine.hardware().take_stalls(), []);
        machine.grace().tend();
    }
    let stall = GraceStall {
        cpu: CpuId(2),
        polls: 10,
        is_reading: true,
    };
    assert_eq!(machine.hardware().take_stalls(), [stall]);
    assert_eq!(
        stall.to_string(),
        "grace period stalled: CPU 2 has not passed a quiescent state in 10 looks, inside of a reader"
    );
    let reminded = machine.hardware().take_rescheduled();
    assert_eq!(reminded, [CpuId(2); 10]);
    let late = machine.grace().synchronize();
    assert!(matches!(late, Err(GraceError::Late(_))), "{late:?}");
    assert!(!machine.grace().poll(cookie));
    let _ = machine.hardware().take_stalls();
    drop(guard);
    // The guard has gone, but its CPU has not said so.
    assert!(!machine.grace().poll(cookie));
    drop(machine.cpu(2));
    assert!(machine.grace().poll(cookie));
    finish(machine);
}

#[test]
fn calls_come_after_their_grace_period_in_their_order() {
    static CALLED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let note: fn(u64) = |data| CALLED.lock().unwrap().push(data);
    let machine = machine::<Usual>(2);
    let guard = {
        let _here = machine.hardware().cpu(1);
        machine.grace().pin().unwrap()
    };
    for number in 0..32 {
        machine.grace().call(note, number).unwrap();
    }
    assert_eq!(machine.grace().call(note, 99), Err(QueueFull));
    for _ in 0..3 {
        assert!(machine.grace().tend());
    }
    assert!(CALLED.lock().unwrap().is_empty());
    drop(guard);
    // The CPU goes away without a word, and is acted for.
    drop(machine.cpu(1));
    machine.grace().tend();
    assert_eq!(*CALLED.lock().unwrap(), Vec::from_iter(0..32));
    machine.grace().call(note, 100).unwrap();
    machine.grace().barrier().unwrap();
    assert_eq!(CALLED.lock().unwrap().last(), Some(&100));
    finish(machine);
}

#[test]
fn what_a_cpu_put_off_is_done_by_others_when_it_is_away() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let count: fn(u64) = |data| {
        CALLS.fetch_add(data, Ordering::Relaxed);
    };
    let machine = machine::<Listed<Usual>>(4);
    for cpu in 1..4 {
        let _here = machine.cpu(cpu);
        for _ in 0..100 {
            page(&machine, 3).defer_free();
        }
        machine.grace().call(count, u64::from(cpu)).unwrap();
    }
    assert_eq!(machine.grace().pending(), 303);
    machine.check();
    machine.grace().barrier().unwrap();
    assert_eq!(CALLS.load(Ordering::Relaxed), 6);
    finish(machine);
}

/// A CPU that is there does its own, when it is quiescent; others remind it, and leave it alone.
#[test]
fn what_a_cpu_put_off_is_its_own_while_it_is_there() {
    let machine = machine::<Listed<Usual>>(2);
    let (put_off, looked) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            page(&machine, 3).defer_free();
            put_off.wait();
            looked.wait();
            assert_eq!(machine.grace().pending(), 1);
            // Where nothing may be done, nothing is, however often: not even once it might be.
            for _ in 0..3 {
                assert!(machine.grace().note_quiescent());
                assert!(machine.grace().poll(machine.grace().start()));
            }
            assert_eq!(machine.grace().pending(), 1);
            // The first one gathers, the second one finds the grace period over.
            machine.grace().quiescent();
            assert!(machine.grace().poll(machine.grace().start()));
            machine.grace().quiescent();
            assert_eq!(machine.grace().pending(), 0);
        });
        put_off.wait();
        assert!(machine.grace().tend());
        assert!(machine.grace().tend());
        assert_eq!(machine.hardware().take_rescheduled(), [CpuId(1); 2]);
        looked.wait();
        join([other]);
    });
    finish(machine);
}

/// One CPU comes and goes while another one asks for its place and does what it put off.
#[test]
fn cpus_that_come_and_go_while_others_wait_for_grace_periods_lose_nothing() {
    let machine = machine::<Listed<Usual>>(3);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            for _ in 0..2_000 {
                let _here = machine.cpu(1);
                let guard = machine.grace().pin().unwrap();
                let page = page(&machine, 9);
                drop(guard);
                page.defer_free();
            }
            done.store(true, Ordering::Release);
        });
        let _here = machine.cpu(2);
        let rounds = Cell::new(0_u32);
        while !done.load(Ordering::Acquire) || rounds.get() == 0 {
            machine.grace().tend();
            rounds.set(rounds.get() + 1);
        }
        join([other]);
    });
    finish(machine);
}

/// Takes all memory and puts it off.
fn put_everything_off<C: SimConfig>(machine: &Machine<C>) -> usize {
    let gfp = Gfp::KERNEL | Gfp::NOWARN;
    let blocks = std::iter::from_fn(|| machine.alloc_block(gfp, Order::ZERO).ok());
    let blocks: Vec<_> = blocks.collect();
    let count = blocks.len();
    blocks.into_iter().for_each(Block::defer_free);
    count
}

#[test]
fn memory_that_is_put_off_is_found_before_a_request_fails() {
    let machine = machine::<Listed<Usual>>(1);
    let count = put_everything_off(&machine);
    assert!(count > 4000);
    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO);
    assert!(block.is_ok(), "{count} pages wait for nobody");
    drop(block);
    finish(machine);

    // Who cannot wait gets what was unlinked before a quiescent state, a little at a time.
    let machine = self::machine::<Listed<Usual>>(1);
    let count = put_everything_off(&machine) as u64;
    // Gathered for a grace period, which this CPU has passed then.
    assert!(machine.grace().quiescent());
    let core = machine.grace().quiescent();
    assert!(core && machine.grace().pending() == count);
    let urgent = Gfp::MEMALLOC | Gfp::NOWARN;
    let blocks = std::iter::from_fn(|| {
        let atomic = || machine.alloc_block(urgent, Order::ZERO);
        machine.hardware().in_atomic(atomic).ok()
    });
    let blocks: Vec<_> = blocks.take(2 * count as usize).collect();
    assert!(blocks.len() as u64 >= count, "{} of {count}", blocks.len());
    drop(blocks);
    finish(machine);
}

#[test]
fn a_request_waits_for_readers_that_hold_memory_up() {
    let machine = machine::<Listed<Usual>>(2);
    let (full, waits) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            let guard = machine.grace().pin().unwrap();
            full.wait();
            waits.wait();
            while machine.hardware().take_rescheduled().is_empty() {
                thread::yield_now();
            }
            drop(guard);
            machine.grace().quiescent();
        });
        full.wait();
        assert!(put_everything_off(&machine) > 4000);
        waits.wait();
        let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO);
        assert!(block.is_ok());
        join([other]);
    });
    finish(machine);
}

#[test]
fn what_is_put_off_does_not_pile_up_however_fast_it_comes() {
    let machine = machine::<Listed<Usual>>(1);
    let mut most = 0;
    // More between two runs than a run frees of few, and each run is one that may not sleep.
    for _ in 0..400 {
        for _ in 0..80 {
            page(&machine, 3).defer_free();
        }
        most = most.max(machine.grace().pending());
        machine.hardware().in_atomic(|| machine.grace().tend());
    }
    assert!(most < 5000, "{most}");
    finish(machine);
}

#[test]
fn a_run_that_may_not_sleep_frees_a_part_of_what_waits_and_a_thread_all() {
    let machine = machine::<Listed<Usual>>(1);
    let count = put_everything_off(&machine) as u64;
    assert_eq!(machine.grace().pending(), count);
    machine.hardware().in_atomic(|| machine.grace().tend());
    let freed = count - machine.grace().pending();
    assert!((32..=count / 16).contains(&freed), "{freed} of {count}");
    assert!(!machine.grace().tend());
    finish(machine);
}

#[test]
fn a_barrier_waits_for_what_was_there_and_not_for_what_comes() {
    static DONE: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    const FIRST: u64 = 1 << 32;
    let machine = machine::<Listed<Usual>>(3);
    let done: fn(u64) = |data| {
        DONE.fetch_add(data, Ordering::Relaxed);
    };
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            machine.grace().call(done, FIRST).unwrap();
            page(&machine, 3).defer_free();
            ready.wait();
            // Something is put off here all the time.
            while !STOP.load(Ordering::Relaxed) {
                let _ = machine.grace().call(done, 1);
                page(&machine, 3).defer_free();
                machine.grace().quiescent();
            }
        });
        ready.wait();
        // The host may let the other thread wait for longer than this one does.
        let ended = (0..100).filter(|_| {
            let is_over = machine.grace().barrier().is_ok();
            is_over && DONE.load(Ordering::Relaxed) >= FIRST
        });
        let ended = ended.take(20).count();
        STOP.store(true, Ordering::Relaxed);
        join([other]);
        assert_eq!(ended, 20);
    });
    finish(machine);
}
