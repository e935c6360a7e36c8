//! Sizes, splitting, joining, and the frames of tables.

use mm::addr::{Pfn, PfnRange, VirtAddr};
use mm::pagetable::{Attributes, Cache, Change, Decoded, Level, MapError, PageSize, Protection};
use mm_tests::for_every_config;
use mm_tests::sim::{Machine, SimConfig};

use crate::model::{Tables, range};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const BASE: u64 = 0xffff_c900_0000_0000;

for_every_config! {
    the_largest_pages_that_fit_are_used,
    parts_of_large_pages_can_be_changed_and_put_together_again,
    tables_without_entries_are_freed,
    what_is_mapped_is_not_mapped_again,
    a_small_page_in_the_way_of_large_ones_is_named,
    pages_out_of_reach_keep_their_frames,
    what_is_out_of_reach_stays_mapped_whatever_is_changed,
    five_levels_reach_further,
    tables_of_others_are_left_alone,
    tables_of_others_stay_when_what_is_beside_them_goes,
}

fn frames(first: u64, count: u64) -> PfnRange {
    PfnRange::from_count(Pfn::new(first), count).unwrap()
}

fn sizes<C: SimConfig>(tables: &Tables<'_, C>, mut at: u64) -> Vec<PageSize> {
    let mut found = Vec::new();
    while let Some((start, leaf)) = tables.memory.next_leaf(&tables.tables, VirtAddr::new(at)) {
        found.push(leaf.size);
        at = start.as_u64() + leaf.size.bytes();
    }
    found
}

fn the_largest_pages_that_fit_are_used<C: SimConfig>() {
    use PageSize::{Size1G, Size2M, Size4K};
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut tables = Tables::new(&machine, Level::P4D);
    // From two pages before a border of 1 GiB to two pages behind the next but one.
    let start = BASE + GIB - 2 * 4096;
    let row = frames((1 << 30) - 2, 2 + 2 * 262_144 + 512 + 2);
    tables.map(start, row, Attributes::KERNEL, Size1G).unwrap();
    let expected = [Size4K, Size4K, Size1G, Size1G, Size2M, Size4K, Size4K];
    assert_eq!(sizes(&tables, BASE), expected);
    tables.check();
    // As far as the frames are aligned like the addresses only.
    let other = BASE + 16 * GIB;
    tables
        .map(other, frames(512, 1024), Attributes::KERNEL, Size1G)
        .unwrap();
    assert_eq!(sizes(&tables, other), [Size2M, Size2M]);
    tables.unmap(range(other, 4 * MIB));
    tables
        .map(other, frames(511, 600), Attributes::KERNEL, Size1G)
        .unwrap();
    assert!(sizes(&tables, other).iter().all(|&size| size == Size4K));
    tables.unmap(range(other, GIB));
    tables
        .map(other, frames(512, 1024), Attributes::KERNEL, Size4K)
        .unwrap();
    assert_eq!(sizes(&tables, other).len(), 1024);
    tables.finish();
    machine.finish();
}

fn parts_of_large_pages_can_be_changed_and_put_together_again<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut tables = Tables::new(&machine, Level::P4D);
    tables
        .map(
            BASE,
            frames(0, 2 * 262_144),
            Attributes::KERNEL,
            PageSize::Size1G,
        )
        .unwrap();
    let before = tables.check();
    // One page in the middle of a page of 1 GiB.
    let page = range(BASE + 5 * MIB, 4096);
    tables
        .protect(page, Change::Forbid(Protection::WRITE))
        .unwrap();
    assert_eq!(tables.check(), before + 2);
    tables.compare_at(page.start().as_u64());
    assert_eq!(sizes(&tables, BASE).len(), 511 + 512 + 1);
    tables
        .protect(page, Change::Allow(Protection::WRITE))
        .unwrap();
    tables.join(range(BASE, 2 * GIB), PageSize::Size1G);
    assert_eq!(tables.check(), before);
    assert_eq!(sizes(&tables, BASE), [PageSize::Size1G; 2]);

    // Across the border of two of them, and caching.
    let across = range(BASE + GIB - 4096, 8192);
    tables
        .protect(across, Change::Cache(Cache::WriteThrough))
        .unwrap();
    tables.check();
    tables.join(range(BASE, 2 * GIB), PageSize::Size1G);
    assert_eq!(
        sizes(&tables, BASE).len(),
        2 * (511 + 512),
        "no two are alike"
    );
    tables
        .protect(across, Change::Cache(Cache::WriteBack))
        .unwrap();
    tables.join(range(BASE, GIB), PageSize::Size2M);
    assert_eq!(sizes(&tables, BASE).len(), 512 + 511 + 512);
    tables.check();

    // Unmapping a part splits too.
    tables.join(range(BASE, 2 * GIB), PageSize::Size1G);
    tables.unmap(range(BASE + GIB / 2, GIB));
    tables.check();
    tables.finish();
    machine.finish();
}

