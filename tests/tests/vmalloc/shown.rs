//! What `ptdump` and `vtop` show of areas.

use mm::addr::{VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::proc::{self, each_run, ptdump, vtop};
use mm_tests::exporters;
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

/// By the rules of the program `jc` (`mm_tests::exporters`): what it finds is what there is.
#[test]
fn vmallocinfo_is_read_as_others_read_it() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let line = line!() + 1;
    let areas = [1, 3, 40].map(|pages| (world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap(), pages));
    let mut text = String::new();
    proc::vmallocinfo(&*world, &mut text).unwrap();
    let read = exporters::vmallocinfo(&text).unwrap();
    assert_eq!(read.len(), areas.len());
    for (read, (area, pages)) in read.iter().zip(areas) {
        let start = at(area, 0).as_u64();
        // A guard page is behind each.
        let size = ((pages + 1) * PAGE) as u64;
        assert_eq!((read.range, read.size), ((start, start + size), size));
        assert_eq!(read.caller, format!("{}:{line}", file!()));
        assert_eq!(read.options, ["vmalloc"]);
        let values = [("pages", pages), ("N0", pages)];
        let values = values.map(|(key, value)| (key.to_owned(), value.to_string()));
        assert_eq!(read.values, values.into());
    }
    for (area, _) in areas {
        world.free(area);
    }
    let mut text = String::new();
    proc::vmallocinfo(&*world, &mut text).unwrap();
    let read = exporters::vmallocinfo(&text).unwrap();
    let waits =
        |area: &exporters::Area| area.caller == "unpurged vm_area" && area.values.is_empty();
    assert!(read.iter().all(waits), "{text}");
    world.finish();
}
