//! What an area is: its addresses, its pages, its line in the list.

use mm::adapters::{BadVfree, Vmalloc};
use mm::addr::{Pfn, PfnRange, VirtAddr};
use mm::buddy::Gfp;
use mm::pagetable::MapError;
use mm::platform::NodeId;
use mm::proc::vmallocinfo;
use mm::system::{AllocError, VmallocError};
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

use crate::world::{MIB, PAGE, START, World, at};

on_machines! {
    areas_have_pages_of_their_own_and_one_behind_them_that_is_not_mapped,
    pages_are_zeroed_when_asked_for,
    large_areas_have_large_pages_where_there_are_any,
}

fn areas_have_pages_of_their_own_and_one_behind_them_that_is_not_mapped<C: SimConfig>() {
    let world = World::<C>::new(64 * MIB, 64 * MIB, 64);
    let before = world.free_or_tables();
    let sizes = [1, PAGE, PAGE + 1, 16 * PAGE, 17 * PAGE, MIB as usize];
    let mut areas = Vec::new();
    for (byte, size) in (1..).zip(sizes) {
        let area = world.vmalloc(size, Gfp::KERNEL).unwrap();
        let pages = size.div_ceil(PAGE);
        world.fill(area, pages, byte);
        areas.push((area, pages, byte));
        assert!(world.is_vmalloc_addr(at(area, 0)));
    }
    let all: usize = areas.iter().map(|&(_, pages, _)| pages).sum();
    assert_eq!(world.mapped(), all);
    world.look();
    for &(area, pages, byte) in &areas {
        assert!(world.holds(area, pages, byte), "nobody else wrote there");
        assert_eq!(world.mapping(at(area, pages * PAGE)), None, "guard page");
        let pfn = world.vmalloc_to_pfn(at(area, 5)).unwrap();
        assert_eq!(Some(pfn), world.mapping(at(area, 0)).map(|page| page.pfn));
    }
    for (area, ..) in areas {
        world.free(area);
        assert_eq!(world.mapping(at(area, 0)), None, "unmapped at once");
        // SAFETY: refused, so nothing is given up.
        let second = unsafe { world.vfree(area) };
        assert_eq!(second, Err(BadVfree(at(area, 0))));
    }
    assert_eq!(world.vmalloc_stats().lazy_pages, all as u64);
    assert_eq!(world.vmalloc_purge(), sizes.len() as u64);
    assert_eq!(world.vmalloc_stats().lazy_pages, 0);
    assert!(world.drain_all_pages());
    assert_eq!(world.free_or_tables(), before);
    world.finish();
}

fn pages_are_zeroed_when_asked_for<C: SimConfig>() {
    let world = World::<C>::new(64 * MIB, 64 * MIB, 64);
    for pages in [1, 3, 100] {
        let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        world.fill(area, pages, 0xaa);
        world.free(area);
        let _ = world.vmalloc_purge();
        let area = world.vzalloc(pages * PAGE).unwrap();
        assert!(world.holds(area, pages, 0));
        world.free(area);
    }
    world.finish();
}

fn large_areas_have_large_pages_where_there_are_any<C: SimConfig>() {
    let world = World::<C>::new(64 * MIB, 256 * MIB, 64);
    let size = 5 * MIB as usize + 1;
    let area = world.vmalloc_huge(size, Gfp::KERNEL).unwrap();
    assert!(at(area, 0).is_aligned(2 * MIB));
    let huge = |offset: u64| {
        world
            .mapping(at(area, offset as usize))
            .map(|page| page.huge)
    };
    assert_eq!(huge(0), Some(true));
    assert_eq!(huge(4 * MIB - 1), Some(true));
    assert_eq!(huge(4 * MIB), Some(false), "the rest is no 2 MiB");
    assert_eq!(huge(5 * MIB), Some(false));
    assert_eq!(huge(5 * MIB + 4096), None);
    world.look();
    world.free(area);
    let area = world.vmalloc(3 * MIB as usize, Gfp::KERNEL).unwrap();
    let page = world.mapping(at(area, 0)).unwrap();
    assert!(!page.huge, "nobody asked for large pages");
    world.free(area);
    world.finish();
}

/// Tables of those who had the addresses before stay, and are in the way of a large page.
#[test]
fn large_pages_take_the_place_of_tables_without_entries() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    // One that is a large page as a whole, several, and with a rest.
    for (mib, pages) in [2, 4, 5]
        .into_iter()
        .flat_map(|mib| [3, 100, 512, 1024].map(|pages| (mib, pages)))
    {
        for _ in 0..2 {
            let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
            world.fill(area, pages, 1);
            world.free(area);
            let _ = world.vmalloc_purge();
            let huge = world.vmalloc_huge(mib * MIB as usize, Gfp::KERNEL).unwrap();
            assert!(
                world.mapping(at(huge, 0)).unwrap().huge,
                "{mib} MiB after {pages} pages"
            );
            world.fill(huge, mib * 256, 2);
            assert!(world.holds(huge, mib * 256, 2));
            world.look();
            world.free(huge);
            let _ = world.vmalloc_purge();
        }
    }
    world.finish();
}