fn tables_without_entries_are_freed<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut tables = Tables::new(&machine, Level::P4D);
    assert_eq!(tables.check(), 1);
    for count in [1, 3, 512, 1024, 5000] {
        for offset in [0, 4096, 2 * MIB - 4096, GIB - 2 * 4096] {
            let start = BASE + offset;
            tables
                .map(
                    start,
                    frames(7, count),
                    Attributes::KERNEL,
                    PageSize::Size4K,
                )
                .unwrap();
            let tables_now = tables.check();
            assert!(tables_now > 3);
            // Piece by piece, from both ends.
            tables.unmap(range(start, 4096));
            if count > 1 {
                tables.unmap(range(start + (count - 1) * 4096, 4096));
            }
            tables.unmap(range(start, count * 4096));
            // The root, and the table that it leads to for good.
            assert_eq!(tables.check(), 2, "{count} pages at {offset:#x}");
        }
    }
    tables.finish();
    machine.finish();
}

fn what_is_mapped_is_not_mapped_again<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut tables = Tables::new(&machine, Level::P4D);
    let kernel = Attributes::KERNEL;
    tables
        .map(BASE + 2 * MIB, frames(512, 512), kernel, PageSize::Size2M)
        .unwrap();
    let held = tables.check();
    let occupied = MapError::Occupied(VirtAddr::new(BASE + 2 * MIB));
    for (start, count) in [(0, 513), (0, 1024), (2 * MIB, 1), (0, 262_144)] {
        let outcome = tables.map(BASE + start, frames(0, count), kernel, PageSize::Size2M);
        assert_eq!(outcome, Err(occupied));
        assert_eq!(tables.check(), held, "nothing is left of the attempt");
    }
    let inside = tables.map(BASE + 3 * MIB, frames(0, 1), kernel, PageSize::Size4K);
    assert!(matches!(inside, Err(MapError::Occupied(_))));
    tables
        .map(BASE, frames(0, 512), kernel, PageSize::Size4K)
        .unwrap();
    let at = BASE + 2 * MIB - 4096;
    let outcome = tables.map(at, frames(9, 1), kernel, PageSize::Size4K);
    assert_eq!(outcome, Err(MapError::Occupied(VirtAddr::new(at))));
    tables.finish();
    machine.finish();
}

fn a_small_page_in_the_way_of_large_ones_is_named<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut tables = Tables::new(&machine, Level::P4D);
    let kernel = Attributes::KERNEL;
    let at = BASE + 6 * MIB + 5 * 4096;
    tables
        .map(at, frames(7, 1), kernel, PageSize::Size4K)
        .unwrap();
    let occupied = MapError::Occupied(VirtAddr::new(at));
    for largest in [PageSize::Size2M, PageSize::Size1G] {
        let outcome = tables.map(BASE, frames(0, 262_144), kernel, largest);
        assert_eq!(outcome, Err(occupied));
    }
    tables.finish();
    machine.finish();
}

