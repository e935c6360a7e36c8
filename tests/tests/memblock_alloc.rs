//! Early allocation: where it finds room, where it gives up.
//!
//! Every case runs from both ends of memory, zeroed and raw: zeroed memory holds zeroes, raw
//! memory what it held. After each, the reserved table is what was taken before and the place
//! found, merged.

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::{
    AllocError, Direction, Floor, Memblock, NodeChoice, RegionFlags, Request, TableKind,
};
use mm::platform::NodeId;
use mm_tests::window::Window;

/// Where RAM starts; all places in the cases are relative to it.
const BASE: u64 = 1 << 20;
/// Its size: 32 KiB.
const RAM: u64 = 0x8000;
const PAGES: usize = 8;

/// A place found, and how many reserved regions there are then; `None` for no room.
type Found = Option<(u64, usize)>;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    memory: &'static [(u64, u64)],
    taken: &'static [(u64, u64)],
    size: u64,
    align: u64,
    floor: i64,
    ceiling: Option<u64>,
    top_down: Found,
    bottom_up: Found,
}

/// All memory free, no wishes, nothing found.
const ANY: Case = Case {
    name: "",
    memory: &[(0, RAM)],
    taken: &[],
    size: 0x100,
    align: 0x40,
    floor: -1 << 20,
    ceiling: None,
    top_down: None,
    bottom_up: None,
};

/// The place is the same from both ends.
const fn both(case: Case, found: Found) -> Case {
    Case {
        top_down: found,
        bottom_up: found,
        ..case
    }
}

const fn ends(case: Case, top_down: (u64, usize), bottom_up: (u64, usize)) -> Case {
    Case {
        top_down: Some(top_down),
        bottom_up: Some(bottom_up),
        ..case
    }
}

const fn taken(name: &'static str, taken: &'static [(u64, u64)], size: u64) -> Case {
    Case {
        name,
        taken,
        size,
        ..ANY
    }
}

const fn window(name: &'static str, floor: i64, ceiling: u64) -> Case {
    Case {
        name,
        floor,
        ceiling: Some(ceiling),
        ..ANY
    }
}

