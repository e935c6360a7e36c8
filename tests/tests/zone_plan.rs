//! Zone plans worked out by hand, for what no real map shows.

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::Memblock;
use mm::memblock::params::Params;
use mm::platform::NodeId;
use mm::zone::ZoneKind;
use mm::zone::plan::{CoreWish, NodePlan, Plan, PlanError};
use mm_tests::window::Window;

const MIB: u64 = 1 << 20;

/// Memory from MiB to MiB, on a node.
type Part = (u16, u64, u64);

fn machine(parts: &[Part]) -> Memblock {
    let window = Window::none();
    let mut memblock = Window::none().memblock();
    for &(node, from, to) in parts {
        let range = PhysRange::from_size(PhysAddr::new(from * MIB), (to - from) * MIB);
        memblock.add(&window, range).unwrap();
        memblock.set_node(&window, range, NodeId(node)).unwrap();
    }
    memblock
}

/// 1 GiB but for the first MiB: 261888 frames.
const ONE: &[Part] = &[(0, 1, 1024)];
/// A small node and a large one.
const TWO: &[Part] = &[(0, 1, 256), (1, 256, 1280)];

struct Case {
    name: &'static str,
    memory: &'static [Part],
    line: &'static str,
    /// First frame of each node's Movable zone.
    starts: &'static [Option<u64>],
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "no wish", memory: ONE, line: "", starts: &[None] },
    Case { name: "all of it", memory: ONE, line: "kernelcore=100%", starts: &[None] },
    Case { name: "nothing", memory: ONE, line: "kernelcore=0", starts: &[None] },
    Case { name: "more than there is", memory: ONE, line: "kernelcore=1T", starts: &[None] },
    Case { name: "everything movable", memory: ONE, line: "movablecore=100%", starts: &[None] },
    // 256 + 131072, rounded up to 1024 frames.
    Case { name: "half", memory: ONE, line: "kernelcore=512M", starts: &[Some(129 * 1024)] },
    // The DMA zone is the kernel's in any case.
    Case { name: "less than DMA", memory: ONE, line: "kernelcore=8M", starts: &[Some(4096)] },
    // 1025 frames are rounded up to 2048 before the rest is the kernel's.
    Case { name: "movable rounded up", memory: ONE, line: "movablecore=0x401000", starts: &[Some(254 * 1024)] },
    Case { name: "both, movable leaves more", memory: ONE, line: "kernelcore=512M movablecore=128M", starts: &[Some(224 * 1024)] },
    Case { name: "both, kernel wants more", memory: ONE, line: "kernelcore=768M movablecore=512M", starts: &[Some(193 * 1024)] },
    // Node 0 has 65280 frames of its share of 81920; node 1 gives the rest, 98560 in all.
    Case { name: "a node gives what another lacks", memory: TWO, line: "kernelcore=640M", starts: &[None, Some(161 * 1024)] },
    Case { name: "even shares", memory: TWO, line: "kernelcore=256M", starts: &[Some(33 * 1024), Some(96 * 1024)] },
];

#[test]
fn movable_zones_start_where_the_wishes_say() {
    for case in CASES {
        let memblock = machine(case.memory);
        let params = Params::parse(case.line, |error| panic!("{}: {error}", case.name));
        let mut nodes = [NodePlan::EMPTY; 2];
        let plan = Plan::compute(&memblock, CoreWish::from(&params), &mut nodes).unwrap();
        let nodes = || plan.nodes().iter().take(case.starts.len());
        let starts: Vec<_> = nodes()
            .map(|node| node.movable_start.map(|s| s.as_u64()))
            .collect();
        assert_eq!(starts, case.starts, "{}", case.name);
        // A frame has one zone, and no block of the largest order has two.
        for node in nodes() {
            let zones = ZoneKind::ALL.map(|kind| *node.zone(kind));
            assert_eq!(
                zones.iter().map(|zone| zone.present).sum::<u64>(),
                node.present
            );
            let movable = node.zone(ZoneKind::Movable);
            assert_eq!(movable.present > 0, node.movable_start.is_some());
            for zone in zones.iter().filter(|zone| !zone.frames.is_empty()) {
                let shared = zone.frames.intersect(movable.frames);
                assert!(shared.is_empty() || zone == movable, "{}", case.name);
            }
        }
    }
}

#[test]
fn memory_on_a_node_without_a_place_is_an_error() {
    let memblock = machine(&[(0, 1, 16), (5, 16, 32)]);
    let mut nodes = [NodePlan::EMPTY; 5];
    let error = Plan::compute(&memblock, CoreWish::default(), &mut nodes).unwrap_err();
    let node = NodeId(5);
    assert_eq!(error, PlanError::TooManyNodes { node, given: 5 });
    let mut nodes = [NodePlan::EMPTY; 6];
    let plan = Plan::compute(&memblock, CoreWish::default(), &mut nodes).unwrap();
    let with_memory: Vec<_> = plan.with_memory().map(|(node, _)| node.0).collect();
    assert_eq!(with_memory, [0, 5]);
    assert_eq!((plan.present(), plan.spanned()), (31 * 256, 31 * 256));
    assert_eq!(plan.end().as_u64(), 32 * 256);
}

#[test]
fn a_plan_forgets_what_its_places_held() {
    let mut nodes = [NodePlan::EMPTY; 2];
    Plan::compute(&machine(TWO), CoreWish::default(), &mut nodes).unwrap();
    assert!(nodes[1].present > 0);
    let before = Plan::compute(&machine(ONE), CoreWish::default(), &mut nodes).unwrap();
    assert_eq!(before.nodes()[1], NodePlan::EMPTY);
}
