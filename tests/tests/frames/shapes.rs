//! The catalogue of buddy shapes: which blocks exist after which history.

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::{Gfp, Step};
use mm::system::{AllocError, Block, ExactError};
use mm_tests::oracles::Shape;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Given, Machine, Plain, SimConfig, Usual, Vmemmap};

const MIB: u64 = 1 << 20;
const BASE: u64 = 32 * MIB;
const GFP: Gfp = Gfp::KERNEL.union(Gfp::THISNODE);

fn order(number: u8) -> Order {
    Order::new(number).unwrap()
}

/// Exactly so many frames are free, from an address that is aligned to all orders.
fn frames<C: SimConfig>(count: u64) -> Machine<C> {
    Given::new(&[(BASE, BASE + (count << 12))]).boot()
}

fn is_refused<C: SimConfig>(machine: &Machine<C>, order: Order) -> bool {
    match machine.alloc_block(GFP, order) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error, AllocError::OutOfMemory);
            true
        }
    }
}

#[test]
fn one_block_of_each_order_is_handed_out_once_each() {
    for upwards in [true, false] {
        let machine = frames::<Usual>((1 << 11) - 1);
        let mut orders: Vec<_> = Order::all().collect();
        if !upwards {
            orders.reverse();
        }
        // Memory starts out movable, so nothing is split in order to be claimed.
        let movable = Gfp::HIGHUSER_MOVABLE | Gfp::THISNODE;
        let blocks = orders
            .iter()
            .map(|&order| machine.alloc_block(movable, order));
        let blocks: Vec<_> = blocks.map(Result::unwrap).collect();
        assert!(Order::all().all(|order| is_refused(&machine, order)));
        drop(blocks);
        machine.finish();
    }
}

#[test]
fn freeing_in_increasing_size_makes_each_next_order_available() {
    let machine = frames::<Usual>(1 << 10);
    let mut blocks: Vec<_> = (0..10)
        .rev()
        .map(|number| machine.alloc_block(GFP, order(number)).unwrap())
        .collect();
    blocks.push(machine.alloc_block(GFP, Order::ZERO).unwrap());
    assert!(Order::all().all(|order| is_refused(&machine, order)));

    blocks.reverse();
    let mut blocks = blocks.into_iter();
    drop(blocks.next());
    for (number, block) in (0..).zip(blocks) {
        assert!(is_refused(&machine, order(number + 1)));
        assert_eq!(block.order(), order(number));
        drop(block);
        assert!(!is_refused(&machine, order(number + 1)));
    }
    machine.finish();
}

#[test]
fn with_every_second_page_in_use_nothing_above_a_page_fits() {
    let machine = frames::<Usual>(1 << 12);
    let mut pages: Vec<_> = (0..1 << 12)
        .map(|_| machine.alloc_block(GFP, Order::ZERO).unwrap())
        .collect();
    pages.retain(|page| page.pfn().as_u64() % 2 == 0);
    assert_eq!(machine.nodes()[0].zones()[1].free_frames(), 1 << 11);
    assert!(
        Order::all()
            .skip(1)
            .all(|order| is_refused(&machine, order))
    );
    assert!(!is_refused(&machine, Order::ZERO));
    machine.check();
    drop(pages);
    machine.finish();
}

#[test]
fn runs_of_two_and_three_exist_exactly_when_their_neighbours_are_free() {
    let machine = frames::<Usual>(3 << 10);
    let (mut left, mut middle, mut right) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 << 10 {
        let page = machine.alloc_block(GFP, Order::ZERO).unwrap();
        match page.pfn().as_u64() % 3 {
            0 => left.push(page),
            1 => middle.push(page),
            _ => right.push(page),
        }
    }
    let start = (BASE >> 12).next_multiple_of(3);
    let run = |pages: u64| PfnRange::from_numbers(start, start + pages);
    let fits = |pages| machine.alloc_contig_range(run(pages), GFP).is_ok();

    drop(middle);
    assert!(!fits(2) && is_refused(&machine, order(1)));
    drop(left);
    assert!(fits(2) && !fits(3));
    // Of the pairs (3n, 3n + 1), every second one is aligned.
    let mut pairs = Vec::new();
    while let Ok(pair) = machine.alloc_block(GFP, order(1)) {
        pairs.push(pair);
    }
    assert_eq!(pairs.len(), 512);
    drop(pairs);
    drop(right);
    assert!(fits(3) && !is_refused(&machine, Order::MAX));
    machine.finish();
}

#[test]
fn ranges_never_leak_out_of_where_they_were_asked_for() {
    let mut random = Random::new(seed("ranges_never_leak"));
    let machine = frames::<Usual>(1 << 12);
    let all = PfnRange::from_numbers(BASE >> 12, (BASE >> 12) + (1 << 12));
    // Disjoint random cuts that together cover everything: each is served, in any order.
    let mut cuts: Vec<_> = (0..200).map(|_| random.below(1 << 12)).collect();
    cuts.extend([0, 1 << 12]);
    cuts.sort_unstable();
    cuts.dedup();
    let first = |cut: u64| (BASE >> 12) + cut;
    let mut ranges: Vec<_> = cuts
        .windows(2)
        .map(|pair| PfnRange::from_numbers(first(pair[0]), first(pair[1])))
        .collect();
    let mut runs = Vec::new();
    while !ranges.is_empty() {
        let range = ranges.swap_remove(random.below_index(ranges.len()));
        let run = machine.alloc_contig_range(range, GFP).unwrap();
        assert!(all.covers(run.frames()) && run.frames() == range);
        assert!(machine.alloc_contig_range(range, GFP).is_err());
        runs.push(run);
    }
    assert!(is_refused(&machine, Order::ZERO));
    machine.check();
    drop(runs);
    machine.finish();
}

