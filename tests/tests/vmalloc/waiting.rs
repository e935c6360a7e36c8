//! What waits for a purge, or lies ready for another CPU, is had by whoever needs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::platform::NodeId;
use mm::sync::shootdown::Lazy;
use mm_tests::sim::{Listed, Machine, Plain, Usual, Vmemmap, without_patience};

use crate::world::{MIB, PAGE, World};

type Two = World<Listed<(Plain, Vmemmap)>>;

fn two_cpus(ram: u64, addresses: u64, areas: u32) -> Two {
    World::on(Machine::new().ram(0, ram).cpus(2), addresses, areas)
}

/// Runs `body` while CPU 1 is in the midst of a purge, which goes on some time after that began.
fn during_a_purge(world: &Two, body: impl FnOnce()) {
    let (is_in_it, may_go_on) = (AtomicBool::new(false), AtomicBool::new(false));
    let flushes = world.flushes();
    let midst = || {
        if world.flushes() != flushes {
            is_in_it.store(true, Ordering::Release);
            while !may_go_on.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let _here = world.cpu(1);
            world.hardware().with_nmis(midst, || {
                let _ = world.vmalloc_purge();
            });
        });
        while !is_in_it.load(Ordering::Acquire) {
            thread::yield_now();
        }
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            may_go_on.store(true, Ordering::Release);
        });
        body();
    });
}

/// Pages that somebody else is about to free are no reason to fail.
#[test]
fn another_ones_purge_is_waited_for() {
    let world = two_cpus(32 * MIB, 256 * MIB, 64);
    let size = 20 * MIB as usize;
    // The thread's own CPU is waited for by nobody.
    world.idle(Lazy::Offline, || {
        for _ in 0..5 {
            let area = world.vmalloc(size, Gfp::KERNEL).unwrap();
            world.free(area);
            during_a_purge(&world, || {
                let gfp = Gfp::KERNEL | Gfp::NOWARN;
                let area = world.vmalloc(size, gfp).expect("there are pages");
                world.free(area);
            });
            during_a_purge(&world, || {
                let _ = world.vmalloc_purge();
                assert_eq!(world.vmalloc_stats().lazy_pages, 0, "it has gone");
            });
            let area = world.vmalloc(size, Gfp::KERNEL).unwrap();
            world.free(area);
            during_a_purge(&world, || {
                // Who frees frames after it waits to the end, whether that makes sense or not.
                without_patience(|| world.vmalloc_purge());
                assert_eq!(world.vmalloc_stats().lazy_pages, 0, "it has gone");
            });
        }
    });
    world.finish();
}

/// Background reclaim begins with what nobody uses.
#[test]
fn kswapd_purges() {
    let world = World::<Usual>::new(32 * MIB, 256 * MIB, 64);
    world.hardware().has_kswapd();
    let area = world.vmalloc(20 * MIB as usize, Gfp::KERNEL).unwrap();
    let gfp = Gfp::NOWAIT;
    world.free(area);
    let blocks: Vec<_> = std::iter::from_fn(|| world.alloc_block(gfp, Order::ZERO).ok()).collect();
    assert!(!world.hardware().woken().is_empty());
    let waiting = world.vmalloc_stats().lazy_pages;
    assert_eq!(waiting, 20 * MIB / PAGE as u64);
    let balance = world.balance_node(NodeId(0));
    assert!(
        balance.is_balanced && balance.reclaimed >= waiting,
        "{balance:?}"
    );
    assert_eq!(world.vmalloc_stats().lazy_pages, 0);
    drop(blocks);
    world.finish();
}

/// CPU 1 has areas lie ready all over the region.
fn lay_ready(world: &Two) {
    let areas: Vec<_> = (0..200)
        .map(|_| world.vmalloc(PAGE, Gfp::KERNEL).unwrap())
        .collect();
    areas.into_iter().for_each(|area| world.free(area));
    let _ = world.vmalloc_purge();
    assert_eq!(world.vmalloc_stats().ready, 200);
}

/// Has an area that is larger than what the others left.
fn has_a_large_one(world: &Two) {
    let area = world.vmalloc(15 * MIB as usize, Gfp::KERNEL | Gfp::NOWARN);
    world.free(area.expect("there are addresses"));
    assert_eq!(world.vmalloc_stats().ready, 0);
}

#[test]
fn addresses_that_lie_ready_for_a_cpu_that_is_away_are_had() {
    let world = two_cpus(64 * MIB, 16 * MIB, 300);
    world.idle(Lazy::Offline, || {
        let one = world.cpu(1);
        lay_ready(&world);
        drop(one);
        has_a_large_one(&world);
    });
    world.finish();
}

#[test]
fn addresses_that_lie_ready_for_a_cpu_that_runs_are_had() {
    let world = two_cpus(64 * MIB, 16 * MIB, 300);
    let (is_ready, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    world.idle(Lazy::Offline, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let _here = world.cpu(1);
                let hardware = world.hardware();
                hardware.answers(1, true);
                lay_ready(&world);
                is_ready.store(true, Ordering::Release);
                while !is_over.load(Ordering::Acquire) {
                    world.serve_tlb();
                    if hardware.is_called(1) {
                        world.drain_wanted();
                    }
                    thread::yield_now();
                }
                hardware.answers(1, false);
            });
            while !is_ready.load(Ordering::Acquire) {
                thread::yield_now();
            }
            // Also where that panics.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                has_a_large_one(&world);
            }));
            is_over.store(true, Ordering::Release);
            outcome.unwrap();
        });
    });
    world.finish();
}
