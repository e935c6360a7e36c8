//! Page lists of CPUs: who may take what is on them, and how much that may be.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::frame::{FrameState, FreeError};
use mm::platform::Platform;
use mm::report::Corruption;
use mm::system::{AllocError, Block, Memory};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{
    Checked, Hardened, Listed, Machine, Plain, SimConfig, SimPlatform, Usual, Vmemmap,
};
use mm_tests::threads::join;

type Handle<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

const MIB: u64 = 1 << 20;

/// Frames on the lists of a CPU, all zones together.
fn on_lists<C: SimConfig>(machine: &Machine<C>, cpu: usize) -> u64 {
    let of_zone = machine.zones().filter_map(|zone| zone.pagesets().nth(cpu));
    of_zone.map(|set| set.count).sum()
}

/// Frames on all lists.
fn on_all_lists<C: SimConfig>(machine: &Machine<C>) -> u64 {
    let sets = machine.zones().flat_map(|zone| zone.pagesets());
    sets.map(|set| set.count).sum()
}

/// Takes a page and gives it back.
fn touch<C: SimConfig>(machine: &Machine<C>) -> Pfn {
    let pfn = machine.alloc_page(Gfp::KERNEL).unwrap();
    // SAFETY: allocated just now.
    unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    pfn
}

/// Whoever asks for the place of a CPU that is there must not give that place up when it does not
/// get it: the next one would get it then, beside the CPU itself.
/// What a CPU frees goes to its own lists, and to nobody else's, by whatever way they are found.
fn each_cpu_uses_its_own_lists<C: SimConfig>() {
    let machine = machine::<C>(64, 4);
    for here in 1..4 {
        let lists = || [0, 1, 2, 3].map(|cpu| on_lists(&machine, cpu));
        let before = lists();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let _here = machine.cpu(here);
                for _ in 0..3 {
                    drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
                }
            });
            join([other]);
        });
        for (cpu, (before, now)) in (0..).zip(before.into_iter().zip(lists())) {
            assert_eq!(before != now, cpu == here, "CPU {cpu} while {here} ran");
        }
    }
    machine.finish();
}

#[test]
fn each_cpu_uses_its_own_lists_found_by_anchors() {
    each_cpu_uses_its_own_lists::<Listed<(Hardened, Vmemmap)>>();
}

#[test]
fn each_cpu_uses_its_own_lists_found_by_number() {
    each_cpu_uses_its_own_lists::<Listed<Usual>>();
}

#[test]
fn a_cpu_that_runs_keeps_its_lists_however_often_others_ask() {
    let machine = Machine::<Listed<Usual>>::new()
        .ram(0, 32 * MIB)
        .cpus(2)
        .boot();
    let (ready, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            touch(&machine);
            ready.wait();
            done.wait();
            let listed = on_lists(&machine, 1);
            assert!(listed > 0, "another CPU took what this one has");
            // It was asked for its pages, and gives them back when it is done with them.
            let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
            assert_eq!(on_lists(&machine, 1), 0);
            drop(page);
        });
        ready.wait();
        let drained = [(); 3].map(|()| machine.drain_all_pages());
        done.wait();
        join([other]);
        assert_eq!(drained, [false; 3], "nobody is away");
    });
    assert!(machine.drain_all_pages());
    machine.finish();
}

fn machine<C: SimConfig>(mib: u64, cpus: u32) -> Machine<C> {
    Machine::new().ram(0, mib * MIB).cpus(cpus).boot()
}

/// No CPU has more than it may, and the frames on lists are those whose records say so.
fn check_lists<C: SimConfig>(machine: &Machine<C>) {
    for zone in machine.zones() {
        for set in zone.pagesets() {
            assert!(set.count <= set.high, "{}: {set:?}", zone.kind());
        }
    }
    let census = machine.validate().unwrap();
    assert_eq!(census.cached, on_all_lists(machine));
    assert_eq!(census.free, machine.free_frames());
}

