//! Whatever part of a request fails, nothing is left of it.

use mm::buddy::Gfp;
use mm::kspace::MapError;
use mm::system::{AllocError, VmallocError};
use mm_tests::sim::{SimConfig, Usual};

use crate::world::{MIB, PAGE, World};

on_machines! {
    page_tables_that_run_out_leave_nothing_behind,
    pages_that_run_out_leave_nothing_behind,
}

fn page_tables_that_run_out_leave_nothing_behind<C: SimConfig>() {
    let world = World::<C>::new(64 * MIB, 64 * MIB, 64);
    assert!(world.drain_all_pages());
    let before = world.free_frames();
    for budget in [0, 1, 63, 64, 65, 128, 199] {
        world.tables.set_budget(budget);
        let area = world.vmalloc(200 * PAGE, Gfp::KERNEL);
        assert_eq!(area, Err(VmallocError::Map(MapError::OutOfTables)));
        assert_eq!((world.tables.mapped(), world.tables.stale()), (0, 0));
        assert_eq!(world.vmalloc_stats().areas, 0);
        assert!(world.drain_all_pages());
        assert_eq!(world.free_frames(), before);
        world.look();
    }
    world.tables.set_budget(200);
    let area = world.vmalloc(200 * PAGE, Gfp::KERNEL).unwrap();
    world.free(area);
    world.finish();
}

fn pages_that_run_out_leave_nothing_behind<C: SimConfig>() {
    let world = World::<C>::new(32 * MIB, 256 * MIB, 64);
    let before = world.free_frames();
    let managed = world.managed_frames() as usize;
    for _ in 0..3 {
        for huge in [false, true] {
            let gfp = Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN;
            let area = match huge {
                true => world.vmalloc_huge(managed * PAGE, gfp),
                false => world.vmalloc(managed * PAGE, gfp),
            };
            assert_eq!(area, Err(VmallocError::Alloc(AllocError::OutOfMemory)));
            assert_eq!((world.tables.mapped(), world.vmalloc_stats().areas), (0, 0));
            assert!(world.drain_all_pages());
            assert_eq!(world.free_frames(), before);
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
