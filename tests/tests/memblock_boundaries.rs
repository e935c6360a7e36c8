//! Every integer that memblock takes, at every boundary: no panic, no wrap, typed errors.

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::params::{CoreSize, Params};
use mm::memblock::sanitize::FirmwareMap;
use mm::memblock::{
    AllocError, Direction, Floor, Memblock, NodeChoice, Region, RegionFlags, Request, TableKind,
};
use mm::platform::NodeId;
use mm::zone::plan::{CoreWish, NodePlan, Plan, PlanError};
use mm_tests::window::Window;

const PAGE: u64 = 4096;
const MAX: u64 = u64::MAX;
const GRID: [u64; 11] = [
    0,
    1,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    1 << 31,
    1 << 32,
    MAX / 2,
    MAX - PAGE,
    MAX - 1,
    MAX,
];

fn pairs() -> impl Iterator<Item = (u64, u64)> {
    GRID.into_iter()
        .flat_map(|a| GRID.into_iter().map(move |b| (a, b)))
}

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(base), size)
}

/// A little RAM in the window, more at odd places, some of it taken.
fn machine(window: &mut Window) -> Memblock {
    let mut memblock = window.memblock();
    for (base, size) in [
        (0, 4 * PAGE),
        (1 << 31, 77),
        (1 << 32, 1 << 40),
        (MAX - PAGE, PAGE),
    ] {
        memblock.add(window, range(base, size)).unwrap();
        memblock.reserve(window, range(base + 5, size / 3)).unwrap();
    }
    memblock.allow_growth();
    memblock
}

fn sum(regions: &[Region]) -> u128 {
    regions.iter().map(|r| u128::from(r.range.size())).sum()
}

/// Bytes of `table` inside `base + size`, counted in a wider type.
fn inside(table: &[Region], base: u64, size: u64) -> u128 {
    let (start, end) = (
        u128::from(base),
        (u128::from(base) + u128::from(size)).min(MAX.into()),
    );
    let part = |region: &Region| {
        let from = start.max(region.base().as_u64().into());
        end.min(region.end().as_u64().into()).saturating_sub(from)
    };
    table.iter().map(part).sum()
}

#[test]
fn ranges_at_every_boundary_are_counted_exactly() {
    let mut calls = 0;
    for (base, size) in pairs() {
        let wanted = range(base, size);
        let length = u128::from(wanted.size());
        for kind in [TableKind::Memory, TableKind::Reserved] {
            let mut window = Window::new(0, 4);
            let mut memblock = machine(&mut window);
            let table = |m: &Memblock| match kind {
                TableKind::Memory => m.memory().to_vec(),
                TableKind::Reserved => m.reserved().to_vec(),
            };
            let before = table(&memblock);
            let held = inside(&before, base, size);
            assert_eq!(memblock.overlaps(kind, wanted), held > 0);
            match kind {
                TableKind::Memory => memblock.add(&window, wanted).unwrap(),
                TableKind::Reserved => memblock.reserve(&window, wanted).unwrap(),
            }
            memblock.validate().unwrap();
            assert_eq!(sum(&table(&memblock)), sum(&before) + length - held);
            match kind {
                TableKind::Memory => memblock.remove(&window, wanted).unwrap(),
                TableKind::Reserved => memblock.free(&window, wanted).unwrap(),
            }
            memblock.validate().unwrap();
            assert_eq!(sum(&table(&memblock)), sum(&before) - held);
            calls += 3;
        }
    }
    assert!(calls >= 700, "{calls}");
}

#[test]
fn attributes_and_limits_take_any_number() {
    for (base, size) in pairs() {
        let wanted = range(base, size);
        let mut window = Window::new(0, 4);
        let mut memblock = machine(&mut window);
        let total = memblock.memory_bytes();
        memblock
            .set_node(&window, wanted, NodeId(u16::MAX))
            .unwrap();
        memblock.mark(&window, wanted, RegionFlags::all()).unwrap();
        memblock.validate().unwrap();
        assert_eq!(memblock.memory_bytes(), total);
        let named = memblock.frames(Some(NodeId(u16::MAX)));
        assert!(named.map(|ram| ram.frames.frames()).sum::<u64>() <= total);
        memblock.clear(&window, wanted, RegionFlags::all()).unwrap();
        memblock.validate().unwrap();

        let held = memblock.memory_at(PhysAddr::new(base));
        assert!(held.is_none_or(|region| region.range.contains(PhysAddr::new(base))));
        memblock.set_current_limit(PhysAddr::new(size));
        memblock.cap_range(wanted);
        memblock.validate().unwrap();
        assert!(memblock.memory_bytes() <= wanted.size());
    }
    for number in GRID {
        let mut window = Window::new(0, 4);
        let mut memblock = machine(&mut window);
        let total = memblock.memory_bytes();
        memblock.limit_memory(number);
        memblock.validate().unwrap();
        assert_eq!(memblock.memory_bytes(), total.min(number));
        memblock.trim_memory(number);
        memblock.validate().unwrap();
        assert!(memblock.memory_bytes() <= total.min(number));
    }
}

