//! R21: words of free objects that somebody wrote to name no object.

use std::collections::HashSet;
use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::report::Corruption;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, Usual};

const MIB: u64 = 1 << 20;

/// The word in the middle of an object.
fn word(object: NonNull<u8>, size: usize) -> NonNull<u64> {
    // SAFETY: within the object.
    unsafe { object.add((size / 2) & !7) }.cast()
}

#[test]
fn an_object_at_hand_that_was_written_to_is_not_handed_out() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let mut random = Random::new(seed("objects_damage"));
    for size in [8, 64, 192, 1024] {
        for _ in 0..50 {
            let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
            // SAFETY: allocated above; what is written next is the fault under test.
            unsafe { machine.kfree(object) }.unwrap();
            // SAFETY: RAM of the machine.
            unsafe { word(object, size).write(random.next_u64()) };
            let next = machine.kmalloc(size, Gfp::KERNEL).unwrap();
            assert_ne!(next, object);
            let reports = machine.hardware().take_reports();
            assert!(
                matches!(reports[..], [Corruption::FreeObject { .. }]),
                "{reports:?}"
            );
            // SAFETY: just allocated.
            unsafe { machine.kfree(next) }.unwrap();
        }
    }
    machine.abandon();
}

#[test]
fn an_object_in_a_slab_that_was_written_to_is_found() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let objects: Vec<_> = (0..64)
        .map(|_| machine.kmalloc(64, Gfp::KERNEL).unwrap())
        .collect();
    for &object in &objects[1..] {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    // One is left, so the slab stays; what was at hand goes back to it.
    let _ = machine.shrink_caches();
    machine.validate_caches().unwrap();
    // SAFETY: RAM of the machine; the fault under test.
    unsafe { word(objects[30], 64).write(0x4141_4141_4141_4141) };
    assert!(matches!(
        machine.validate_caches(),
        Err(Corruption::FreeObject { .. })
    ));
    let mut handed_out = HashSet::new();
    for _ in 0..200 {
        let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
        assert!(handed_out.insert(object), "twice");
    }
    let reports = machine.hardware().take_reports();
    assert!(
        matches!(reports[..], [Corruption::FreeObject { .. }]),
        "{reports:?}"
    );
    // What hung on the word is lost; all else is in order again.
    machine.validate_caches().unwrap();
    for object in handed_out {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    let _ = machine.shrink_caches();
    machine.validate_caches().unwrap();
    machine.abandon();
}

/// 200,000 words, of which none says where an object is.
#[test]
fn what_free_objects_hold_is_no_address() {
    let machine = Machine::<Listed<Usual>>::with_ram(256 * MIB);
    let count = 200_000;
    let objects: Vec<_> = (0..count)
        .map(|_| machine.kmalloc(64, Gfp::KERNEL).unwrap())
        .collect();
    let places: HashSet<u64> = objects
        .iter()
        .map(|object| object.addr().get() as u64)
        .collect();
    for &object in &objects {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
        // SAFETY: RAM of the machine, which is only read.
        let found = unsafe { word(object, 64).read() };
        assert!(!places.contains(&found) && found > 0xffff);
    }
    machine.finish();
}
