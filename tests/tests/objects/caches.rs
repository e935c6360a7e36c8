//! Caches of their own: made, shared, shrunk, ended.

use mm::buddy::Gfp;
use mm::slab::{CacheError, ShapeError, SlabFlags};
use mm::system::KmemCache;
use mm_tests::sim::{Machine, Usual};

const MIB: u64 = 1 << 20;

fn machine() -> Machine<Usual> {
    Machine::<Usual>::with_ram(32 * MIB)
}

type Cache<'m> = KmemCache<&'m mm::system::Memory<mm_tests::sim::SimPlatform<Usual>>>;

fn create<'m>(machine: &'m Machine<Usual>, size: usize, flags: SlabFlags) -> Cache<'m> {
    KmemCache::create(&**machine, "test", (size, 8), flags).unwrap()
}

#[test]
fn what_caches_need_themselves_is_kept_for_the_next_ones() {
    let mut machine = machine();
    create(&machine, 200, SlabFlags::empty()).destroy().unwrap();
    machine.rebase();
    for size in [200, 24, 5000, 100_000] {
        let cache = create(&machine, size, SlabFlags::NO_MERGE);
        let objects: Vec<_> = (0..100)
            .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
            .collect();
        assert_eq!(cache.stats().active_objects, 100);
        assert_eq!(cache.stats().object_size, size as u64);
        for object in objects {
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
        }
        machine.check();
        cache.destroy().unwrap();
    }
    machine.finish();
}

/// R23.
#[test]
fn a_cache_with_live_objects_stays() {
    let mut machine = machine();
    create(&machine, 72, SlabFlags::empty()).destroy().unwrap();
    machine.rebase();
    let mut cache = create(&machine, 72, SlabFlags::empty());
    let mut objects: Vec<_> = (0..90).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
    while let Some(object) = objects.pop() {
        let refused = cache.destroy().unwrap_err();
        assert_eq!(refused.objects, objects.len() as u64 + 1);
        cache = refused.cache;
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
        let spare = cache.alloc(Gfp::KERNEL).unwrap();
        // SAFETY: just allocated.
        unsafe { cache.free(spare) }.unwrap();
    }
    cache.destroy().unwrap();
    machine.finish();
}

/// What a CPU knows of a cache is of no use for the next one that gets its number.
#[test]
fn nothing_is_left_of_a_cache_that_ended() {
    let mut machine = Machine::<Usual>::new().ram(0, 32 * MIB).cpus(3).boot();
    let pair_on = |cpu: u32, cache: &Cache<'_>| {
        let _here = machine.cpu(cpu);
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        // SAFETY: just allocated.
        unsafe { cache.free(object) }.unwrap();
    };
    let large = create(&machine, 512, SlabFlags::NO_MERGE);
    (1..3).for_each(|cpu| pair_on(cpu, &large));
    large.destroy().unwrap();
    // Small objects that one CPU hands out and the other takes back, between others that stay.
    let small = create(&machine, 16, SlabFlags::NO_MERGE);
    let all: Vec<_> = {
        let _here = machine.cpu(1);
        let all = (0..200).map(|_| small.alloc(Gfp::KERNEL).unwrap());
        // SAFETY: each is 16 bytes, and ours.
        all.inspect(|object| unsafe { object.write_bytes(0xa5, 16) })
            .collect()
    };
    let (back, kept): (Vec<_>, Vec<_>) = (0..).zip(all).partition(|(number, _)| number % 3 == 0);
    {
        let _here = machine.cpu(2);
        for (_, object) in back {
            // SAFETY: allocated above.
            unsafe { small.free(object) }.unwrap();
        }
        for (_, object) in kept {
            // SAFETY: as above.
            let bytes = unsafe { object.cast::<[u8; 16]>().read() };
            assert_eq!(bytes, [0xa5; 16]);
            // SAFETY: as above.
            unsafe { small.free(object) }.unwrap();
        }
    }
    machine.check();
    small.destroy().unwrap();
    machine.rebase();
    machine.finish();
}

#[test]
fn caches_that_are_alike_are_one_unless_they_must_not() {
    let mut machine = machine();
    let first = create(&machine, 40, SlabFlags::empty());
    let second = create(&machine, 40, SlabFlags::empty());
    let third = create(&machine, 40, SlabFlags::NO_MERGE);
    let object = first.alloc(Gfp::KERNEL).unwrap();
    assert_eq!((first.stats(), third.stats().slabs), (second.stats(), 0));
    // SAFETY: an object of the cache that both are.
    unsafe { second.free(object) }.unwrap();
    first.destroy().unwrap();
    let object = second.alloc(Gfp::KERNEL).unwrap();
    // SAFETY: just allocated.
    unsafe { second.free(object) }.unwrap();
    second.destroy().unwrap();
    third.destroy().unwrap();
    machine.rebase();
    machine.finish();
}

/// O5: what is empty goes back.
#[test]
fn shrinking_gives_back_every_empty_slab() {
    let mut machine = machine();
    create(&machine, 256, SlabFlags::NO_MERGE)
        .destroy()
        .unwrap();
    machine.rebase();
    let cache = create(&machine, 256, SlabFlags::NO_MERGE);
    let objects: Vec<_> = (0..1000)
        .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
        .collect();
    let slabs = cache.stats().slabs;
    let (kept, dropped): (Vec<_>, Vec<_>) = (0..)
        .zip(objects)
        .partition(|(number, _)| number % 100 == 0);
    for (_, object) in dropped {
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    }
    let _ = cache.shrink();
    let stats = cache.stats();
    assert!(stats.slabs <= 10 && stats.slabs < slabs, "{stats:?}");
    assert_eq!(
        (stats.active_objects, stats.at_hand, stats.active_slabs),
        (10, 0, stats.slabs)
    );
    for (_, object) in kept {
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    }
    assert!(cache.shrink() > 0);
    assert_eq!(cache.stats().slabs, 0);
    cache.destroy().unwrap();
    machine.finish();
}

#[test]
fn what_cannot_be_a_cache_is_refused() {
    let machine = machine();
    let create =
        |size, align, flags| KmemCache::create(&*machine, "test", (size, align), flags).err();
    let none = SlabFlags::empty();
    assert_eq!(
        create(0, 8, none),
        Some(CacheError::Shape(ShapeError::Empty))
    );
    assert_eq!(
        create(8, 24, none),
        Some(CacheError::Shape(ShapeError::Align))
    );
    assert_eq!(
        create(5 << 20, 8, none),
        Some(CacheError::Shape(ShapeError::TooLarge))
    );
    let both = SlabFlags::CACHE_DMA | SlabFlags::CACHE_DMA32;
    assert_eq!(create(8, 8, both), Some(CacheError::Zones));
    machine.finish();
}

#[test]
fn there_are_as_many_caches_as_there_is_room_for() {
    let mut machine = machine();
    let mut caches = Vec::new();
    let error = loop {
        match KmemCache::create(&*machine, "one of many", (64, 8), SlabFlags::NO_MERGE) {
            Ok(cache) => caches.push(cache),
            Err(error) => break error,
        }
    };
    assert_eq!((error, caches.len()), (CacheError::TooMany, 512));
    let mut names = 0;
    machine.for_each_cache(|name, _| names += usize::from(name == "one of many"));
    assert_eq!(names, 512);
    caches
        .into_iter()
        .for_each(|cache| cache.destroy().unwrap());
    machine.rebase();
    machine.finish();
}
