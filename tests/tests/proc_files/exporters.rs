//! `buddyinfo`, `pagetypeinfo`, `zoneinfo` and `slabinfo`, read by the rules of programs that others wrote (`mm_tests::exporters`): every
//! number that they find is the machine's.

use mm::addr::Order;
use mm::buddy::{Gfp, MigrateType};
use mm::proc;
use mm::zone::{Zone, ZoneKind};
use mm_tests::exporters::{self, Place};
use mm_tests::sim::Machine;

use super::{order, small, text, with_every_zone};

fn place(zone: &Zone) -> Place {
    (zone.id().node.0.to_string(), zone.kind().name().to_owned())
}

/// Machines in the middle of their work: one node, and two.
fn at_work(check: impl Fn(&Machine<mm_tests::sim::Usual>)) {
    for machine in [with_every_zone(), small()] {
        let requests = [
            Gfp::KERNEL,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
            Gfp::DMA32,
        ];
        let requests = (0..40).zip(requests.into_iter().cycle());
        let blocks: Vec<_> = requests
            .map(|(turn, gfp)| machine.alloc_block(gfp, order(turn % 5)).unwrap())
            .collect();
        check(&machine);
        drop(blocks);
        machine.finish();
    }
}

#[test]
fn buddyinfo_is_read_as_node_exporter_reads_it() {
    at_work(|machine| {
        let read = exporters::buddyinfo(&text(|out| proc::buddyinfo(machine, out))).unwrap();
        let zones: Vec<_> = machine.zones().filter(|zone| zone.is_populated()).collect();
        assert_eq!(read.len(), zones.len());
        for zone in zones {
            let blocks = zone.snapshot(machine.platform()).blocks;
            let sum = |order: Order| blocks.iter().map(|row| row[order.index()]).sum::<u64>();
            let sums: Vec<u64> = Order::all().map(sum).collect();
            assert!(sums.iter().any(|&count| count > 0));
            assert_eq!(read[&place(zone)], sums);
        }
    });
}

#[test]
fn pagetypeinfo_is_read_as_jc_reads_it() {
    at_work(|machine| {
        let files = text(|out| proc::pagetypeinfo(machine, out));
        // There is one text for each node, as in Linux.
        let heading = "Page block order:";
        let nodes = files.split(heading).skip(1);
        let mut rows = Vec::new();
        let mut blocks = Vec::new();
        for node in nodes {
            let read = exporters::pagetypeinfo(&format!("{heading}{node}")).unwrap();
            assert_eq!(read.block, (9, 512));
            rows.extend(read.free);
            blocks.extend(read.blocks);
        }
        let mut wanted = Vec::new();
        let mut wanted_blocks = Vec::new();
        for zone in machine.zones().filter(|zone| zone.is_populated()) {
            let numbers = zone.snapshot(machine.platform());
            for kind in MigrateType::ALL {
                let counts = numbers.blocks[kind.index()].to_vec();
                wanted.push((place(zone), kind.name().to_owned(), counts));
            }
            wanted_blocks.push((place(zone), numbers.pageblocks.to_vec()));
        }
        assert_eq!(rows, wanted);
        assert_eq!(blocks, wanted_blocks);
        // The columns that are known by their places.
        let names = MigrateType::ALL.map(MigrateType::name);
        let known = ["Unmovable", "Movable", "Reclaimable", "HighAtomic"];
        assert_eq!(names[..4], known);
    });
}

#[test]
fn zoneinfo_is_read_as_node_exporter_reads_it() {
    at_work(|machine| {
        let read = exporters::zoneinfo(&text(|out| proc::zoneinfo(machine, out))).unwrap();
        let zones: Vec<_> = machine.zones().collect();
        assert_eq!(
            (read.len(), zones.len() % ZoneKind::COUNT),
            (zones.len(), 0)
        );
        for (read, zone) in read.iter().zip(zones) {
            assert_eq!(read.place, place(zone));
            let marks = zone.watermarks().marks();
            let mut wanted = vec![
                ("min", marks.min),
                ("low", marks.low),
                ("high", marks.high),
                ("spanned", zone.spanned()),
                ("present", zone.present()),
                ("managed", zone.managed()),
            ];
            if zone.is_populated() {
                let numa = zone.numa_stats();
                wanted.extend([
                    ("nr_free_pages", zone.free_frames()),
                    ("numa_hit", numa.numa_hit),
                    ("numa_miss", numa.numa_miss),
                    ("numa_foreign", numa.numa_foreign),
                    ("numa_interleave", numa.interleave_hit),
                    ("numa_local", numa.local_node),
                    ("numa_other", numa.other_node),
                ]);
            }
            let wanted = wanted
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            assert_eq!(read.numbers, wanted.collect(), "{:?}", read.place);
            assert_eq!(read.protection, zone.watermarks().protection());
        }
    });
}

#[test]
fn slabinfo_is_read_as_node_exporter_and_slabtop_read_it() {
    let machine = Machine::<mm_tests::sim::Usual>::with_ram(32 << 20);
    let sizes = [8, 64, 64, 100, 700, 4096, 8192];
    let objects: Vec<_> = (0..300)
        .map(|turn| {
            machine
                .kmalloc(sizes[turn % sizes.len()], Gfp::KERNEL)
                .unwrap()
        })
        .collect();
    let ours = text(|out| proc::slabinfo(&*machine, out));
    // slabtop (procps-ng, LGPL-2.1-or-later) takes version 2.1, 32-bit numbers, and names of at most 127 bytes, and nothing else.
    assert!(ours.starts_with("slabinfo - version: 2.1\n"));
    let read = exporters::slabinfo(&ours).unwrap();
    let mut caches = read.iter();
    machine.for_each_cache(|name, stats| {
        let cache = caches.next().unwrap();
        assert_eq!(cache.name, name);
        let objects = [
            stats.active_objects,
            stats.objects,
            stats.stride,
            stats.objects_per_slab,
            stats.pages_per_slab,
        ];
        assert_eq!(cache.objects, objects, "{name}");
        assert_eq!(cache.tunables, [0; 3], "{name}");
        assert_eq!(cache.slabs, [stats.active_slabs, stats.slabs, 0], "{name}");
        let numbers = cache.objects.iter().chain(&cache.slabs);
        assert!(numbers.copied().all(|number| u32::try_from(number).is_ok()));
        assert!(name.len() < 128);
    });
    assert_eq!(caches.next(), None);
    let active: u64 = read.iter().map(|cache| cache.objects[0]).sum();
    assert_eq!(active, 300);
    for object in objects {
        // SAFETY: allocated above, and not used any more.
        unsafe { machine.kfree(object) }.unwrap();
    }
    machine.finish();
}
