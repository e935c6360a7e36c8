//! R27: no address and no frame is used anew that a CPU may remember.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Listed, Plain, SimConfig, Sparse, Usual};

use crate::world::{MIB, PAGE, World};

on_machines! {
    nothing_is_used_anew_that_may_be_remembered,
}

fn nothing_is_used_anew_that_may_be_remembered<C: SimConfig>() {
    churn::<C>(2_000, 64);
}

/// Areas come and go; what goes may wait as long as `most` pages do.
fn churn<C: SimConfig>(rounds: u64, most: u64) {
    let mut random = Random::new(seed("churn"));
    let world = World::<C>::new(64 * MIB, 16 * MIB, 1_500);
    world.set_vmalloc_lazy_max(most);
    let mut areas = Vec::new();
    for round in 0..rounds {
        if random.below(2) == 0 || areas.len() > 100 {
            if !areas.is_empty() {
                let (area, pages, byte) =
                    areas.swap_remove(random.below(areas.len() as u64) as usize);
                assert!(world.holds(area, pages, byte));
                world.free(area);
                assert!(world.vmalloc_stats().lazy_pages <= most);
            }
            continue;
        }
        let pages = 1 + random.below(20) as usize;
        let huge = random.below(50) == 0;
        let area = match huge {
            true => world.vmalloc_huge(pages * PAGE, Gfp::KERNEL),
            false => world.vmalloc(pages * PAGE, Gfp::KERNEL),
        };
        if let Ok(area) = area {
            world.fill(area, pages, round as u8);
            areas.push((area, pages, round as u8));
        }
        if round % 256 == 0 {
            world.validate_vmalloc().unwrap();
        }
    }
    areas.into_iter().for_each(|(area, ..)| world.free(area));
    world.finish();
}

#[test]
fn however_many_pages_may_wait() {
    for most in [0, 1, 16, 256, 1024, 4096] {
        churn::<Listed<(Plain, Sparse)>>(cases(20_000), most);
    }
}

/// One flush for many areas.
#[test]
fn areas_wait_for_one_another() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 512);
    world.set_vmalloc_lazy_max(100);
    let before = world.flushes();
    for _ in 0..101 {
        let area = world.vmalloc(PAGE, Gfp::KERNEL).unwrap();
        world.free(area);
    }
    assert_eq!(world.flushes() - before, 1);
    let stats = world.vmalloc_stats();
    assert_eq!(
        (stats.purges, stats.purged_areas, stats.lazy_pages),
        (1, 101, 0)
    );
    assert_eq!(world.vmalloc_purge(), Some(0));
    assert_eq!(
        world.flushes() - before,
        1,
        "nothing waits: nobody is disturbed"
    );
    world.finish();
}

/// Who may not sleep leaves it to the next one who may.
#[test]
fn nobody_waits_for_other_cpus_where_it_may_not() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    world.set_vmalloc_lazy_max(0);
    let areas: Vec<_> = (0..3)
        .map(|_| world.vmalloc(PAGE, Gfp::KERNEL).unwrap())
        .collect();
    let before = world.flushes();
    let [first, second, third] = areas[..] else {
        unreachable!()
    };
    world.hardware().in_atomic(|| world.free(first));
    assert_eq!(
        (world.flushes() - before, world.vmalloc_stats().lazy_pages),
        (0, 1)
    );
    world.free(second);
    assert_eq!(
        (world.flushes() - before, world.vmalloc_stats().lazy_pages),
        (1, 0)
    );
    world.free(third);
    world.finish();
}

/// So does who has nothing to do with areas.
#[test]
fn frames_that_wait_are_reclaimed() {
    let world = World::<Usual>::new(32 * MIB, 256 * MIB, 64);
    let area = world.vmalloc(20 * MIB as usize, Gfp::KERNEL).unwrap();
    world.free(area);
    let gfp = Gfp::KERNEL | Gfp::NOWARN | Gfp::NORETRY;
    let blocks: Vec<_> = std::iter::from_fn(|| world.alloc_block(gfp, Order::ZERO).ok()).collect();
    assert!(
        blocks.len() as u64 > 24 * MIB / 4096,
        "only {}",
        blocks.len()
    );
    assert_eq!(world.vmalloc_stats().lazy_pages, 0);
    drop(blocks);
    world.finish();
}

/// Frames that wait are memory for who finds no other.
#[test]
fn who_finds_no_pages_purges() {
    let world = World::<Usual>::new(32 * MIB, 256 * MIB, 64);
    let size = 20 * MIB as usize;
    for _ in 0..4 {
        let area = world.vmalloc(size, Gfp::KERNEL).unwrap();
        world.free(area);
        assert!(world.vmalloc_stats().lazy_pages > 0);
    }
    world.finish();
}
