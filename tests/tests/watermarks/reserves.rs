//! R07: ordinary requests stop exactly at `min` and the reserve, urgent ones go as far below as
//! their flags say, and only those that free memory take the last page.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::system::AllocError;
use mm::zone::watermark::policy::{alloc_flags, lowered};
use mm::zone::{Zone, ZoneKind};
use mm_tests::sim::{Builder, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Machines with every combination of zones, small and large ones.
fn layouts<C: SimConfig>() -> [Builder<C>; 12] {
    let new = Machine::<C>::new;
    [
        new().ram(0, 8 * MIB),
        new().ram(0, 32 * MIB),
        new().ram(16 * MIB, 64 * MIB),
        new().ram(4 * GIB, 48 * MIB),
        new().ram(8 * MIB, 8 * MIB).ram(4 * GIB, 64 * MIB),
        new().ram(64 * MIB, 16 * MIB).ram(4 * GIB, 128 * MIB),
        // Issue 3: 8, 64 and 256 MiB.
        new().ram(8 * MIB, 72 * MIB).ram(4 * GIB, 256 * MIB),
        new().ram(0, 64 * MIB).kernelcore(24 * MIB),
        new()
            .ram(0, 32 * MIB)
            .ram(4 * GIB, 96 * MIB)
            .kernelcore(64 * MIB),
        new().ram(4 * GIB, 64 * MIB).kernelcore(16 * MIB),
        new().ram(0, 48 * MIB).node(1, 4 * GIB, 80 * MIB),
        // Large enough for huge pages.
        new().ram(0, 640 * MIB),
    ]
}

/// Allocates until it fails; answers how many pages there were, which stay allocated.
fn drain<C: SimConfig>(machine: &Machine<C>, gfp: Gfp) -> u64 {
    let mut pages = 0;
    loop {
        match machine.alloc_page(gfp) {
            Ok(_) => pages += 1,
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                return pages;
            }
        }
    }
}

/// The zones that a request may use.
fn zones<C: SimConfig>(machine: &Machine<C>, highest: ZoneKind) -> impl Iterator<Item = &Zone> {
    let zones = machine.nodes().iter().flat_map(mm::zone::Node::zones);
    zones.filter(move |zone| zone.is_managed() && zone.kind() <= highest)
}

/// What must be left of each zone when a request is refused, or all there is if that is less.
fn left<C: SimConfig>(machine: &Machine<C>, gfp: Gfp, highest: ZoneKind) -> Vec<u64> {
    let left = zones(machine, highest).map(|zone| {
        let mark = lowered(zone.watermarks().marks().min, alloc_flags(gfp));
        mark + zone.watermarks().protection()[highest.index()]
    });
    left.collect()
}

fn free<C: SimConfig>(machine: &Machine<C>, highest: ZoneKind) -> Vec<u64> {
    zones(machine, highest).map(Zone::free_frames).collect()
}

#[test]
fn each_class_of_request_stops_exactly_where_its_flags_say() {
    let classes = [
        (Gfp::empty(), ZoneKind::Normal),
        (Gfp::DMA32, ZoneKind::Dma32),
        (Gfp::DMA, ZoneKind::Dma),
        (Gfp::HIGHMEM | Gfp::MOVABLE, ZoneKind::Movable),
    ];
    for (number, layout) in layouts::<Usual>().into_iter().enumerate() {
        let machine = layout.boot();
        for (zone_flags, highest) in classes {
            if zones(&machine, highest).next().is_none() {
                continue;
            }
            let mut before = free(&machine, highest);
            let mut reserved = None;
            // From the most modest to the one that takes all.
            for gfp in [
                Gfp::KERNEL,
                Gfp::KERNEL | Gfp::HIGH,
                Gfp::ATOMIC,
                Gfp::KERNEL | Gfp::MEMALLOC,
            ] {
                let pages = drain(&machine, gfp | zone_flags);
                let all = gfp.contains(Gfp::MEMALLOC);
                let expected: Vec<u64> = left(&machine, gfp, highest)
                    .iter()
                    .zip(&before)
                    .map(|(floor, free)| if all { 0 } else { *floor.min(free) })
                    .collect();
                let after = free(&machine, highest);
                assert_eq!(after, expected, "layout {number}, {gfp:?}, {highest}");
                let taken: u64 = before.iter().sum::<u64>() - after.iter().sum::<u64>();
                assert_eq!(pages, taken, "layout {number}, {gfp:?}, {highest}");
                if gfp == Gfp::ATOMIC {
                    let reserved: u64 = reserved.unwrap();
                    assert!(pages <= reserved, "{pages} of {reserved}");
                }
                if gfp == Gfp::KERNEL {
                    reserved = Some(after.iter().sum());
                }
                before = after;
            }
            // Nothing was kept by the test: all is given back by its place.
            give_all_back(&machine);
        }
        machine.finish();
    }
}

