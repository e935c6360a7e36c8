//! Tables are built in a map and walked as the CPU walks them.

use std::collections::HashMap;
use std::vec::Vec;

use bootloader_api::info::MemoryRegion;
use proptest::prelude::{any, proptest};
use proptest::{collection, prop_assert_eq};

use super::{
    ADDRESS, FRAMEBUFFER_WINDOW, LARGE, MapError, NO_EXECUTE, PRESENT, PageSize, Plan, Tables,
    UNCACHED, WRITE, build,
};
use crate::image::{Image, VIRTUAL_OFFSET};
use crate::levels::Levels;
use crate::regions::Regions;

const OFFSET: u64 = 0xffff_8800_0000_0000;
/// The entry code's table for the identity map: in the image, where it has an address of its own.
const LOW: u64 = 2 * MIB + 0x7000;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Page tables of which at most `left` can be made.
struct Model {
    entries: HashMap<(u64, u64), u64>,
    next: u64,
    left: usize,
    levels: Levels,
}

impl Tables for Model {
    fn allocate(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.next += 0x1000;
        Some(self.next)
    }

    fn read(&self, table: u64, index: u64) -> u64 {
        assert!(index < 512);
        self.entries.get(&(table, index)).copied().unwrap_or(0)
    }

    fn write(&mut self, table: u64, index: u64, entry: u64) {
        assert!(index < 512);
        self.entries.insert((table, index), entry);
    }
}

/// A translation: physical address, page size in bytes, and the flags of the last entry.
type Seen = Option<(u64, u64, u64)>;

impl Model {
    fn walk(&self, root: u64, at: u64) -> Seen {
        let mut table = root;
        let above = (self.levels == Levels::Five).then_some(48);
        for shift in above.into_iter().chain([39, 30, 21, 12]) {
            let entry = self.read(table, at >> shift & 511);
            if entry & PRESENT == 0 {
                return None;
            }
            let size = 1 << shift;
            if shift == 12 || entry & LARGE != 0 {
                assert_eq!(entry & ADDRESS & (size - 1) & !0xfff, 0);
                let flags = entry & !ADDRESS & !LARGE & !PRESENT;
                return Some(((entry & ADDRESS) + at % size, size, flags));
            }
            table = entry & ADDRESS;
        }
        None
    }
}

fn image() -> Image {
    let at = |offset: u64| VIRTUAL_OFFSET + 2 * MIB + offset;
    Image {
        all: (at(0), at(0x9000)),
        text: (at(0), at(0x2000)),
        rodata: (at(0x2000), at(0x3000)),
        data: (at(0x3000), at(0x9000)),
        stack_guard: at(0x4000),
        stack_bottom: at(0x5000),
        stack_top: at(0x7000),
        config: (0, 0),
        entry: at(0),
        low_pointers: VIRTUAL_OFFSET + LOW,
        map_form: 0,
        use_five_levels: 0,
        early_tables: (at(0x7000), at(0x8000)),
    }
}

struct Case<'a> {
    map: &'a [(u64, u64, u32)],
    offset: u64,
    largest: PageSize,
    framebuffer: Option<(u64, u64)>,
    tables: usize,
    levels: Levels,
}

const USUAL: Case<'_> = Case {
    map: &[
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x400, 2),
        (MIB, 3 * GIB - MIB, 1),
        (4 * GIB, 2 * GIB, 1),
        (0xfd_0000_0000, 12 * GIB, 2),
    ],
    offset: OFFSET,
    largest: PageSize::Size1GiB,
    framebuffer: None,
    tables: usize::MAX,
    levels: Levels::Four,
};

const FIVE: Case<'_> = Case {
    levels: Levels::Five,
    ..USUAL
};

impl Case<'_> {
    fn build(&self) -> Result<(Model, u64), MapError> {
        let mut storage = [MemoryRegion::empty(); 64];
        let mut regions = Regions::new(&mut storage, 64);
        for (start, size, kind) in self.map {
            regions.push_bios(*start, *size, *kind);
        }
        let plan = Plan {
            regions: &regions,
            image: &image(),
            levels: self.levels,
            offset: self.offset,
            physical_end: 1 << 40,
            largest: self.largest,
            framebuffer: self.framebuffer,
        };
        // As the entry code leaves it, but with larger pages.
        let page = |index| (index * GIB) | LARGE | WRITE | PRESENT;
        let low = (0..4).map(|index| ((LOW, index), page(index))).collect();
        let mut model = Model {
            entries: low,
            next: 0x100_0000,
            left: self.tables,
            levels: self.levels,
        };
        let root = build(&mut model, &plan)?;
        Ok((model, root))
    }
}

