//! R37: every border of the address space, approached from both sides, with ranges of every length: a typed error, and
//! not one word of the tables is another; or exactly what a list of stretches says.

use mm::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm::pagetable::{
    Attributes, Change, ChangeError, Level, MapError, PageSize, PageTable, Protection, RangeError,
};
use mm_tests::for_four_configs;
use mm_tests::sim::mmu::bit;
use mm_tests::sim::{Machine, SimConfig};

use crate::oracle::{Dump, Map, Stretch, rights};

const PAGE: u64 = 1 << 12;
const MIB: u64 = 1 << 20;
const HUGE: u64 = 2 * MIB;
const GIB: u64 = 1 << 30;

for_four_configs! {
    with_four_levels_borders_are_kept,
    with_five_levels_borders_are_kept,
}

/// Where something ends or begins, with four levels or five.
const BORDERS: [u64; 14] = [
    0,
    HUGE,
    GIB,
    // The first entry of a root of four levels.
    1 << 39,
    // The end of the lower half with four levels, an entry of a root of five, and the end of the lower half then.
    1 << 47,
    1 << 48,
    1 << 56,
    // Where the upper half begins, with five and with four.
    0xff00_0000_0000_0000,
    0xffff_8000_0000_0000,
    // The direct map, areas, and the kernel's image.
    0xffff_8800_0000_0000,
    0xffff_c900_0000_0000,
    0xffff_ffff_8000_0000,
    // The last 2 MiB, and the end.
    0xffff_ffff_ffe0_0000,
    u64::MAX,
];

/// How far from a border ranges start.
const OFFSETS: [i64; 12] = [
    -0x20_1000, -0x20_0000, -0x2000, -0x1001, -0x1000, -1, 0, 1, 0x800, 0x1000, 0x1f_f000,
    0x20_0000,
];

const LENGTHS: [u64; 17] = [
    0,
    1,
    0xfff,
    PAGE,
    PAGE + 1,
    2 * PAGE,
    HUGE - PAGE,
    HUGE,
    HUGE + PAGE,
    GIB,
    GIB + PAGE,
    1 << 39,
    1 << 47,
    1 << 48,
    1 << 63,
    u64::MAX - 0xfff,
    u64::MAX,
];

/// What is mapped before a request about ranges in use: where, how much, in pages of which size.
const BEFORE: [(u64, u64, PageSize); 16] = [
    (0, 3 * PAGE, PageSize::Size4K),
    (HUGE, HUGE, PageSize::Size2M),
    (GIB, GIB, PageSize::Size1G),
    ((1 << 39) - PAGE, 2 * PAGE, PageSize::Size4K),
    ((1 << 47) - 2 * HUGE, HUGE, PageSize::Size2M),
    ((1 << 47) - 3 * PAGE, 3 * PAGE, PageSize::Size4K),
    ((1 << 48) - HUGE, 2 * HUGE, PageSize::Size2M),
    ((1 << 56) - HUGE, HUGE, PageSize::Size2M),
    (0xff00_0000_0000_0000, 2 * PAGE, PageSize::Size4K),
    (0xff00_0000_0020_0000, HUGE, PageSize::Size2M),
    (0xffff_8000_0000_0000, 2 * PAGE, PageSize::Size4K),
    (0xffff_8000_0020_0000, HUGE, PageSize::Size2M),
    (0xffff_c900_0000_0000, GIB, PageSize::Size1G),
    (0xffff_ffff_8000_0000, 8 * HUGE, PageSize::Size2M),
    (0xffff_ffff_ffc0_0000, HUGE, PageSize::Size2M),
    (0xffff_ffff_ffff_d000, 2 * PAGE, PageSize::Size4K),
];

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Map,
    MapEach,
    Unmap,
    Forbid,
    Join,
}

const OPS: [Op; 5] = [Op::Map, Op::MapEach, Op::Unmap, Op::Forbid, Op::Join];

/// Pages that are mapped one by one at most.
const FEW: u64 = 1024;

/// What is wrong with a range, said once more: `Ok(None)` where it cannot even be named.
fn checked(start: u64, size: u64, levels: u32) -> Result<Option<VirtRange>, RangeError> {
    let end = u128::from(start) + u128::from(size);
    let Ok(end) = u64::try_from(end) else {
        return Ok(None);
    };
    let range = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)).unwrap();
    let half = 1_u64 << if levels == 4 { 47 } else { 56 };
    if size == 0 {
        Err(RangeError::Empty)
    } else if !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
        Err(RangeError::Misaligned(range))
    } else if end <= half || start >= half.wrapping_neg() {
        Ok(Some(range))
    } else {
        Err(RangeError::NotCanonical(range))
    }
}

/// Tables, and what they should map.
struct World<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    tables: PageTable,
    levels: u32,
    map: Map,
}

impl<'m, C: SimConfig> World<'m, C> {
    fn new(machine: &'m Machine<C>, levels: u32, before: &[(u64, u64, PageSize)]) -> Self {
        let root = Level::new(levels as u8).unwrap();
        let mut world = World {
            machine,
            tables: machine.new_page_table(root).unwrap(),
            levels,
            map: Map::default(),
        };
        for &(start, size, largest) in before {
            if checked(start, size, levels).is_ok() {
                world.map_row(start, size, largest).unwrap();
                world.note(start, size);
            }
        }
        world
    }

