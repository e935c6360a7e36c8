//! R36: pages of 4 KiB, 2 MiB and 1 GiB, mapped, unmapped, changed, cut and joined at random, against stretches of
//! addresses: what large pages cost here is the same as small ones, so there are 100,000 changes, and all of what the tables
//! say is read again and again. No table is live that has no entry.

use mm::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm::pagetable::{
    Attributes, Cache, Change, ChangeError, Leaf, Level, MapError, PageSize, PageTable, Protection,
};
use mm_tests::for_four_configs;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::mmu::bit;
use mm_tests::sim::{Machine, SimConfig};

use crate::model::USER;
use crate::oracle::{Dump, Map, Stretch, rights};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

for_four_configs! {
    sizes_are_mixed,
}

#[test]
fn sizes_are_mixed_a_hundred_thousand_times() {
    mixed::<mm_tests::sim::Usual>(cases(100_000));
}

fn sizes_are_mixed<C: SimConfig>() {
    mixed::<C>(cases(5_000));
}

/// Where most happens: low, across the borders of tables of every level, and high.
const WINDOWS: [u64; 4] = [
    0x40_0000,
    0x7f80_0000_0000 - 4 * GIB,
    0xffff_c900_0000_0000,
    0xffff_c97f_ff00_0000,
];

/// Tables beside what they should say.
struct Mixed<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    tables: PageTable,
    levels: u32,
    map: Map,
    /// How often each of the operations did something.
    done: [u64; 4],
}