const fn windowed(case: Case, floor: i64, ceiling: u64) -> Case {
    Case {
        floor,
        ceiling: Some(ceiling),
        ..case
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    ends(taken("simple", &[], 0x100), (0x7f00, 1), (0, 1)),
    ends(Case { align: 0x1000, ..taken("aligned to a page", &[], 0x10) }, (0x7000, 1), (0, 1)),
    ends(taken("disjoint, next to a misaligned reservation", &[(0, 2), (0x7ffe, 2)], 0x100), (0x7ec0, 3), (0x40, 3)),
    ends(taken("before a reservation at the top", &[(0x7c00, 0x400)], 0x100), (0x7b00, 1), (0, 2)),
    ends(taken("before a reservation at the bottom", &[(0x100, 0x400)], 0x100), (0x7f00, 2), (0, 1)),
    ends(taken("after a reservation at the top", &[(0x7b00, 0x400)], 0x100), (0x7f00, 1), (0, 2)),
    ends(taken("after a reservation at the bottom", &[(0, 0x400)], 0x100), (0x7f00, 2), (0x400, 1)),
    ends(taken("second fit, from the top", &[(0x7e00, 0x100)], 0x200), (0x7c00, 1), (0, 2)),
    ends(taken("second fit, from the bottom", &[(0x100, 0x100)], 0x200), (0x7e00, 2), (0x200, 1)),
    both(taken("in between two reservations, merging all", &[(0, 0x2000), (0x2400, 0x5c00)], 0x400), Some((0x2000, 1))),
    both(taken("gaps too small", &[(0x100, 0x1f00), (0x2100, 0x3f00), (0x6100, 0x1f00)], 0x200), None),
    both(taken("all reserved", &[(0, RAM)], 0x100), None),
    both(taken("no space", &[(0, 0x7f80)], 0x100), None),
    both(taken("limited space, exact fit", &[(0, 0x7f00)], 0x100), Some((0x7f00, 1))),
    both(Case { memory: &[], ..taken("no memory", &[], 0x100) }, None),
    both(taken("all there is", &[], RAM), Some((0, 1))),
    both(taken("too large by one byte", &[], RAM + 1), None),
    both(taken("too large", &[], 2 * RAM), None),
    both(taken("too large for the address space", &[], u64::MAX), None),
    both(Case { align: 1 << 63, ..taken("aligned beyond memory", &[], 0x100) }, None),

    // A preferred floor.
    ends(Case { floor: 0x4000, ..taken("floor", &[], 0x100) }, (0x7f00, 1), (0x4000, 1)),
    ends(Case { floor: 0x4002, ..taken("misaligned floor", &[], 0x100) }, (0x7f00, 1), (0x4040, 1)),
    ends(Case { floor: 0x7f80, ..taken("floor too high", &[], 0x100) }, (0x7f00, 1), (0, 1)),
    ends(Case { floor: 0x8000, ..taken("floor above memory", &[], 0x100) }, (0x7f00, 1), (0, 1)),
    ends(Case { floor: 0x7000, ..taken("no space above the floor", &[(0x7000, 0x1000)], 0x100) }, (0x6f00, 1), (0, 2)),
    ends(Case { floor: -0x1000, ..taken("floor below memory", &[], 0x100) }, (0x7f00, 1), (0, 1)),

    // A window.
    ends(Case { size: 0x80, ..window("misaligned ceiling", 0x4000, 0x4802) }, (0x4780, 1), (0x4000, 1)),
    ends(Case { size: 0x80, ..window("misaligned floor and aligned ceiling", 0x4002, 0x4800) }, (0x4780, 1), (0x4040, 1)),
    both(window("exact window", 0x4000, 0x4100), Some((0x4000, 1))),
    ends(window("narrow window drops the floor", 0x4200, 0x4240), (0x4140, 1), (0, 1)),
    both(window("ceiling too low", 0, 0x20), None),
    both(windowed(taken("reservation ends at the floor", &[(0x3f00, 0x100)], 0x100), 0x4000, 0x4100), Some((0x4000, 1))),
    both(windowed(taken("reservation starts at the ceiling", &[(0x4100, 0x100)], 0x100), 0x4000, 0x4100), Some((0x4000, 1))),
    ends(windowed(taken("two reservations with space between", &[(0x1000, 0x400), (0x7000, 0x400)], 0x100), 0x1400, 0x7000), (0x6f00, 2), (0x1400, 2)),
    both(windowed(taken("two reservations, full merge", &[(0x1000, 0x400), (0x1500, 0x400)], 0x100), 0x1400, 0x1500), Some((0x1400, 1))),
    ends(windowed(taken("two reservations, no space between", &[(0x1000, 0x400), (0x1480, 0x400)], 0x100), 0x1400, 0x1480), (0xf00, 2), (0, 3)),
    both(windowed(taken("window and all below reserved", &[(0, 0x1400), (0x1480, 0x6b80)], 0x100), 0x1400, 0x1480), None),
    ends(window("ceiling above memory", 0, 0x9000), (0x7f00, 1), (0, 1)),
    ends(window("floor below memory, with a ceiling", -0x1000, 0x8000), (0x7f00, 1), (0, 1)),
    both(window("window turned around", 0x4000, 0x10), None),
];

fn place(base: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(BASE + base), size)
}

/// Ranges as memblock should keep them: sorted and merged.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (base, size) in ranges {
        match merged.last_mut() {
            Some((below, length)) if *below + *length == base => *length += size,
            _ => merged.push((base, size)),
        }
    }
    merged
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fill {
    Zero,
    Raw,
}

