//! R03: with `page_owner=on`, every leaked page names the line that allocated it.

use std::collections::BTreeMap;
use std::thread;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::numa::{Mode, NodeMask};
use mm::platform::NodeId;
use mm::proc::{self, page_owner};
use mm::report::FreedBy;
use mm::system::{Block, PageOwner};
use mm_tests::sim::{CALLED_FROM, Listed, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

fn machine<C: SimConfig>() -> Machine<C> {
    let machine = Machine::<C>::new().ram(0, 32 * MIB);
    machine
        .node(1, 32 * MIB, 32 * MIB)
        .options(|options| options.page_owner = PageOwner::On)
        .boot()
}

/// First frames in use, and the place that each names.
fn dump<C: SimConfig>(machine: &Machine<C>) -> BTreeMap<u64, String> {
    let mut text = String::new();
    page_owner(machine, &mut text).unwrap();
    let blocks = text.split_terminator("\n\n");
    let parsed = blocks.map(|block| {
        let lines: Vec<_> = block.lines().collect();
        assert!(lines[0].starts_with("Page allocated via order "), "{block}");
        let pfn = lines[1].strip_prefix("PFN 0x").unwrap();
        let (pfn, _) = pfn.split_once(" type ").unwrap();
        (
            u64::from_str_radix(pfn, 16).unwrap(),
            lines[2].trim().to_owned(),
        )
    });
    parsed.collect()
}

/// A leaked page, and the first and the last line of the statement that allocated it.
type Leak = (Pfn, u32, u32);

/// Policies that leave a choice of nodes.
const MODES: [Mode; 5] = [
    Mode::Preferred,
    Mode::Bind,
    Mode::Interleave,
    Mode::PreferredMany,
    Mode::WeightedInterleave,
];

/// Leaks pages in all ways there are.
fn leak<C: SimConfig>(machine: &Machine<C>, round: u32) -> Vec<Leak> {
    let order = Order::new((round % 4) as u8).unwrap();
    let mut leaks = Vec::new();

    let first = line!();
    let pfn = machine.alloc_pages(Gfp::KERNEL, order).unwrap();
    leaks.push((pfn, first, line!()));

    let first = line!();
    let pfn = machine.alloc_page(Gfp::ATOMIC).unwrap();
    leaks.push((pfn, first, line!()));

    let first = line!();
    let block = machine.alloc_block(Gfp::HIGHUSER_MOVABLE, order).unwrap();
    leaks.push((block.into_raw(), first, line!()));

    let first = line!();
    let block = Block::alloc(&**machine, Gfp::KERNEL, order).unwrap();
    leaks.push((block.into_raw(), first, line!()));

    let mut pages = [None; 3];
    let first = line!();
    let filled = machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages);
    let last = line!();
    assert_eq!(filled, Ok(3));
    leaks.extend(pages.into_iter().flatten().map(|pfn| (pfn, first, last)));

    let node = NodeId(round as u16 % 2);
    let first = line!();
    let pfn = machine.alloc_pages_node(node, Gfp::KERNEL, order).unwrap();
    leaks.push((pfn, first, line!()));

    let first = line!();
    let block = machine.alloc_block_node(node, Gfp::KERNEL, order).unwrap();
    leaks.push((block.into_raw(), first, line!()));

    let mode = MODES[round as usize % MODES.len()];
    let mut policy = machine.policy(mode, &NodeMask::one(node).unwrap()).unwrap();
    let first = line!();
    let pfn = machine
        .alloc_pages_policy(&mut policy, Gfp::KERNEL, order)
        .unwrap();
    leaks.push((pfn, first, line!()));

    let first = line!();
    let block = machine
        .alloc_block_policy(&mut policy, Gfp::KERNEL, order)
        .unwrap();
    leaks.push((block.into_raw(), first, line!()));

    let first = line!();
    let pfn = machine.alloc_pages_nolock(Gfp::KERNEL, order).unwrap();
    leaks.push((pfn, first, line!()));

    let first = line!();
    let run = machine.alloc_pages_exact(Gfp::KERNEL, 4097).unwrap();
    leaks.push((run.frames().first(), first, line!()));
    core::mem::forget(run);

    // The last page that is free.
    let mut last_page = 64 * MIB / PAGE_SIZE;
    let run = loop {
        last_page -= 1;
        let range = PfnRange::from_numbers(last_page, last_page + 1);
        let first = line!();
        if let Ok(run) = machine.alloc_contig_range(range, Gfp::KERNEL) {
            leaks.push((run.frames().first(), first, line!()));
            break run;
        }
    };
    core::mem::forget(run);
    leaks
}

