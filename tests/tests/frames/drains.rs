//! Drains that somebody asked for, what others see of them meanwhile, and lists that are damaged.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::buddy::Step;
use mm::report::{Check, Corruption};
use mm::system::Block;
use mm_tests::sim::{Listed, Machine, Plain, SimConfig, Usual, Vmemmap};
use mm_tests::threads::join;

const MIB: u64 = 1 << 20;

fn on_lists<C: SimConfig>(machine: &Machine<C>, cpu: usize) -> u64 {
    let of_zone = machine.zones().filter_map(|zone| zone.pagesets().nth(cpu));
    of_zone.map(|set| set.count).sum()
}

/// While CPU 1, which has just done `first`, does nothing, CPU 0 does `ask`, which asks for a drain and is
/// not served; then CPU 1 does `then`.
fn asked_in_between<T: Send>(
    machine: &Machine<Listed<Usual>>,
    first: impl FnOnce() -> T + Send,
    ask: impl FnOnce(),
    then: impl FnOnce(T) + Send,
) {
    let (ready, asked) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            let held = first();
            ready.wait();
            asked.wait();
            assert!(on_lists(machine, 1) > 0);
            then(held);
            assert_eq!(on_lists(machine, 1), 0, "the request was left open");
        });
        ready.wait();
        ask();
        assert!(!machine.drain_all_pages());
        asked.wait();
        join([other]);
    });
}

fn free(machine: &Machine<Listed<Usual>>, pfn: Pfn, order: Order) {
    // SAFETY: of a block that the test allocated and forgets.
    unsafe { machine.free_pages(pfn, order) }.unwrap();
}

/// Closes the lists of a zone.
fn isolate_a_pageblock(machine: &Machine<Listed<Usual>>) {
    let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let block = PfnRange::block(page.pfn().align_down(Order::PAGEBLOCK), Order::PAGEBLOCK);
    let zone = machine.zone_of(page.pfn()).unwrap();
    zone.isolate(machine.hardware(), block).unwrap();
}

#[test]
fn a_free_that_finds_no_room_on_a_list_serves_a_drain() {
    let builder = Machine::<Listed<Usual>>::new().ram(0, 32 * MIB);
    let machine = builder.cpus(2).boot();
    let large = || {
        let large = machine.alloc_pages(Gfp::KERNEL, Order::PAGEBLOCK).unwrap();
        free(
            &machine,
            machine.alloc_page(Gfp::KERNEL).unwrap(),
            Order::ZERO,
        );
        large
    };
    let back = |large| free(&machine, large, Order::PAGEBLOCK);
    asked_in_between(&machine, large, || (), back);
    machine.finish();
}

#[test]
fn a_free_serves_a_drain_while_lists_are_closed() {
    let builder = Machine::<Listed<Usual>>::new().ram(0, 32 * MIB);
    let machine = builder.cpus(2).boot();
    let page = || machine.alloc_page(Gfp::KERNEL).unwrap();
    let isolate = || isolate_a_pageblock(&machine);
    asked_in_between(&machine, page, isolate, |page| {
        free(&machine, page, Order::ZERO)
    });
    machine.abandon();
}

#[test]
fn pages_in_bulk_serve_a_drain_while_lists_are_closed() {
    let builder = Machine::<Listed<Usual>>::new().ram(0, 32 * MIB);
    let machine = builder.cpus(2).boot();
    let pages = || {
        let mut pages = [None; 5];
        assert_eq!(machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages), Ok(5));
        pages
    };
    let isolate = || isolate_a_pageblock(&machine);
    asked_in_between(&machine, pages, isolate, |mut pages| {
        // SAFETY: the bulk interface filled the places.
        unsafe { machine.free_pages_bulk(&mut pages) }.unwrap();
    });
    machine.abandon();
}

/// CPU 0 does `work` while CPU 1 does `visit`, which is told the number of each point at which it may.
fn with_visits<T>(
    machine: &Machine<Listed<Usual>>,
    mut visit: impl FnMut(u32) + Send,
    work: impl FnOnce() -> T,
) -> T {
    let gaps = machine.hardware().both_ends_of_gaps(0);
    thread::scope(|scope| {
        let visitor = scope.spawn(move || {
            let _here = machine.cpu(1);
            let mut number = 0;
            gaps.each(|| {
                number += 1;
                visit(number);
            });
        });
        let outcome = work();
        machine.hardware().no_more_gaps();
        join([visitor]);
        outcome
    })
}

#[test]
fn a_free_page_is_counted_in_its_zone_or_on_a_list_at_any_time() {
    let builder = Machine::<Listed<Usual>>::new().ram(0, 512 * MIB);
    let machine = builder.cpus(2).boot();
    let free = || machine.free_frames() + on_lists(&machine, 0);
    let (all, owned, visits) = (free(), AtomicU64::new(0), AtomicU64::new(0));
    let visit = |number| {
        let now = free() + owned.load(Ordering::Relaxed);
        assert!(now >= all, "{now} of {all} frames, {number}");
        visits.fetch_add(1, Ordering::Relaxed);
    };
    with_visits(&machine, visit, || {
        for order in [0, 3, 0, 1] {
            let order = Order::new(order).unwrap();
            let alloc = |_| {
                owned.fetch_add(order.frames(), Ordering::Relaxed);
                machine.alloc_block(Gfp::KERNEL, order).unwrap()
            };
            let blocks: Vec<_> = (0..400).map(alloc).collect();
            for block in blocks {
                drop(block);
                owned.fetch_sub(order.frames(), Ordering::Relaxed);
            }
        }
        assert!(machine.drain_all_pages());
    });
    assert!(visits.into_inner() > 50);
    machine.finish();
}

