//! Many objects of a cache at once.

use std::collections::HashSet;
use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::slab::{BadFree, SlabFlags};
use mm::system::KmemCache;
use mm_tests::for_four_configs;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

for_four_configs! {
    bulk_and_single_objects_are_the_same,
    bulk_fills_what_memory_there_is,
}

fn bulk_and_single_objects_are_the_same<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let cache = KmemCache::create(&*machine, "bulk", (200, 8), SlabFlags::empty()).unwrap();
    let seed = seed("objects_bulk");
    let mut random = Random::new(seed);
    let mut live: Vec<NonNull<u8>> = Vec::new();
    let mut places = HashSet::new();
    for _ in 0..2_000 {
        let many = 1 + random.below(100) as usize;
        let gfp = match random.below(4) {
            0 => Gfp::KERNEL | Gfp::ZERO,
            _ => Gfp::KERNEL,
        };
        match random.below(5) {
            0 | 1 => {
                let mut objects = vec![None; many];
                // Some places are full already.
                if many > 3 {
                    objects[many / 2] = Some(NonNull::dangling());
                }
                assert_eq!(cache.alloc_bulk(gfp, &mut objects), Ok(many));
                if many > 3 {
                    assert_eq!(objects[many / 2].take(), Some(NonNull::dangling()));
                }
                for object in objects.into_iter().flatten() {
                    assert!(places.insert(object), "handed out twice, seed {seed}");
                    // SAFETY: an object of 200 bytes that was just allocated.
                    let bytes = unsafe { object.cast::<[u8; 200]>().as_mut() };
                    assert!(!gfp.contains(Gfp::ZERO) || *bytes == [0; 200]);
                    bytes.fill(0xee);
                    live.push(object);
                }
            }
            2 => {
                let object = cache.alloc(Gfp::KERNEL).unwrap();
                assert!(places.insert(object), "handed out twice, seed {seed}");
                live.push(object);
            }
            _ => {
                let mut objects = Vec::new();
                for _ in 0..many.min(live.len()) {
                    let object = live.swap_remove(random.below(live.len() as u64) as usize);
                    places.remove(&object);
                    objects.push(Some(object));
                    if random.below(8) == 0 {
                        objects.push(None);
                    }
                }
                // SAFETY: the test owns them, and forgets them.
                unsafe { cache.free_bulk(&mut objects) }.unwrap();
                assert!(objects.iter().all(Option::is_none));
            }
        }
    }
    assert_eq!(cache.stats().active_objects, live.len() as u64);
    let mut rest: Vec<_> = live.into_iter().map(Some).collect();
    // SAFETY: as above.
    unsafe { cache.free_bulk(&mut rest) }.unwrap();
    machine.check();
    cache.destroy().unwrap();
    machine.validate_caches().unwrap();
    machine.abandon();
}

fn bulk_fills_what_memory_there_is<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(16 * MIB);
    let cache = KmemCache::create(&*machine, "bulk", (4000, 8), SlabFlags::empty()).unwrap();
    let mut objects = vec![None; 10_000];
    let gfp = Gfp::NOWAIT;
    let got = cache.alloc_bulk(gfp, &mut objects).unwrap();
    assert!(got > 1_000 && got < 4_096, "{got}");
    assert_eq!(objects.iter().flatten().count(), got);
    // SAFETY: the test owns them, and forgets them.
    unsafe { cache.free_bulk(&mut objects) }.unwrap();
    cache.destroy().unwrap();
    machine.check();
    machine.abandon();
}

/// R17, R18: what is found before and behind the bad one is as it should be.
#[test]
fn a_bad_object_stops_a_bulk_free_where_it_is() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let cache = KmemCache::create(&*machine, "bulk", (72, 8), SlabFlags::NO_MERGE).unwrap();
    let foreign = machine.kmalloc(72, Gfp::KERNEL).unwrap();
    for (at, kind) in (0..90).zip([0, 1, 2].into_iter().cycle()) {
        let mut objects = vec![None; 90];
        cache.alloc_bulk(Gfp::KERNEL, &mut objects).unwrap();
        let good = objects.clone();
        let error = match kind {
            0 => {
                objects[at] = Some(foreign);
                BadFree::OtherCache
            }
            1 => {
                // SAFETY: within the object.
                objects[at] = objects[at].map(|object| unsafe { object.add(8) });
                BadFree::NotAnObject
            }
            _ => {
                objects.insert(at + 1, objects[at]);
                BadFree::AlreadyFree
            }
        };
        let bad = at + usize::from(kind == 2);
        // SAFETY: what is refused changes nothing, the others are the test's.
        let refused = unsafe { cache.free_bulk(&mut objects) };
        assert_eq!(refused, Err((bad, error)));
        assert!(objects[..bad].iter().all(Option::is_none));
        assert!(objects[bad..].iter().all(Option::is_some));
        let mut left: Vec<_> = good[at + usize::from(kind == 2)..].to_vec();
        // SAFETY: these were not given back yet.
        unsafe { cache.free_bulk(&mut left) }.unwrap();
        assert_eq!(cache.stats().active_objects, 0);
    }
    // SAFETY: allocated above.
    unsafe { machine.kfree(foreign) }.unwrap();
    cache.destroy().unwrap();
    machine.check();
    machine.abandon();
}

#[test]
fn an_object_that_was_written_to_is_left_out_of_a_bulk() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let cache = KmemCache::create(&*machine, "bulk", (64, 8), SlabFlags::NO_MERGE).unwrap();
    let mut objects = vec![None; 20];
    cache.alloc_bulk(Gfp::KERNEL, &mut objects).unwrap();
    let victim = objects[7].unwrap();
    // SAFETY: the test owns them, and forgets them.
    unsafe { cache.free_bulk(&mut objects) }.unwrap();
    // SAFETY: RAM of the machine; the fault under test.
    unsafe { victim.add(32).cast::<u64>().write(0x4242_4242_4242_4242) };
    assert_eq!(cache.alloc_bulk(Gfp::KERNEL, &mut objects), Ok(20));
    assert!(!objects.contains(&Some(victim)));
    assert_eq!(machine.hardware().take_reports().len(), 1);
    machine.abandon();
}
