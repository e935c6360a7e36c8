//! Tables that outgrow their slots: at every position, out of the way, or not at all.

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::{
    AllocError, FreeError, GrowError, INLINE_REGIONS, Memblock, NodeChoice, Region, RegionFlags,
    Request, TableKind,
};
use mm::platform::NodeId;
use mm_tests::window::Window;

const BASE: u64 = 1 << 20;
const PAGES: usize = 64;
/// RAM that the direct map does not reach, above everything else.
const FAR: u64 = 1 << 45;
/// Regions in the way: at `FIRST + n * STEP`, `SIZE` bytes each.
const FIRST: u64 = 1 << 32;
const STEP: u64 = 0x1_0000;
const SIZE: u64 = 0x3000;

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(base), size)
}

fn nth(index: usize) -> PhysRange {
    range(FIRST + index as u64 * STEP, SIZE)
}

fn ranges(regions: &[Region]) -> Vec<PhysRange> {
    regions.iter().map(|region| region.range).collect()
}

/// The window's RAM in the memory table, allocation inside it, growth allowed.
fn ready(window: &mut Window) -> Memblock {
    let mut memblock = window.memblock();
    memblock.add(window, window.range()).unwrap();
    memblock.set_current_limit(window.range().end());
    memblock.allow_growth();
    memblock
}

#[test]
fn the_129th_reservation_grows_the_table_wherever_it_lies() {
    for last in 0..=INLINE_REGIONS {
        let mut window = Window::new(BASE, PAGES);
        let mut memblock = ready(&mut window);
        let all = 0..=INLINE_REGIONS;
        for index in all.clone().filter(|index| *index != last) {
            memblock.reserve(&window, nth(index)).unwrap();
        }
        assert_eq!(memblock.reserved().len(), INLINE_REGIONS);
        memblock.reserve(&window, nth(last)).unwrap();
        memblock.validate().unwrap();

        // The new array, at the top of RAM, then all that was reserved, in order.
        let mut reserved = ranges(memblock.reserved());
        let array = reserved.remove(0);
        assert_eq!(array.end(), window.range().end());
        assert_eq!(
            reserved,
            all.map(nth).collect::<Vec<_>>(),
            "position {last}"
        );
        let total = array.size() + SIZE * (INLINE_REGIONS as u64 + 1);
        assert_eq!(memblock.reserved_bytes(), total);
        assert!(matches!(
            memblock.free(&window, array),
            Err(FreeError::OwnTable(own)) if own == array
        ));
    }
}

#[test]
fn the_129th_range_of_memory_grows_the_table_wherever_it_lies() {
    for last in 0..INLINE_REGIONS {
        let mut window = Window::new(BASE, PAGES);
        let mut memblock = ready(&mut window);
        let all = 0..INLINE_REGIONS;
        for index in all.clone().filter(|index| *index != last) {
            memblock.add(&window, nth(index)).unwrap();
        }
        memblock.add(&window, nth(last)).unwrap();
        memblock.validate().unwrap();
        let mut memory = ranges(memblock.memory());
        assert_eq!(memory.remove(0), window.range());
        assert_eq!(memory, all.map(nth).collect::<Vec<_>>(), "position {last}");
        assert_eq!(memblock.reserved().len(), 1);
    }
}

#[test]
fn a_split_grows_the_table_wherever_it_happens() {
    for split in 0..INLINE_REGIONS {
        let mut window = Window::new(BASE, PAGES);
        let mut memblock = ready(&mut window);
        for index in 0..INLINE_REGIONS {
            memblock.reserve(&window, nth(index)).unwrap();
        }
        let hole = range(nth(split).start().as_u64() + 0x1000, 0x1000);
        memblock.free(&window, hole).unwrap();
        memblock.validate().unwrap();
        // 128 regions, one of them in two, and the new array.
        assert_eq!(memblock.reserved().len(), INLINE_REGIONS + 2);
        assert!(!memblock.overlaps(TableKind::Reserved, hole));
    }
}

#[test]
fn the_new_table_keeps_away_from_what_is_being_reserved() {
    // Whatever part of RAM is wanted, the array goes elsewhere.
    for wanted in [
        range(BASE, 0x3e000),
        range(BASE + 0x2000, 0x3e000),
        range(BASE + 0x1000, 0x3d000),
        range(BASE + 0x3f000, 0x1000),
        range(BASE + 0x20000, 0x20000),
    ] {
        let mut window = Window::new(BASE, PAGES);
        let mut memblock = ready(&mut window);
        for index in 0..INLINE_REGIONS {
            memblock.reserve(&window, nth(index)).unwrap();
        }
        memblock.reserve(&window, wanted).unwrap();
        memblock.validate().unwrap();
        let here = |region: &&Region| window.range().covers(region.range);
        let taken: u64 = memblock
            .reserved()
            .iter()
            .filter(here)
            .map(|r| r.range.size())
            .sum();
        assert_eq!(taken, wanted.size() + 0x2000, "{wanted:?}");
    }
}

