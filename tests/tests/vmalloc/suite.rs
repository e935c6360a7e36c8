//! The cases of Linux's `lib/test_vmalloc.c`, by what they do. `MM_CASES` sets how often each is repeated.

use std::ptr::NonNull;
use std::thread;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::pagetable::Attributes;
use mm::sync::shootdown::Lazy;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Listed, Machine, Plain, Sparse};
use mm_tests::threads::join;

use crate::world::{MIB, PAGE, World};

type Small = Listed<(Plain, Sparse)>;

fn world() -> World<Small> {
    World::new(128 * MIB, 1 << 40, 20_000)
}

fn vmalloc(world: &World<Small>, pages: usize) -> NonNull<u8> {
    let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
    world.fill(area, 1, 1);
    area
}

#[test]
fn fix_size_alloc_test() {
    let world = world();
    for _ in 0..cases(2_000) {
        let area = vmalloc(&world, 3);
        world.free(area);
    }
    world.finish();
}

#[test]
fn full_fit_alloc_test() {
    let world = world();
    let mut areas: Vec<_> = (0..2_000).map(|_| vmalloc(&world, 1)).collect();
    // Every second one goes: the gaps are as large as what is asked for.
    let (odd, even): (Vec<_>, Vec<_>) = areas
        .drain(..)
        .enumerate()
        .partition(|(index, _)| index % 2 == 1);
    even.into_iter().for_each(|(_, area)| world.free(area));
    for _ in 0..cases(2_000) {
        let area = vmalloc(&world, 1);
        world.free(area);
    }
    odd.into_iter().for_each(|(_, area)| world.free(area));
    world.finish();
}

#[test]
fn long_busy_list_alloc_test() {
    let world = world();
    let busy: Vec<_> = (0..10_000).map(|_| vmalloc(&world, 1)).collect();
    for _ in 0..cases(1_000) {
        let large = vmalloc(&world, 100);
        let small = vmalloc(&world, 1);
        world.free(large);
        world.free(small);
    }
    busy.into_iter().for_each(|area| world.free(area));
    world.finish();
}

#[test]
fn random_size_alloc_test() {
    let mut random = Random::new(seed("random_size_alloc_test"));
    let world = world();
    for _ in 0..cases(2_000) {
        let area = vmalloc(&world, 1 + random.below_index(100));
        world.free(area);
    }
    world.finish();
}

fn aligned(mut align: impl FnMut(u64) -> usize, rounds: u64) {
    let world = world();
    for round in 0..rounds {
        let align = align(round);
        let area = world.vmalloc_align(3 * PAGE, align, Gfp::KERNEL).unwrap();
        assert_eq!(area.addr().get() % align, 0);
        world.free(area);
    }
    world.finish();
}

#[test]
fn fix_align_alloc_test() {
    aligned(|_| 32 * PAGE, cases(2_000));
}

#[test]
fn random_size_align_alloc_test() {
    let mut random = Random::new(seed("random_size_align_alloc_test"));
    aligned(|_| PAGE << random.below(23), cases(2_000));
}

/// Every power of two that there is: what cannot be had is refused.
#[test]
fn align_shift_alloc_test() {
    let world = world();
    for shift in 0..64 {
        match world.vmalloc_align(PAGE, 1 << shift, Gfp::KERNEL) {
            Ok(area) => {
                assert!(area.addr().get().is_multiple_of(1 << shift));
                world.free(area);
            }
            Err(_) => assert!(shift > 30, "{shift}"),
        }
    }
    world.finish();
}

/// Areas of many sizes at once. Linux's `pcpu_alloc_test` asks for per-CPU memory: `tests/percpu/scattered.rs`.
#[test]
fn many_sizes_at_once() {
    let mut random = Random::new(seed("many_sizes_at_once"));
    let world = world();
    for _ in 0..cases(35) {
        let areas: Vec<_> = (0..100)
            .map(|_| {
                let size = 1 + random.below_index(4 * PAGE);
                let align = 1 << random.below(13);
                world.vmalloc_align(size, align, Gfp::KERNEL).unwrap()
            })
            .collect();
        areas.into_iter().for_each(|area| world.free(area));
    }
    world.finish();
}

/// Who may not sleep.
#[test]
fn no_block_alloc_test() {
    let world = world();
    for _ in 0..cases(2_000) {
        let area = world.vmalloc(PAGE, Gfp::NOWAIT).unwrap();
        world.hardware().in_atomic(|| world.free(area));
    }
    world.finish();
}

#[test]
fn vm_map_ram_test() {
    let world = world();
    let blocks: Vec<_> = (0..16)
        .map(|_| world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap())
        .collect();
    let frames: Vec<Pfn> = blocks.iter().map(|block| block.pfn()).collect();
    for round in 0..cases(500) {
        let area = match round % 2 {
            // SAFETY: the frames are the test's until the last purge.
            0 => unsafe { world.vm_map_ram(&frames) },
            // SAFETY: as above.
            _ => unsafe { world.vmap(&frames, Attributes::KERNEL) },
        };
        let area = area.unwrap();
        let ended = match round % 2 {
            // SAFETY: nobody uses it.
            0 => unsafe { world.vm_unmap_ram(area) },
            // SAFETY: as above.
            _ => unsafe { world.vunmap(area) },
        };
        ended.unwrap();
        // Frames that are remembered are not mapped anew.
        let _ = world.vmalloc_purge();
    }
    drop(blocks);
    world.finish();
}

/// All at once, on four CPUs.
#[test]
fn vmalloc_stress_on_four_cpus() {
    let machine = Machine::<Small>::new().ram(0, 128 * MIB).cpus(5);
    let world = World::on(machine, 1 << 40, 4_000);
    world.set_vmalloc_lazy_max(256);
    let rounds = cases(1_000);
    let all = || {
        thread::scope(|scope| {
            let run = |cpu| {
                let world = &world;
                scope.spawn(move || {
                    let _running = world.cpu(cpu);
                    let mut random = Random::new(seed("vmalloc_stress") ^ u64::from(cpu));
                    let mut areas = Vec::new();
                    for round in 0..rounds {
                        if random.below(2) == 0 && areas.len() < 50 {
                            let pages = 1 + random.below_index(20);
                            let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
                            let byte = (u64::from(cpu) << 6 | round & 63) as u8;
                            world.fill(area, pages, byte);
                            areas.push((area, pages, byte));
                        } else if !areas.is_empty() {
                            let (area, pages, byte) =
                                areas.swap_remove(random.below_index(areas.len()));
                            assert!(world.holds(area, pages, byte));
                            world.free(area);
                        }
                    }
                    areas.into_iter().for_each(|(area, ..)| world.free(area));
                })
            };
            join((1..=4).map(run));
        })
    };
    // Nobody waits for who waits for them.
    world.idle(Lazy::Offline, all);
    assert!(world.vmalloc_stats().purges > 0);
    world.finish();
}
