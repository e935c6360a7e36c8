//! Debugged caches: who runs over an end of an object, or uses it after it was freed, is found and named.
//!
//! R19, R20, R17 with the debug profile, and the cases of Linux's `slub_kunit`.

use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use mm::buddy::Gfp;
use mm::report::{Corruption, ObjectDamage, ObjectPart, ObjectRepair};
use mm::slab::{BadFree, SlabFlags, size_roundup};
use mm::system::{KmemCache, Memory};
use mm_tests::for_every_config;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, SimPlatform, Usual};

const MIB: u64 = 1 << 20;
const CLASSES: [usize; 13] = [
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];

type World = Machine<Listed<Checked>>;
type Cache<'m, C> = KmemCache<&'m Memory<SimPlatform<C>>>;

for_every_config! {
    a_debugged_cache_serves_as_any_other,
}

fn machine() -> World {
    World::with_ram(64 * MIB)
}

/// Writes a byte past the library's back, at a distance from an object.
fn write<C: SimConfig>(_: &Machine<C>, object: NonNull<u8>, at: isize, byte: u8) {
    // SAFETY: RAM of the machine; the fault under test.
    unsafe { object.offset(at).write(byte) };
}

fn read<C: SimConfig>(_: &Machine<C>, object: NonNull<u8>, at: isize) -> u8 {
    // SAFETY: RAM of the machine.
    unsafe { object.offset(at).read() }
}

fn free<C: SimConfig>(machine: &Machine<C>, object: NonNull<u8>) -> Result<(), BadFree> {
    // SAFETY: what is refused changes nothing; the others are the test's.
    unsafe { machine.kfree(object) }
}

/// The only report so far.
fn damage<C: SimConfig>(machine: &Machine<C>) -> ObjectDamage {
    let reports = machine.hardware().take_reports();
    match reports[..] {
        [Corruption::Object(damage)] => damage,
        _ => panic!("not one report: {reports:?}"),
    }
}

/// Nothing is wrong, and nothing is told.
fn is_clean<C: SimConfig>(machine: &Machine<C>) {
    machine.validate_caches().unwrap();
    assert_eq!(machine.hardware().take_reports(), []);
}

fn line_of(damage: &ObjectDamage) -> (Option<u32>, Option<u32>) {
    let line = |origin: Option<mm::report::ObjectOrigin>| {
        let place: Option<&Location<'_>> = origin.map(|origin| origin.place);
        assert!(place.is_none_or(|place| place.file().ends_with("guarded.rs")));
        place.map(Location::line)
    };
    (line(damage.allocated), line(damage.freed))
}

/// R19: over 20,000 cases: each class, sizes from the least to the most, one to sixteen bytes on both sides,
/// found when the object is freed, or on demand.
#[test]
fn who_runs_over_an_end_is_found_and_named() {
    let machine = machine();
    let mut random = Random::new(seed("objects_over_an_end"));
    let (mut cases, mut least) = (0, 1);
    for class in CLASSES {
        let step = ((class - least) / 64).max(1);
        for size in (least..=class).step_by(step).chain([class]) {
            for bytes in 1..=16 {
                for side in [-1, 1] {
                    let line = line!() + 1;
                    let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
                    let start = if side < 0 { -bytes } else { size as isize };
                    let byte = loop {
                        match random.next_u64() as u8 {
                            0xcc => {}
                            byte => break byte,
                        }
                    };
                    (start..start + bytes).for_each(|at| write(&machine, object, at, byte));
                    let on_demand = random.below(8) == 0;
                    if on_demand {
                        let found = machine.validate_caches().unwrap_err();
                        assert!(matches!(found, Corruption::Object(_)), "{found:?}");
                    }
                    free(&machine, object).unwrap();
                    let found = damage(&machine);
                    let part = match side {
                        -1 => ObjectPart::LeftRedZone,
                        _ => ObjectPart::RightRedZone,
                    };
                    assert_eq!((found.part, found.size), (part, size as u32));
                    assert_eq!(found.offset as isize, start, "{size}");
                    assert_eq!((found.len as isize, found.expected), (bytes, 0xcc));
                    assert!(found.bytes().iter().all(|&found| found == byte));
                    assert_eq!(found.repair, ObjectRepair::Restored);
                    assert!(found.cache.as_str().starts_with("kmalloc-"));
                    assert_eq!(line_of(&found).0, Some(line));
                    cases += 1;
                }
            }
        }
        least = class + 1;
    }
    assert!(cases >= 20_000, "{cases}");
    is_clean(&machine);
    machine.finish();
}