fn mixed<C: SimConfig>(rounds: u64) {
    let mut random = Random::new(seed("mixed"));
    let machine = Machine::<C>::with_ram(256 * MIB);
    assert!(machine.drain_all_pages());
    let free = machine.free_frames();
    let levels = 4 + random.below(2) as u32;
    let root = Level::new(levels as u8).unwrap();
    let mut mixed = Mixed {
        machine: &machine,
        tables: machine.new_page_table(root).unwrap(),
        levels,
        map: Map::default(),
        done: [0; 4],
    };
    for round in 0..rounds {
        mixed.step(&mut random);
        if round % 250 == 0 {
            mixed.check();
        }
        if round % 5_000 == 0 {
            mixed.compare_frames(free);
            // From nothing, every now and then.
            mixed.unmap(range(0, 1 << 47));
            mixed.unmap(range(0xffff_8000_0000_0000, (1 << 47) - PAGE));
            // The root, and what it leads to for good.
            assert!(mixed.check().tables <= 1 + 5);
        }
    }
    mixed.compare_frames(free);
    println!("{:?} of {rounds} did something", mixed.done);
    let [mapped, unmapped, changed, joined] = mixed.done;
    let least = mapped.min(unmapped).min(changed);
    assert!(least * 50 > rounds && joined * 1_000 > rounds);
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(mixed.tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}

fn range(start: u64, size: u64) -> VirtRange {
    VirtRange::from_size(VirtAddr::new(start), size).unwrap()
}

impl<C: SimConfig> Mixed<'_, C> {
    fn step(&mut self, random: &mut Random) {
        let window = WINDOWS[random.below_index(4)];
        let size = PageSize::ALL[random.below_index(3)];
        let unit = size.bytes();
        let jitter = [0, 0, PAGE, 3 * PAGE][random.below_index(4)];
        let start = window / unit * unit + random.below(10) * unit + jitter;
        let count = 1 + random.below(4);
        let ragged = [0, 0, 0, PAGE][random.below_index(4)];
        let whole = range(start, count * unit + ragged);
        match random.below(16) {
            0..=5 => {
                // Mostly aligned like the address, so that large pages fit.
                let first = match random.below(16) {
                    0 => random.below(1 << 20),
                    _ => start / PAGE % (1 << 24),
                };
                let largest = PageSize::ALL[random.below_index(3)];
                // Millions of small pages are nobody's affair.
                if largest == PageSize::Size4K && size == PageSize::Size1G {
                    return;
                }
                let attributes = [
                    Attributes::KERNEL,
                    Attributes::KERNEL_RX,
                    Attributes::KERNEL_IO,
                    USER,
                ];
                self.map(whole, first, attributes[random.below_index(4)], largest);
            }
            6..=9 => self.unmap(whole),
            10..=13 => {
                let change = [
                    Change::Forbid(Protection::WRITE),
                    Change::Allow(Protection::WRITE),
                    Change::Cache(Cache::WriteThrough),
                    Change::Cache(Cache::WriteBack),
                ][random.below_index(4)];
                // Something that is mapped, or a part of it.
                let found = self.map.within(start, start + whole.size());
                let part = found.first().filter(|_| random.below(8) != 0);
                let part = part.map_or(whole, |(at, stretch)| {
                    let pages = (stretch.end - at) / PAGE;
                    let skipped = random.below(pages.min(600));
                    range(at + skipped * PAGE, (pages - skipped) * PAGE)
                });
                self.change(part, change);
            }
            14 => self.join(
                whole,
                [PageSize::Size2M, PageSize::Size1G][random.below_index(2)],
            ),
            _ => {}
        }
        for _ in 0..2 {
            self.look(start + random.below(count * unit));
        }
    }

    fn map(&mut self, range: VirtRange, first: u64, attributes: Attributes, largest: PageSize) {
        // All of the kernel's pages are.
        let global = (range.start().as_u64() >> 63) * bit::G;
        let frames = PfnRange::from_count(Pfn::new(first), range.pages()).unwrap();
        let row = (range.start(), frames);
        // SAFETY: nobody runs through these tables; also below.
        let mapped = unsafe {
            self.machine
                .map_pages(&self.tables, row, attributes, largest)
        };
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        match mapped {
            Ok(()) => {
                assert!(self.map.is_empty(start, end), "{range:?}");
                let stretch = Stretch {
                    end,
                    phys: first * PAGE,
                    rights: rights(attributes) | global,
                };
                self.map.insert(start, stretch);
                self.done[0] += 1;
            }
            Err(MapError::Occupied(at)) => {
                assert!(range.contains(at) && self.map.at(at.as_u64()).is_some());
            }
            Err(error) => panic!("{range:?}: {error}"),
        }
    }

    fn unmap(&mut self, range: VirtRange) {
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        let expected = self.map.within(start, end);
        let mut seen = Map::default();
        let sink = |at: VirtAddr, leaf: Leaf| {
            let stretch = Stretch {
                end: at.as_u64() + leaf.size.bytes(),
                phys: leaf.phys().as_u64(),
                rights: rights(leaf.attributes),
            };
            seen.insert(at.as_u64(), stretch);
        };
        // SAFETY: as above.
        let receipt = unsafe { self.machine.unmap_pages(&self.tables, range, sink) }.unwrap();
        assert_eq!(seen.within(0, u64::MAX), expected);
        assert!(expected.is_empty() || receipt.range().covers(range));
        receipt.complete();
        self.map.remove(start, end);
        self.done[1] += u64::from(!expected.is_empty());
    }

    fn change(&mut self, range: VirtRange, change: Change) {
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        // SAFETY: as above.
        let changed = unsafe { self.machine.change_pages(&self.tables, range, change) };
        match changed {
            Ok(receipt) => {
                assert!(self.map.is_full(start, end), "{range:?}");
                receipt.complete();
                self.map
                    .change(start, end, |rights| changed_by(change, rights));
                self.done[2] += 1;
            }
            Err(ChangeError::NotMapped(at)) => {
                assert!(range.contains(at) && self.map.at(at.as_u64()).is_none());
            }
            Err(error) => panic!("{range:?}: {error}"),
        }
    }

    fn join(&mut self, range: VirtRange, largest: PageSize) {
        // SAFETY: as above.
        let joined = unsafe { self.machine.join_pages(&self.tables, range, largest) };
        let joined = joined.unwrap();
        self.done[3] += u64::from(!joined.range().is_empty());
        joined.complete();
    }

    /// One address, by the walk of the CPU.
    fn look(&self, at: u64) {
        let walk = self.machine.walk(&self.tables, VirtAddr::new(at));
        let found = walk.phys(VirtAddr::new(at)).map(|phys| phys.as_u64());
        let expected = self.map.at(at);
        let phys = expected.map(|(start, stretch)| stretch.phys + (at - start));
        assert_eq!(found, phys, "{at:#x}");
        let found = walk.leaf().map(|leaf| rights(leaf.attributes));
        assert_eq!(found, expected.map(|(_, stretch)| stretch.rights));
    }

    /// Everything, as it lies in RAM.
    fn check(&self) -> Dump {
        let dump = Dump::of(self.machine, self.tables.root().addr(), self.levels);
        assert_eq!(dump.map, self.map);
        let counted = self.machine.validate_page_table(&self.tables);
        assert_eq!(counted, Ok(dump.tables));
        // The root, and what it leads to for good.
        let may_be_empty = |level: &u32| level + 1 >= self.levels;
        assert!(dump.empty.iter().all(may_be_empty), "{:?}", dump.empty);
        dump
    }

    /// The frames that are not free any more are the tables that are found: none is lost, none was forgotten.
    fn compare_frames(&self, free: u64) {
        let tables = self.check().tables;
        self.machine.grace().barrier().unwrap();
        assert!(self.machine.drain_all_pages());
        assert_eq!(free - self.machine.free_frames(), tables);
    }
}

/// Rights after a change.
fn changed_by(change: Change, rights: u64) -> u64 {
    const CACHE: u64 = 1 << 3 | 1 << 4 | 1 << 7;
    match change {
        Change::Forbid(_) => rights & !bit::RW,
        Change::Allow(_) => rights | bit::RW,
        Change::Cache(Cache::WriteThrough) => rights | CACHE,
        _ => rights & !CACHE,
    }
}