#[test]
fn small_runs_at_wide_alignment_fill_up_to_the_exact_count() {
    let machine = frames::<Usual>(1 << 12);
    let at = |number: u64| {
        let first = (BASE >> 12) + number * 64;
        PfnRange::from_numbers(first, first + 2 + 2 * (number % 2))
    };
    let run = |number| machine.alloc_contig_range(at(number), GFP);
    let mut runs: Vec<_> = (0..64).map(|number| Some(run(number).unwrap())).collect();
    assert!((0..64).all(|number| run(number).is_err()));
    assert!(run(64).is_err());
    for number in (0..64).step_by(2) {
        runs[number] = None;
    }
    let again: Vec<_> = (0..64).filter_map(|number| run(number).ok()).collect();
    assert_eq!(again.len(), 32);
    machine.check();
    drop((runs, again));
    machine.finish();
}

#[test]
fn orders_above_the_largest_are_errors_and_do_not_wrap() {
    let machine = frames::<Usual>(1 << 11);
    for number in 11..=u8::MAX {
        assert_eq!(Order::new(number), None);
    }
    let largest = Order::MAX.bytes();
    for bytes in [
        largest + 1,
        largest + 4096,
        1 << 40,
        u64::MAX - 4094,
        u64::MAX,
    ] {
        let refused = machine.alloc_pages_exact(GFP, bytes).unwrap_err();
        assert_eq!(refused, ExactError::TooLarge, "{bytes:#x}");
    }
    drop(machine.alloc_pages_exact(GFP, largest).unwrap());
    machine.finish();
}

#[test]
fn a_thousand_random_orders_of_freeing_restore_the_free_blocks() {
    let mut random = Random::new(seed("a_thousand_random_orders"));
    let machine = Given::new(&[
        (BASE, BASE + (1_400 << 12)),
        (BASE + (1_407 << 12), BASE + (2_100 << 12)),
    ])
    .boot::<(Plain, Vmemmap)>();
    for round in 0..1_000 {
        let mut blocks = Vec::new();
        // Small orders now and then, large ones often; then single pages until nothing is left.
        let largest = 1 + round % 11;
        for _ in 0..40 {
            let order = order(random.below(largest) as u8);
            blocks.extend(machine.alloc_block(GFP, order));
        }
        while let Ok(page) = machine.alloc_block(GFP, Order::ZERO) {
            blocks.push(page);
        }
        assert_eq!(machine.nodes()[0].zones()[1].free_frames(), 0);
        while !blocks.is_empty() {
            drop(blocks.swap_remove(random.below_index(blocks.len())));
        }
        machine.initial().assert_same(&Shape::of(&machine));
    }
    machine.finish();
}

/// R08: the list scans that made other buddies stand still are not there: every operation takes
/// at most two steps an order.
#[test]
fn no_history_makes_an_operation_take_more_than_two_steps_an_order() {
    let machine = Machine::<(Plain, Vmemmap)>::with_ram(1 << 30);
    let most = std::cell::Cell::new(0_u32);
    let alloc = |order| {
        let mut steps = 0;
        let block = Block::alloc_traced(&*machine, GFP, order, &mut |_: Step| steps += 1);
        most.set(most.get().max(steps));
        block.map(Block::into_raw).ok()
    };
    let free = |pfn: Pfn, order| {
        let mut steps = 0;
        // SAFETY: the callers below free what they allocated, once.
        unsafe { machine.free_pages_traced(pfn, order, &mut |_: Step| steps += 1) }.unwrap();
        most.set(most.get().max(steps));
    };
    for backwards in [false, true] {
        let small: Vec<_> = std::iter::from_fn(|| alloc(order(1))).collect();
        assert!(small.len() > 120_000);
        // The first pair of every 64 KiB stays for a while: two classes, freed apart.
        let (kept, mut rest): (Vec<_>, Vec<_>) =
            small.into_iter().partition(|pfn| pfn.as_u64() % 16 == 0);
        if backwards {
            rest.reverse();
        }
        rest.into_iter().for_each(|pfn| free(pfn, order(1)));
        assert!(
            alloc(order(4)).is_none(),
            "64 KiB while each has a pair in use"
        );
        kept.into_iter().for_each(|pfn| free(pfn, order(1)));
        let mut large: Vec<_> = std::iter::from_fn(|| alloc(order(4))).collect();
        assert!(large.len() > 15_000);
        if backwards {
            large.reverse();
        }
        large.into_iter().for_each(|pfn| free(pfn, order(4)));
    }
    let limit = 2 * 11;
    assert!(most.get() <= limit, "{} steps", most.get());
    machine.finish();
}

#[test]
fn a_machine_of_64_gib_boots_and_costs_what_it_touches() {
    let machine = Machine::<(Plain, Vmemmap)>::new()
        .ram(0, 3 << 30)
        .ram(4 << 30, 61 << 30)
        .boot();
    assert_eq!(machine.booted().present, 64 << 18);
    let block = machine.alloc_block(GFP, Order::MAX).unwrap();
    assert!(block.pfn().as_u64() >= 4 << 18, "Normal comes first");
    drop(block);
    machine.validate().unwrap();
    // The full recount would touch every record once more.
    machine.abandon();
}