/// R20: each byte of one object, and 10,000 random ones elsewhere.
#[test]
fn who_uses_an_object_after_it_was_freed_is_found() {
    let machine = machine();
    let mut random = Random::new(seed("objects_after_free"));
    let of_64 = (0..64).map(|at| (64, at));
    let random_ones: Vec<(usize, isize)> = (0..10_000)
        .map(|_| {
            let class = CLASSES[random.below(CLASSES.len() as u64) as usize];
            (class, random.below(class as u64) as isize)
        })
        .collect();
    for (number, (class, at)) in of_64.chain(random_ones).enumerate() {
        let allocated = line!() + 1;
        let object = machine.kmalloc(class, Gfp::KERNEL).unwrap();
        let freed = line!() + 2;
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
        let was = read(&machine, object, at);
        assert_eq!(was, if at as usize == class - 1 { 0xa5 } else { 0x6b });
        write(&machine, object, at, !was);
        // It is found on demand, or by the next one who gets the object.
        let mut next = None;
        if number % 2 == 0 {
            assert!(machine.validate_caches().is_err());
        } else {
            next = Some(machine.kmalloc(class, Gfp::KERNEL).unwrap());
            assert_eq!(next, Some(object));
        }
        let found = damage(&machine);
        assert_eq!(
            (found.part, found.offset as isize),
            (ObjectPart::Poison, at)
        );
        assert_eq!((found.expected, found.bytes()), (was, &[!was][..]));
        assert_eq!(line_of(&found), (Some(allocated), Some(freed)));
        if let Some(next) = next {
            free(&machine, next).unwrap();
        }
        if number % 100 == 0 {
            is_clean(&machine);
        }
    }
    is_clean(&machine);
    machine.finish();
}

/// R17: at once, after up to 64 others, from another CPU, and twice in one list: all of 10,000.
#[test]
fn every_second_free_is_refused() {
    let builder = World::new().ram(0, 64 * MIB).cpus(2);
    let machine = builder.boot();
    let mut random = Random::new(seed("objects_second_free"));
    for round in 0..2_500 {
        let class = CLASSES[random.below(10) as usize];
        let alloc = || machine.kmalloc(class, Gfp::KERNEL).unwrap();
        let object = alloc();
        let others: Vec<_> = (0..1 + random.below(64)).map(|_| alloc()).collect();
        free(&machine, object).unwrap();
        assert_eq!(free(&machine, object), Err(BadFree::AlreadyFree), "{round}");
        for &other in &others {
            free(&machine, other).unwrap();
        }
        assert_eq!(free(&machine, object), Err(BadFree::AlreadyFree), "{round}");
        let shared = AtomicPtr::new(object.as_ptr());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _here = machine.cpu(1);
                let object = NonNull::new(shared.load(Ordering::Relaxed)).unwrap();
                assert_eq!(free(&machine, object), Err(BadFree::AlreadyFree));
            });
        });
        let mut list = [Some(others[0]), Some(alloc()), None];
        list[2] = list[1];
        list[0] = Some(alloc());
        // SAFETY: the second of the two is refused.
        let freed = unsafe { machine.kfree_bulk(&mut list) };
        assert_eq!(freed, Err((2, BadFree::AlreadyFree)));
    }
    is_clean(&machine);
    machine.finish();
}