#[test]
fn sections_have_their_rights_and_the_stack_its_guard() {
    let (model, root) = USUAL.build().unwrap();
    let start = VIRTUAL_OFFSET + 2 * MIB;
    let rights = [
        Some(0),
        Some(0),
        Some(NO_EXECUTE),
        Some(WRITE | NO_EXECUTE),
        None,
        Some(WRITE | NO_EXECUTE),
        Some(WRITE | NO_EXECUTE),
        Some(WRITE | NO_EXECUTE),
        Some(WRITE | NO_EXECUTE),
        None,
    ];
    for (offset, flags) in (0_u64..).step_by(0x1000).zip(rights) {
        let expected = flags.map(|flags| (2 * MIB + offset, 0x1000, flags));
        assert_eq!(model.walk(root, start + offset), expected, "{offset:#x}");
    }
    let low = model.read(root, 0);
    assert_eq!(low, LOW | PRESENT | WRITE | NO_EXECUTE);
}

#[test]
fn memory_is_mapped_by_the_largest_pages_that_fit() {
    let (model, root) = USUAL.build().unwrap();
    let data = WRITE | NO_EXECUTE;
    let device = data | UNCACHED;
    let expected = [
        (0x9_e000, Some((0x1000, data))),
        // A page that is RAM in part only.
        (0x9_f000, Some((0x1000, device))),
        (0xf_f000, Some((0x1000, device))),
        (MIB, Some((0x1000, data))),
        (2 * MIB, Some((2 * MIB, data))),
        (GIB, Some((GIB, data))),
        // A hole below 4 GiB: devices.
        (0xfee0_0000, Some((GIB, device))),
        (4 * GIB, Some((GIB, data))),
        (6 * GIB - 1, Some((GIB, data))),
        // Holes and reserved memory above: nothing.
        (6 * GIB, None),
        (0xfd_0000_0000, None),
    ];
    for (at, entry) in expected {
        let expected = entry.map(|(size, flags)| (at, size, flags));
        assert_eq!(model.walk(root, OFFSET + at), expected, "{at:#x}");
    }
    // Top, image: 3, physical memory: pointers, first GiB, first 2 MiB.
    assert_eq!(model.next, 0x100_0000 + 7 * 0x1000);
}

#[test]
fn without_large_pages_more_tables_say_the_same() {
    let (model, root) = USUAL.build().unwrap();
    let smaller = Case {
        largest: PageSize::Size2MiB,
        ..USUAL
    };
    let (other, other_root) = smaller.build().unwrap();
    for at in (0..8 * GIB).step_by(0x1f_f000) {
        let strip = |seen: Seen| seen.map(|(physical, _, flags)| (physical, flags));
        let expected = strip(model.walk(root, OFFSET + at));
        assert_eq!(strip(other.walk(other_root, OFFSET + at)), expected);
    }
}

#[test]
fn the_first_4_gib_are_where_they_are_and_never_executed() {
    for case in [USUAL, FIVE] {
        let (model, root) = case.build().unwrap();
        for at in [0, 0xb_8000, 3 * GIB + 0x5000, 4 * GIB - 1] {
            let entry = model.read(LOW, at / GIB);
            assert_ne!(entry & NO_EXECUTE, 0, "for who takes the table over");
            let expected = Some((at, GIB, WRITE | NO_EXECUTE));
            assert_eq!(model.walk(root, at), expected);
        }
        assert_eq!(model.walk(root, 4 * GIB), None);
        assert_eq!(model.read(LOW, 4), 0);
    }
}

#[test]
fn five_levels_say_the_same() {
    let four = USUAL.build().unwrap();
    let five = FIVE.build().unwrap();
    let (image, memory) = (VIRTUAL_OFFSET + 2 * MIB, OFFSET);
    let image = (0..0xa000).step_by(0x1000).map(|offset| image + offset);
    let memory = (0..8 * GIB).step_by(0xf_f000).map(|at| memory + at);
    for at in image.chain(memory) {
        let seen = five.0.walk(five.1, at);
        assert_eq!(seen, four.0.walk(four.1, at), "{at:#x}");
    }
    // One table more at the top, and one for the identity map.
    assert_eq!(five.0.next, four.0.next + 2 * 0x1000);
    let lowest = five.0.read(five.1, 0);
    assert_eq!(lowest & !ADDRESS, PRESENT | WRITE);
    let low = five.0.read(lowest & ADDRESS, 0);
    assert_eq!(low, LOW | PRESENT | WRITE | NO_EXECUTE);
    // Nothing that four levels have not.
    let used = (0..512).filter(|index| five.0.read(five.1, *index) != 0);
    assert!(used.eq([0, 511]));
    assert_eq!(five.0.walk(five.1, 0x00ff_8000_0000_0000), None);
}

