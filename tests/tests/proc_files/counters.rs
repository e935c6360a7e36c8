//! Every number that a file prints has a test here that moves it.

use std::collections::BTreeMap;

use mm::addr::PfnRange;
use mm::buddy::Gfp;
use mm::proc;
use mm::zone::ZoneKind;
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

use super::parse;
use super::{order, small, text, with_every_zone};

fn vmstat<C: SimConfig>(machine: &Machine<C>) -> BTreeMap<String, u64> {
    parse::vmstat(&text(|out| proc::vmstat(machine, out)))
}

/// How much each number grew (or shrank, modulo 2^64), those that did not change left out, and
/// those of nodes, which have tests of their own.
fn change(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, i64> {
    let moved = |(name, now): (&String, &u64)| {
        let by = now.wrapping_sub(before[name]).cast_signed();
        let is_moved = by != 0 && !name.starts_with("numa_");
        is_moved.then(|| (name.clone(), by))
    };
    after.iter().filter_map(moved).collect()
}

fn expected<const N: usize>(changes: [(&str, i64); N]) -> BTreeMap<String, i64> {
    changes.map(|(name, by)| (name.to_owned(), by)).into()
}

#[test]
fn each_zone_counts_what_it_hands_out_and_all_count_what_comes_back() {
    let machine = with_every_zone();
    for (gfp, name) in [
        (Gfp::DMA, "pgalloc_dma"),
        (Gfp::DMA32, "pgalloc_dma32"),
        (Gfp::KERNEL, "pgalloc_normal"),
        (Gfp::HIGHUSER_MOVABLE, "pgalloc_movable"),
    ] {
        // A first block, so that the one looked at does not break up a whole pageblock.
        let first = machine.alloc_block(gfp, order(3)).unwrap();
        let before = vmstat(&machine);
        let block = machine.alloc_block(gfp, order(3)).unwrap();
        let after = vmstat(&machine);
        assert_eq!(
            change(&before, &after),
            expected([("nr_free_pages", -8), (name, 8)])
        );
        drop(block);
        assert_eq!(
            change(&after, &vmstat(&machine)),
            expected([("nr_free_pages", 8), ("pgfree", 8)])
        );
        drop(first);
    }
    machine.finish();
}

#[test]
fn a_page_out_of_a_whole_pageblock_leaves_one_less() {
    let machine = small();
    let before = vmstat(&machine);
    let zone = |machine: &_| {
        let zones = parse::zoneinfo(&text(|out| proc::zoneinfo(machine, out)));
        zones[&(0, "Normal".to_owned())].clone()
    };
    let zone_before = zone(&machine);
    let page = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    let moved = expected([
        ("nr_free_pages", -1),
        ("nr_free_pages_blocks", -512),
        ("pgalloc_normal", 1),
    ]);
    assert_eq!(change(&before, &vmstat(&machine)), moved);
    let moved = expected([
        ("free", -1),
        ("nr_free_pages", -1),
        ("nr_free_pages_blocks", -512),
    ]);
    assert_eq!(change(&zone_before, &zone(&machine)), moved);
    drop(page);
    machine.finish();
}

#[test]
fn memory_records_and_zones_grow_with_the_machine() {
    let sizes = [256_u64 << 20, 512 << 20].map(|bytes| {
        let machine = Machine::<Usual>::new().ram(0x10_0000, bytes).boot();
        let meminfo = parse::meminfo(&text(|out| proc::meminfo(&machine, out)));
        let zones = parse::zoneinfo(&text(|out| proc::zoneinfo(&machine, out)));
        let numbers = (
            meminfo,
            vmstat(&machine),
            zones[&(0, "DMA32".to_owned())].clone(),
        );
        machine.finish();
        numbers
    });
    let [(small, few, zone), (large, many, larger_zone)] = sizes;
    // 256 MiB more: two sections, and all of it DMA32.
    assert_eq!(change(&few, &many)["nr_memmap_boot_pages"], 512);
    let zone = change(&zone, &larger_zone);
    assert_eq!((zone["spanned"], zone["present"]), (65536, 65536));
    let managed = zone["managed"];
    // What was not handed over are two sections' records and a few tables.
    assert!((64_000..=65_536 - 512).contains(&managed), "{managed}");
    assert_eq!(zone["free"], managed);
    let mut grown = change(&small, &large);
    let kept = grown["MemFree"] - grown.remove("MemAvailable").unwrap();
    assert!((1..managed).contains(&kept), "{kept}");
    let moved = expected([("MemTotal", managed * 4), ("MemFree", managed * 4)]);
    assert_eq!(grown, moved);
}

#[test]
fn a_zone_starts_where_its_memory_starts() {
    let starts = [0x10_0000, 0x20_0000].map(|start| {
        let machine = Machine::<Usual>::new().ram(start, 64 << 20).boot();
        let zones = parse::zoneinfo(&text(|out| proc::zoneinfo(&machine, out)));
        machine.finish();
        zones[&(0, "DMA".to_owned())]["start_pfn"]
    });
    assert_eq!(starts, [0x100, 0x200]);
}

/// Pageblocks of the Normal zone by type, those of which there are none left out.
fn pageblocks(machine: &Machine<Usual>) -> BTreeMap<String, u64> {
    let info = parse::pagetypeinfo(&text(|out| proc::pagetypeinfo(machine, out)));
    let ours = info
        .blocks
        .into_iter()
        .filter(|((place, _), count)| *place == (0, "Normal".to_owned()) && *count > 0);
    ours.map(|((_, kind), count)| (kind, count)).collect()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn pageblocks_change_their_type_when_they_are_claimed() {
    let machine = small();
    assert_eq!(pageblocks(&machine), counts([("Movable", 3)]));
    let kernel = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    assert_eq!(
        pageblocks(&machine),
        counts([("Movable", 1), ("Unmovable", 2)]),
        "the largest free block was claimed, a pair of pageblocks"
    );
    let cache = machine
        .alloc_block(Gfp::KERNEL | Gfp::RECLAIMABLE, order(0))
        .unwrap();
    let claimed = pageblocks(&machine);
    assert!(claimed["Reclaimable"] > 0, "{claimed:?}");
    drop((kernel, cache));
    machine.finish();
}

#[test]
fn an_isolated_pageblock_is_counted_by_type_and_order_but_is_not_free_memory() {
    let machine = small();
    let zone = machine.nodes()[0].zone(ZoneKind::Normal);
    let range = PfnRange::from_numbers(0x10_0400, 0x10_0600);
    let before = vmstat(&machine);
    zone.isolate(machine.platform(), range).unwrap();

    assert_eq!(
        pageblocks(&machine),
        counts([("Isolate", 1), ("Movable", 2)])
    );
    let moved = expected([("nr_free_pages", -512), ("nr_free_pages_blocks", -512)]);
    assert_eq!(change(&before, &vmstat(&machine)), moved);
    let types = parse::pagetypeinfo(&text(|out| proc::pagetypeinfo(&machine, out)));
    let place = (0, "Normal".to_owned());
    assert_eq!(types.free[&(place.clone(), "Isolate".to_owned())][9], 1);
    let blocks = parse::buddyinfo(&text(|out| proc::buddyinfo(&machine, out)));
    assert_eq!(blocks[&place][9], 1, "Linux counts it here too");

    zone.unisolate(machine.platform(), range);
    assert_eq!(pageblocks(&machine), counts([("Movable", 3)]));
    machine.finish();
}

#[test]
fn pages_from_lists_count_and_pages_on_lists_are_not_free() {
    let machine = Machine::<Listed<Usual>>::new()
        .ram(0x10_0000, 255 << 20)
        .cpus(2)
        .boot();
    drop(machine.alloc_block(Gfp::KERNEL, order(0)).unwrap());
    let before = vmstat(&machine);
    let page = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    let taken = vmstat(&machine);
    assert_eq!(change(&before, &taken), expected([("pgalloc_dma32", 1)]));
    drop(page);
    assert_eq!(change(&taken, &vmstat(&machine)), expected([("pgfree", 1)]));

    let sets = |cpu: usize| {
        let text = text(|out| proc::zoneinfo(&machine, out));
        let (_, dma32) = text.split_once("zone    DMA32").unwrap();
        let set = dma32.split("    cpu: ").nth(cpu + 1).unwrap();
        let numbers = set
            .lines()
            .skip(1)
            .take(5)
            .map_while(|line| line.split_once(':'));
        let numbers =
            numbers.map(|(name, number)| (name.trim().to_owned(), number.trim().parse().unwrap()));
        numbers.collect::<BTreeMap<String, u64>>()
    };
    let names = ["batch", "count", "high", "high_max", "high_min"];
    assert!(sets(0).keys().eq(names) && sets(1).keys().eq(names));
    assert!(sets(0)["count"] > 0 && sets(1)["count"] == 0);
    assert!(sets(0)["high"] > sets(1)["high"], "it grew with use");
    assert_eq!(sets(1)["high"], 0, "not used yet");
    machine.set_percpu_pagelist_high_fraction(8).unwrap();
    assert_eq!(sets(0)["high_min"], sets(0)["high_max"]);
    assert!(sets(0)["batch"] > 1);
    machine.drain_all_pages();
    assert_eq!(sets(0)["count"], 0);
    machine.finish();
}
