//! Random maps, unmaps, changes and joins with pages of all sizes, against the model (R36).

use mm::addr::{Pfn, PfnRange, VirtRange};
use mm::pagetable::{Attributes, Cache, Change, Level, PageSize, Protection};
use mm_tests::for_every_config;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Machine, SimConfig};

use crate::model::{Tables, USER, range};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

for_every_config! {
    random_changes_agree_with_a_map,
}

/// Windows of addresses where most happens: low, across borders of every size, and high.
const WINDOWS: [u64; 4] = [
    0x40_0000,
    0x7fff_c000_0000,
    0xffff_c900_0000_0000,
    0xffff_c97f_ff00_0000,
];

fn random_changes_agree_with_a_map<C: SimConfig>() {
    let mut random = Random::new(seed("random_changes"));
    let machine = Machine::<C>::with_ram(64 * MIB);
    let root = [Level::P4D, Level::PGD][random.below(2) as usize];
    let mut tables = Tables::new(&machine, root);
    let attributes = [
        Attributes::KERNEL,
        Attributes::KERNEL_RX,
        Attributes::KERNEL_IO,
        USER,
    ];
    for round in 0..cases(300) {
        let window = WINDOWS[random.below(4) as usize];
        let unit = [4096, 4096, 2 * MIB, GIB][random.below(4) as usize];
        let start = window + random.below(24) * unit + random.below(3) * 4096;
        let count = match random.below(4) {
            0 => 1,
            1 => 1 + random.below(40),
            2 => 512 * (1 + random.below(3)),
            _ => (unit / 4096).min(262_144) + random.below(3),
        };
        let Some(range) = clipped(range(start, count * 4096)) else {
            continue;
        };
        match random.below(8) {
            0..=2 => {
                // Now and then aligned like the address, so that large pages fit.
                let first = match random.below(3) {
                    0 => random.below(1 << 20),
                    _ => start / 4096 % (1 << 24),
                };
                let frames = PfnRange::from_count(Pfn::new(first), range.pages()).unwrap();
                let attributes = attributes[random.below(4) as usize];
                let largest = PageSize::ALL[random.below(3) as usize];
                let _ = tables.map(range.start().as_u64(), frames, attributes, largest);
            }
            3 | 4 => tables.unmap(range),
            5 => {
                let change = match random.below(4) {
                    0 => Change::Forbid(Protection::WRITE),
                    1 => Change::Allow(Protection::WRITE),
                    2 => Change::Cache(Cache::WriteThrough),
                    _ => Change::Cache(Cache::WriteBack),
                };
                let _ = tables.protect(range, change);
            }
            6 => tables.join(range, PageSize::ALL[1 + random.below(2) as usize]),
            _ => tables.compare_at(range.start().as_u64()),
        }
        if round % 50 == 0 {
            tables.check();
        }
    }
    for window in WINDOWS {
        tables.unmap(clipped(range(window, 64 * GIB)).unwrap());
    }
    let left = tables.check();
    assert!(left <= 1 + 5, "the root, and what it leads to: {left}");
    tables.finish();
    machine.finish();
}

/// What of a range does not reach into the hole between the halves.
fn clipped(range: VirtRange) -> Option<VirtRange> {
    let hole = mm::addr::VirtAddr::new(0x8000_0000_0000);
    let is_high = range.start().as_u64() >= 0xffff_8000_0000_0000;
    let end = if is_high {
        range.end()
    } else {
        range.end().min(hole)
    };
    VirtRange::new(range.start(), end).filter(|clipped| !clipped.is_empty())
}
