//! Pageblocks that are kept for large requests which cannot wait: who makes them, who may use them,
//! how many there are, and that they are given up before anybody is told that memory is used up.

use mm::addr::{Order, PfnRange};
use mm::buddy::{Gfp, MigrateType};
use mm::config::PAGEBLOCK_FRAMES;
use mm::proc::pagetypeinfo;
use mm::system::AllocError;
use mm::zone::watermark::policy::high_atomic_limit;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, Usual};

use crate::world::{Handle, machine, order, zone};

/// Takes blocks until a request is refused.
fn drain<C: SimConfig>(machine: &Machine<C>, gfp: Gfp, order: Order) -> Vec<Handle<'_, C>> {
    let gfp = gfp | Gfp::NOWARN;
    std::iter::from_fn(|| machine.alloc_block(gfp, order).ok()).collect()
}

/// A pageblock that is kept and free, and everything else that ordinary requests can have.
fn keep<C: SimConfig>(machine: &Machine<C>) -> (Vec<Handle<'_, C>>, PfnRange) {
    let mut taken = drain(machine, Gfp::KERNEL | Gfp::MOVABLE, Order::ZERO);
    // One without early memory, filled again as far as the marks allow.
    let first = zone(machine).span().first();
    let kept = PfnRange::block(first.saturating_add(8 * PAGEBLOCK_FRAMES), Order::PAGEBLOCK);
    taken.retain(|page| !kept.contains(page.pfn()));
    taken.extend(drain(machine, Gfp::KERNEL | Gfp::MOVABLE, Order::ZERO));
    let block = machine.alloc_block(Gfp::ATOMIC, order(2)).unwrap();
    assert!(kept.contains(block.pfn()));
    drop(block);
    taken.retain(|page| !kept.contains(page.pfn()));
    let (frames, free) = zone(machine).high_atomic();
    assert_eq!((frames, free), (PAGEBLOCK_FRAMES, PAGEBLOCK_FRAMES));
    (taken, kept)
}

fn who_keeps_a_pageblock<C: SimConfig>() {
    let machine = machine::<C>(64);
    // While there is plenty, nothing need be kept.
    drop(machine.alloc_block(Gfp::ATOMIC, order(2)).unwrap());
    let taken = drain(&machine, Gfp::KERNEL, Order::ZERO);
    // Single pages can be found again, and who can wait can reclaim.
    drop(machine.alloc_block(Gfp::ATOMIC, Order::ZERO).unwrap());
    drop(
        machine
            .alloc_block(Gfp::KERNEL | Gfp::HIGH, order(2))
            .unwrap(),
    );
    assert_eq!(zone(&machine).high_atomic(), (0, 0));
    // Nor is it worth anything that a block was at hand.
    machine.drain_local_pages();
    let block = machine.alloc_block(Gfp::ATOMIC, order(2)).unwrap();
    let (kept, free) = zone(&machine).high_atomic();
    assert_eq!(kept, PAGEBLOCK_FRAMES);
    let kind = zone(&machine).pageblock_type(machine.hardware(), block.pfn());
    assert_eq!(kind, Some(MigrateType::HighAtomic));
    let snapshot = zone(&machine).snapshot(machine.hardware());
    assert_eq!(snapshot.pageblocks[MigrateType::HighAtomic.index()], 1);
    let mut text = String::new();
    pagetypeinfo(&machine, &mut text).unwrap();
    let row = text
        .lines()
        .find(|line| line.contains("HighAtomic"))
        .unwrap();
    let blocks = row
        .split_whitespace()
        .skip(6)
        .map(|word| word.parse::<u64>().unwrap());
    let printed: u64 = blocks
        .zip(Order::all())
        .map(|(count, order)| count << order.as_u8())
        .sum();
    assert_eq!(printed, free);
    machine.check();
    drop((taken, block));
    machine.finish();
}