/// Allocates and checks everything there is to check; gives the place back as an offset.
fn check(
    what: &str,
    memblock: &mut Memblock,
    window: &Window,
    request: &Request,
    size: u64,
    fill: Fill,
) -> Found {
    let mut expected: Vec<_> = memblock
        .reserved()
        .iter()
        .map(|region| (region.base().as_u64(), region.range.size()))
        .collect();
    let result = match fill {
        Fill::Zero => memblock.alloc(window, request),
        Fill::Raw => memblock.alloc_raw(window, request),
    };
    let found = match result {
        Ok(ram) => {
            let range = ram.range();
            assert_eq!(range.size(), size, "{what}");
            let byte = if fill == Fill::Zero { 0 } else { Window::DIRT };
            let bytes = window.bytes(range);
            assert!(bytes.iter().all(|found| *found == byte), "{what}");
            expected.push((range.start().as_u64(), size));
            Some(ram.leak().start().as_u64() - BASE)
        }
        Err(error) => {
            assert_eq!(error, AllocError::NoRoom(*request), "{what}");
            None
        }
    };
    let expected = merged(expected);
    let reserved = memblock.reserved().iter();
    let reserved: Vec<_> = reserved
        .map(|r| (r.base().as_u64(), r.range.size()))
        .collect();
    assert_eq!(reserved, expected, "{what}");
    let total: u64 = expected.iter().map(|(_, size)| size).sum();
    assert_eq!(memblock.reserved_bytes(), total, "{what}");
    memblock.validate().unwrap();
    found.map(|offset| (offset, reserved.len()))
}

#[test]
fn every_case_finds_its_place_from_both_ends_zeroed_and_raw() {
    for case in CASES {
        for (direction, expected) in [
            (Direction::TopDown, case.top_down),
            (Direction::BottomUp, case.bottom_up),
        ] {
            for fill in [Fill::Zero, Fill::Raw] {
                let mut window = Window::new(BASE, PAGES);
                let mut memblock = window.memblock();
                for (base, size) in case.memory {
                    memblock.add(&window, place(*base, *size)).unwrap();
                }
                for (base, size) in case.taken {
                    memblock.reserve(&window, place(*base, *size)).unwrap();
                }
                memblock.set_direction(direction);
                let floor = PhysAddr::new(BASE.wrapping_add_signed(case.floor));
                let ceiling = case.ceiling.map(|at| PhysAddr::new(BASE + at));
                let request = Request::bytes(case.size)
                    .align(case.align)
                    .floor(Floor::Preferred(floor))
                    .ceiling(ceiling.unwrap_or(PhysAddr::MAX));
                let what = format!("{} ({direction:?}, {fill:?})", case.name);
                let found = check(&what, &mut memblock, &window, &request, case.size, fill);
                assert_eq!(found, expected, "{what}");
            }
        }
    }
}

/// Eight nodes: 1/4, 1/16, 1/8, 1/8, 1/16, 1/16, 1/4, 1/16 of memory.
const NODES: [(u64, u64); 8] = [
    (0x0000, 0x2000),
    (0x2000, 0x0800),
    (0x2800, 0x1000),
    (0x3800, 0x1000),
    (0x4800, 0x0800),
    (0x5000, 0x0800),
    (0x5800, 0x2000),
    (0x7800, 0x0800),
];

struct NodeCase {
    name: &'static str,
    taken: &'static [(u64, u64)],
    node: u16,
    size: u64,
    window: Option<(u64, u64)>,
    /// Top down, bottom up, where any node will do at last.
    prefer: [Found; 2],
    /// Where no other node will do.
    exactly: [Found; 2],
}

const NO: [Found; 2] = [None, None];

const fn at(top_down: (u64, usize), bottom_up: (u64, usize)) -> [Found; 2] {
    [Some(top_down), Some(bottom_up)]
}