fn a_debugged_cache_serves_as_any_other<C: SimConfig>() {
    let mut machine = Machine::<C>::with_ram(64 * MIB);
    let flags = [
        SlabFlags::RED_ZONE,
        SlabFlags::POISON,
        SlabFlags::STORE_USER,
        SlabFlags::CONSISTENCY_CHECKS,
        SlabFlags::DEBUG,
    ];
    let home: &Memory<SimPlatform<C>> = &machine;
    let caches: Vec<Cache<'_, C>> = (0..10)
        .map(|number| {
            let (size, align) = [(1, 1), (24, 8), (100, 64), (5000, 4096), (520, 32)][number % 5];
            KmemCache::create(home, "guarded", (size, align), flags[number / 2]).unwrap()
        })
        .collect();
    for cache in &caches {
        let size = cache.stats().object_size as usize;
        let mut random = Random::new(seed("objects_guarded"));
        let mut live: Vec<(NonNull<u8>, u8)> = Vec::new();
        for step in 0..600_u32 {
            if random.below(100) < 60 || live.is_empty() {
                let object = cache.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
                assert!((0..size).all(|at| read(&machine, object, at as isize) == 0));
                let byte = step as u8;
                // SAFETY: the test's own object.
                unsafe { object.write_bytes(byte, size) };
                live.push((object, byte));
            } else {
                let which = random.below(live.len() as u64) as usize;
                let (object, byte) = live.swap_remove(which);
                assert!((0..size).all(|at| read(&machine, object, at as isize) == byte));
                // SAFETY: allocated above.
                unsafe { cache.free(object) }.unwrap();
            }
        }
        assert_eq!(cache.stats().active_objects, live.len() as u64);
        assert_eq!(cache.stats().at_hand, 0);
        is_clean(&machine);
        for (object, _) in live {
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
        }
        is_clean(&machine);
    }
    caches
        .into_iter()
        .for_each(|cache| cache.destroy().unwrap());
    // What caches need themselves stays.
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.rebase();
    machine.finish();
}