#[test]
fn the_new_table_keeps_away_from_memory_that_goes() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = ready(&mut window);
    for index in 0..INLINE_REGIONS - 1 {
        memblock.add(&window, nth(index)).unwrap();
    }
    // Cuts RAM in two; only the lower part holds an array.
    let going = range(BASE + 0x10000, 0x2f000);
    memblock.remove(&window, going).unwrap();
    memblock.validate().unwrap();
    let array = memblock.reserved()[0].range;
    assert_eq!(array, range(BASE + 0xe000, 0x2000));
    assert!(!memblock.overlaps(TableKind::Memory, going));
}

#[test]
fn tables_double_again_and_again_and_give_the_old_arrays_back() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = ready(&mut window);
    for index in 0..2000 {
        memblock.add(&window, nth(index)).unwrap();
        memblock.reserve(&window, nth(1999 - index)).unwrap();
        memblock.validate().unwrap();
    }
    assert_eq!(memblock.memory().len(), 2001);
    // Two arrays of 2048 slots each.
    let slot = size_of::<Region>() as u64;
    let arrays = 2 * (2048 * slot).next_multiple_of(4096);
    assert_eq!(memblock.reserved_bytes(), 2000 * SIZE + arrays);
    let free: u64 = memblock.free_ranges().map(|free| free.range.size()).sum();
    assert_eq!(free, window.range().size() - arrays);
    // All goes back to what it was, but for the arrays.
    for index in 0..2000 {
        memblock.remove(&window, nth(index)).unwrap();
        memblock.free(&window, nth(index)).unwrap();
    }
    memblock.validate().unwrap();
    assert_eq!(ranges(memblock.memory()), [window.range()]);
    assert_eq!(memblock.reserved_bytes(), arrays);
}

/// Why a table cannot grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Obstacle {
    Forbidden,
    NoRoom,
    Unreachable,
}

/// Both tables filled up to the last slot, nothing in the way of growing but `obstacle`.
fn full(window: &mut Window, obstacle: Option<Obstacle>) -> Memblock {
    let mut memblock = window.memblock();
    memblock.add(window, window.range()).unwrap();
    memblock.add(window, range(FAR, 1 << 20)).unwrap();
    for index in 0..INLINE_REGIONS - 2 {
        memblock.add(window, nth(index)).unwrap();
        memblock.reserve(window, nth(index)).unwrap();
    }
    memblock.reserve(window, range(FAR + (1 << 21), 1)).unwrap();
    memblock.reserve(window, range(FAR + (1 << 22), 1)).unwrap();
    assert_eq!(memblock.memory().len(), INLINE_REGIONS);
    assert_eq!(memblock.reserved().len(), INLINE_REGIONS);
    match obstacle {
        Some(Obstacle::Forbidden) => memblock.set_current_limit(window.range().end()),
        Some(Obstacle::NoRoom) => {
            memblock.allow_growth();
            memblock.set_current_limit(PhysAddr::new(BASE + 0x1000));
        }
        Some(Obstacle::Unreachable) => memblock.allow_growth(),
        None => clear_the_way(&mut memblock, window),
    }
    memblock
}

fn clear_the_way(memblock: &mut Memblock, window: &Window) {
    memblock.allow_growth();
    memblock.set_current_limit(window.range().end());
}

type Operation = (
    &'static str,
    fn(&mut Memblock, &Window) -> Result<(), GrowError>,
);

fn grow_error(error: AllocError) -> GrowError {
    match error {
        AllocError::Table(error) => error,
        other => panic!("{other}"),
    }
}

/// In the middle of a region of either table.
fn middle() -> PhysRange {
    range(nth(64).start().as_u64() + 0x1000, 0x1000)
}

/// A page that touches no reservation and that all obstacles leave free.
fn page() -> Request {
    Request::bytes(0x400).ceiling(PhysAddr::new(BASE + 0x1000))
}

/// Everything that can need a slot.
const OPERATIONS: &[Operation] = &[
    ("add", |m, w| m.add(w, nth(1000))),
    ("add_region", |m, w| {
        let region = Region {
            range: range(0, FAR / 2),
            node: Some(NodeId(3)),
            flags: RegionFlags::HOTPLUG,
        };
        m.add_region(w, &region)
    }),
    ("reserve", |m, w| m.reserve(w, nth(1000))),
    ("remove", |m, w| m.remove(w, middle())),
    ("free", |m, w| {
        m.free(w, middle()).map_err(|error| match error {
            FreeError::Table(error) => error,
            FreeError::OwnTable(own) => panic!("{own}"),
        })
    }),
    ("set_node", |m, w| m.set_node(w, middle(), NodeId(1))),
    ("mark", |m, w| m.mark(w, middle(), RegionFlags::NOMAP)),
    ("clear", |m, w| m.clear(w, middle(), RegionFlags::empty())),
    ("alloc", |m, w| {
        let ram = m.alloc(w, &page()).map_err(grow_error)?;
        let _: PhysRange = ram.leak();
        Ok(())
    }),
    ("alloc_raw", |m, w| {
        let node = page().node(NodeChoice::Prefer(NodeId(9)));
        let ram = m.alloc_raw(w, &node).map_err(grow_error)?;
        let _: PhysRange = ram.leak();
        Ok(())
    }),
];