/// Frees every page in use: all blocks here are single pages.
fn give_all_back<C: SimConfig>(machine: &Machine<C>) {
    let live: Vec<_> = mm_tests::oracles::Blocks::of(&**machine)
        .filter(|found| found.word.state() == Some(mm::frame::FrameState::Unique))
        .map(|found| found.pfn)
        .collect();
    for pfn in live {
        // SAFETY: a live page that was taken as a number, freed once.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
}

#[test]
fn an_atomic_request_gets_pages_when_an_ordinary_one_gets_none() {
    for (number, layout) in layouts::<Usual>().into_iter().enumerate() {
        let machine = layout.boot();
        let refused = drain(&machine, Gfp::KERNEL);
        assert!(refused > 0);
        let min: u64 = zones(&machine, ZoneKind::Normal)
            .map(|zone| zone.watermarks().marks().min)
            .sum();
        let pages = drain(&machine, Gfp::ATOMIC);
        assert!(
            (1..=min).contains(&pages),
            "layout {number}: {pages} of {min}"
        );
        // Five eighths of each mark, give or take the rounding.
        let zones = zones(&machine, ZoneKind::Normal).count() as u64;
        assert!(pages.abs_diff(min * 5 / 8) <= 2 * zones);
        give_all_back(&machine);
        machine.finish();
    }
}

#[test]
fn a_failure_is_reported_in_linux_words_unless_the_request_says_not_to() {
    let machine = Machine::<Usual>::with_ram(8 * MIB);
    drain(&machine, Gfp::KERNEL | Gfp::NOWARN);
    assert_eq!(machine.hardware().take_failures(), (0, String::new()));
    let order = Order::new(3).unwrap();
    assert!(machine.alloc_block(Gfp::KERNEL | Gfp::COMP, order).is_err());
    let (count, text) = machine.hardware().take_failures();
    assert_eq!(count, 1);
    let zone = machine.nodes()[0].zone(ZoneKind::Dma);
    let marks = zone.watermarks().marks();
    let expected = format!(
        "page allocation failure: order:3, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)\n\
         Node 0 DMA free:{}kB boost:0kB min:{}kB low:{}kB high:{}kB \
         reserved_highatomic:0KB free_highatomic:0KB present:{}kB managed:{}kB\n\
         lowmem_reserve[]: 0 0 0 0 0",
        4 * marks.min,
        4 * marks.min,
        4 * marks.low,
        4 * marks.high,
        4 * zone.present(),
        4 * zone.managed(),
    );
    assert_eq!(text, expected);
    give_all_back(&machine);
    machine.finish();
}

#[test]
fn large_blocks_leave_the_marks_alone_too() {
    for order in Order::all() {
        let machine = Machine::<Usual>::new().ram(16 * MIB, 64 * MIB).boot();
        let zone = machine.nodes()[0].zone(ZoneKind::Dma32);
        let min = zone.watermarks().marks().min;
        let mut blocks = Vec::new();
        while let Ok(block) = machine.alloc_block(Gfp::KERNEL, order) {
            assert!(zone.free_frames() >= min);
            blocks.push(block);
        }
        assert!(!blocks.is_empty());
        drop(blocks);
        machine.finish();
    }
}

#[test]
fn pages_in_bulk_stop_where_single_ones_stop() {
    let machine = Machine::<Usual>::new().ram(0, 48 * MIB).boot();
    let mut pages = vec![None; 20_000];
    let filled = machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages).unwrap();
    assert_eq!(filled, pages.iter().flatten().count());
    assert_eq!(
        free(&machine, ZoneKind::Normal),
        left(&machine, Gfp::KERNEL, ZoneKind::Normal)
    );
    give_all_back(&machine);
    machine.finish();
}