/// A cache as the cases of `slub_kunit` make theirs, on a machine that debugs no others.
fn with_cache(
    size: usize,
    flags: SlabFlags,
    body: impl FnOnce(&Machine<Usual>, &Cache<'_, Usual>),
) {
    let mut machine = Machine::<Usual>::with_ram(32 * MIB);
    let flags = flags | SlabFlags::CONSISTENCY_CHECKS;
    let cache = KmemCache::create(&*machine, "TestSlub", (size, 8), flags).unwrap();
    body(&machine, &cache);
    is_clean(&machine);
    cache.destroy().unwrap();
    machine.rebase();
    machine.finish();
}

/// `test_clobber_zone`.
#[test]
fn kunit_clobbered_red_zone() {
    with_cache(64, SlabFlags::RED_ZONE, |machine, cache| {
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        write(machine, object, 64, 0x12);
        assert!(machine.validate_caches().is_err());
        assert_eq!(damage(machine).part, ObjectPart::RightRedZone);
        is_clean(machine);
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    });
}

/// `test_next_pointer`: in ours nothing is lost by it, since each object says whether it is free.
#[test]
fn kunit_corrupted_free_pointer() {
    with_cache(64, SlabFlags::POISON, |machine, cache| {
        let objects: Vec<_> = (0..10).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
        for &object in &objects[1..] {
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
        }
        for on_demand in [true, false] {
            // The word behind the right red zone.
            (0..8).for_each(|at| write(machine, objects[5], 64 + 16 + at, 0x41));
            if on_demand {
                assert!(machine.validate_caches().is_err());
                let found = damage(machine);
                assert_eq!(found.part, ObjectPart::FreePointer);
                assert_eq!(found.repair, ObjectRepair::Relinked);
            } else {
                let all: Vec<_> = (0..40).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
                assert_eq!(damage(machine).part, ObjectPart::FreePointer);
                assert!(all.contains(&objects[5]), "none is lost");
                for object in all {
                    // SAFETY: allocated above.
                    unsafe { cache.free(object) }.unwrap();
                }
            }
            is_clean(machine);
        }
        // SAFETY: allocated above.
        unsafe { cache.free(objects[0]) }.unwrap();
        assert_eq!(cache.stats().active_objects, 0);
    });
}

/// `test_first_word`, `test_clobber_50th_byte`, `test_clobber_redzone_free`.
#[test]
fn kunit_writes_to_a_freed_object() {
    for (at, part) in [
        (0, ObjectPart::Poison),
        (50, ObjectPart::Poison),
        (64, ObjectPart::RightRedZone),
    ] {
        let flags = SlabFlags::POISON | SlabFlags::RED_ZONE;
        with_cache(64, flags, |machine, cache| {
            let object = cache.alloc(Gfp::KERNEL).unwrap();
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
            write(machine, object, at, 0x9a);
            assert!(machine.validate_caches().is_err());
            let found = damage(machine);
            assert_eq!((found.part, found.offset as isize), (part, at));
            is_clean(machine);
        });
    }
}

/// `test_kmalloc_redzone_access`: 18 bytes of 32.
#[test]
fn kunit_bytes_that_were_not_asked_for() {
    let machine = machine();
    let object = machine.kmalloc(18, Gfp::KERNEL).unwrap();
    assert_eq!(machine.ksize(object), Some(18));
    write(&machine, object, 18, 0xab);
    write(&machine, object, 19, 0xab);
    assert!(machine.validate_caches().is_err());
    let found = damage(&machine);
    assert_eq!((found.offset, found.len, found.size), (18, 2, 18));
    free(&machine, object).unwrap();
    is_clean(&machine);
    machine.finish();
}

/// `test_krealloc_redzone_zeroing`: 48, 40, 56, 112 bytes.
#[test]
fn kunit_krealloc() {
    let machine = machine();
    let object = machine.kzalloc(48, Gfp::KERNEL).unwrap();
    // SAFETY: the test's own object.
    unsafe { object.write_bytes(7, 48) };
    let change = |object, old, new| {
        // SAFETY: the test owns the object, which has `old` bytes, and forgets it.
        unsafe { machine.krealloc(object, (old, new), Gfp::KERNEL | Gfp::ZERO) }.unwrap()
    };
    let bytes = |object, from: isize, to: isize| -> Vec<u8> {
        (from..to).map(|at| read(&machine, object, at)).collect()
    };
    let object = change(object, 48, 40);
    assert_eq!(bytes(object, 40, 64), [0xcc; 24]);
    is_clean(&machine);
    let object = change(object, 40, 56);
    assert_eq!(bytes(object, 0, 40), [7; 40]);
    assert_eq!(bytes(object, 40, 56), [0; 16]);
    assert_eq!(bytes(object, 56, 64), [0xcc; 8]);
    let object = change(object, 56, 112);
    assert_eq!(bytes(object, 40, 112), [0; 72]);
    assert_eq!(bytes(object, 112, 128), [0xcc; 16]);
    assert_eq!(machine.ksize(object), Some(112));
    free(&machine, object).unwrap();
    is_clean(&machine);
    machine.finish();
}

#[test]
fn what_says_whether_an_object_is_free_is_looked_after() {
    with_cache(64, SlabFlags::RED_ZONE, |machine, cache| {
        let (one, two) = (
            cache.alloc(Gfp::KERNEL).unwrap(),
            cache.alloc(Gfp::KERNEL).unwrap(),
        );
        // The record is the second word behind the right red zone.
        (0..8).for_each(|at| write(machine, one, 64 + 16 + 8 + at, 0x41));
        assert!(machine.validate_caches().is_err());
        assert_eq!(damage(machine).part, ObjectPart::Record);
        is_clean(machine);
        (0..8).for_each(|at| write(machine, two, 64 + 16 + 8 + at, 0x41));
        for object in [one, two] {
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
        }
        assert_eq!(damage(machine).part, ObjectPart::Record);
        // Of a free object too.
        (0..8).for_each(|at| write(machine, one, 64 + 16 + 8 + at, 0x41));
        assert!(machine.validate_caches().is_err());
        assert_eq!(damage(machine).part, ObjectPart::Record);
        is_clean(machine);
    });
}

/// A slab without a free object is looked at too.
#[test]
fn objects_of_full_slabs_are_looked_at() {
    let machine = machine();
    let count = 5000;
    let objects: Vec<_> = (0..count)
        .map(|_| machine.kmalloc(200, Gfp::KERNEL).unwrap())
        .collect();
    is_clean(&machine);
    for &object in objects.iter().step_by(117) {
        write(&machine, object, 200, 1);
        assert!(machine.validate_caches().is_err());
        assert_eq!(damage(&machine).offset, 200);
    }
    is_clean(&machine);
    for object in objects {
        free(&machine, object).unwrap();
    }
    is_clean(&machine);
    machine.finish();
}

/// What is no object of a debugged cache is refused.
#[test]
fn what_is_no_object_is_refused() {
    let machine = machine();
    for class in CLASSES {
        let object = machine.kmalloc(class, Gfp::KERNEL).unwrap();
        for at in [-16, -8, -1, 1, 8, class as isize, class as isize + 16] {
            // SAFETY: within the slab.
            let inside = unsafe { object.offset(at) };
            assert_eq!(
                free(&machine, inside),
                Err(BadFree::NotAnObject),
                "{class} {at}"
            );
        }
        let promised = (class & class.wrapping_neg()).min(4096);
        assert_eq!(object.addr().get() % promised, 0);
        assert_eq!(size_roundup(class), Some(class));
        free(&machine, object).unwrap();
    }
    is_clean(&machine);
    machine.finish();
}
