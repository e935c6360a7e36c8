//! What tools read is what the library says, on a machine in the middle of its work.

use mm::addr::{Order, VirtAddr};
use mm::buddy::{Gfp, MigrateType};
use mm::pagetable::{Attributes, Level, PageSize};
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
    // All pages but those that zones keep for themselves.
    let zones = parse::zoneinfo(&text(|out| proc::zoneinfo(&machine, out)));
    let kept = machine.zones().map(|zone| {
        let numbers = &zones[&place(zone)];
        let protection = zone.watermarks().protection().into_iter().max().unwrap();
        (numbers["high"] + protection).min(numbers["managed"])
    });
    let kept: u64 = kept.sum();
    assert!(kept > 0);
    assert_eq!(meminfo["MemAvailable"], meminfo["MemFree"] - kept * 4);

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

/// What is in use is told by kind, and what comes back is told no more.
#[test]
fn memory_in_use_is_told_by_kind() {
    let machine = with_every_zone();
    let read = || {
        let meminfo = parse::meminfo(&text(|out| proc::meminfo(&machine, out)));
        let vmstat = parse::vmstat(&text(|out| proc::vmstat(&machine, out)));
        assert_eq!(vmstat["nr_slab_reclaimable"] * 4, meminfo["SReclaimable"]);
        assert_eq!(vmstat["nr_slab_unreclaimable"] * 4, meminfo["SUnreclaim"]);
        assert_eq!(vmstat["nr_page_table_pages"] * 4, meminfo["PageTables"]);
        ["SReclaimable", "SUnreclaim", "Slab", "PageTables", "Percpu"].map(|name| meminfo[name])
    };
    let before = read();
    let objects = [Gfp::KERNEL, Gfp::KERNEL | Gfp::RECLAIMABLE];
    let objects = objects.map(|gfp| machine.kmalloc(100, gfp).unwrap());
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let page = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    let row = (VirtAddr::new(0xffff_c900_0000_0000), page.frames());
    // SAFETY: no CPU uses these tables.
    unsafe { machine.map_pages(&tables, row, Attributes::KERNEL, PageSize::Size4K) }.unwrap();
    let mut caches = (0, 0);
    machine.for_each_cache(|name, stats| match name.contains("rcl") {
        true => caches.0 += stats.pages * 4,
        false => caches.1 += stats.pages * 4,
    });
    assert!(caches.0 > 0 && caches.1 > 0);
    let [reclaimable, others, all, of_tables, copies] = read();
    assert_eq!(
        (reclaimable, others, all),
        (caches.0, caches.1, caches.0 + caches.1)
    );
    // Four levels lead to the page.
    assert_eq!(of_tables, before[3] + 4 * 4);
    let stats = machine.percpu_stats();
    let units = stats.chunks * stats.cpus * stats.unit_bytes;
    assert_eq!(copies, units as u64 / 1024);
    // SAFETY: as above.
    unsafe { machine.destroy_page_table(tables) };
    for object in objects {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    drop(page);
    machine.shrink_caches();
    machine.grace().barrier().unwrap();
    assert_eq!(read(), before);
    machine.finish();
}
