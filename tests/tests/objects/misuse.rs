//! R17, R18: frees that are none are refused, and nothing is changed by them.

use std::ptr::NonNull;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::slab::{BadFree, SlabFlags};
use mm::system::{Block, KmemCache};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, Usual};

const MIB: u64 = 1 << 20;
const SIZES: [usize; 6] = [8, 16, 64, 96, 1024, 8192];

fn machine() -> Machine<Listed<Usual>> {
    Machine::<Listed<Usual>>::with_ram(64 * MIB)
}

fn free(machine: &Machine<Listed<Usual>>, object: NonNull<u8>) -> Result<(), BadFree> {
    // SAFETY: what is refused changes nothing; the others are the test's.
    unsafe { machine.kfree(object) }
}

#[test]
fn a_second_free_is_refused_at_once_and_later() {
    let machine = machine();
    for between in [0, 1, 2, 7, 64, 300] {
        for size in SIZES {
            let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
            let others: Vec<_> = (0..between)
                .map(|_| machine.kmalloc(size, Gfp::KERNEL).unwrap())
                .collect();
            free(&machine, object).unwrap();
            for other in others {
                free(&machine, other).unwrap();
            }
            assert_eq!(
                free(&machine, object),
                Err(BadFree::AlreadyFree),
                "{size}, {between}"
            );
        }
    }
    machine.check();
    machine.finish();
}

#[test]
fn ten_thousand_second_frees_are_refused() {
    let machine = machine();
    let mut random = Random::new(seed("objects_misuse"));
    let mut free_ones: Vec<NonNull<u8>> = Vec::new();
    for round in 0..10_000 {
        let size = SIZES[random.below(SIZES.len() as u64) as usize];
        let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
        free_ones.retain(|&freed| freed != object);
        free(&machine, object).unwrap();
        free_ones.push(object);
        let victim = free_ones[random.below(free_ones.len() as u64) as usize];
        assert_eq!(free(&machine, victim), Err(BadFree::AlreadyFree), "{round}");
    }
    machine.finish();
}

#[test]
fn what_is_no_object_is_refused() {
    let machine = machine();
    let stack = 0_u64;
    for size in SIZES {
        let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
        for inside in [1, 2, 4, size / 2, size - 1]
            .into_iter()
            .filter(|inside| *inside > 0)
        {
            // SAFETY: within the object.
            let inside = unsafe { object.add(inside) };
            assert_eq!(free(&machine, inside), Err(BadFree::NotAnObject), "{size}");
        }
        free(&machine, object).unwrap();
    }
    let on_stack = NonNull::from(&stack).cast();
    assert_eq!(free(&machine, on_stack), Err(BadFree::NotASlab));
    let page = Block::alloc(&*machine, Gfp::KERNEL, Order::ZERO).unwrap();
    assert_eq!(
        free(&machine, page.as_ptr().unwrap()),
        Err(BadFree::NotASlab)
    );
    drop(page);
    let pages = machine.kmalloc(20_000, Gfp::KERNEL).unwrap();
    for (offset, error) in [(4096, BadFree::NotASlab), (8, BadFree::NotAnObject)] {
        // SAFETY: within the pages.
        let inside = unsafe { pages.add(offset) };
        assert_eq!(free(&machine, inside), Err(error));
    }
    free(&machine, pages).unwrap();
    assert_eq!(free(&machine, pages), Err(BadFree::AlreadyFree));
    machine.finish();
}

#[test]
fn an_object_of_another_cache_is_refused() {
    let mut machine = machine();
    let create =
        |size| KmemCache::create(&*machine, "test", (size, 8), SlabFlags::NO_MERGE).unwrap();
    let (one, two) = (create(64), create(64));
    let object = one.alloc(Gfp::KERNEL).unwrap();
    // SAFETY: it is refused.
    assert_eq!(unsafe { two.free(object) }, Err(BadFree::OtherCache));
    // SAFETY: allocated above.
    unsafe { one.free(object) }.unwrap();
    // SAFETY: it is refused.
    assert_eq!(unsafe { one.free(object) }, Err(BadFree::AlreadyFree));
    one.destroy().unwrap();
    two.destroy().unwrap();
    // What caches need themselves stays.
    assert!(machine.drain_all_pages());
    machine.rebase();
    machine.finish();
}

#[test]
fn a_slab_is_no_block_of_pages() {
    let machine = machine();
    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    let address = mm::addr::VirtAddr::from_ptr(object.as_ptr());
    let physical = mm::platform::Platform::virt_to_phys(machine.hardware(), address).unwrap();
    let pfn = physical.frame();
    for order in Order::all() {
        // SAFETY: it is refused.
        let freed = unsafe { machine.free_pages(pfn, order) };
        assert!(freed.is_err(), "{order:?}");
    }
    free(&machine, object).unwrap();
    machine.finish();
}

#[test]
fn what_is_wiped_is_refused_the_second_time_too() {
    let machine = machine();
    for size in SIZES {
        let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
        // SAFETY: the test's own; what is refused changes nothing.
        let free = || unsafe { machine.kfree_sensitive(object) };
        assert_eq!((free(), free()), (Ok(()), Err(BadFree::AlreadyFree)));
    }
    machine.check();
    machine.finish();
}
