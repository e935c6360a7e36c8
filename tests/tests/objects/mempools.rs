//! Pools with a reserve: who may sleep always gets an element.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::{AllocError, KmallocElements, KmemCache, Mempool, PageElements};
use mm_tests::sim::{Listed, Machine, Usual};

const MIB: u64 = 1 << 20;

type World = Machine<Listed<Usual>>;

fn kmalloc<const N: usize>(
    machine: &World,
    bytes: usize,
) -> Mempool<KmallocElements<&mm::system::Memory<mm_tests::sim::SimPlatform<Listed<Usual>>>>, N> {
    let home = &**machine;
    Mempool::new(KmallocElements { home, bytes }, Gfp::KERNEL).unwrap()
}

/// Takes all pages there are.
fn use_up(machine: &World) -> Vec<Pfn> {
    let gfp = Gfp::NOWAIT | Gfp::MEMALLOC;
    let mut all = Vec::new();
    while let Ok(page) = machine.alloc_page(gfp) {
        all.push(page);
    }
    all
}

fn give_back(machine: &World, pages: Vec<Pfn>) {
    for page in pages {
        // SAFETY: taken by the test.
        unsafe { machine.free_pages(page, Order::ZERO) }.unwrap();
    }
}

#[test]
fn the_reserve_is_for_when_memory_is_gone() {
    let machine = World::with_ram(16 * MIB);
    let pool = kmalloc::<4>(&machine, 8192);
    let easy: Vec<_> = (0..10).map(|_| pool.alloc(Gfp::NOWAIT).unwrap()).collect();
    assert_eq!(pool.in_reserve(), 4, "there is other memory");
    let pages = use_up(&machine);
    // Slabs may have some left.
    let mut left = Vec::new();
    while let Ok(object) = machine.kmalloc(8192, Gfp::NOWAIT) {
        left.push(object);
    }
    let mut hard: Vec<_> = (0..4).map(|_| pool.alloc(Gfp::NOWAIT).unwrap()).collect();
    assert_eq!(pool.in_reserve(), 0);
    assert_eq!(
        pool.alloc(Gfp::NOWAIT).unwrap_err(),
        AllocError::OutOfMemory
    );
    machine.hardware().in_atomic(|| {
        assert!(pool.alloc(Gfp::KERNEL).is_err(), "it would have to wait");
    });
    hard[0].fill(0x77);
    // What comes back fills the reserve before anything else gets it.
    drop(hard.pop());
    assert_eq!(pool.in_reserve(), 1);
    assert!(pool.alloc(Gfp::NOWAIT).is_ok());
    drop((hard, easy));
    assert_eq!(pool.in_reserve(), 4);
    give_back(&machine, pages);
    for object in left {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    let _ = pool.into_source();
    machine.finish();
}

/// Three threads need more than there is, again and again, and none of them fails.
#[test]
fn whoever_may_sleep_gets_an_element_when_one_comes_back() {
    let machine = World::new().ram(0, 16 * MIB).cpus(4).boot();
    let pool = kmalloc::<2>(&machine, 8192);
    let pages = use_up(&machine);
    let (served, held) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for cpu in 1..4 {
            let (machine, pool, served, held) = (&machine, &pool, &served, &held);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                for round in 0..200_u8 {
                    let mut element = pool.alloc(Gfp::NOIO).unwrap();
                    assert!(held.fetch_add(1, Ordering::AcqRel) < 2);
                    element.fill(round);
                    thread::yield_now();
                    assert!(element.iter().all(|&byte| byte == round));
                    held.fetch_sub(1, Ordering::AcqRel);
                    drop(element);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((served.into_inner(), pool.in_reserve()), (600, 2));
    give_back(&machine, pages);
    drop(pool);
    machine.finish();
}

#[test]
fn elements_come_from_caches_and_pages_too() {
    let machine = World::with_ram(16 * MIB);
    let cache = KmemCache::create(&*machine, "elements", (300, 8), SlabFlags::empty()).unwrap();
    let objects = Mempool::<_, 3>::new(cache, Gfp::KERNEL).unwrap();
    let order = Order::new(2).unwrap();
    let home = &*machine;
    let blocks = Mempool::<_, 3>::new(PageElements { home, order }, Gfp::KERNEL).unwrap();
    let pages = use_up(&machine);
    let mut object = objects.alloc(Gfp::NOWAIT).unwrap();
    object.fill(1);
    let held: Vec<_> = (0..3).map(|_| blocks.alloc(Gfp::NOWAIT).unwrap()).collect();
    assert!(held.iter().all(|block| block.order() == order));
    assert_eq!(blocks.in_reserve(), 0);
    drop((object, held));
    give_back(&machine, pages);
    assert_eq!((blocks.in_reserve(), objects.in_reserve()), (3, 3));
    drop(blocks);
    objects.into_source().destroy().unwrap();
    machine.check();
    machine.abandon();
}

#[test]
fn a_pool_without_its_reserve_is_none() {
    let machine = World::with_ram(16 * MIB);
    let pages = use_up(&machine);
    let home = &*machine;
    let source = KmallocElements { home, bytes: 8192 };
    let refused = Mempool::<_, 4>::new(source, Gfp::NOWAIT);
    assert_eq!(refused.err(), Some(AllocError::OutOfMemory));
    give_back(&machine, pages);
    machine.finish();
}