/// R10: pages are taken on one CPU and given back on another, by turns; about 100 operations a step.
/// `MM_CASES` sets how many steps there are.
fn hand_on<C: SimConfig>(steps: usize) {
    const CPUS: u32 = 8;
    let machine = machine::<C>(64, CPUS + 1);
    let mut random = Random::new(seed("hand_on"));
    let mut live: Vec<Handle<'_, C>> = Vec::new();
    for step in 0..steps {
        let cpu = 1 + random.below(u64::from(CPUS)) as u32;
        let here = machine.cpu(cpu);
        // Even CPUs mostly take, odd ones mostly give back.
        for _ in 0..random.below(200) {
            let takes = cpu.is_multiple_of(2) == (random.below(8) != 0);
            let order = Order::new([0, 0, 0, 0, 1, 2, 3, 9][random.below_index(8)]).unwrap();
            let gfp = [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE][random.below_index(2)];
            if takes {
                live.extend(machine.alloc_block(gfp | Gfp::NOWARN, order));
            } else if !live.is_empty() {
                drop(live.swap_remove(random.below_index(live.len())));
            }
        }
        drop(here);
        check_lists(&machine);
        if step % 50 == 49 {
            assert!(machine.drain_all_pages());
            assert_eq!(on_all_lists(&machine), 0);
        }
    }
    drop(live);
    machine.finish();
}

#[test]
fn pages_handed_from_cpu_to_cpu_never_pile_up() {
    let steps = cases(400) as usize;
    hand_on::<Listed<Usual>>(steps);
    hand_on::<Listed<(Plain, Vmemmap)>>(steps);
    hand_on::<Listed<Checked>>(100);
}

/// What a CPU does while another one wants its pages. In the kernel, where idle, parked and offline
/// are three things, `memory::reach` does the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    /// No thread is on it.
    Away,
    /// A thread has its interrupts off for 1 ms, again and again, and answers calls in between.
    Spins,
}

type Reached = Machine<Listed<(Plain, Vmemmap)>>;

fn spin(machine: &Reached, cpu: u32, ready: &Barrier, stop: &AtomicBool) {
    let _here = machine.cpu(cpu);
    let hardware = machine.hardware();
    hardware.answers(cpu, true);
    ready.wait();
    while !stop.load(Ordering::Acquire) {
        let irq = hardware.irq_save();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        hardware.irq_restore(irq);
        if hardware.is_called(cpu) {
            machine.drain_wanted();
        }
    }
    hardware.answers(cpu, false);
}

/// CPU 0 takes all there is; answers how many pages that was.
fn take_all(machine: &Reached, gfp: Gfp) -> u64 {
    let mut got = Vec::new();
    loop {
        match machine.alloc_block(gfp, Order::ZERO) {
            Ok(page) => got.push(page),
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                return got.len() as u64;
            }
        }
    }
}

/// 100 random states: all CPUs do `row`, or what chance gives them.
fn reach(row: Option<Doing>) {
    let machine: Reached = machine(24, 5);
    let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC | Gfp::NOWARN;
    let seed = seed("reach");
    for round in 0..100 {
        let mut random = Random::new(seed ^ round);
        let any = [Doing::Away, Doing::Spins];
        let doing = [(); 4].map(|()| row.unwrap_or(any[random.below_index(2)]));
        // Each CPU leaves something behind.
        for cpu in 1..5 {
            let _here = machine.cpu(cpu);
            let count = random.below(600);
            let pages: Vec<_> = (0..count)
                .map_while(|_| machine.alloc_block(gfp, Order::ZERO).ok())
                .collect();
            drop(pages);
        }
        let hidden = on_all_lists(&machine);
        assert!(hidden > 0);
        let free = machine.free_frames() + hidden;
        let spinning: Vec<u32> = (1..5)
            .filter(|cpu| doing[*cpu as usize - 1] == Doing::Spins)
            .collect();
        // A request that may not wait reaches those that are away too.
        let gfp = match round % 2 == 0 || !spinning.is_empty() {
            true => gfp,
            false => gfp.difference(Gfp::DIRECT_RECLAIM),
        };
        let (ready, stop) = (Barrier::new(spinning.len() + 1), AtomicBool::new(false));
        let got = thread::scope(|scope| {
            let threads: Vec<_> = spinning
                .iter()
                .map(|&cpu| {
                    let (machine, ready, stop) = (&machine, &ready, &stop);
                    scope.spawn(move || spin(machine, cpu, ready, stop))
                })
                .collect();
            ready.wait();
            let got = take_all(&machine, gfp);
            stop.store(true, Ordering::Release);
            join(threads);
            got
        });
        assert_eq!(got, free, "round {round}, {doing:?}");
    }
    machine.finish();
}