    /// Maps frames that are aligned as their addresses are.
    fn map_row(&self, start: u64, size: u64, largest: PageSize) -> Result<(), MapError> {
        let frames = PfnRange::from_count(Pfn::new(first_frame(start)), size / PAGE).unwrap();
        let row = (VirtAddr::new(start), frames);
        // SAFETY: nobody runs through these tables; also below.
        unsafe {
            self.machine
                .map_pages(&self.tables, row, Attributes::KERNEL, largest)
        }
    }

    fn note(&mut self, start: u64, size: u64) {
        let stretch = Stretch {
            end: start + size,
            phys: first_frame(start) * PAGE,
            rights: rights(Attributes::KERNEL),
        };
        self.map.insert(start, stretch);
    }

    fn dump(&self) -> Dump {
        Dump::of(self.machine, self.tables.root().addr(), self.levels)
    }

    /// Whether the tables are what they should be.
    fn check(&self) -> Dump {
        let dump = self.dump();
        assert_eq!(dump.map, self.map);
        let counted = self.machine.validate_page_table(&self.tables);
        assert_eq!(counted, Ok(dump.tables));
        // The root, and what it leads to for good.
        let may_be_empty = |level: &u32| level + 1 >= self.levels;
        assert!(dump.empty.iter().all(may_be_empty), "{:?}", dump.empty);
        dump
    }

    fn end(self) {
        // SAFETY: nobody else knows them.
        unsafe { self.machine.destroy_page_table(self.tables) };
    }

    /// Asks for something that is wrong. `false` if it cannot be asked for.
    fn refuses(&self, op: Op, (start, size): (u64, u64), why: Option<RangeError>) -> bool {
        let range = VirtRange::from_size(VirtAddr::new(start), size);
        let range_error = why.unwrap_or(RangeError::NotCanonical(VirtRange::EMPTY));
        if op == Op::Map {
            if !size.is_multiple_of(PAGE) {
                return false;
            }
            let too_many = first_frame(start) + size / PAGE > 1 << 40;
            let expected = match too_many {
                true => MapError::Frames,
                false => MapError::Range(range_error),
            };
            assert_eq!(self.map_row(start, size, PageSize::Size1G), Err(expected));
            return true;
        }
        // Others take a range: one that cannot be named is nobody's affair.
        let Some(range) = range else {
            assert_eq!(why, None);
            return false;
        };
        let change = ChangeError::Range(range_error);
        let found = match op {
            Op::MapEach => {
                // SAFETY: as above.
                let mapped = unsafe {
                    let no_frame = |_| -> Pfn { panic!("nothing is mapped") };
                    self.machine
                        .map_each_page(&self.tables, range, no_frame, Attributes::KERNEL)
                };
                assert_eq!(mapped, Err(MapError::Range(range_error)));
                return true;
            }
            // SAFETY: as above.
            Op::Unmap => unsafe {
                self.machine
                    .unmap_pages(&self.tables, range, |_, _| panic!("nothing is unmapped"))
            },
            // SAFETY: as above.
            Op::Forbid => unsafe { self.machine.change_pages(&self.tables, range, FORBID) },
            // SAFETY: as above.
            Op::Join | Op::Map => unsafe {
                self.machine
                    .join_pages(&self.tables, range, PageSize::Size1G)
            },
        };
        assert_eq!(found.map(drop), Err(change));
        true
    }

