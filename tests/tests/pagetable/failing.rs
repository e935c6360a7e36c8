//! Tables that cannot be had: nothing is changed then, and nothing is lost.

use mm::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Change, ChangeError, Level, MapError, PageSize, Protection};
use mm_tests::for_every_config;
use mm_tests::sim::{Machine, SimConfig};

use crate::model::range;

const MIB: u64 = 1 << 20;
const BASE: u64 = 0xffff_c900_0000_0000;

for_every_config! {
    without_memory_for_tables_nothing_is_mapped_or_changed,
    without_memory_for_the_table_below_a_root_of_five_levels_nothing_is_adopted,
}

fn without_memory_for_the_table_below_a_root_of_five_levels_nothing_is_adopted<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(24 * MIB);
    let tables = machine.new_page_table(Level::PGD).unwrap();
    let mut blocks = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::KERNEL | Gfp::MEMALLOC, Order::ZERO) {
        blocks.push(block);
    }
    // Nothing looks at what stands in it.
    let table = blocks.pop().unwrap();
    let at = VirtAddr::new(BASE);
    // SAFETY: nobody runs through these tables.
    let outcome = unsafe { machine.adopt_table(&tables, at, table.pfn()) };
    assert_eq!(outcome, Err(MapError::OutOfTables));
    assert_eq!(machine.validate_page_table(&tables).unwrap(), 1);
    drop(blocks);
    // SAFETY: as above.
    unsafe { machine.adopt_table(&tables, at, table.pfn()) }.unwrap();
    assert_eq!(machine.validate_page_table(&tables).unwrap(), 2);
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    drop(table);
    machine.grace().barrier().unwrap();
    machine.finish();
}

fn without_memory_for_tables_nothing_is_mapped_or_changed<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(24 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let frames = |count| PfnRange::from_count(Pfn::ZERO, count).unwrap();
    let gib = (VirtAddr::new(BASE), frames(262_144));
    // SAFETY: nobody runs through these tables; also below.
    unsafe { machine.map_pages(&tables, gib, Attributes::KERNEL, PageSize::Size1G) }.unwrap();
    let held = machine.validate_page_table(&tables).unwrap();

    let mut blocks = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::KERNEL | Gfp::MEMALLOC, Order::ZERO) {
        blocks.push(block);
    }
    // A few frames only: fewer than the tables that these take, more than none.
    for spare in 0..6 {
        for count in [1, 1024, 40 * 512, 262_144] {
            let row = (VirtAddr::new(BASE + (1 << 41)), frames(count));
            // SAFETY: as above.
            let outcome =
                unsafe { machine.map_pages(&tables, row, Attributes::KERNEL, PageSize::Size4K) };
            if outcome.is_ok() {
                let all = range(BASE + (1 << 41), count * 4096);
                // SAFETY: as above.
                unsafe { machine.unmap_pages(&tables, all, |_, _| ()) }
                    .unwrap()
                    .complete();
                machine.grace().barrier().unwrap();
            } else {
                assert_eq!(outcome, Err(MapError::OutOfTables));
                machine.grace().barrier().unwrap();
                let found = machine.next_leaf(&tables, VirtAddr::new(BASE + (1 << 40)));
                assert_eq!(found, None, "{count} pages with {spare} frames");
            }
            machine.validate_page_table(&tables).unwrap();
        }
        // Splitting 1 GiB takes two.
        if spare < 2 {
            let page = range(BASE + 5 * MIB, 4096);
            let change = Change::Forbid(Protection::WRITE);
            // SAFETY: as above.
            let outcome = unsafe { machine.change_pages(&tables, page, change) };
            assert_eq!(outcome.err(), Some(ChangeError::OutOfTables));
            // SAFETY: as above.
            let outcome = unsafe { machine.unmap_pages(&tables, page, |_, _| ()) };
            assert_eq!(outcome.err(), Some(ChangeError::OutOfTables));
        }
        drop(blocks.pop());
    }
    drop(blocks);
    assert!(machine.validate_page_table(&tables).unwrap() <= held + 2);
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}
