//! Isolated pageblocks and exact ranges: the cases that once went wrong.

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::{Gfp, MigrateType, RangeError};
use mm::report::Corruption;
use mm::system::ContigError;
use mm::zone::{Zone, ZoneKind};
use mm_tests::sim::{Checked, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

fn zone<C: SimConfig>(machine: &Machine<C>, kind: ZoneKind) -> &Zone {
    machine.nodes()[0].zone(kind)
}

/// A largest block in `zone`, free right now.
fn a_largest_block<C: SimConfig>(machine: &Machine<C>, kind: ZoneKind) -> Pfn {
    let span = zone(machine, kind).span();
    let blocks = machine.initial().blocks().iter();
    let mut largest = blocks.filter(|(pfn, order)| *order == Order::MAX && span.contains(*pfn));
    largest.next().unwrap().0
}

#[test]
fn isolated_neighbours_stay_apart_and_join_again() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let pair = PfnRange::block(a_largest_block(&machine, ZoneKind::Dma32), Order::MAX);
    let zone = zone(&machine, ZoneKind::Dma32);
    let free = zone.free_frames();
    zone.isolate(machine.hardware(), pair).unwrap();
    machine.check();
    assert_eq!(zone.free_frames(), free - 1024);
    assert_eq!(
        zone.isolate(machine.hardware(), pair),
        Err(RangeError::Isolated { pfn: pair.first() })
    );
    let upper = PfnRange::from_count(pair.first().saturating_add(512), 512).unwrap();
    zone.unisolate(machine.hardware(), upper);
    machine.check();
    zone.unisolate(machine.hardware(), pair);
    machine.finish();
}

#[test]
fn half_of_a_live_largest_block_can_be_isolated() {
    for half in [0, 1] {
        let machine = Machine::<Usual>::with_ram(64 * MIB);
        let block = machine.alloc_block(Gfp::KERNEL, Order::MAX).unwrap();
        let first = block.pfn().saturating_add(half * 512);
        let pageblock = PfnRange::from_count(first, 512).unwrap();
        let zone = machine.zone_of(first).unwrap();
        zone.isolate(machine.hardware(), pageblock).unwrap();
        machine.check();
        drop(block);
        machine.check();
        // Nobody gets the isolated half, however short memory is.
        let mut taken = Vec::new();
        while let Ok(page) = machine.alloc_block(Gfp::KERNEL, Order::PAGEBLOCK) {
            assert!(page.frames().intersect(pageblock).is_empty());
            taken.push(page);
        }
        drop(taken);
        zone.unisolate(machine.hardware(), pageblock);
        let kind = zone.pageblock_type(machine.hardware(), first);
        assert_ne!(kind, Some(MigrateType::Isolate));
        machine.finish();
    }
}

#[test]
fn a_range_outside_the_zone_is_not_isolated_and_not_waited_for() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let dma = zone(&machine, ZoneKind::Dma);
    let end = dma.span().end();
    let over = PfnRange::from_numbers(end.as_u64() - 10, end.as_u64() + 10);
    let huge = PfnRange::from_numbers(0, u64::MAX);
    let top = PfnRange::from_numbers(u64::MAX - 1, u64::MAX);
    let refused = [(over, end), (huge, end), (top, top.first())];
    for (range, pfn) in refused {
        let answer = dma.isolate(machine.hardware(), range);
        assert_eq!(answer, Err(RangeError::NotInZone { pfn }), "{range:?}");
        // Ends at once, however long the range is.
        dma.unisolate(machine.hardware(), range);
    }
    machine.finish();
}

#[test]
fn a_range_of_a_node_among_another_is_taken_from_its_own() {
    let machine = Machine::<Usual>::new()
        .node(0, 0, 6 * MIB)
        .node(1, 6 * MIB, 2 * MIB)
        .node(0, 8 * MIB, 6 * MIB)
        .boot();
    let inner = PfnRange::from_numbers((6 * MIB) >> 12, (7 * MIB) >> 12);
    let run = machine.alloc_contig_range(inner, Gfp::KERNEL).unwrap();
    assert_eq!(run.frames(), inner);
    let zone = machine.zone_of(inner.first()).unwrap();
    assert_eq!(zone.id().node.0, 1);
    machine.check();
    drop(run);
    let across = PfnRange::from_numbers((5 * MIB) >> 12, (7 * MIB) >> 12);
    assert!(matches!(
        machine.alloc_contig_range(across, Gfp::KERNEL),
        Err(ContigError::Range(RangeError::NotInZone { pfn })) if pfn == inner.first()
    ));
    machine.finish();
}

#[test]
fn a_range_that_was_written_to_while_free_is_refused() {
    let machine = Machine::<Checked>::with_ram(32 * MIB);
    let first = a_largest_block(&machine, ZoneKind::Dma32);
    let victim = first.saturating_add(7);
    let at = victim.addr().checked_add(123).unwrap();
    machine.hardware().ram().scribble(at, 0x17);
    let found = Corruption::Poison {
        pfn: victim,
        offset: 123,
        expected: 0xaa,
        found: 0x17,
    };
    let range = PfnRange::from_count(first, 20).unwrap();
    let refused = machine.alloc_contig_range(range, Gfp::KERNEL);
    assert_eq!(refused.unwrap_err(), ContigError::Damaged(found));
    assert_eq!(machine.hardware().take_reports(), [found]);
    assert_eq!(machine.quarantined_frames(), 20);
    machine.abandon();
}

#[test]
fn a_busy_range_names_the_block_in_the_way_and_changes_nothing() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let block = machine.alloc_block(Gfp::KERNEL, Order::MAX).unwrap();
    let inside = PfnRange::from_count(block.pfn().saturating_add(700), 10).unwrap();
    let before = mm_tests::oracles::state_hash(&machine);
    assert_eq!(
        machine.alloc_contig_range(inside, Gfp::KERNEL).unwrap_err(),
        ContigError::Range(RangeError::Busy { pfn: block.pfn() })
    );
    assert_eq!(mm_tests::oracles::state_hash(&machine), before);
    drop(block);
    machine.finish();
}
