//! Caches whose objects keep what is in them: constructors, and objects that readers may look at after they were
//! freed.

use std::cell::Cell;
use std::collections::HashSet;
use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::{AllocError, KmemCache, Memory};
use mm_tests::for_four_configs;
use mm_tests::sim::{Machine, SimConfig, SimPlatform, Usual};

const MIB: u64 = 1 << 20;
const SIZE: usize = 56;

type Cache<'m, C> = KmemCache<&'m Memory<SimPlatform<C>>>;

for_four_configs! {
    constructed_objects_come_back_as_they_were_left,
    constructors_run_once_for_each_object_of_a_slab,
    slabs_that_readers_may_see_wait_for_them,
}

thread_local! {
    static CONSTRUCTED: Cell<u64> = const { Cell::new(0) };
}

fn construct(object: &mut [u8]) {
    CONSTRUCTED.set(CONSTRUCTED.get() + 1);
    assert_eq!(object.len(), SIZE);
    object.fill(0xc7);
}

fn machine<C: SimConfig>() -> Machine<C> {
    // Whatever is done to other objects.
    let builder = Machine::<C>::new().ram(0, 32 * MIB).options(|options| {
        options.init_on_alloc = true;
        options.init_on_free = true;
    });
    let mut machine = builder.boot();
    // What caches need themselves stays.
    let create = || KmemCache::create(&*machine, "first", (SIZE, 8), SlabFlags::NO_MERGE).unwrap();
    let both = [create(), create()];
    both.into_iter().for_each(|cache| cache.destroy().unwrap());
    machine.drain_all_pages();
    machine.rebase();
    machine
}

fn constructed<C: SimConfig>(machine: &Machine<C>) -> Cache<'_, C> {
    let flags = SlabFlags::empty();
    KmemCache::create_with_ctor(&**machine, "constructed", (SIZE, 8), flags, construct).unwrap()
}

fn bytes(object: NonNull<u8>) -> Vec<u8> {
    // SAFETY: RAM of the machine, of an object of that size; tests read free ones, too.
    unsafe { std::slice::from_raw_parts(object.as_ptr(), SIZE) }.to_vec()
}

fn fill(object: NonNull<u8>, byte: u8) {
    // SAFETY: the test owns the object.
    unsafe { object.write_bytes(byte, SIZE) };
}

fn free<C: SimConfig>(cache: &Cache<'_, C>, object: NonNull<u8>) {
    // SAFETY: the test owns the object, and forgets it.
    unsafe { cache.free(object) }.unwrap();
}

fn constructed_objects_come_back_as_they_were_left<C: SimConfig>() {
    let machine = machine::<C>();
    let cache = constructed(&machine);
    let alloc = || cache.alloc(Gfp::KERNEL).unwrap();
    let objects: Vec<_> = (0..300).map(|_| alloc()).collect();
    let places: HashSet<_> = objects.iter().copied().collect();
    for &object in &objects {
        assert_eq!(bytes(object), [0xc7; SIZE]);
        fill(object, 0xc8);
    }
    // At hand of the CPU, on lists of slabs: nothing is written to them in between.
    objects.iter().for_each(|object| free(&cache, *object));
    for &object in &objects {
        assert_eq!(bytes(object), [0xc8; SIZE]);
    }
    let again: Vec<_> = (0..300).map(|_| alloc()).collect();
    let known = again.iter().filter(|object| places.contains(object));
    let mut kept = 0;
    for &object in known {
        assert_eq!(bytes(object), [0xc8; SIZE]);
        kept += 1;
    }
    assert!(kept > 200, "{kept}");
    assert_eq!(
        cache.alloc(Gfp::KERNEL | Gfp::ZERO),
        Err(AllocError::Constructed)
    );
    again.iter().for_each(|object| free(&cache, *object));
    machine.check();
    cache.destroy().unwrap();
    machine.finish();
}

fn constructors_run_once_for_each_object_of_a_slab<C: SimConfig>() {
    let machine = machine::<C>();
    let (cache, other) = (constructed(&machine), constructed(&machine));
    CONSTRUCTED.set(0);
    for _ in 0..3 {
        let objects: Vec<_> = (0..100)
            .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
            .collect();
        objects.into_iter().for_each(|object| free(&cache, object));
    }
    assert_eq!(CONSTRUCTED.get(), cache.stats().objects);
    assert_eq!(other.stats().slabs, 0, "each has slabs of its own");
    cache.destroy().unwrap();
    other.destroy().unwrap();
    machine.finish();
}

fn slabs_that_readers_may_see_wait_for_them<C: SimConfig>() {
    let machine = machine::<C>();
    let flags = SlabFlags::TYPESAFE_BY_RCU;
    let cache = KmemCache::create(&*machine, "typesafe", (SIZE, 8), flags).unwrap();
    let objects: Vec<_> = (0..200)
        .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
        .collect();
    for &object in &objects {
        fill(object, 0x11);
    }
    let before = machine.free_frames();
    let reader = machine.grace().pin().unwrap();
    objects.iter().for_each(|object| free(&cache, *object));
    let pages = cache.shrink();
    assert!(pages >= 3 && cache.stats().slabs == 0);
    // They may become objects of this cache again, but nothing else, while the reader is there.
    machine.grace().tend();
    assert!(machine.grace().pending() > 0);
    for &object in &objects {
        assert_eq!(bytes(object), [0x11; SIZE]);
    }
    drop(reader);
    machine.grace().barrier().unwrap();
    machine.drain_all_pages();
    assert!(machine.free_frames() >= before + pages);
    cache.destroy().unwrap();
    machine.finish();
}

#[test]
#[should_panic(expected = "no cache `vital`: objects have no size")]
fn a_cache_that_must_be_is_a_panic_otherwise() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let created = KmemCache::create(&*machine, "vital", (0, 8), SlabFlags::PANIC);
    drop(created);
    machine.finish();
}