#[test]
fn a_cpu_gets_every_free_page_whatever_the_others_have_and_do() {
    for row in [Some(Doing::Away), Some(Doing::Spins), None] {
        reach(row);
    }
}

#[test]
fn a_range_is_had_although_its_pages_are_on_lists() {
    let machine = machine::<Listed<Usual>>(64, 3);
    let range = {
        let _here = machine.cpu(1);
        let pages: Vec<_> = (0..100)
            .map(|_| machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap())
            .collect();
        let first = pages[0].pfn().align_down(Order::PAGEBLOCK);
        assert!(pages.iter().any(|page| page.pfn() > first));
        PfnRange::block(first, Order::PAGEBLOCK)
    };
    touch(&machine);
    assert!(on_lists(&machine, 0) > 0 && on_lists(&machine, 1) > 0);
    let run = machine.alloc_contig_range(range, Gfp::KERNEL).unwrap();
    assert_eq!(run.frames(), range);
    // The lists are in use again.
    let pfn = touch(&machine);
    assert_eq!(machine.page(pfn).unwrap().state(), Some(FrameState::Cached));
    drop(run);
    machine.finish();
}

/// Writes another state into the record of a page on a list.
fn damage<C: SimConfig>(machine: &Machine<C>, pfn: Pfn, state: u8) {
    let frame = machine.page(pfn).unwrap().frame();
    let record = core::ptr::from_ref(frame).cast::<u8>().cast_mut();
    // SAFETY: the state's nibble of a record in this machine's RAM; records are atomics, so there
    // is no reference that forbids writing, and no other thread is there.
    unsafe { record.write_volatile(state) };
}

fn refused_when_damaged<C: SimConfig>() {
    for state in [0, 1, 2, 3, 4, 9] {
        let machine = machine::<C>(32, 1);
        let pfn = touch(&machine);
        damage(&machine, pfn, state);
        let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
        assert_ne!(page.pfn(), pfn, "state {state}");
        let refused = |machine: &Machine<C>| {
            let reports = machine.hardware().take_reports();
            assert!(
                matches!(reports[..], [Corruption::NotFree { pfn: found, .. }] if found == pfn),
                "state {state}: {reports:?}"
            );
        };
        refused(&machine);
        // The same on its way back to the zone.
        drop(page);
        let other = touch(&machine);
        damage(&machine, other, state);
        assert!(machine.drain_all_pages());
        let reports = machine.hardware().take_reports();
        assert!(
            matches!(reports[..], [Corruption::NotFree { pfn, .. }] if pfn == other),
            "state {state}: {reports:?}"
        );
        machine.abandon();
    }
}

#[test]
fn a_page_whose_record_does_not_say_cached_is_neither_handed_out_nor_given_back() {
    refused_when_damaged::<Listed<Usual>>();
    refused_when_damaged::<Listed<Checked>>();
    refused_when_damaged::<Listed<(Plain, Vmemmap)>>();
}

#[test]
fn what_is_on_a_list_is_free_already() {
    let machine = machine::<Listed<Usual>>(32, 1);
    let order = Order::new(2).unwrap();
    for order in [Order::ZERO, order] {
        let pfn = machine.alloc_pages(Gfp::KERNEL, order).unwrap();
        // SAFETY: allocated just now.
        unsafe { machine.free_pages(pfn, order) }.unwrap();
        let listed = on_all_lists(&machine);
        assert!(listed > 0);
        for pfn in PfnRange::block(pfn, order).iter().take(2) {
            // SAFETY: deliberately none: the call must refuse.
            let again = unsafe { machine.free_pages(pfn, Order::ZERO) };
            assert_eq!(again, Err(FreeError::AlreadyFree));
        }
        let mut twice = [None, Some(touch(&machine)), None];
        // SAFETY: as above.
        let again = unsafe { machine.free_pages_bulk(&mut twice) };
        assert_eq!(again, Err((1, FreeError::AlreadyFree)));
        machine.check();
    }
    machine.finish();
}