#[test]
fn an_operation_that_cannot_grow_changes_nothing_and_succeeds_later() {
    for (name, operation) in OPERATIONS {
        for obstacle in [Obstacle::Forbidden, Obstacle::NoRoom, Obstacle::Unreachable] {
            let what = format!("{name}, {obstacle:?}");
            let mut window = Window::new(BASE, PAGES);
            let mut memblock = full(&mut window, Some(obstacle));
            let before = format!("{memblock:?}");
            let error = operation(&mut memblock, &window).expect_err(&what);
            let expected = match error {
                GrowError::Forbidden(_) => Obstacle::Forbidden,
                GrowError::NoRoom { .. } => Obstacle::NoRoom,
                GrowError::Unreachable(_) => Obstacle::Unreachable,
            };
            assert_eq!(obstacle, expected, "{what}");
            assert_eq!(format!("{memblock:?}"), before, "{what}");

            clear_the_way(&mut memblock, &window);
            operation(&mut memblock, &window).unwrap();
            memblock.validate().unwrap();
            let mut other = Window::new(BASE, PAGES);
            let mut unhindered = full(&mut other, None);
            operation(&mut unhindered, &other).unwrap();
            assert_eq!(memblock.memory(), unhindered.memory(), "{what}");
            assert_eq!(memblock.reserved(), unhindered.reserved(), "{what}");
        }
    }
}

#[test]
fn memory_that_cannot_come_back_is_returned_with_the_reason() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = window.memblock();
    memblock.add(&window, window.range()).unwrap();
    let bytes = |size| Request::bytes(size).align(1);
    // Three that merge into one region; giving back the middle one needs a slot.
    let mut rams: Vec<_> = (0..3)
        .map(|_| memblock.alloc(&window, &bytes(0x100)).unwrap())
        .collect();
    for index in 0..INLINE_REGIONS - 1 {
        memblock.reserve(&window, nth(index)).unwrap();
    }
    let before = format!("{memblock:?}");
    let middle = rams.remove(1);
    let (error, middle) = memblock.free_ram(&window, middle).unwrap_err();
    assert_eq!(error, GrowError::Forbidden(TableKind::Reserved));
    assert_eq!(format!("{memblock:?}"), before);
    memblock.allow_growth();
    memblock.free_ram(&window, middle).unwrap();
    memblock.validate().unwrap();
}

#[test]
fn where_only_the_second_table_cannot_grow_the_memory_table_stays_as_it_was() {
    // Room for one array of two pages, not for two.
    let mut window = Window::new(BASE, 3);
    let mut memblock = ready(&mut window);
    for index in 0..INLINE_REGIONS - 1 {
        memblock.add(&window, nth(index)).unwrap();
    }
    for index in 0..INLINE_REGIONS {
        memblock.reserve(&window, nth(index)).unwrap();
    }
    let before = memblock.memory().to_vec();
    let error = memblock.add(&window, nth(1000)).unwrap_err();
    assert!(matches!(
        error,
        GrowError::NoRoom {
            table: TableKind::Memory,
            ..
        }
    ));
    assert_eq!(memblock.memory(), before);
    memblock.validate().unwrap();
}

#[test]
fn the_tables_own_frames_are_handed_over_last() {
    let mut window = Window::new(BASE, PAGES);
    let mut memblock = ready(&mut window);
    memblock
        .set_node(&window, window.range(), NodeId(3))
        .unwrap();
    for index in 0..INLINE_REGIONS {
        memblock
            .add(&window, range(FIRST + index as u64 * STEP, 1))
            .unwrap();
        memblock.reserve(&window, nth(index)).unwrap();
    }
    memblock.reserve(&window, nth(1000)).unwrap();
    let mut runs = Vec::new();
    memblock.hand_over(&mut |run, _| runs.push(run));
    assert!(runs.iter().all(|run| run.node == Some(NodeId(3))));
    let frames: Vec<u64> = runs.iter().map(|run| run.frames.frames()).collect();
    assert_eq!(frames, [PAGES as u64 - 4, 2, 2]);
    let mut each: Vec<_> = runs.iter().flat_map(|run| run.frames.iter()).collect();
    each.sort_unstable();
    assert!(window.range().whole_frames().iter().eq(each));
}