#[test]
fn allocations_take_any_four_numbers() {
    let mut granted = 0;
    for (size, align) in pairs() {
        for (floor, ceiling) in pairs() {
            for (direction, floor) in [
                (Direction::TopDown, Floor::Preferred(PhysAddr::new(floor))),
                (Direction::BottomUp, Floor::Required(PhysAddr::new(floor))),
            ] {
                let mut window = Window::new(0, 4);
                let mut memblock = machine(&mut window);
                let request = Request::bytes(size)
                    .align(align)
                    .floor(floor)
                    .ceiling(PhysAddr::new(ceiling))
                    .node(NodeChoice::Prefer(NodeId(7)))
                    .direction(direction);
                let taken = memblock.reserved_bytes();
                match memblock.alloc_raw(&window, &request) {
                    Ok(ram) => {
                        granted += 1;
                        let range = ram.leak();
                        assert_eq!(range.size(), size);
                        assert!(range.start().is_aligned(align));
                        assert!(range.end() <= PhysAddr::new(ceiling));
                        assert!(memblock.memory().iter().any(|r| r.range.covers(range)));
                        assert_eq!(memblock.reserved_bytes(), taken + size);
                        if let Floor::Required(floor) = floor {
                            assert!(range.start() >= floor);
                        }
                    }
                    Err(error) => {
                        assert!(!matches!(error, AllocError::Table(_)), "{error}");
                        assert_eq!(memblock.reserved_bytes(), taken);
                    }
                }
                memblock.validate().unwrap();
            }
        }
    }
    assert!(granted > 1000, "{granted}");
}

#[test]
fn firmware_entries_take_any_numbers() {
    for (start, size) in pairs() {
        for (other, kind) in pairs() {
            let kind = u32::try_from(kind).unwrap_or(u32::MAX);
            let entries = [
                FirmwareRegion { start, size, kind },
                FirmwareRegion {
                    start: other,
                    size,
                    kind: 1,
                },
            ];
            for bits in [0, 1, 12, 36, 46, 52, 64, u32::MAX] {
                let map = FirmwareMap::new(&entries, bits);
                let mut end = PhysAddr::ZERO;
                for found in map.ranges() {
                    assert!(!found.range.is_empty() && end <= found.range.start());
                    end = found.range.end();
                }
                assert!(end.as_u64() <= 1 << bits.min(52));
                for repair in map.repairs() {
                    assert!(repair.to_string().len() > 20);
                }
            }
        }
    }
}

#[test]
fn command_lines_take_any_numbers() {
    for (size, start) in pairs() {
        for sign in ["@", "#", "$", "!", "%", "?", ""] {
            let line = format!("mem={start:#x} memmap={size}{sign}{start} kernelcore={size}M");
            let params = Params::parse(&line, |error| assert!(!error.to_string().is_empty()));
            let entries = [FirmwareRegion {
                start,
                size,
                kind: 1,
            }];
            let map = FirmwareMap::new(&entries, 52).edited(&params);
            assert!(map.ranges().count() <= 5);
        }
    }
}

#[test]
fn plans_take_any_memory_and_any_wish() {
    let mut planned = 0;
    for (base, size) in pairs() {
        for (kernel, movable) in pairs() {
            let mut window = Window::none();
            let mut memblock = window.memblock();
            memblock.add(&window, range(base, size)).unwrap();
            let percent = CoreSize::Percent(u8::try_from(movable).unwrap_or(u8::MAX));
            let wish = CoreWish {
                kernelcore: Some(CoreSize::Bytes(kernel)),
                movablecore: Some(percent),
                movable_node: false,
            };
            let mut nodes = [NodePlan::EMPTY; 2];
            match Plan::compute(&memblock, wish, &mut nodes) {
                Ok(plan) => {
                    planned += 1;
                    let zones = plan.nodes().iter().flat_map(|node| node.zones);
                    assert_eq!(zones.map(|zone| zone.present).sum::<u64>(), plan.present());
                    assert!(plan.present() <= plan.spanned());
                    plan.lines(&memblock, &mut |line| assert!(!line.to_string().is_empty()));
                }
                Err(error) => assert_eq!(error, PlanError::NoMemory),
            }
        }
    }
    assert!(planned > 1000, "{planned}");
}
