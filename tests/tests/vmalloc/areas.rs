//! R26: no area touches another.

use mm::addr::VirtAddr;
use mm::buddy::Gfp;
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
