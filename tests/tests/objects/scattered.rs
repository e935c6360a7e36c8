//! Memory that is free in single pages only: objects come from smaller slabs then.

use std::ptr::NonNull;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::slab::{BadFree, SlabFlags};
use mm::system::{AllocError, KmemCache};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, Plain, SimConfig, Sparse, Usual};

const MIB: u64 = 1 << 20;
/// Those of `kmalloc` that fit into a page, the last two only if there is nothing around them.
const SIZES: [usize; 12] = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096];

/// Takes all memory of a machine, and gives every other page back. Answers the pages that are kept.
fn scatter<C: SimConfig>(machine: &Machine<C>) -> Vec<Pfn> {
    let gfp = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN;
    let all: Vec<_> = std::iter::from_fn(|| machine.alloc_page(gfp).ok()).collect();
    let (kept, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|pfn| pfn.as_u64() % 2 == 0);
    for pfn in others {
        // SAFETY: the test's own.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    kept
}

fn gather<C: SimConfig>(machine: &Machine<C>, kept: Vec<Pfn>) {
    for pfn in kept {
        // SAFETY: the test's own.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
}

fn free<C: SimConfig>(machine: &Machine<C>, object: NonNull<u8>) -> Result<(), BadFree> {
    // SAFETY: what is refused changes nothing; the others are the test's.
    unsafe { machine.kfree(object) }
}

fn objects_come_and_go<C: SimConfig>(sizes: &[usize]) {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let mut random = Random::new(seed("scattered"));
    let kept = scatter(&machine);
    let mut live: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
    let check = |(object, size, stamp): (NonNull<u8>, usize, u8)| {
        for at in [0, size / 2, size - 1] {
            // SAFETY: the test's own object.
            assert_eq!(unsafe { object.add(at).read() }, stamp, "{size}");
        }
        free(&machine, object).unwrap();
    };
    for round in 0..20_000_u32 {
        let size = sizes[random.below(sizes.len() as u64) as usize];
        if random.below(100) < 55 {
            let object = machine.kmalloc(size, Gfp::KERNEL | Gfp::NOWARN);
            let object =
                object.unwrap_or_else(|_| panic!("{size} bytes, round {round}, {:?}", C::PROFILE));
            let stamp = round as u8;
            // SAFETY: the test's own object.
            unsafe { object.write_bytes(stamp, size) };
            live.push((object, size, stamp));
        } else if !live.is_empty() {
            check(live.swap_remove(random.below(live.len() as u64) as usize));
        }
        if round == 10_000 {
            machine.check();
        }
    }
    // With memory in one piece again, both kinds of slabs are there.
    gather(&machine, kept);
    for _ in 0..1_000 {
        let object = machine.kmalloc(1024, Gfp::KERNEL).unwrap();
        // SAFETY: the test's own object.
        unsafe { object.write_bytes(1, 1024) };
        live.push((object, 1024, 1));
    }
    machine.check();
    live.drain(..).for_each(check);
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.finish();
}

#[test]
fn objects_come_and_go_in_small_slabs() {
    objects_come_and_go::<Listed<(Plain, Sparse)>>(&SIZES);
    objects_come_and_go::<Listed<Usual>>(&SIZES);
    objects_come_and_go::<Checked>(&SIZES[..10]);
}

#[test]
fn what_is_no_object_of_a_small_slab_is_refused() {
    let machine = Machine::<Listed<Usual>>::with_ram(64 * MIB);
    let kept = scatter(&machine);
    let objects: Vec<_> = (0..40)
        .map(|_| machine.kmalloc(1024, Gfp::KERNEL).unwrap())
        .collect();
    for &object in &objects {
        for offset in [8, 512, 1016] {
            // SAFETY: within the object.
            let inside = unsafe { object.add(offset) };
            assert_eq!(free(&machine, inside), Err(BadFree::NotAnObject));
        }
    }
    let mut numbers = objects
        .iter()
        .map(|object| object.addr().get() % 4096 / 1024);
    assert!(numbers.any(|number| number == 3), "slabs of one page");
    for object in objects {
        free(&machine, object).unwrap();
        assert_eq!(free(&machine, object), Err(BadFree::AlreadyFree));
    }
    machine.check();
    gather(&machine, kept);
    machine.finish();
}

#[test]
fn what_has_no_smaller_slab_is_out_of_memory_and_numbers_stay_right() {
    let mut machine = Machine::<Listed<Usual>>::with_ram(64 * MIB);
    let large = (6000, 8);
    let cache = KmemCache::create(&*machine, "large", large, SlabFlags::empty()).unwrap();
    let kept = scatter(&machine);
    let found = cache.alloc(Gfp::KERNEL | Gfp::NOWARN);
    assert_eq!(found, Err(AllocError::OutOfMemory));
    let small = KmemCache::create(&*machine, "small", (1000, 8), SlabFlags::NO_MERGE).unwrap();
    let one = small.alloc(Gfp::KERNEL).unwrap();
    let stats = small.stats();
    assert_eq!((stats.slabs, stats.pages, stats.objects), (1, 1, 4));
    gather(&machine, kept);
    let many: Vec<_> = (0..10).map(|_| small.alloc(Gfp::KERNEL).unwrap()).collect();
    let stats = small.stats();
    assert_eq!((stats.slabs, stats.pages), (2, 1 + stats.pages_per_slab));
    assert_eq!(stats.objects, 4 + stats.objects_per_slab);
    for object in many.into_iter().chain([one]) {
        // SAFETY: the test's own.
        unsafe { small.free(object) }.unwrap();
    }
    assert_eq!(small.shrink(), 1 + stats.pages_per_slab);
    small.destroy().unwrap();
    cache.destroy().unwrap();
    machine.drain_all_pages();
    // What caches have for each CPU stays.
    machine.rebase();
    machine.finish();
}
