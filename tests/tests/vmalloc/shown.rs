//! What `ptdump` and `vtop` show of areas.

use mm::addr::{VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::proc::{each_run, ptdump, vtop};
use mm_tests::sim::Usual;

use crate::world::{MIB, PAGE, START, World, at};

/// Neither before the range that was asked for nor behind it, and in whole pages.
#[test]
fn a_dump_ends_where_it_was_told_to() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let area = world.vmalloc(10 * PAGE, Gfp::KERNEL).unwrap();
    let space = world.kernel_space().unwrap();
    let page = |index: u64| at(area, 0).checked_add(index * PAGE as u64).unwrap();
    let shown = |start: VirtAddr, end: VirtAddr| {
        let mut runs = Vec::new();
        let range = VirtRange::new(start, end).unwrap();
        each_run(&world, space, range, &mut |run| {
            runs.push(run.range);
            Ok(())
        })
        .unwrap();
        runs
    };
    let pages = |first, end| vec![VirtRange::new(page(first), page(end)).unwrap()];
    assert_eq!(shown(page(2), page(5)), pages(2, 5));
    let inside = |index| page(index).checked_add(1).unwrap();
    assert_eq!(shown(inside(2), inside(5)), pages(2, 6));
    assert_eq!(shown(page(0), page(11)), pages(0, 10));
    assert_eq!(shown(page(10), page(11)), [], "the guard page");
    let mut text = String::new();
    let range = VirtRange::new(page(1), page(2)).unwrap();
    ptdump(&world, space, range, &mut text).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("          4K "), "{text}");
    world.free(area);
    world.finish();
}

#[test]
fn a_walk_that_ends_early_names_the_next_page_of_its_region() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let [first, second] = [3, 2].map(|pages| world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap());
    let space = world.kernel_space().unwrap();
    let walk = |here: VirtAddr| {
        let mut text = String::new();
        vtop(&world, space, here, &mut text).unwrap();
        text
    };
    let next = at(second, 0).as_u64();
    let expected = format!("  the next page of the vmalloc region is at {next:#018x}\n");
    assert!(walk(at(first, 3 * PAGE)).ends_with(&expected));
    assert!(!walk(at(first, 0)).contains("the next page"));
    let behind = walk(VirtAddr::new(START + 63 * MIB));
    assert!(
        behind.ends_with("  nothing of the vmalloc region is behind it\n"),
        "{behind}"
    );
    let nowhere = walk(VirtAddr::new(0x1000));
    assert!(
        nowhere.ends_with("  no region of the kernel's half holds it\n"),
        "{nowhere}"
    );
    world.free(first);
    world.free(second);
    world.finish();
}
