//! R26: no area touches another.

use mm::addr::{Order, PfnRange, VirtAddr};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, MapError, PageSize};
use mm::system::VmallocError;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Listed, Plain, Sparse, Usual};

use crate::world::{MIB, PAGE, START, World, at};

/// Areas of 1 to 100 pages at multiples of a page to 4 MiB: what is before and behind each is not mapped. A byte that is
/// written one beyond the end would be a fault.
#[test]
fn what_is_around_an_area_is_not_mapped() {
    let mut random = Random::new(seed("what_is_around_an_area_is_not_mapped"));
    let world = World::<Listed<(Plain, Sparse)>>::new(512 * MIB, 1 << 40, 10_100);
    let mut areas = Vec::new();
    let mut pages = 0;
    for _ in 0..cases(10_000) {
        let size = 1 + random.below(100 * PAGE as u64) as usize;
        let align = PAGE << random.below(11);
        match world.vmalloc_align(size, align, Gfp::KERNEL | Gfp::NOWARN) {
            Ok(area) => {
                assert!(at(area, 0).is_aligned(align as u64));
                areas.push((area, size));
                pages += size.div_ceil(PAGE);
            }
            Err(_) => {
                let (area, size) = areas.swap_remove(random.below(areas.len() as u64) as usize);
                pages -= size.div_ceil(PAGE);
                world.free(area);
            }
        }
    }
    assert_eq!(world.mapped(), pages);
    for &(area, size) in &areas {
        let end = size.next_multiple_of(PAGE);
        assert!(world.mapping(at(area, end - 1)).is_some());
        assert_eq!(world.mapping(at(area, end)), None, "one byte too far");
        let before = at(area, 0).checked_sub(1).unwrap();
        assert_eq!(world.mapping(before), None, "one byte too low");
    }
    world.validate_vmalloc().unwrap();
    for (area, _) in areas {
        world.free(area);
    }
    world.finish();
}

/// Where nothing is left, addresses come back that lie ready for a CPU, and those that wait.
#[test]
fn addresses_are_never_lost() {
    let world = World::<Usual>::new(64 * MIB, 32 * 4096, 64);
    // Sixteen areas of a page and its guard page.
    let all =
        || -> Vec<_> { std::iter::from_fn(|| world.vmalloc(PAGE, Gfp::KERNEL).ok()).collect() };
    for _ in 0..3 {
        let areas = all();
        assert_eq!(areas.len(), 16);
        world.validate_vmalloc().unwrap();
        areas.into_iter().for_each(|area| world.free(area));
        // All wait now. There is room for one of 31 pages once they are gone and do not lie ready.
        let large = world.vmalloc(31 * PAGE, Gfp::KERNEL).unwrap();
        assert_eq!(at(large, 0), VirtAddr::new(START));
        world.look();
        world.free(large);
    }
    world.finish();
}

#[test]
fn a_small_area_is_taken_anew_without_the_tree() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    for pages in 1..=17_u64 {
        let size = pages as usize * PAGE;
        let first = world.vmalloc(size, Gfp::KERNEL).unwrap();
        world.free(first);
        let hits = world.vmalloc_stats().hits;
        let second = world.vmalloc(size, Gfp::KERNEL).unwrap();
        assert_ne!(first, second, "the first one waits");
        world.free(second);
        let _ = world.vmalloc_purge();
        let third = world.vmalloc(size, Gfp::KERNEL).unwrap();
        let expected = hits + u64::from(pages <= 16);
        assert_eq!(world.vmalloc_stats().hits, expected, "{pages} pages");
        world.free(third);
    }
    world.finish();
}

/// As many as go together, and some more: those that are too large to lie ready among the others.
#[test]
fn many_areas_go_back_at_once() {
    let world = World::<Usual>::new(64 * MIB, 1 << 40, 600);
    let before = world.free_or_tables();
    for _ in 0..2 {
        let sizes = (0..300).map(|index| if index % 3 == 0 { 17 } else { 1 + index % 16 });
        let areas: Vec<_> = sizes
            .map(|pages| world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap())
            .collect();
        areas.into_iter().for_each(|area| world.free(area));
        assert_eq!(world.vmalloc_purge(), 300);
        let stats = world.vmalloc_stats();
        assert_eq!((stats.areas, stats.ready, stats.lazy_pages), (200, 200, 0));
        world.look();
        assert!(world.drain_all_pages());
        assert_eq!(world.free_or_tables(), before);
    }
    world.finish();
}

/// An area that lies ready knows its table of pages; what somebody mapped there even so is in the way.
#[test]
fn a_page_is_not_mapped_over_what_is_there() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let area = world.vmalloc(PAGE, Gfp::KERNEL).unwrap();
    let first = at(area, 0);
    world.free(area);
    let _ = world.vmalloc_purge();
    let block = world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let row = (first, PfnRange::block(block.pfn(), Order::ZERO));
    let tables = world.kernel_space().unwrap().tables;
    // SAFETY: nobody reaches anything there.
    let mapped = unsafe { world.map_pages(&tables, row, Attributes::KERNEL, PageSize::Size4K) };
    mapped.unwrap();
    let before = world.free_frames();
    let occupied = VmallocError::Map(MapError::Occupied(first));
    assert_eq!(world.vmalloc(PAGE, Gfp::KERNEL), Err(occupied));
    assert!(world.drain_all_pages());
    assert_eq!(world.free_frames(), before, "its page went back");
    let stays = world.mapping(first).map(|page| page.pfn);
    assert_eq!(stays, Some(block.pfn()), "it is not the area's to unmap");
    world.unmap_stray(first);
    drop(block);
    let again = world.vmalloc(PAGE, Gfp::KERNEL).unwrap();
    assert_eq!(at(again, 0), first);
    world.free(again);
    world.finish();
}