/// What somebody mapped where areas are, though it was not theirs to map: it is told, and stays.
#[test]
fn what_is_mapped_where_large_pages_are_to_be_stays_and_is_told() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    for (offset, mib) in [(0, 2), (2 * MIB - 4096, 4), (5 * MIB, 8), (4 * MIB, 5)] {
        let stray = VirtAddr::new(START).checked_add(offset).unwrap();
        let frames = PfnRange::from_count(Pfn::new(5), 1).unwrap();
        world.map_stray(stray, frames);
        let told = Err(VmallocError::Map(MapError::Occupied(stray)));
        assert_eq!(
            world.vmalloc_huge(mib * MIB as usize, Gfp::KERNEL),
            told,
            "{offset:#x}"
        );
        let found = world.mapping(stray).unwrap();
        assert_eq!(found.pfn, Pfn::new(5));
        assert_eq!(world.mapped(), 1, "and nothing else is");
        world.look();
        world.unmap_stray(stray);
        let huge = world.vmalloc_huge(mib * MIB as usize, Gfp::KERNEL).unwrap();
        assert_eq!(at(huge, 0), VirtAddr::new(START));
        assert!(world.mapping(at(huge, 0)).unwrap().huge);
        world.free(huge);
        let _ = world.vmalloc_purge();
    }
    world.finish();
}

#[test]
fn pages_come_from_the_node_that_is_named() {
    let machine = Machine::<Listed<Usual>>::new()
        .node(0, 0, 64 * MIB)
        .node(1, 64 * MIB, 64 * MIB);
    let world = World::on(machine, 64 * MIB, 64);
    for node in [NodeId(0), NodeId(1)] {
        let area = world.vmalloc_node(70 * PAGE, Gfp::KERNEL, node).unwrap();
        for page in 0..70 {
            let pfn = world.mapping(at(area, page * PAGE)).unwrap().pfn;
            assert_eq!(world.zone_of(pfn).unwrap().id().node, node);
        }
        let mut text = String::new();
        vmallocinfo(&**world, &mut text).unwrap();
        assert!(text.contains(&format!("N{node}=70\n")), "{text}");
        world.free(area);
        let _ = world.vmalloc_purge();
    }
    let none = world.vmalloc_node(1, Gfp::KERNEL, NodeId(7));
    assert_eq!(none, Err(VmallocError::Alloc(AllocError::NoSuchNode)));
    world.finish();
}

#[test]
fn the_file_has_a_line_for_each_area() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let list = || {
        let mut text = String::new();
        vmallocinfo(&**world, &mut text).unwrap();
        text
    };
    assert_eq!(list(), "");
    let line = line!() + 1;
    let first = world.vmalloc(5 * PAGE, Gfp::KERNEL).unwrap();
    let second = world.vmalloc(1, Gfp::KERNEL).unwrap();
    let place = format!("{}:{line}", file!());
    let after = format!("{}:{}", file!(), line + 1);
    let text = list();
    let expected = format!(
        "0xffffc90000000000-0xffffc90000006000   24576 {place} pages=5 vmalloc N0=5\n\
         0xffffc90000006000-0xffffc90000008000    8192 {after} pages=1 vmalloc N0=1\n"
    );
    assert_eq!(text, expected);
    world.free(first);
    let text = list();
    let lazy = "0xffffc90000000000-0xffffc90000006000   24576 unpurged vm_area\n";
    assert!(text.starts_with(lazy), "{text}");
    let _ = world.vmalloc_purge();
    assert!(list().starts_with("0xffffc90000006000-"), "it lies ready");
    world.free(second);
    world.finish();
}

#[test]
fn a_handle_gives_its_area_back() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let area = Vmalloc::alloc(&**world, 3 * PAGE, Gfp::KERNEL).unwrap();
    assert_eq!((area.size(), world.mapped()), (3 * PAGE, 3));
    assert_eq!(at(area.as_non_null(), 0), VirtAddr::new(START));
    drop(area);
    assert_eq!(world.mapped(), 0);
    let huge = Vmalloc::alloc_huge(&**world, 2 * MIB as usize, Gfp::KERNEL).unwrap();
    let raw = huge.into_raw();
    assert!(world.mapping(at(raw, 0)).unwrap().huge);
    world.free(raw);
    world.finish();
}

#[test]
fn what_cannot_be_had_is_said() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    assert_eq!(world.vmalloc(0, Gfp::KERNEL), Err(VmallocError::Empty));
    let most = world.vmalloc(usize::MAX, Gfp::KERNEL);
    assert_eq!(most, Err(VmallocError::TooLarge));
    let ram = world.vmalloc(64 * MIB as usize, Gfp::KERNEL);
    assert_eq!(ram, Err(VmallocError::TooLarge), "not all of it is managed");
    for align in [0, 3, 4097] {
        let odd = world.vmalloc_align(1, align, Gfp::KERNEL);
        assert_eq!(odd, Err(VmallocError::Misaligned));
    }
    let wide = world.vmalloc_align(1, 1 << 40, Gfp::KERNEL).unwrap();
    assert_eq!(at(wide, 0), VirtAddr::new(START), "that is a multiple");
    let next = world.vmalloc_align(1, 1 << 40, Gfp::KERNEL);
    assert_eq!(next, Err(VmallocError::NoSpace));
    world.free(wide);
    for wrong in [START, START + 1, START + 4096, 0, u64::MAX, 1 << 47] {
        let address = core::ptr::NonNull::new(std::ptr::without_provenance_mut(wrong as usize));
        // SAFETY: there is no such area.
        let freed = address.map(|address| unsafe { world.vfree(address) });
        assert!(freed.is_none_or(|freed| freed == Err(BadVfree(VirtAddr::new(wrong)))));
    }
    world.finish();
}