fn pages_out_of_reach_keep_their_frames<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut tables = Tables::new(&machine, Level::P4D);
    tables
        .map(BASE, frames(0, 1024), Attributes::KERNEL, PageSize::Size2M)
        .unwrap();
    let page = range(BASE + MIB, 4096);
    tables.protect(page, Change::Unreachable).unwrap();
    let walk = machine.walk(&tables.tables, page.start());
    assert_eq!(walk.leaf(), None);
    assert_eq!(
        walk.last().unwrap().entry.decode(Level::PTE),
        Decoded::NotPresent
    );
    // All 2 MiB, one page of which is out of reach already.
    tables
        .protect(range(BASE, 4 * MIB), Change::Unreachable)
        .unwrap();
    tables
        .protect(range(BASE + 3 * MIB, 4096), Change::Reachable)
        .unwrap();
    tables.compare_at(BASE + 3 * MIB);
    tables
        .protect(range(BASE, 4 * MIB), Change::Reachable)
        .unwrap();
    tables.check();
    tables.join(range(BASE, 4 * MIB), PageSize::Size2M);
    assert_eq!(sizes(&tables, BASE), [PageSize::Size2M; 2]);
    tables.finish();
    machine.finish();
}

/// In an entry that is out of reach the bit for global pages says that there is a page.
fn what_is_out_of_reach_stays_mapped_whatever_is_changed<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let all = Protection::all().difference(Protection::COUNTED);
    let plain = Attributes {
        protection: Protection::empty(),
        ..Attributes::KERNEL
    };
    for (at, change) in [0x40_0000, BASE].into_iter().flat_map(|at| {
        let changes = [
            Change::Forbid(all),
            Change::Allow(all),
            Change::Exactly(plain),
        ];
        changes.map(|change| (at, change))
    }) {
        let tables = machine.new_page_table(Level::P4D).unwrap();
        let row = (VirtAddr::new(at), frames(77, 3));
        // SAFETY: nobody runs through these tables; also below.
        unsafe { machine.map_pages(&tables, row, crate::model::USER, PageSize::Size4K) }.unwrap();
        for change in [Change::Unreachable, change, Change::Reachable] {
            // SAFETY: as above.
            let receipt = unsafe { machine.change_pages(&tables, range(at, 3 * 4096), change) };
            receipt.unwrap().complete();
        }
        let mut seen = Vec::new();
        // SAFETY: as above.
        let receipt = unsafe {
            machine.unmap_pages(&tables, range(at, 3 * 4096), |_, leaf| seen.push(leaf.pfn))
        };
        receipt.unwrap().complete();
        assert_eq!(seen, [77, 78, 79].map(Pfn::new), "{at:#x}, {change:?}");
        // SAFETY: as above.
        unsafe { machine.destroy_page_table(tables) };
    }
    machine.grace().barrier().unwrap();
    machine.finish();
}

fn five_levels_reach_further<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let far = 0xff11_0000_0000_0000;
    let mut four = Tables::new(&machine, Level::P4D);
    let row = (VirtAddr::new(far), frames(3, 1));
    // SAFETY: nobody runs through these tables.
    let outcome =
        unsafe { machine.map_pages(&four.tables, row, Attributes::KERNEL, PageSize::Size4K) };
    assert!(matches!(outcome, Err(MapError::Range(_))));
    four.map(BASE, frames(3, 1), Attributes::KERNEL, PageSize::Size4K)
        .unwrap();
    four.finish();

    let mut five = Tables::new(&machine, Level::PGD);
    five.map(far, frames(3, 5), Attributes::KERNEL, PageSize::Size4K)
        .unwrap();
    five.map(BASE, frames(9, 600), Attributes::KERNEL, PageSize::Size2M)
        .unwrap();
    assert_eq!(
        machine
            .walk(&five.tables, VirtAddr::new(far))
            .steps()
            .count(),
        5
    );
    five.compare_at(far + 4096);
    five.unmap(range(far, 5 * 4096));
    five.unmap(range(BASE, 600 * 4096));
    assert_eq!(five.check(), 3);
    five.finish();
    machine.finish();
}

