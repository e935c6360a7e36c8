//! The tables of memblock: adding, reserving, removing, freeing, growing.
//!
//! One table of cases over both tables. After each case base, size, count and total are checked,
//! and the structure proves itself.

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::{Direction, FreeError, Memblock, Region, RegionFlags, TableKind};
use mm::platform::NodeId;
use mm_tests::window::Window;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TOP: u64 = u64::MAX;

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(base), size)
}

fn spans(regions: &[Region]) -> Vec<(u64, u64)> {
    let span = |region: &Region| (region.base().as_u64(), region.range.size());
    regions.iter().map(span).collect()
}

fn table(memblock: &Memblock, kind: TableKind) -> (Vec<(u64, u64)>, u64) {
    memblock.validate().unwrap();
    match kind {
        TableKind::Memory => (spans(memblock.memory()), memblock.memory_bytes()),
        TableKind::Reserved => (spans(memblock.reserved()), memblock.reserved_bytes()),
    }
}

/// What the two tables of cases do to a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    /// `add` or `reserve`.
    PutIn,
    /// `remove` or `free`.
    TakeOut,
}

fn act(
    memblock: &mut Memblock,
    window: &Window,
    kind: TableKind,
    verb: Verb,
    range: PhysRange,
) -> Result<(), FreeError> {
    match (kind, verb) {
        (TableKind::Memory, Verb::PutIn) => memblock.add(window, range),
        (TableKind::Reserved, Verb::PutIn) => memblock.reserve(window, range),
        (TableKind::Memory, Verb::TakeOut) => memblock.remove(window, range),
        (TableKind::Reserved, Verb::TakeOut) => return memblock.free(window, range),
    }
    .map_err(FreeError::Table)
}

struct Case {
    name: &'static str,
    before: &'static [(u64, u64)],
    verb: Verb,
    with: (u64, u64),
    after: &'static [(u64, u64)],
}

const fn put(
    name: &'static str,
    before: &'static [(u64, u64)],
    with: (u64, u64),
    after: &'static [(u64, u64)],
) -> Case {
    Case {
        name,
        before,
        verb: Verb::PutIn,
        with,
        after,
    }
}