#[test]
fn a_large_request_that_cannot_wait_and_finds_little_keeps_its_pageblock() {
    who_keeps_a_pageblock::<Usual>();
    who_keeps_a_pageblock::<Listed<Usual>>();
    who_keeps_a_pageblock::<Checked>();
}

#[test]
fn ordinary_requests_leave_what_is_kept_and_large_ones_that_cannot_wait_find_it() {
    let machine = machine::<Usual>(64);
    let (mut taken, kept) = keep(&machine);
    taken.truncate(taken.len() - 1_000);
    let min = zone(&machine).watermarks().marks().min;
    for gfp in [
        Gfp::NOWAIT,
        Gfp::KERNEL | Gfp::NORETRY,
        Gfp::HIGHUSER_MOVABLE | Gfp::NORETRY,
    ] {
        taken.extend(drain(&machine, gfp, Order::ZERO));
        assert_eq!(
            zone(&machine).free_frames(),
            min + PAGEBLOCK_FRAMES,
            "{gfp:?}"
        );
        assert_eq!(
            zone(&machine).high_atomic(),
            (PAGEBLOCK_FRAMES, PAGEBLOCK_FRAMES)
        );
    }
    let mut large = Vec::new();
    for _ in 0..PAGEBLOCK_FRAMES / 8 {
        let block = machine.alloc_block(Gfp::ATOMIC, order(3)).unwrap();
        assert!(kept.contains(block.pfn()), "there is room for it");
        large.push(block);
    }
    assert_eq!(zone(&machine).high_atomic(), (PAGEBLOCK_FRAMES, 0));
    // What they give back is there for the next one at once.
    drop(large.pop());
    assert_eq!(zone(&machine).high_atomic(), (PAGEBLOCK_FRAMES, 8));
    drop((taken, large));
    machine.finish();
}

#[test]
fn a_single_page_that_cannot_wait_comes_from_there_only_when_there_is_no_other() {
    let machine = machine::<Usual>(64);
    let (mut taken, kept) = keep(&machine);
    for gfp in [Gfp::ATOMIC, Gfp::MEMALLOC] {
        let mut others = zone(&machine).free_frames() - zone(&machine).high_atomic().1;
        for page in drain(&machine, gfp, Order::ZERO) {
            assert_eq!(kept.contains(page.pfn()), others == 0, "{gfp:?}");
            others = others.saturating_sub(1);
            taken.push(page);
        }
    }
    assert_eq!(machine.free_frames(), 0);
    drop(taken);
    machine.finish();
}

#[test]
fn what_is_kept_is_given_up_before_memory_counts_as_used_up() {
    let machine = machine::<Usual>(64);
    let (mut taken, _) = keep(&machine);
    taken.extend(drain(&machine, Gfp::NOWAIT, Order::ZERO));
    let free = zone(&machine).high_atomic().1;
    for gfp in [Gfp::NOWAIT, Gfp::KERNEL | Gfp::NORETRY] {
        assert!(machine.alloc_block(gfp, Order::ZERO).is_err());
        assert_eq!(zone(&machine).high_atomic().1, free, "{gfp:?}");
    }
    let rounds = machine.hardware().reschedules();
    taken.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    assert_eq!(machine.hardware().reschedules() - rounds, 15);
    assert_eq!(zone(&machine).high_atomic(), (0, 0));
    let kind = |kind: MigrateType| {
        let snapshot = zone(&machine).snapshot(machine.hardware());
        snapshot.pageblocks[kind.index()]
    };
    assert_eq!(kind(MigrateType::HighAtomic), 0);
    // All of it can be had now.
    taken.extend(drain(&machine, Gfp::KERNEL, Order::ZERO));
    assert_eq!(
        zone(&machine).free_frames(),
        zone(&machine).watermarks().marks().min
    );
    let refused = machine.alloc_block(Gfp::KERNEL, Order::ZERO);
    assert_eq!(refused.unwrap_err(), AllocError::OutOfMemory);
    drop(taken);
    machine.finish();
}

