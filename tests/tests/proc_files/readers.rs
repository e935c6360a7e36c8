//! What tools read is what the library says, on a machine in the middle of its work.

use mm::addr::Order;
use mm::buddy::{Gfp, MigrateType};
use mm::proc;
use mm::zone::ZoneKind;
use mm_tests::sim::Usual;

use super::parse::{self, Place};
use super::{order, text, with_every_zone};

type Memory = mm::system::Memory<mm_tests::sim::SimPlatform<Usual>>;

/// Takes blocks of many orders, types and zones, and keeps every third.
fn work(memory: &Memory) -> Vec<mm::system::Block<&Memory>> {
    let requests = [
        Gfp::KERNEL,
        Gfp::HIGHUSER_MOVABLE,
        Gfp::KERNEL | Gfp::RECLAIMABLE,
        Gfp::DMA32,
        Gfp::DMA,
    ];
    let mut blocks = Vec::new();
    for (turn, gfp) in requests.into_iter().cycle().take(300).enumerate() {
        let order = order(u8::try_from(turn % 7).unwrap());
        blocks.push(memory.alloc_block(gfp, order).unwrap());
    }
    let mut turn = 0;
    blocks.retain(|_| {
        turn += 1;
        turn % 3 == 0
    });
    blocks
}

fn place(zone: &mm::zone::Zone) -> Place {
    (zone.id().node.0, zone.kind().name().to_owned())
}

#[test]
fn lists_of_free_blocks_read_back() {
    let machine = with_every_zone();
    let blocks = work(&machine);
    let buddyinfo = parse::buddyinfo(&text(|out| proc::buddyinfo(&machine, out)));
    let types = parse::pagetypeinfo(&text(|out| proc::pagetypeinfo(&machine, out)));
    assert_eq!(buddyinfo.len(), 4, "Device has no memory");

    for zone in machine.zones().filter(|zone| zone.is_populated()) {
        let (place, numbers) = (place(zone), zone.snapshot(machine.platform()));
        let mut sums = vec![0; Order::all().count()];
        for kind in MigrateType::ALL {
            let counts = numbers.blocks[kind.index()];
            let named = (place.clone(), kind.name().to_owned());
            assert_eq!(types.free[&named], counts, "{named:?}");
            assert_eq!(types.blocks[&named], numbers.pageblocks[kind.index()]);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        assert_eq!(buddyinfo[&place], sums, "{place:?}");
        let frames = Order::all().zip(&sums).map(|(order, n)| order.frames() * n);
        assert_eq!(frames.sum::<u64>(), zone.free_frames());
    }
    drop(blocks);
    machine.finish();
}

#[test]
fn zones_read_back() {
    let machine = with_every_zone();
    let blocks = work(&machine);
    let zones = parse::zoneinfo(&text(|out| proc::zoneinfo(&machine, out)));
    assert_eq!(zones.len(), ZoneKind::COUNT, "those without memory too");
    for zone in machine.zones() {
        let read = &zones[&place(zone)];
        assert_eq!(read["free"], zone.free_frames());
        assert_eq!(read["spanned"], zone.spanned());
        assert_eq!(read["present"], zone.present());
        assert_eq!(read["managed"], zone.managed());
        assert_eq!(read.contains_key("start_pfn"), zone.is_populated());
        if zone.is_populated() {
            assert_eq!(read["start_pfn"], zone.span().first().as_u64());
            assert_eq!(read["nr_free_pages"], zone.free_frames());
            let counts = zone.snapshot(machine.platform()).blocks;
            let whole = counts
                .iter()
                .map(|of_type| of_type[9] * 512 + of_type[10] * 1024);
            assert_eq!(read["nr_free_pages_blocks"], whole.sum::<u64>());
        }
    }
    drop(blocks);
    machine.finish();
}

#[test]
fn totals_read_back() {
    let machine = with_every_zone();
    let blocks = work(&machine);
    let meminfo = parse::meminfo(&text(|out| proc::meminfo(&machine, out)));
    assert_eq!(meminfo["MemTotal"], machine.managed_frames() * 4);
    assert_eq!(meminfo["MemFree"], machine.free_frames() * 4);

    let vmstat = parse::vmstat(&text(|out| proc::vmstat(&machine, out)));
    assert_eq!(vmstat["nr_free_pages"], machine.free_frames());
    let in_use = machine.managed_frames() - machine.free_frames();
    let allocated: u64 = ["dma", "dma32", "normal", "movable"]
        .map(|zone| vmstat[&format!("pgalloc_{zone}")])
        .iter()
        .sum();
    assert_eq!(allocated - vmstat["pgfree"], in_use);
    drop(blocks);
    machine.finish();
}
