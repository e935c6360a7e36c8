//! R27: no address and no frame is used anew that a CPU may remember.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::sync::shootdown::Lazy;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Debug, Listed, Machine, Plain, SimConfig, Sparse, Usual, Vmemmap};

use crate::world::{MIB, PAGE, World, at};

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

/// A page of an area, and what is written at its start.
fn stamp(page: std::ptr::NonNull<u8>) -> std::ptr::NonNull<u64> {
    page.cast()
}

type Four = World<Listed<(Debug, Vmemmap)>>;

/// An area, its pages, and what it is stamped with.
type Stamped = (std::ptr::NonNull<u8>, usize, u64);

fn churn_on_four(world: &Four, operations: u64, areas: &mut Vec<Stamped>) {
    let mut random = Random::new(seed("whatever_may_wait"));
    let mut most = 0;
    for operation in 0..operations {
        if operation % 64 == 0 {
            most = match random.below(4) {
                0 => 0,
                _ => random.below(4_097),
            };
            world.set_vmalloc_lazy_max(most);
        }
        let _here = world.cpu(1 + random.below(4) as u32);
        if areas.len() < 20 || areas.len() < 120 && random.below(2) == 0 {
            let pages = 1 + random.below_index(12);
            let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
            for page in 0..pages {
                let place = stamp(world.page(at(area, page * PAGE)));
                // SAFETY: the first word of a page that the test owns; also below.
                unsafe { place.write(operation << 8 | page as u64) };
            }
            areas.push((area, pages, operation));
        } else {
            let (area, ..) = areas.swap_remove(random.below_index(areas.len()));
            world.free(area);
            let lazy = world.vmalloc_stats().lazy_pages;
            assert!(lazy <= most.max(12), "{lazy}, {most}");
        }
        // Whoever remembers what was there before ends the test, or reads what somebody else wrote.
        for _ in 0..3 {
            let (area, pages, stamped) = areas[random.below_index(areas.len())];
            let page = random.below_index(pages);
            let place = stamp(world.page(at(area, page * PAGE)));
            // SAFETY: as above.
            assert_eq!(unsafe { place.read() }, stamped << 8 | page as u64);
        }
    }
}

/// R27: areas come and go on four CPUs, one after the other, each of which remembers all that it has ever touched; as many
/// pages may wait as anybody says, from none to 4,096. `MM_CASES=1000000` for all of it.
#[test]
fn whatever_may_wait_no_cpu_goes_by_what_was() {
    let machine = Machine::<Listed<(Debug, Vmemmap)>>::new()
        .ram(0, 64 * MIB)
        .cpus(5);
    let world = World::on(machine, 1 << 30, 9_000);
    let operations = cases(60_000);
    let mut areas = Vec::new();
    // The thread's own CPU is waited for by nobody.
    world.idle(Lazy::Offline, || {
        churn_on_four(&world, operations, &mut areas);
    });
    let stats = world.vmalloc_stats();
    println!("{operations} operations, {stats:?}");
    assert!(stats.purges > operations / 200);
    areas.into_iter().for_each(|(area, ..)| world.free(area));
    world.finish();
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
    assert_eq!(world.vmalloc_purge(), 0);
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
