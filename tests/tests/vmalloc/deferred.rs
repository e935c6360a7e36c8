//! Areas that are freed when no reader looks at them any more (Linux: `kvfree_rcu`, and what `lib/test_vmalloc.c` does with
//! it). The head that Linux's form with two arguments has in the object is for those who may not sleep; here an address is
//! noted on a page, for both.

use std::ptr::NonNull;

use mm::adapters::BadVfree;
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::pagetable::Attributes;
use mm::report::Corruption;
use mm::system::DeferError;
use mm_tests::seed::cases;
use mm_tests::sim::SimConfig;

use crate::world::{MIB, PAGE, START, World, at};

on_machines! {
    kvfree_rcu_1_arg_vmalloc_test,
    kvfree_rcu_2_arg_vmalloc_test,
    without_a_page_for_its_address_an_area_is_waited_for_or_stays,
    what_is_no_area_is_refused,
    what_may_not_be_purged_where_it_is_freed_is_purged_soon,
}

fn world<C: SimConfig>() -> World<C> {
    World::new(64 * MIB, 1 << 40, 2_000)
}

fn defer<C: SimConfig>(world: &World<C>, first: NonNull<u8>) -> Result<(), DeferError> {
    // SAFETY: the test forgets it, but for readers.
    unsafe { world.kvfree_deferred(first) }
}

/// Areas of a page and of many, with readers that go on for as long as they like; freed where that `is_atomic`.
fn freed_under_readers<C: SimConfig>(is_atomic: bool) {
    let world = world::<C>();
    let mut gone = Vec::new();
    for round in 0..cases(600) {
        let pages = [1, 1, 2, 17, 600][round as usize % 5];
        let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        world.fill(area, pages.min(2), round as u8);
        let reader = world.grace().pin().unwrap();
        match is_atomic {
            true => world.hardware().in_atomic(|| defer(&world, area)).unwrap(),
            false => defer(&world, area).unwrap(),
        }
        let _ = world.grace().tend();
        let _ = world.vmalloc_purge();
        // It is there until the reader has gone.
        assert!(world.holds(area, pages.min(2), round as u8));
        drop(reader);
        gone.push(area);
        if round % 20 == 0 {
            world.grace().barrier().unwrap();
            for area in gone.drain(..) {
                assert_eq!(world.mapping(at(area, 0)), None, "it is still there");
                // SAFETY: refused: it was freed.
                let again = unsafe { world.vfree(area) };
                assert_eq!(again, Err(BadVfree(at(area, 0))));
            }
            assert_eq!(world.grace().pending(), 0);
            let _ = world.vmalloc_purge();
            assert_eq!(world.mapped(), 0);
        }
    }
    world.grace().barrier().unwrap();
    world.finish();
}

fn kvfree_rcu_1_arg_vmalloc_test<C: SimConfig>() {
    freed_under_readers::<C>(false);
}

fn kvfree_rcu_2_arg_vmalloc_test<C: SimConfig>() {
    freed_under_readers::<C>(true);
}

fn without_a_page_for_its_address_an_area_is_waited_for_or_stays<C: SimConfig>() {
    let world = world::<C>();
    let areas = [(); 2].map(|()| world.vmalloc(3 * PAGE, Gfp::KERNEL).unwrap());
    let gfp = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN | Gfp::NORETRY;
    let all: Vec<_> = std::iter::from_fn(|| world.alloc_block(gfp, Order::ZERO).ok()).collect();
    for area in areas {
        let refused = world.hardware().in_atomic(|| defer(&world, area));
        assert_eq!(refused, Err(DeferError::OutOfMemory));
        assert!(world.mapping(at(area, 0)).is_some(), "the caller's still");
        defer(&world, area).unwrap();
        assert_eq!(world.mapping(at(area, 0)), None, "waited for");
    }
    drop(all);
    world.finish();
}

fn what_is_no_area_is_refused<C: SimConfig>() {
    let world = world::<C>();
    // Objects are as good as areas.
    let object = world.kvmalloc(100, Gfp::KERNEL).unwrap();
    defer(&world, object).unwrap();
    let area = world.vmalloc(2 * PAGE, Gfp::KERNEL).unwrap();
    let block = world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    // SAFETY: the frame is the test's until the purge below.
    let mapped = unsafe { world.vmap(&[block.pfn()], Attributes::KERNEL) }.unwrap();
    let nowhere = NonNull::new(std::ptr::without_provenance_mut(START as usize + (1 << 39)));
    let inside = NonNull::new(area.as_ptr().wrapping_add(PAGE)).unwrap();
    for wrong in [inside, mapped, nowhere.unwrap()] {
        assert!(matches!(defer(&world, wrong), Err(DeferError::Bad(_))));
    }
    // SAFETY: nobody uses it.
    unsafe { world.vunmap(mapped) }.unwrap();
    // Given up twice: the second time is found out when it is too late to refuse.
    defer(&world, area).unwrap();
    world.free(area);
    world.grace().barrier().unwrap();
    let reports = world.hardware().take_reports();
    assert!(
        matches!(reports[..], [Corruption::LostObject { .. }]),
        "{reports:?}"
    );
    let _ = world.vmalloc_purge();
    drop(block);
    world.finish();
}

/// What a grace period frees, and what is freed in atomic context, does not wait for the next `vfree`.
fn what_may_not_be_purged_where_it_is_freed_is_purged_soon<C: SimConfig>() {
    let world = world::<C>();
    world.set_vmalloc_lazy_max(8);
    for _ in 0..40 {
        let area = world.vmalloc(PAGE, Gfp::KERNEL).unwrap();
        defer(&world, area).unwrap();
    }
    world.grace().barrier().unwrap();
    let _ = world.grace().tend();
    let waiting = world.vmalloc_stats().lazy_pages;
    assert!(waiting <= 8, "{waiting} pages wait");

    // Its page tables must be walked, which only a task may do.
    world.set_vmalloc_lazy_max(10_000);
    let area = world.vmalloc(600 * PAGE, Gfp::KERNEL).unwrap();
    world.hardware().in_atomic(|| {
        world.free(area);
        assert!(world.grace().tend(), "there is something to do");
    });
    let _ = world.grace().tend();
    assert_eq!(world.mapping(at(area, 0)), None, "it is still there");
    assert!(!world.grace().tend());
    world.finish();
}
