//! Whatever part of a request fails, nothing is left of it.

use std::sync::Mutex;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::buddy::relief::{Freed, Relief, ShrinkControl, Shrinker};
use mm::pagetable::{Attributes, MapError};
use mm::system::{AllocError, VmallocError};
use mm_tests::sim::{SimConfig, Usual};

use crate::world::{MIB, PAGE, World};

on_machines! {
    page_tables_that_run_out_leave_nothing_behind,
    pages_that_run_out_leave_nothing_behind,
}

fn page_tables_that_run_out_leave_nothing_behind<C: SimConfig>() {
    let world = World::<C>::new(24 * MIB, 64 * MIB, 64);
    // All memory that a request for tables gets.
    let gfp = Gfp::KERNEL | Gfp::NOWARN | Gfp::NORETRY;
    let mut blocks: Vec<_> =
        std::iter::from_fn(|| world.alloc_block(gfp, Order::ZERO).ok()).collect();
    // Three tables for pages in one piece of 2 MiB, four where an area lies in two.
    let (mut few, mut done) = (0, false);
    for spare in 0..20 {
        assert!(world.drain_all_pages());
        let before = world.free_or_tables();
        // SAFETY: the frames are the test's until the purge.
        let area = unsafe { world.vmap(&[blocks[0].pfn(); 600], Attributes::KERNEL) };
        match area {
            Ok(area) => {
                done = true;
                // SAFETY: nobody uses it.
                unsafe { world.vunmap(area) }.unwrap();
            }
            Err(error) => {
                assert_eq!(error, VmallocError::Map(MapError::OutOfTables));
                few += 1;
            }
        }
        let _ = world.vmalloc_purge();
        assert_eq!(
            (world.mapped(), world.vmalloc_stats().areas),
            (0, 0),
            "{spare}"
        );
        assert!(world.drain_all_pages());
        assert_eq!(world.free_or_tables(), before);
        world.look();
        drop(blocks.pop());
    }
    assert!(done && few > 2, "{few}");
    drop(blocks);
    world.finish();
}

fn pages_that_run_out_leave_nothing_behind<C: SimConfig>() {
    let world = World::<C>::new(32 * MIB, 256 * MIB, 64);
    let before = world.free_or_tables();
    let managed = world.managed_frames() as usize;
    for _ in 0..3 {
        for huge in [false, true] {
            let gfp = Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN;
            let area = match huge {
                true => world.vmalloc_huge(managed * PAGE, gfp),
                false => world.vmalloc(managed * PAGE, gfp),
            };
            assert_eq!(area, Err(VmallocError::Alloc(AllocError::OutOfMemory)));
            assert_eq!((world.mapped(), world.vmalloc_stats().areas), (0, 0));
            assert!(world.drain_all_pages());
            assert_eq!(world.free_or_tables(), before);
        }
    }
    world.finish();
}

#[test]
fn addresses_that_run_out_leave_nothing_behind() {
    let world = World::<Usual>::new(64 * MIB, 16 * 4096, 64);
    let before = world.free_frames();
    assert_eq!(
        world.vmalloc(16 * PAGE, Gfp::KERNEL),
        Err(VmallocError::NoSpace)
    );
    assert_eq!(
        world.free_frames(),
        before,
        "the guard page needs an address"
    );
    let area = world.vmalloc(15 * PAGE, Gfp::KERNEL).unwrap();
    assert_eq!(world.vmalloc(1, Gfp::KERNEL), Err(VmallocError::NoSpace));
    world.free(area);
    let area = world.vmalloc(15 * PAGE, Gfp::KERNEL).unwrap();
    world.free(area);
    world.finish();
}

/// What the requests may do that ask it for memory.
#[derive(Default)]
struct Asked(Mutex<Vec<Gfp>>);

impl Relief for Asked {
    fn count_objects(&self, control: &ShrinkControl) -> u64 {
        self.0.lock().unwrap().push(control.gfp);
        0
    }

    fn scan_objects(&self, _: &ShrinkControl, _: u64) -> Option<Freed> {
        None
    }
}

/// What a request may not do, its page tables and records may not either: a file system that waits for itself is dead.
#[test]
fn nothing_of_a_request_does_what_its_flags_forbid() {
    let world = World::<Usual>::new(24 * MIB, 64 * MIB, 16);
    let asked: &'static Asked = Box::leak(Box::default());
    let shrinker = Box::leak(Box::new(Shrinker::new("asked", asked)));
    world.register_shrinker(shrinker).unwrap();
    // All that they get who do not use reserves, and some that they do not.
    let gfp = Gfp::KERNEL | Gfp::NOWARN | Gfp::NORETRY;
    let mut blocks: Vec<_> =
        std::iter::from_fn(|| world.alloc_block(gfp, Order::ZERO).ok()).collect();
    let mut areas = Vec::new();
    for allowed in [Gfp::NOFS, Gfp::NOIO, Gfp::NOWAIT] {
        let (mut refused, mut had) = (0, 0);
        while had < 2 {
            asked.0.lock().unwrap().clear();
            match world.vmalloc(700 * PAGE, allowed | Gfp::NOWARN | Gfp::NORETRY) {
                Ok(area) => {
                    areas.push(area);
                    had += 1;
                }
                Err(VmallocError::Map(MapError::OutOfTables)) => {
                    refused += 1;
                }
                Err(VmallocError::Alloc(AllocError::OutOfMemory)) => {}
                Err(error) => panic!("{error}"),
            }
            for gfp in asked.0.lock().unwrap().iter() {
                assert!(allowed.contains(*gfp & Gfp::KERNEL), "{gfp:?}");
            }
            blocks.truncate(blocks.len() - 1);
        }
        assert!(refused > 0, "never for want of page tables");
    }
    areas.into_iter().for_each(|area| world.free(area));
    drop(blocks);
    let _ = world.vmalloc_purge();
    world.unregister_shrinker(shrinker);
    world.finish();
}