fn bulk<C: SimConfig>() {
    let machine = machine::<C>(64, 2);
    let mut pages = [None; 300];
    let filled = machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages);
    assert_eq!(filled, Ok(300));
    // One page in the middle is not ours to give back.
    let (kept, reserved) = (pages[200].unwrap(), Pfn::new(0));
    pages[200] = Some(reserved);
    // SAFETY: all but one were allocated; that one must be refused.
    let refused = unsafe { machine.free_pages_bulk(&mut pages) };
    let (place, _) = refused.unwrap_err();
    assert_eq!(place, 200);
    assert!(pages[..200].iter().all(Option::is_none));
    assert!(pages[200..].iter().all(Option::is_some));
    pages[200] = Some(kept);
    // SAFETY: allocated above, and not given back yet.
    unsafe { machine.free_pages_bulk(&mut pages) }.unwrap();
    assert!(pages.iter().all(Option::is_none));
    check_lists(&machine);
    machine.finish();
}

#[test]
fn a_list_of_pages_goes_through_the_lists_and_stops_at_the_first_that_is_refused() {
    bulk::<Listed<Usual>>();
    bulk::<Listed<Checked>>();
    bulk::<Listed<(Plain, Vmemmap)>>();
}

/// Holds of a lock, counted over `body`.
fn locks(machine: &Machine<Listed<Checked>>, body: impl FnOnce()) -> u64 {
    let before = machine.hardware().taken_locks();
    body();
    machine.hardware().taken_locks() - before
}

#[test]
fn a_hit_takes_no_lock_and_everything_else_one_for_a_batch() {
    let machine = machine::<Listed<Checked>>(256, 3);
    let batch = machine.zones().map(|zone| zone.list_limits().batch).max();
    let batch = u64::from(batch.unwrap());
    assert!(batch >= 7);
    touch(&machine);
    let hits = locks(&machine, || {
        for _ in 0..1_000 {
            touch(&machine);
        }
    });
    assert_eq!(hits, 0);

    // One CPU only takes, the other only gives back: no page is used twice on a CPU.
    let mut pages = Vec::new();
    let here = machine.cpu(1);
    let taking = locks(&machine, || {
        pages.extend((0..10_000).map(|_| machine.alloc_page(Gfp::KERNEL).unwrap()));
    });
    drop(here);
    let here = machine.cpu(2);
    let giving = locks(&machine, || {
        for &page in &pages {
            // SAFETY: allocated above.
            unsafe { machine.free_pages(page, Order::ZERO) }.unwrap();
        }
    });
    drop(here);
    assert!(taking <= 10_000 / batch, "{taking} holds, batch {batch}");
    assert!(giving <= 10_000 / batch, "{giving} holds, batch {batch}");
    machine.finish();
}

#[test]
fn a_page_given_back_to_an_isolated_pageblock_is_not_handed_out_from_a_list() {
    let machine = machine::<Listed<Usual>>(32, 1);
    let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let block = PfnRange::block(page.pfn().align_down(Order::PAGEBLOCK), Order::PAGEBLOCK);
    let zone = machine.zone_of(page.pfn()).unwrap();
    zone.isolate(machine.hardware(), block).unwrap();
    assert!(machine.drain_all_pages());
    drop(page);
    assert_eq!(on_all_lists(&machine), 0);
    let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert!(!block.contains(page.pfn()));
    zone.unisolate(machine.hardware(), block);
    drop(page);
    assert!(on_all_lists(&machine) > 0);
    machine.finish();
}

/// Who cannot wait would not get what others have at hand in time: these keep it.
#[test]
fn a_request_that_cannot_wait_leaves_the_lists_of_cpus_that_run_alone() {
    let machine = Machine::<Listed<Usual>>::new();
    let machine = machine.ram(0, 32 * MIB).cpus(2).boot();
    let (listed, failed) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            let [first, pages @ ..] =
                [(); 3].map(|()| machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
            let at_hand = || -> u64 {
                let sets = machine.zones().filter_map(|zone| zone.pagesets().nth(1));
                sets.map(|set| set.count).sum()
            };
            drop(first);
            listed.wait();
            failed.wait();
            let before = at_hand();
            drop(pages);
            assert!(before > 0 && at_hand() > before, "{before} {}", at_hand());
        });
        listed.wait();
        let largest = Gfp::ATOMIC | Gfp::NOWARN;
        let mut blocks = Vec::new();
        while let Ok(block) = machine.alloc_block(largest, Order::MAX) {
            blocks.push(block);
        }
        failed.wait();
        join([other]);
    });
    machine.finish();
}
