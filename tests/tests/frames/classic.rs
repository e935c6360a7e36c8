//! Hot and cold lists with fixed marks, as Linux 2.6 had them.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::buddy::pageset::PageSetStats;
use mm::system::{PageLists, TuningError};
use mm::zone::ZoneKind;
use mm_tests::sim::{Checked, Classic, Machine, SimConfig, Usual};

/// A machine with one zone that batches 63 pages at a time.
fn machine<C: SimConfig>(cpus: u32) -> Machine<C> {
    Machine::<C>::new()
        .ram(0x100_0000, 1 << 30)
        .cpus(cpus)
        .boot()
}

/// What a CPU has at hand, hot and cold.
fn sets<C: SimConfig>(machine: &Machine<C>, cpu: usize) -> [PageSetStats; 2] {
    let zone = machine.nodes()[0].zone(ZoneKind::Dma32);
    let hot = zone.pagesets().nth(cpu).unwrap();
    [hot, zone.cold_pagesets().nth(cpu).unwrap()]
}

fn counts<C: SimConfig>(machine: &Machine<C>) -> [u64; 2] {
    sets(machine, 0).map(|set| set.count)
}

const COLD: Gfp = Gfp::KERNEL.union(Gfp::COLD);

#[test]
fn a_request_that_finds_no_more_than_low_fetches_a_batch() {
    let machine = machine::<Classic<Usual>>(1);
    assert_eq!(machine.page_lists(), PageLists::Classic);
    let mut live = vec![machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap()];
    // 63 were fetched for the first page, and again for each that found 126 or fewer.
    assert_eq!(counts(&machine), [62, 0]);
    let mut expected = 62;
    for _ in 0..400 {
        live.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
        expected += if expected <= 126 { 63 } else { 0 };
        expected -= 1;
        assert_eq!(counts(&machine), [expected, 0]);
    }
    // Cold ones have no low mark.
    for left in (0..63).rev().chain((0..63).rev()) {
        live.push(machine.alloc_block(COLD, Order::ZERO).unwrap());
        assert_eq!(counts(&machine), [expected, left]);
    }
    drop(live);
    machine.finish();
}

#[test]
fn a_page_that_comes_back_to_a_full_list_has_a_batch_go_first() {
    let machine = machine::<Classic<Usual>>(1);
    let pages: Vec<_> = (0..1_000)
        .map(|_| machine.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap())
        .collect();
    let [mut hot, mut cold] = counts(&machine);
    for (index, pfn) in pages.into_iter().enumerate() {
        if index % 3 == 0 {
            // SAFETY: it came from `alloc_pages`, and nobody uses it.
            unsafe { machine.free_pages_cold(pfn, Order::ZERO) }.unwrap();
            cold = if cold >= 126 { cold - 63 } else { cold } + 1;
        } else {
            // SAFETY: as above.
            unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
            hot = if hot >= 378 { hot - 63 } else { hot } + 1;
        }
        assert_eq!(counts(&machine), [hot, cold]);
    }
    let [hot, cold] = sets(&machine, 0);
    assert!(hot.refills > 0 && hot.drains > 0 && cold.drains > 0);
    machine.finish();
}

#[test]
fn larger_blocks_pass_the_lists_by() {
    let machine = machine::<Classic<Usual>>(1);
    for order in [1, 2, 3, 9].map(|order| Order::new(order).unwrap()) {
        drop(machine.alloc_block(Gfp::KERNEL, order).unwrap());
        assert_eq!(counts(&machine), [0, 0]);
    }
    let pfn = machine.alloc_pages(COLD, Order::new(3).unwrap()).unwrap();
    // SAFETY: it came from `alloc_pages`, and nobody uses it.
    unsafe { machine.free_pages_cold(pfn, Order::new(3).unwrap()) }.unwrap();
    assert_eq!(counts(&machine), [0, 0]);
    machine.finish();
}

#[test]
fn both_lists_are_drained_here_and_elsewhere() {
    let machine = machine::<Classic<Checked>>(3);
    for cpu in 1..3 {
        let _here = machine.cpu(cpu);
        let pages: Vec<_> = (0..100)
            .map(|_| machine.alloc_pages(COLD, Order::ZERO).unwrap())
            .collect();
        for pfn in pages {
            // SAFETY: it came from `alloc_pages`, and nobody uses it.
            unsafe { machine.free_pages_cold(pfn, Order::ZERO) }.unwrap();
        }
        drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    }
    let all = |machine: &Machine<Classic<Checked>>| {
        let counts = (0..3).flat_map(|cpu| sets(machine, cpu).map(|set| set.count));
        counts.sum::<u64>()
    };
    assert!(all(&machine) > 200);
    assert!(machine.drain_all_pages());
    assert_eq!(all(&machine), 0);
    machine.finish();
}

#[test]
fn one_cpu_gets_every_free_page() {
    let machine = machine::<Classic<Usual>>(4);
    for cpu in 1..4 {
        let _here = machine.cpu(cpu);
        let pages: Vec<_> = (0..300)
            .map(|_| machine.alloc_block(COLD, Order::ZERO).unwrap())
            .collect();
        drop(pages);
    }
    let hidden = (0..4).flat_map(|cpu| sets(&machine, cpu).map(|set| set.count));
    let free = machine.free_frames() + hidden.sum::<u64>();
    let gfp = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN;
    let pages: Vec<_> = std::iter::from_fn(|| machine.alloc_block(gfp, Order::ZERO).ok()).collect();
    assert_eq!(pages.len() as u64, free);
    drop(pages);
    machine.finish();
}

#[test]
fn the_marks_cannot_be_set() {
    let machine = machine::<Classic<Usual>>(1);
    assert_eq!(
        machine.set_percpu_pagelist_high_fraction(8),
        Err(TuningError::FixedMarks)
    );
    machine.finish();
}