const fn take(
    name: &'static str,
    before: &'static [(u64, u64)],
    with: (u64, u64),
    after: &'static [(u64, u64)],
) -> Case {
    Case {
        name,
        before,
        verb: Verb::TakeOut,
        with,
        after,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    put("simple", &[], (GIB, 4 * MIB), &[(GIB, 4 * MIB)]),
    put("nothing", &[(GIB, MIB)], (2 * GIB, 0), &[(GIB, MIB)]),
    put("nothing inside a region", &[(GIB, MIB)], (GIB + 5, 0), &[(GIB, MIB)]),
    put("disjoint", &[(GIB, 8 * KIB)], (GIB + MIB, 16 * KIB), &[(GIB, 8 * KIB), (GIB + MIB, 16 * KIB)]),
    put("disjoint, below", &[(GIB + MIB, 16 * KIB)], (GIB, 8 * KIB), &[(GIB, 8 * KIB), (GIB + MIB, 16 * KIB)]),
    //   |-----------------|
    //            |~~~~~~~~~~~~~~~~|
    put("overlaps the top", &[(GIB / 2, GIB / 2)], (GIB - MIB, GIB), &[(GIB / 2, GIB / 2 + GIB - MIB)]),
    put("overlaps the bottom", &[(GIB, GIB)], (GIB / 2, GIB), &[(GIB / 2, GIB / 2 + GIB)]),
    put("within", &[(8 * MIB, 32 * MIB)], (16 * MIB, MIB), &[(8 * MIB, 32 * MIB)]),
    put("twice", &[(16 * KIB, 2 * MIB)], (16 * KIB, 2 * MIB), &[(16 * KIB, 2 * MIB)]),
    put("between, touching both", &[(GIB, 8 * KIB), (GIB + 16 * KIB, 8 * KIB)], (GIB + 8 * KIB, 8 * KIB), &[(GIB, 24 * KIB)]),
    put("around several", &[(10, 5), (20, 5), (30, 5)], (5, 40), &[(5, 40)]),
    put("over a gap and both its sides", &[(10, 5), (20, 5)], (12, 10), &[(10, 15)]),
    put("touches the bottom", &[(100, 10)], (90, 10), &[(90, 20)]),
    put("touches the top", &[(100, 10)], (110, 10), &[(100, 20)]),
    put("near the top of the address space", &[], (TOP - MIB, 2 * MIB), &[(TOP - MIB, MIB)]),
    put("at the last address", &[], (TOP, TOP), &[]),

    take("simple", &[(2 * GIB, 4 * MIB), (8 * GIB, 4 * MIB)], (2 * GIB, 4 * MIB), &[(8 * GIB, 4 * MIB)]),
    take("nothing", &[(GIB, MIB)], (GIB + 5, 0), &[(GIB, MIB)]),
    take("absent", &[(512 * MIB, 4 * MIB)], (64 * MIB, GIB / 4), &[(512 * MIB, 4 * MIB)]),
    take("absent, touching", &[(100, 10)], (110, 10), &[(100, 10)]),
    take("overlaps the top", &[(32 * MIB, 32 * MIB)], (16 * MIB, 32 * MIB), &[(48 * MIB, 16 * MIB)]),
    take("overlaps the bottom", &[(2 * MIB, 64 * MIB)], (32 * MIB, 256 * MIB), &[(2 * MIB, 30 * MIB)]),
    //   |-------------~~~~~~~~~~-------------|
    take("within", &[(MIB, 4 * MIB)], (2 * MIB, MIB), &[(MIB, MIB), (3 * MIB, 2 * MIB)]),
    take("the only region", &[(2 * KIB, 4 * KIB)], (2 * KIB, 4 * KIB), &[]),
    take("more than the only region", &[(2 * KIB, 4 * KIB)], (0, TOP), &[]),
    take("near the top of the address space", &[(TOP - 2 * MIB, 2 * MIB)], (TOP - MIB, 2 * MIB), &[(TOP - 2 * MIB, MIB)]),
    take("overlaps two", &[(16 * MIB, 32 * MIB), (64 * MIB, 64 * MIB)], (32 * MIB, 64 * MIB), &[(16 * MIB, 16 * MIB), (96 * MIB, 32 * MIB)]),
    take("covers one and cuts its neighbours", &[(10, 10), (30, 10), (50, 10)], (15, 40), &[(10, 5), (55, 5)]),
    take("from nothing", &[], (0, TOP), &[]),
];

#[test]
fn every_case_leaves_base_size_count_and_total() {
    let window = Window::none();
    for case in CASES {
        for kind in [TableKind::Memory, TableKind::Reserved] {
            let mut memblock = Window::none().memblock();
            for (base, size) in case.before {
                let before = range(*base, *size);
                act(&mut memblock, &window, kind, Verb::PutIn, before).unwrap();
            }
            let with = range(case.with.0, case.with.1);
            act(&mut memblock, &window, kind, case.verb, with).unwrap();
            let total = case.after.iter().map(|(_, size)| size).sum();
            let expected = (case.after.to_vec(), total);
            let what = format!("{kind}: {:?} {}", case.verb, case.name);
            assert_eq!(table(&memblock, kind), expected, "{what}");
        }
    }
}

#[test]
fn a_new_memblock_is_empty_and_unlimited() {
    let memblock = Window::none().memblock();
    for kind in [TableKind::Memory, TableKind::Reserved] {
        assert_eq!(table(&memblock, kind), (vec![], 0));
    }
    assert_eq!(memblock.current_limit(), PhysAddr::MAX);
    assert_eq!(memblock.direction(), Direction::TopDown);
    assert!(memblock.span().is_empty());
    assert_eq!(memblock.free_ranges().count(), 0);
}

#[test]
fn the_direction_is_what_was_set() {
    let mut memblock = Window::none().memblock();
    for direction in [Direction::BottomUp, Direction::TopDown] {
        memblock.set_direction(direction);
        assert_eq!(memblock.direction(), direction);
    }
}

#[test]
fn regions_with_other_nodes_or_flags_stay_apart() {
    let window = Window::none();
    let mut memblock = Window::none().memblock();
    let region = |base, node: u16, flags| Region {
        range: range(base, 100),
        node: Some(NodeId(node)),
        flags,
    };
    let plain = RegionFlags::empty();
    for region in [
        region(0, 0, plain),
        region(100, 1, plain),
        region(200, 1, RegionFlags::HOTPLUG),
        region(300, 1, RegionFlags::HOTPLUG),
    ] {
        memblock.add_region(&window, &region).unwrap();
    }
    let (regions, total) = table(&memblock, TableKind::Memory);
    assert_eq!(regions, [(0, 100), (100, 100), (200, 200)]);
    assert_eq!(total, 400);
    // What is known keeps its node; only the gap behind gets the new one.
    let wide = Region {
        range: range(50, 500),
        ..region(0, 7, plain)
    };
    memblock.add_region(&window, &wide).unwrap();
    let (regions, _) = table(&memblock, TableKind::Memory);
    assert_eq!(regions, [(0, 100), (100, 100), (200, 200), (400, 150)]);
    assert_eq!(memblock.memory()[3].node, Some(NodeId(7)));
}

#[test]
fn overlaps_are_seen_from_the_first_shared_byte_on() {
    let window = Window::none();
    let mut memblock = Window::none().memblock();
    memblock.add(&window, range(GIB, 4 * MIB)).unwrap();
    for (base, size, expected) in [
        (GIB, 4 * MIB, true),
        (GIB - MIB, MIB, false),
        (GIB - MIB, MIB + 1, true),
        (GIB + 4 * MIB, MIB, false),
        (GIB + 4 * MIB - 1, MIB, true),
        (GIB + MIB, MIB, true),
        (0, TOP, true),
        (GIB + MIB, 0, false),
    ] {
        let shared = memblock.overlaps(TableKind::Memory, range(base, size));
        assert_eq!(shared, expected, "{base:#x} + {size:#x}");
        assert!(!memblock.overlaps(TableKind::Reserved, range(base, size)));
    }
}

#[test]
fn trimming_keeps_whole_multiples_only() {
    let align = 4 * KIB;
    for (name, before, after) in [
        ("aligned", (GIB, 8 * KIB), vec![(GIB, 8 * KIB)]),
        ("too small", (GIB + 100, 4 * KIB), vec![]),
        (
            "unaligned base",
            (GIB + 100, 8 * KIB - 100),
            vec![(GIB + 4 * KIB, 4 * KIB)],
        ),
        ("unaligned end", (GIB, 8 * KIB - 1), vec![(GIB, 4 * KIB)]),
        ("both", (GIB - 1, 12 * KIB), vec![(GIB, 8 * KIB)]),
        ("top of the space", (TOP - 100, 100), vec![]),
    ] {
        let window = Window::none();
        let mut memblock = Window::none().memblock();
        memblock.add(&window, range(4 * GIB, MIB)).unwrap();
        memblock.add(&window, range(before.0, before.1)).unwrap();
        memblock.trim_memory(align);
        let mut expected = after;
        let at = expected.partition_point(|(base, _)| *base < 4 * GIB);
        expected.insert(at, (4 * GIB, MIB));
        let total = expected.iter().map(|(_, size)| size).sum();
        assert_eq!(
            table(&memblock, TableKind::Memory),
            (expected, total),
            "{name}"
        );
    }
}

#[test]
fn limits_cut_memory_and_reservations() {
    let window = Window::none();
    let filled = || {
        let mut memblock = Window::none().memblock();
        memblock.add(&window, range(100, 100)).unwrap();
        memblock.add(&window, range(300, 100)).unwrap();
        memblock.reserve(&window, range(150, 200)).unwrap();
        memblock
    };
    let mut memblock = filled();
    memblock.limit_memory(150);
    assert_eq!(spans(memblock.memory()), [(100, 100), (300, 50)]);
    assert_eq!(spans(memblock.reserved()), [(150, 200)]);
    memblock.limit_memory(20);
    assert_eq!(table(&memblock, TableKind::Memory), (vec![(100, 20)], 20));
    assert_eq!(table(&memblock, TableKind::Reserved), (vec![], 0));
    memblock.limit_memory(TOP);
    assert_eq!(spans(memblock.memory()), [(100, 20)]);

    let mut memblock = filled();
    memblock
        .mark(&window, range(300, 10), RegionFlags::NOMAP)
        .unwrap();
    memblock.cap_range(range(160, 20));
    assert_eq!(
        table(&memblock, TableKind::Memory),
        (vec![(160, 20), (300, 10)], 30)
    );
    assert_eq!(table(&memblock, TableKind::Reserved), (vec![(160, 20)], 20));
}

#[test]
fn nodes_and_flags_split_regions_and_merge_them_again() {
    let window = Window::none();
    let mut memblock = Window::none().memblock();
    memblock.add(&window, range(0, 1000)).unwrap();
    memblock
        .set_node(&window, range(0, 1000), NodeId(1))
        .unwrap();
    memblock
        .set_node(&window, range(400, 200), NodeId(2))
        .unwrap();
    assert_eq!(spans(memblock.memory()), [(0, 400), (400, 200), (600, 400)]);
    assert_eq!(
        memblock.memory_at(PhysAddr::new(400)).unwrap().node,
        Some(NodeId(2))
    );
    memblock
        .set_node(&window, range(300, 400), NodeId(1))
        .unwrap();
    assert_eq!(spans(memblock.memory()), [(0, 1000)]);

    let hidden = RegionFlags::NOMAP;
    memblock.mark(&window, range(500, TOP), hidden).unwrap();
    let free: Vec<_> = memblock.free_ranges().map(|free| free.range).collect();
    assert_eq!(free, [range(0, 500)]);
    assert!(memblock.free_ranges().rev().map(|free| free.range).eq(free));
    memblock.clear(&window, range(0, TOP), hidden).unwrap();
    assert_eq!(table(&memblock, TableKind::Memory), (vec![(0, 1000)], 1000));
}

#[test]
fn free_ranges_are_the_same_in_both_directions() {
    let window = Window::none();
    let mut memblock = Window::none().memblock();
    for (base, size) in [(100, 100), (300, 100), (500, 100)] {
        memblock.add(&window, range(base, size)).unwrap();
    }
    for (base, size) in [
        (0, 10),
        (150, 10),
        (190, 120),
        (400, 20),
        (500, 100),
        (900, 5),
    ] {
        memblock.reserve(&window, range(base, size)).unwrap();
    }
    let up: Vec<_> = memblock.free_ranges().map(|free| free.range).collect();
    assert_eq!(up, [range(100, 50), range(160, 30), range(310, 90)]);
    let mut down: Vec<_> = memblock
        .free_ranges()
        .rev()
        .map(|free| free.range)
        .collect();
    down.reverse();
    assert_eq!(up, down);
}

#[test]
fn a_frame_that_is_partly_reserved_is_not_handed_over() {
    let window = Window::none();
    let mut memblock = Window::none().memblock();
    memblock.add(&window, range(0x1000, 0x8000)).unwrap();
    memblock.reserve(&window, range(0x3ff0, 0x20)).unwrap();
    let mut frames = Vec::new();
    memblock.hand_over(&mut |free, _| {
        frames.push((free.frames.first().as_u64(), free.frames.frames()))
    });
    assert_eq!(frames, [(1, 2), (5, 4)]);
}