fn every_leak_is_named<C: SimConfig>() {
    let machine = machine::<C>();
    // Pages that come back leave nothing behind.
    drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    assert!(dump(&machine).is_empty());

    let mut leaks = Vec::new();
    for round in 0..125 {
        leaks.extend(leak(&machine, round));
    }
    assert_eq!(leaks.len(), 125 * 14);
    let named = dump(&machine);
    for (pfn, first, last) in leaks {
        let Some(place) = named.get(&pfn.as_u64()) else {
            panic!("{pfn}, from lines {first} to {last}, has no place");
        };
        let (file, rest) = place.split_once(".rs:").unwrap();
        let (line, _) = rest.split_once(':').unwrap();
        let line: u32 = line.parse().unwrap();
        let is_there = file.ends_with("origins") && (first..=last).contains(&line);
        assert!(is_there, "{pfn}, from lines {first} to {last}: {place}");
    }
    machine.abandon();
}

#[test]
fn planted_leaks_are_all_named() {
    every_leak_is_named::<Usual>();
    every_leak_is_named::<Listed<Usual>>();
}

#[test]
fn without_the_option_nothing_is_kept_or_printed() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert!(!machine.keeps_origins() && machine.origin(block.pfn()).is_none());
    assert!(machine.last_free(block.pfn()).is_none());
    assert!(dump(&machine).is_empty());
    drop(block);
    machine.finish();
}

/// Who freed a page is known as soon as it is free, and after it was handed out again; in all ways there are.
fn whoever_frees_is_told<C: SimConfig>() {
    let machine = machine::<C>();
    let told = |pfn: Pfn| {
        let freed = machine.last_free(pfn);
        let at = |freed: FreedBy| freed.callers().map(|at| at.as_u64()).collect::<Vec<_>>();
        freed.map(|freed| (freed.cpu.0, freed.task, at(freed)))
    };
    let somebody = Some((0, 1, CALLED_FROM.to_vec()));
    for order in Order::all() {
        let block = machine.alloc_block(Gfp::KERNEL, order).unwrap();
        let frames = PfnRange::block(block.pfn(), order);
        drop(block);
        for pfn in frames.iter() {
            assert_eq!(told(pfn), somebody, "order {order}");
        }
        let mut page = String::new();
        proc::page(&*machine, frames.first(), &mut page).unwrap();
        let wanted = "  freed      last by task 1 on CPU 0\n  #0 0xffffffff80201234\n  #1 0xffffffff80205678\n";
        assert!(
            page.contains(wanted) && page.contains("  allocated  last at "),
            "{page}"
        );
    }
    // It stays known while somebody has the page.
    let pfn = machine.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
    // SAFETY: allocated above, and forgotten.
    unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    let again = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert_eq!((again.pfn(), told(pfn)), (pfn, somebody));
    drop(again);
    machine.finish();
}

#[test]
fn whoever_freed_a_page_is_told() {
    whoever_frees_is_told::<Usual>();
    whoever_frees_is_told::<Listed<Usual>>();
}

/// A page that waits for its readers was freed by who put it there, not by who tidies up.
#[test]
fn whoever_puts_a_free_off_is_the_one_who_freed() {
    let machine = Machine::<Usual>::new().ram(0, 32 * MIB).cpus_on(&[0, 0]);
    let machine = machine
        .options(|options| options.page_owner = PageOwner::On)
        .boot();
    let put_off = || {
        let _here = machine.cpu(1);
        let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
        let pfn = block.pfn();
        block.defer_free();
        pfn
    };
    let pfn = thread::scope(|scope| scope.spawn(put_off).join().unwrap());
    let freed = || {
        machine
            .last_free(pfn)
            .map(|freed| (freed.cpu.0, freed.task))
    };
    assert_eq!(freed(), Some((1, 2)));
    machine.grace().barrier().unwrap();
    assert_eq!(freed(), Some((1, 2)));
    machine.finish();
}