#[rustfmt::skip]
const NODE_CASES: &[NodeCase] = &[
    NodeCase { name: "simple", taken: &[], node: 3, size: 0x400, window: None,
        prefer: at((0x4400, 1), (0x3800, 1)), exactly: at((0x4400, 1), (0x3800, 1)) },
    NodeCase { name: "node too small", taken: &[], node: 1, size: 0x1000, window: None,
        prefer: at((0x6800, 1), (0, 1)), exactly: NO },
    NodeCase { name: "node reserved", taken: &[(0x2800, 0x1000)], node: 2, size: 0x1000, window: None,
        prefer: at((0x6800, 2), (0, 2)), exactly: NO },
    NodeCase { name: "node partly reserved, fits", taken: &[(0x4900, 0x100)], node: 4, size: 0x400, window: None,
        prefer: at((0x4c00, 2), (0x4a00, 1)), exactly: at((0x4c00, 2), (0x4a00, 1)) },
    NodeCase { name: "node partly reserved, does not fit", taken: &[(0x4a00, 0x400)], node: 4, size: 0x400, window: None,
        prefer: at((0x7c00, 2), (0, 2)), exactly: NO },
    NodeCase { name: "window split, node has the low part", taken: &[], node: 2, size: 0x100, window: Some((0x3700, 0x3900)),
        prefer: at((0x3700, 1), (0x3700, 1)), exactly: at((0x3700, 1), (0x3700, 1)) },
    NodeCase { name: "window split, node has the high part", taken: &[], node: 3, size: 0x100, window: Some((0x3700, 0x3900)),
        prefer: at((0x3800, 1), (0x3800, 1)), exactly: at((0x3800, 1), (0x3800, 1)) },
    NodeCase { name: "window split, the high part is too small", taken: &[], node: 3, size: 0x100, window: Some((0x3700, 0x3880)),
        prefer: at((0x3700, 1), (0x3700, 1)), exactly: NO },
    NodeCase { name: "window split over two other nodes", taken: &[], node: 3, size: 0x100, window: Some((0x2700, 0x2900)),
        prefer: at((0x2800, 1), (0x2700, 1)), exactly: NO },
    NodeCase { name: "window above the node: exactly drops the floor", taken: &[], node: 1, size: 0x100, window: Some((0x3000, 0x4000)),
        prefer: at((0x3f00, 1), (0x3000, 1)), exactly: at((0x2700, 1), (0x2000, 1)) },
    NodeCase { name: "window below the node", taken: &[], node: 6, size: 0x100, window: Some((0x2800, 0x4800)),
        prefer: at((0x4700, 1), (0x2800, 1)), exactly: NO },
    NodeCase { name: "larger than any node", taken: &[], node: 3, size: 0x4000, window: None,
        prefer: NO, exactly: NO },
    NodeCase { name: "full merge with reservations on both sides", taken: &[(0x4800, 0x800), (0x5800, 0x2000)], node: 5, size: 0x800, window: None,
        prefer: at((0x5000, 1), (0x5000, 1)), exactly: at((0x5000, 1), (0x5000, 1)) },
    NodeCase { name: "window split, all else reserved", taken: &[(0, 0x3700), (0x3900, 0x4700)], node: 2, size: 0x200, window: Some((0x3700, 0x3900)),
        prefer: NO, exactly: NO },
    NodeCase { name: "node without memory", taken: &[], node: 8, size: 0x100, window: None,
        prefer: at((0x7f00, 1), (0, 1)), exactly: NO },
];

fn eight_nodes(window: &mut Window) -> Memblock {
    let mut memblock = window.memblock();
    memblock.add(window, place(0, RAM)).unwrap();
    for (node, (base, size)) in (0..).zip(NODES) {
        let range = place(base, size);
        memblock.set_node(window, range, NodeId(node)).unwrap();
    }
    assert_eq!(memblock.memory().len(), 8);
    memblock
}