#[test]
fn the_framebuffer_has_its_window() {
    let case = Case {
        framebuffer: Some((0xfd00_0800, 0x1f_f900)),
        ..USUAL
    };
    let (model, root) = case.build().unwrap();
    let flags = WRITE | NO_EXECUTE | 1 << 4;
    let seen = model.walk(root, FRAMEBUFFER_WINDOW + 0x900);
    assert_eq!(seen, Some((0xfd00_0900, 0x20_0000, flags)));
    assert!(model.walk(root, FRAMEBUFFER_WINDOW + 0x20_0000).is_some());
    assert_eq!(model.walk(root, FRAMEBUFFER_WINDOW + 0x20_1000), None);
}

#[test]
fn impossible_offsets_are_refused() {
    let outcome = |offset| Case { offset, ..USUAL }.build().map(|_| ()).unwrap_err();
    for offset in [0x800, 1 << 47, 0xffff_7fff_ffff_f000] {
        assert_eq!(outcome(offset), MapError::Offset { offset });
    }
    // Whatever the number of levels: a kernel is built for both.
    let offset = 1 << 47;
    let outcome_of_five = Case { offset, ..FIVE }.build().map(|_| ());
    assert_eq!(outcome_of_five, Err(MapError::Offset { offset }));
    // On the identity map, and on the kernel's image.
    assert_eq!(outcome(0), MapError::Occupied { at: 0 });
    let outcome_of_five = Case { offset: 0, ..FIVE }.build().map(|_| ());
    assert_eq!(outcome_of_five, Err(MapError::Occupied { at: 0 }));
    let offset = VIRTUAL_OFFSET;
    assert_eq!(outcome(offset), MapError::NoRoom { offset, at: 0 });
    let offset = 0x7fff_0000_0000;
    assert_eq!(
        outcome(offset),
        MapError::NoRoom {
            offset,
            at: 4 * GIB
        }
    );
    // The lower half is as good as the upper one.
    let lower = Case {
        offset: 0x1800_0000_0000,
        ..USUAL
    };
    let (model, root) = lower.build().unwrap();
    let seen = model.walk(root, 0x1800_0000_0000 + GIB);
    assert_eq!(seen, Some((GIB, GIB, WRITE | NO_EXECUTE)));
}

#[test]
fn running_out_of_tables_at_any_point_is_an_error() {
    for (case, needed) in [(USUAL, 7), (FIVE, 9)] {
        for tables in 0..needed {
            let outcome = Case { tables, ..case }.build().map(|_| ());
            assert_eq!(outcome, Err(MapError::OutOfTables), "{tables}");
        }
        let tables = needed;
        assert!(Case { tables, ..case }.build().is_ok());
    }
}

proptest! {
    #[test]
    fn any_map_is_mapped_truly(
        map in collection::vec((0..0x2000_u64, 0..0x2000_u64, 1..4_u32), 0..12),
        probes in collection::vec(0..0x4000_u64, 64),
        fraction in 0..0x1000_u64,
        large in any::<bool>(),
        five in any::<bool>(),
    ) {
        // In units of 1 MiB, from 0 to 16 GiB, with ends inside pages.
        let map: Vec<_> = map
            .iter()
            .map(|(start, size, kind)| (start * MIB + fraction, size * MIB, *kind))
            .collect();
        let largest = if large { PageSize::Size1GiB } else { PageSize::Size2MiB };
        let (model, root) = {
            let usual = if five { FIVE } else { USUAL };
            Case { map: &map, largest, ..usual }.build()
        }.unwrap();

        let mut storage = [MemoryRegion::empty(); 16];
        let mut regions = Regions::new(&mut storage, 16);
        for (start, size, kind) in &map {
            regions.push_bios(*start, *size, *kind);
        }
        for probe in probes {
            let at = probe * MIB + fraction / 0x800 * 0x1000;
            let flags = match (regions.run_at(at).is_ram, at < 4 * GIB) {
                (true, _) => Some(WRITE | NO_EXECUTE),
                (false, true) => Some(WRITE | NO_EXECUTE | UNCACHED),
                (false, false) => None,
            };
            let seen = model.walk(root, OFFSET + at);
            let expected = flags.map(|flags| (at, flags));
            prop_assert_eq!(seen.map(|(physical, _, flags)| (physical, flags)), expected);
        }
    }
}