/// A table of somebody else's, made by hand: 1 GiB at its second entry.
fn foreign_table<C: SimConfig>(
    machine: &Machine<C>,
) -> mm::system::Block<&mm::system::Memory<mm_tests::sim::SimPlatform<C>>> {
    let zeroed = mm::buddy::Gfp::KERNEL | mm::buddy::Gfp::ZERO;
    let mut foreign = machine.alloc_block(zeroed, mm::addr::Order::ZERO).unwrap();
    foreign.bytes_mut()[8..16].copy_from_slice(&0x4000_0083_u64.to_le_bytes());
    foreign
}

fn tables_of_others_are_left_alone<C: SimConfig>() {
    for root in [Level::P4D, Level::PGD] {
        let machine = Machine::<C>::with_ram(32 * MIB);
        let tables = Tables::new(&machine, root);
        leave_alone(&machine, &tables);
        // SAFETY: nobody knows the tables.
        unsafe { machine.destroy_page_table(tables.tables) };
        machine.finish();
    }
}

fn leave_alone<C: SimConfig>(machine: &Machine<C>, tables: &Tables<'_, C>) {
    let foreign = foreign_table(machine);
    let at = VirtAddr::new(0xffff_ea00_0000_0000);
    // SAFETY: it is a table, and stays for as long as these tables do.
    unsafe { machine.adopt_table(&tables.tables, at, foreign.pfn()) }.unwrap();
    // SAFETY: as above.
    let again = unsafe { machine.adopt_table(&tables.tables, at, foreign.pfn()) };
    assert_eq!(again, Err(MapError::Foreign(at)));
    let inside = VirtAddr::new(at.as_u64() + GIB + 0x1234);
    let walk = machine.walk(&tables.tables, inside);
    assert_eq!(
        walk.phys(inside),
        Some(mm::addr::PhysAddr::new(0x4000_1234))
    );
    // SAFETY: nobody runs through these tables.
    let refused = unsafe {
        let row = (at, frames(0, 1));
        machine.map_pages(&tables.tables, row, Attributes::KERNEL, PageSize::Size4K)
    };
    assert_eq!(refused, Err(MapError::Foreign(at)));
    // SAFETY: as above.
    let kept =
        unsafe { machine.unmap_pages(&tables.tables, range(at.as_u64(), 2 * GIB), |_, _| ()) };
    assert!(kept.is_err());
    drop(kept);
    assert!(machine.walk(&tables.tables, inside).leaf().is_some());
}

fn tables_of_others_stay_when_what_is_beside_them_goes<C: SimConfig>() {
    for root in [Level::P4D, Level::PGD] {
        for is_first in [true, false] {
            let machine = Machine::<C>::with_ram(32 * MIB);
            let mut tables = Tables::new(&machine, root);
            let (at, beside) = (0xffff_ea00_0000_0000, 0xffff_ea80_0000_0000);
            let foreign = foreign_table(&machine);
            let adopt = |tables: &Tables<'_, C>| {
                // SAFETY: it is a table, and stays for as long as these tables do.
                let adopted = unsafe {
                    machine.adopt_table(&tables.tables, VirtAddr::new(at), foreign.pfn())
                };
                adopted.unwrap();
            };
            if is_first {
                adopt(&tables);
            }
            tables
                .map(beside, frames(3, 5), Attributes::KERNEL, PageSize::Size4K)
                .unwrap();
            if !is_first {
                adopt(&tables);
            }
            // SAFETY: as above.
            let taken = unsafe {
                machine.adopt_table(&tables.tables, VirtAddr::new(beside), foreign.pfn())
            };
            assert_eq!(taken, Err(MapError::Occupied(VirtAddr::new(beside))));
            machine.validate_page_table(&tables.tables).unwrap();
            tables.unmap(range(beside, 5 * 4096));
            let inside = VirtAddr::new(at + GIB);
            assert!(machine.walk(&tables.tables, inside).leaf().is_some());
            machine.validate_page_table(&tables.tables).unwrap();
            // SAFETY: nobody knows the tables.
            unsafe { machine.destroy_page_table(tables.tables) };
            drop(foreign);
            machine.grace().barrier().unwrap();
            machine.finish();
        }
    }
}