/// CPU 0 wants a page, and all that are free lie on lists of CPU 1, which gives them back right after CPU 0
/// found no memory in a zone for the time with this number. Answers whether it found none so often.
fn is_served_though_pages_move(time: u32, gfp: Gfp) -> bool {
    let builder = Machine::<Listed<Usual>>::new().ram(0, 32 * MIB);
    let machine = builder.cpus(2).boot();
    let gfp = gfp | Gfp::MEMALLOC | Gfp::NOWARN;
    let take = || machine.alloc_block(gfp, Order::ZERO).ok();
    let mut taken: Vec<_> = std::iter::from_fn(take).collect();
    let (mut seen, mut found) = (0, None);
    let ((go, gone), (done, is_done)) = (channel(), channel());
    let back = taken.split_off(taken.len() - 10);
    thread::scope(|scope| {
        let machine = &machine;
        let other = scope.spawn(move || {
            let _here = machine.cpu(1);
            drop(back);
            done.send(()).unwrap();
            if gone.recv().is_ok() {
                machine.drain_local_pages();
                done.send(()).unwrap();
            }
        });
        is_done.recv().unwrap();
        assert_eq!((machine.free_frames(), on_lists(machine, 1)), (0, 10));
        let mut meet = |step| {
            let is_short = matches!(step, Step::Short { .. });
            seen += u32::from(is_short);
            if is_short && seen == time {
                go.send(()).unwrap();
                is_done.recv().unwrap();
            }
        };
        found = Block::alloc_traced(&**machine, gfp, Order::ZERO, &mut meet).ok();
        drop(go);
        join([other]);
    });
    assert!(found.is_some() || seen < time, "{time}");
    drop((found, taken));
    machine.finish();
    seen >= time
}

#[test]
fn a_request_finds_pages_that_come_back_after_it_looked_for_them() {
    // Each of two zones was short twice at least: at the `low` mark, and with all reserves. What comes
    // back after the last look is too late.
    for gfp in [Gfp::KERNEL, Gfp::ATOMIC] {
        for time in 1..=6 {
            assert!(is_served_though_pages_move(time, gfp), "{time}");
        }
    }
}

/// Changes the list word of a record, and answers what it was.
fn set_link<C: SimConfig>(machine: &Machine<C>, pfn: Pfn, link: u64) -> u64 {
    let frame = machine.page(pfn).unwrap().frame();
    let record = core::ptr::from_ref(frame).cast::<u64>().cast_mut();
    // SAFETY: the list word of a record in this machine's RAM; records are atomics, so there is no
    // reference that forbids writing, and no other thread is there.
    unsafe {
        let place = record.add(2);
        let before = place.read_volatile();
        place.write_volatile(link);
        before
    }
}

/// Pages on a list, more than are at hand, of which one in the chain has another link. Answers what it
/// named before.
fn with_a_damaged_chain(link: u64) -> (Machine<Listed<(Plain, Vmemmap)>>, Pfn) {
    let builder = Machine::<Listed<(Plain, Vmemmap)>>::new().ram(0, 512 * MIB);
    let machine = builder.boot();
    let allocated = || machine.alloc_page(Gfp::KERNEL).unwrap();
    let pages: Vec<Pfn> = (0..300).map(|_| allocated()).collect();
    assert!(machine.drain_all_pages());
    for &page in &pages {
        // SAFETY: allocated above.
        unsafe { machine.free_pages(page, Order::ZERO) }.unwrap();
    }
    let before = Pfn::new(set_link(&machine, pages[20], link));
    assert_eq!(before, pages[19]);
    (machine, Pfn::new(link))
}

/// R13, R17: 20 pages are behind the damage; they are lost, which is said once, and nothing else is.
fn is_reported_once(link: u64) {
    let (machine, named) = with_a_damaged_chain(link);
    assert!(machine.drain_all_pages());
    let reports = machine.hardware().take_reports();
    assert!(
        matches!(
            reports[..],
            [Corruption::BadRecord { pfn, check: Check::Links, .. }] if pfn == named
        ),
        "{reports:?}"
    );
    assert_eq!(on_lists(&machine, 0), 0);
    let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    drop(page);
    assert!(machine.drain_all_pages());
    assert_eq!(machine.hardware().take_reports(), []);
    machine.abandon();
}

#[test]
fn a_link_to_nowhere_is_reported() {
    is_reported_once(0x6b6b_6b6b_6b6b_6b6b);
}

#[test]
fn a_link_to_a_page_that_is_on_no_list_is_reported() {
    is_reported_once(0x100);
}