#[test]
fn the_last_but_one_pageblock_is_given_up_early_and_the_last_one_late() {
    let machine = machine::<Usual>(640);
    assert_eq!(
        high_atomic_limit(zone(&machine).managed()) / PAGEBLOCK_FRAMES,
        3
    );
    let mut taken = drain(&machine, Gfp::KERNEL, Order::ZERO);
    // Whole pageblocks become free here and there, and each large request finds another one.
    let mut large = Vec::new();
    for pageblock in (10..30).step_by(4) {
        let first = zone(&machine)
            .span()
            .first()
            .saturating_add(pageblock * PAGEBLOCK_FRAMES);
        let range = PfnRange::block(first, Order::PAGEBLOCK);
        taken.retain(|page| !range.contains(page.pfn()));
        taken.extend(drain(&machine, Gfp::KERNEL, Order::PAGEBLOCK));
        large.extend(drain(&machine, Gfp::ATOMIC, order(5)));
    }
    assert_eq!(zone(&machine).high_atomic().0, 3 * PAGEBLOCK_FRAMES);
    drop(large);
    let rounds = machine.hardware().reschedules();
    taken.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    assert_eq!(
        machine.hardware().reschedules(),
        rounds,
        "in the first round"
    );
    assert!(zone(&machine).high_atomic().0 >= PAGEBLOCK_FRAMES);
    taken.extend(drain(&machine, Gfp::KERNEL, Order::ZERO));
    assert_eq!(zone(&machine).high_atomic().0, 0);
    drop(taken);
    machine.finish();
}

#[test]
fn a_pageblock_that_is_kept_can_be_taken_as_a_range_and_is_kept_afterwards() {
    let machine = machine::<Usual>(64);
    let (taken, kept) = keep(&machine);
    let run = machine.alloc_contig_range(kept, Gfp::KERNEL).unwrap();
    assert_eq!(zone(&machine).high_atomic(), (PAGEBLOCK_FRAMES, 0));
    machine.check();
    drop(run);
    assert_eq!(
        zone(&machine).high_atomic(),
        (PAGEBLOCK_FRAMES, PAGEBLOCK_FRAMES)
    );
    drop(taken);
    machine.finish();
}

/// Requests of all sorts where little is left.
fn churn<C: SimConfig>(mib: u64, steps: usize) {
    const SORTS: [Gfp; 4] = [
        Gfp::ATOMIC,
        Gfp::KERNEL,
        Gfp::HIGHUSER_MOVABLE,
        Gfp::NOWAIT.union(Gfp::RECLAIMABLE),
    ];
    let machine = machine::<C>(mib);
    let limit = high_atomic_limit(zone(&machine).managed());
    let mut random = Random::new(seed("high_atomic"));
    let (mut live, mut most) = (Vec::new(), 0);
    for step in 0..steps {
        let size = order([0, 0, 0, 1, 2, 3, 4, 6, 9, 10][random.below_index(10)]);
        let gfp = SORTS[random.below_index(4)] | Gfp::NOWARN;
        match machine.alloc_block(gfp, size) {
            Ok(block) => live.push(block),
            Err(_) if size > order(3) => {}
            Err(_) => {
                for _ in 0..random.below_index(live.len().min(400) + 1) {
                    drop(live.swap_remove(random.below_index(live.len())));
                }
            }
        }
        let (kept, free) = zone(&machine).high_atomic();
        assert!(
            free <= kept && kept <= limit,
            "{free} of {kept}, limit {limit}"
        );
        most = most.max(kept);
        if step % 1_000 == 0 {
            machine.check();
        }
    }
    machine.check();
    assert_eq!(
        most,
        limit / PAGEBLOCK_FRAMES * PAGEBLOCK_FRAMES,
        "never that many"
    );
    drop(live);
    machine.finish();
}

#[test]
fn what_is_kept_stays_within_its_bound_whatever_is_asked_for() {
    churn::<Usual>(24, 20_000);
    churn::<Listed<Usual>>(480, 60_000);
    churn::<Checked>(24, 2_000);
}
