//! Early allocation by node: the NUMA cases of Linux's memblock suite, on eight nodes with fractions
//! 1/4, 1/16, 1/8, 1/8, 1/16, 1/16, 1/4 and 1/16 of 16 MiB.
//!
//! ```text
//! node  0       1 2   3   4 5 6       7
//! MiB   16      20 21  23  25 26 27     31 32
//! ```

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::{AllocError, Direction, Floor, Memblock, NodeChoice, Request};
use mm::platform::NodeId;
use mm_tests::window::Window;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const STARTS: [u64; 9] = [16, 20, 21, 23, 25, 26, 27, 31, 32];
const START: u64 = 16 * MIB;
const END: u64 = 32 * MIB;

fn node_start(node: usize) -> u64 {
    STARTS[node] * MIB
}

fn node_end(node: usize) -> u64 {
    STARTS[node + 1] * MIB
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// A request for `size` bytes between `min` and `max`, with a wish for a node.
#[derive(Clone, Copy)]
struct Wish {
    size: u64,
    min: u64,
    max: u64,
    node: u16,
}

/// Where the two directions find a place; nothing if there is none.
type Places = Option<(u64, u64)>;

struct Case {
    name: &'static str,
    /// Taken before, from and to.
    reserved: &'static [(u64, u64)],
    wish: Wish,
    /// Starts, from the top and from the bottom, where other nodes will do, …
    preferred: Places,
    /// … and where they will not.
    exact: Places,
}

const SMALL: u64 = 256 * KIB;

fn anywhere(node: u16, size: u64) -> Wish {
    Wish {
        size,
        min: START,
        max: END,
        node,
    }
}

/// A range that has half of what is wanted below a border, and half above it.
fn across(border: u64, node: u16) -> Wish {
    Wish {
        size: 2 * SMALL,
        min: border - SMALL,
        max: border + SMALL,
        node,
    }
}

fn cases() -> Vec<Case> {
    let both = |place| Some((place, place));
    let within = |node: usize, size| Some((node_end(node) - size, node_start(node)));
    let elsewhere = |size| Some((END - size, START));
    vec![
        Case {
            name: "simple",
            reserved: &[],
            wish: anywhere(3, 512 * KIB),
            preferred: within(3, 512 * KIB),
            exact: within(3, 512 * KIB),
        },
        Case {
            name: "node too small",
            reserved: &[],
            wish: anywhere(1, 2 * MIB),
            // Node 7 is too small as well.
            preferred: Some((node_end(6) - 2 * MIB, START)),
            exact: None,
        },
        Case {
            name: "node reserved",
            reserved: &[(21 * MIB, 23 * MIB)],
            wish: anywhere(2, MIB),
            preferred: elsewhere(MIB),
            exact: None,
        },
        Case {
            name: "part reserved",
            reserved: &[(25 * MIB, 25 * MIB + SMALL)],
            wish: anywhere(4, SMALL),
            preferred: Some((node_end(4) - SMALL, node_start(4) + SMALL)),
            exact: Some((node_end(4) - SMALL, node_start(4) + SMALL)),
        },
        Case {
            name: "part reserved, rest too small",
            reserved: &[(25 * MIB + SMALL, 26 * MIB - SMALL)],
            wish: anywhere(4, 2 * SMALL),
            preferred: elsewhere(2 * SMALL),
            exact: None,
        },
        Case {
            name: "range split, node low",
            reserved: &[],
            wish: across(23 * MIB, 2),
            // The floor is given up before the node is.
            preferred: within(2, 2 * SMALL),
            exact: within(2, 2 * SMALL),
        },
        Case {
            name: "range split, node high",
            reserved: &[],
            wish: across(23 * MIB, 3),
            preferred: Some((node_end(2) - 2 * SMALL, START)),
            exact: None,
        },
        Case {
            name: "no overlap, range split",
            reserved: &[],
            wish: across(27 * MIB, 2),
            preferred: within(2, 2 * SMALL),
            exact: within(2, 2 * SMALL),
        },
        Case {
            name: "no overlap, node low",
            reserved: &[],
            wish: Wish {
                size: SMALL,
                min: node_start(3),
                max: node_end(5),
                node: 2,
            },
            preferred: Some((node_end(5) - SMALL, node_start(3))),
            exact: within(2, SMALL),
        },
        Case {
            name: "no overlap, node high",
            reserved: &[],
            wish: Wish {
                size: SMALL,
                min: node_start(3),
                max: node_end(5),
                node: 7,
            },
            preferred: Some((node_end(5) - SMALL, node_start(3))),
            exact: None,
        },
        Case {
            name: "larger than any node",
            reserved: &[],
            wish: anywhere(3, 5 * MIB),
            preferred: None,
            exact: None,
        },
        Case {
            name: "between two reserves",
            reserved: &[(26 * MIB, 27 * MIB), (31 * MIB, 32 * MIB)],
            wish: Wish {
                size: 4 * MIB,
                min: node_start(6),
                max: node_end(6),
                node: 6,
            },
            preferred: both(node_start(6)),
            exact: both(node_start(6)),
        },
        Case {
            name: "range split, all else reserved",
            reserved: &[(16 * MIB, 31 * MIB - SMALL), (31 * MIB + SMALL, 32 * MIB)],
            wish: across(31 * MIB, 7),
            preferred: None,
            exact: None,
        },
    ]
}

fn memblock(window: &mut Window, reserved: &[(u64, u64)], direction: Direction) -> Memblock {
    let mut memblock = window.memblock();
    let window = &*window;
    memblock.set_direction(direction);
    for node in 0..8 {
        let part = range(node_start(node), node_end(node));
        memblock.add(window, part).unwrap();
        let id = NodeId(u16::try_from(node).unwrap());
        memblock.set_node(window, part, id).unwrap();
    }
    for &(start, end) in reserved {
        memblock.reserve(window, range(start, end)).unwrap();
    }
    memblock
}

fn check(case: &Case, direction: Direction, node: NodeChoice, expected: Option<u64>) {
    let mut window = Window::none();
    let mut memblock = memblock(&mut window, case.reserved, direction);
    let Wish { size, min, max, .. } = case.wish;
    let request = Request::bytes(size)
        .floor(Floor::Preferred(PhysAddr::new(min)))
        .ceiling(PhysAddr::new(max))
        .node(node);
    let before: u64 = case.reserved.iter().map(|(start, end)| end - start).sum();
    let what = format!("{}, {direction:?}, {node:?}", case.name);
    let found = memblock.alloc_raw(&window, &request);
    match (found, expected) {
        (Ok(ram), Some(start)) => {
            assert_eq!(ram.range(), range(start, start + size), "{what}");
            assert_eq!(memblock.reserved_bytes(), before + size, "{what}");
            let touches = |at: u64| {
                let ends = |(start, end): &(u64, u64)| *start == at || *end == at;
                usize::from(case.reserved.iter().any(ends))
            };
            let merged = touches(start) + touches(start + size);
            let regions = case.reserved.len() + 1 - merged;
            assert_eq!(memblock.reserved().len(), regions, "{what}");
        }
        (Err(AllocError::NoRoom(refused)), None) => {
            assert_eq!(refused, request, "{what}");
            assert_eq!(memblock.reserved_bytes(), before, "{what}");
        }
        (found, expected) => panic!("{what}: {found:?} instead of {expected:?}"),
    }
    memblock.validate().unwrap();
}

#[test]
fn every_case_gives_the_place_that_linux_gives_it() {
    let mut checked = 0;
    for case in cases() {
        for direction in [Direction::TopDown, Direction::BottomUp] {
            let place = |places: Places| {
                places.map(|(top, bottom)| match direction {
                    Direction::TopDown => top,
                    Direction::BottomUp => bottom,
                })
            };
            let node = NodeId(case.wish.node);
            let (preferred, exact) = (place(case.preferred), place(case.exact));
            check(&case, direction, NodeChoice::Prefer(node), preferred);
            check(&case, direction, NodeChoice::Exactly(node), exact);
            checked += 2;
        }
    }
    assert_eq!(checked, 52);
}

#[test]
fn memory_that_may_be_unplugged_is_spared_while_there_is_other() {
    let mut window = Window::none();
    // Something is reserved on nodes 0 and 2.
    let taken = [(16 * MIB, 17 * MIB), (22 * MIB, 22 * MIB + 1)];
    let mut memblock = memblock(&mut window, &taken, Direction::TopDown);
    let pluggable = [range(START, 26 * MIB), range(27 * MIB, END)];
    memblock.spare_hotplug(&window, &pluggable).unwrap();
    let mut alloc = |size: u64, node| {
        let request = Request::bytes(size).node(node);
        let ram = memblock.alloc_raw(&window, &request);
        ram.map(|ram| ram.range().start().as_u64()).ok()
    };
    // Nodes 1, 3, 4, 6 and 7 may go; 5 may not, and 0 and 2 cannot.
    assert_eq!(alloc(MIB, NodeChoice::Any), Some(node_start(5)));
    assert_eq!(
        alloc(MIB, NodeChoice::Prefer(NodeId(7))),
        Some(node_start(2))
    );
    assert_eq!(
        alloc(3 * MIB, NodeChoice::Prefer(NodeId(7))),
        Some(17 * MIB)
    );
    // There is too little else now.
    assert_eq!(alloc(MIB, NodeChoice::Any), Some(node_start(7)));
    assert_eq!(
        alloc(MIB, NodeChoice::Exactly(NodeId(3))),
        Some(node_end(3) - MIB)
    );
    assert_eq!(alloc(5 * MIB, NodeChoice::Any), None);
}