    /// Does what can be done, or is refused for what is mapped. Answers whether tables changed; `None` if it was too much.
    fn does(&mut self, op: Op, range: VirtRange) -> Option<bool> {
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        match op {
            Op::Map => {
                let mapped = self.map_row(start, end - start, PageSize::Size1G);
                self.has_mapped(mapped, range)
            }
            Op::MapEach if range.pages() > FEW => None,
            Op::MapEach => {
                let first = first_frame(start);
                let frame_of = |page| Pfn::new(first + page);
                // SAFETY: as above.
                let mapped = unsafe {
                    self.machine
                        .map_each_page(&self.tables, range, frame_of, Attributes::KERNEL)
                };
                self.has_mapped(mapped, range)
            }
            Op::Unmap => {
                let expected = self.map.within(start, end);
                let mut seen = Map::default();
                let sink = |at: VirtAddr, leaf: mm::pagetable::Leaf| {
                    let stretch = Stretch {
                        end: at.as_u64() + leaf.size.bytes(),
                        phys: leaf.phys().as_u64(),
                        rights: rights(leaf.attributes),
                    };
                    seen.insert(at.as_u64(), stretch);
                };
                // SAFETY: as above.
                let receipt =
                    unsafe { self.machine.unmap_pages(&self.tables, range, sink) }.unwrap();
                assert_eq!(seen.within(0, u64::MAX), expected);
                assert!(expected.is_empty() || receipt.range().covers(range));
                self.map.remove(start, end);
                Some(!expected.is_empty())
            }
            Op::Forbid => {
                // SAFETY: as above.
                let changed = unsafe { self.machine.change_pages(&self.tables, range, FORBID) };
                match changed {
                    Ok(receipt) => {
                        assert!(self.map.is_full(start, end));
                        assert!(receipt.range().covers(range));
                        self.map.change(start, end, |rights| rights & !bit::RW);
                        Some(true)
                    }
                    Err(ChangeError::NotMapped(at)) => {
                        let at = at.as_u64();
                        assert!((start..end).contains(&at) && self.map.at(at).is_none());
                        Some(false)
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Join => {
                // SAFETY: as above.
                let joined = unsafe {
                    self.machine
                        .join_pages(&self.tables, range, PageSize::Size1G)
                };
                joined.unwrap().complete();
                // As large as can be already, but where small pages meet at 2 MiB: nothing does here.
                Some(false)
            }
        }
    }

    fn has_mapped(&mut self, mapped: Result<(), MapError>, range: VirtRange) -> Option<bool> {
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        match mapped {
            Ok(()) => {
                assert!(self.map.is_empty(start, end));
                self.note(start, end - start);
                Some(true)
            }
            Err(MapError::Occupied(at)) => {
                let at = at.as_u64();
                assert!((start..end).contains(&at) && self.map.at(at).is_some());
                Some(false)
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// What the CPU would find at an address, and what comes next.
    fn looks_at(&self, at: u64) {
        let walk = self.machine.walk(&self.tables, VirtAddr::new(at));
        let found = self.map.at(at);
        let phys = found.map(|(start, stretch)| stretch.phys + (at - start));
        let half = 1_u64 << if self.levels == 4 { 47 } else { 56 };
        let is_canonical = at < half || at >= half.wrapping_neg();
        assert_eq!(walk.steps().next().is_some(), is_canonical, "{at:#x}");
        assert_eq!(
            walk.phys(VirtAddr::new(at)).map(|phys| phys.as_u64()),
            phys,
            "{at:#x}"
        );
        let next = self.machine.next_leaf(&self.tables, VirtAddr::new(at));
        let expected = self.map.within(at, u64::MAX);
        match (next, expected.first()) {
            (None, None) => {}
            (Some((start, leaf)), Some((first, stretch))) => {
                // A page that the address lies in begins before it.
                let skipped = first.checked_sub(start.as_u64()).unwrap();
                assert!(skipped < leaf.size.bytes(), "{at:#x}: {start:?}");
                assert_eq!(leaf.phys().as_u64() + skipped, stretch.phys);
            }
            (found, expected) => panic!("{at:#x}: {found:?}, not {expected:x?}"),
        }
        let span = self.machine.next_span(&self.tables, VirtAddr::new(at));
        assert_eq!(span.map(|span| span.range.start()), next.map(|(at, _)| at));
    }
}

const FORBID: Change = Change::Forbid(Protection::WRITE);

/// The frame that an address is mapped to: aligned as the address is, in 1 GiB.
fn first_frame(start: u64) -> u64 {
    (1 << 18) + start / PAGE % (1 << 18)
}

fn with_four_levels_borders_are_kept<C: SimConfig>() {
    borders_are_kept::<C>(4);
}

fn with_five_levels_borders_are_kept<C: SimConfig>() {
    borders_are_kept::<C>(5);
}

fn borders_are_kept<C: SimConfig>(levels: u32) {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let mut empty = World::new(&machine, levels, &[]);
    let mut used = World::new(&machine, levels, &BEFORE);
    let (mut refused, mut done) = (0, 0);
    let mut as_before = used.check();
    for border in BORDERS {
        for offset in OFFSETS {
            let start = border.wrapping_add_signed(offset);
            empty.looks_at(start);
            used.looks_at(start);
            for (size, op) in LENGTHS.iter().flat_map(|&size| OPS.map(|op| (size, op))) {
                let range = match checked(start, size, levels) {
                    Ok(Some(range)) => range,
                    wrong => {
                        if used.refuses(op, (start, size), wrong.err()) {
                            assert!(used.dump() == as_before, "{op:?} {start:#x} {size:#x}");
                            refused += 1;
                        }
                        continue;
                    }
                };
                let changed = used.does(op, range);
                done += usize::from(changed.is_some());
                if changed == Some(true) {
                    used.check();
                    used.end();
                    used = World::new(&machine, levels, &BEFORE);
                    as_before = used.check();
                } else {
                    // Not one word is another.
                    assert!(used.dump() == as_before, "{op:?} {range:?}");
                }
                // Where nothing is mapped, all can be.
                if empty.does(op, range) == Some(true) {
                    empty.check();
                    assert_eq!(empty.does(Op::Unmap, range), Some(true));
                    assert_eq!(empty.check().map.len(), 0);
                    done += 2;
                }
                let _ = machine.grace().quiescent();
            }
        }
    }
    println!("{refused} refused, {done} done");
    assert!(refused > 6_000 && done > 3_000);
    for world in [empty, used] {
        world.check();
        world.end();
    }
    machine.grace().barrier().unwrap();
    machine.finish();
}