#[test]
fn every_node_case_falls_back_only_where_it_may() {
    for case in NODE_CASES {
        let node = NodeId(case.node);
        for (choice, expected) in [
            (NodeChoice::Prefer(node), case.prefer),
            (NodeChoice::Exactly(node), case.exactly),
        ] {
            for (direction, expected) in [Direction::TopDown, Direction::BottomUp]
                .into_iter()
                .zip(expected)
            {
                for fill in [Fill::Zero, Fill::Raw] {
                    let mut window = Window::new(BASE, PAGES);
                    let mut memblock = eight_nodes(&mut window);
                    for (base, size) in case.taken {
                        memblock.reserve(&window, place(*base, *size)).unwrap();
                    }
                    let mut request = Request::bytes(case.size).node(choice).direction(direction);
                    if let Some((floor, ceiling)) = case.window {
                        request = request
                            .floor(Floor::Preferred(PhysAddr::new(BASE + floor)))
                            .ceiling(PhysAddr::new(BASE + ceiling));
                    }
                    let what = format!("{} ({choice:?}, {direction:?}, {fill:?})", case.name);
                    let found = check(&what, &mut memblock, &window, &request, case.size, fill);
                    assert_eq!(found, expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_required_floor_is_not_dropped() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = window.memblock();
    memblock.add(&window, place(0, RAM)).unwrap();
    let floor = Floor::Required(PhysAddr::new(BASE + 0x7f80));
    let request = Request::bytes(0x100).floor(floor);
    assert_eq!(
        memblock.alloc(&window, &request).unwrap_err(),
        AllocError::NoRoom(request)
    );
    let request = Request::bytes(0x80).floor(floor);
    let ram = memblock.alloc(&window, &request).unwrap();
    assert_eq!(ram.range(), place(0x7f80, 0x80));
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = window.memblock();
    memblock.add(&window, place(0, RAM)).unwrap();
    let mut refused = |request: Request| memblock.alloc(&window, &request).unwrap_err();
    assert_eq!(refused(Request::bytes(0)), AllocError::Empty);
    for align in [0, 3, u64::MAX] {
        let error = refused(Request::bytes(1).align(align));
        assert_eq!(error, AllocError::BadAlignment(align));
    }
}

#[test]
fn the_current_limit_frame_zero_and_withheld_memory_are_respected() {
    let mut window = Window::new(0, PAGES);
    let mut memblock = window.memblock();
    memblock.add(&window, window.range()).unwrap();
    memblock.set_current_limit(PhysAddr::new(0x3000));
    let page = Request::bytes(0x1000).align(0x1000);
    let up = page.direction(Direction::BottomUp);
    assert_eq!(
        memblock
            .alloc(&window, &page)
            .unwrap()
            .leak()
            .start()
            .as_u64(),
        0x2000
    );
    assert_eq!(
        memblock
            .alloc(&window, &up)
            .unwrap()
            .leak()
            .start()
            .as_u64(),
        0x1000
    );
    // Frame 0 is free, but never given.
    assert_eq!(
        memblock.alloc(&window, &up).unwrap_err(),
        AllocError::NoRoom(up)
    );

    memblock.set_current_limit(PhysAddr::MAX);
    let hidden = PhysRange::from_size(PhysAddr::new(0x6000), 0x2000);
    for flag in [RegionFlags::NOMAP, RegionFlags::DRIVER_MANAGED] {
        memblock.mark(&window, hidden, flag).unwrap();
        let ram = memblock.alloc(&window, &page).unwrap();
        assert_eq!(ram.range().start().as_u64(), 0x5000);
        memblock.free_ram(&window, ram).unwrap();
        memblock.clear(&window, hidden, flag).unwrap();
    }
}

#[test]
fn memory_outside_the_direct_map_is_given_raw_only() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = window.memblock();
    let far = PhysRange::from_size(PhysAddr::new(1 << 40), 0x1000);
    memblock.add(&window, far).unwrap();
    let page = Request::bytes(0x1000);
    assert_eq!(
        memblock.alloc(&window, &page).unwrap_err(),
        AllocError::Unreachable(far)
    );
    assert!(!memblock.overlaps(TableKind::Reserved, far));
    assert_eq!(memblock.alloc_raw(&window, &page).unwrap().leak(), far);
}

#[test]
fn what_comes_back_is_free_again() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = window.memblock();
    memblock.add(&window, place(0, RAM)).unwrap();
    let request = Request::bytes(0x1000).align(0x1000);
    let rams: Vec<_> = (0..PAGES)
        .map(|_| memblock.alloc(&window, &request).unwrap())
        .collect();
    assert_eq!(memblock.free_ranges().count(), 0);
    for (index, ram) in rams.into_iter().enumerate() {
        let before = memblock.reserved_bytes();
        memblock.free_ram(&window, ram).unwrap();
        assert_eq!(memblock.reserved_bytes(), before - 0x1000, "{index}");
        memblock.validate().unwrap();
    }
    assert!(memblock.reserved().is_empty());
    let free: Vec<_> = memblock.free_ranges().map(|free| free.range).collect();
    assert_eq!(free, [place(0, RAM)]);
}
