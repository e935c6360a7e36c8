//! Who has which objects: what `leaks` prints, and what is told when a cache cannot end.

use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::{KmemCache, ObjectOwner};
use mm_tests::sim::{Checked, Machine, Usual};

const MIB: u64 = 1 << 20;

fn owners(machine: &Machine<Checked>) -> Vec<(String, ObjectOwner)> {
    let mut found = Vec::new();
    machine.for_each_object_owner(|name, owner| found.push((name.to_owned(), owner)));
    found
}

#[test]
fn objects_are_counted_by_who_allocated_them() {
    let machine = Machine::<Checked>::with_ram(64 * MIB);
    let single = machine.kmalloc(20, Gfp::KERNEL).unwrap();
    let others: Vec<_> = (0..500)
        .map(|_| machine.kmalloc(30, Gfp::KERNEL).unwrap())
        .collect();
    let large = machine.kmalloc(1000, Gfp::KERNEL).unwrap();
    let found: Vec<_> = owners(&machine)
        .into_iter()
        .map(|(name, owner)| {
            let line = owner.place.unwrap().line();
            (name, line, owner.objects, owner.bytes)
        })
        .collect();
    let [
        (many, line_of_many, 500, 15_000),
        (one, line_of_one, 1, 20),
        (large_one, _, 1, 1000),
    ] = &found[..]
    else {
        panic!("not most first: {found:?}");
    };
    assert!(many == "kmalloc-32" && one == many && large_one == "kmalloc-1k");
    assert!(line_of_many > line_of_one);
    for object in others.into_iter().chain([single, large]) {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    assert_eq!(owners(&machine), []);
    machine.finish();
}

/// `test_leak_destroy` of `slub_kunit`, and who it was.
#[test]
fn a_cache_that_cannot_end_names_who_has_its_objects() {
    let mut machine = Machine::<Usual>::with_ram(32 * MIB);
    let create = |flags| KmemCache::create(&*machine, "leaky", (64, 8), flags).unwrap();
    let cache = create(SlabFlags::STORE_USER);
    let line = line!() + 1;
    let object = cache.alloc(Gfp::KERNEL).unwrap();
    let refused = cache.destroy().unwrap_err();
    assert_eq!(refused.objects, 1);
    let mut found = Vec::new();
    refused.cache.for_each_owner(|owner| found.push(owner));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].place.map(|place| place.line()), Some(line));
    assert_eq!(
        refused.to_string(),
        "1 objects of cache leaky have not come back"
    );
    assert!(found[0].to_string().starts_with("1 allocated at "));
    // SAFETY: allocated above.
    unsafe { refused.cache.free(object) }.unwrap();
    refused.cache.destroy().unwrap();

    let silent = create(SlabFlags::NO_MERGE);
    let object = silent.alloc(Gfp::KERNEL).unwrap();
    silent.for_each_owner(|owner| panic!("{owner:?} is not kept"));
    // SAFETY: allocated above.
    unsafe { silent.free(object) }.unwrap();
    silent.destroy().unwrap();
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.rebase();
    machine.finish();
}

/// More places in the source than are told apart.
#[test]
fn tracks_of_many_cpus_and_places_say_who_it_was() {
    let machine = Machine::<Checked>::new().ram(0, 64 * MIB).cpus(3).boot();
    let mut objects = Vec::new();
    for cpu in [1, 2] {
        let _here = machine.cpu(cpu);
        objects.push(machine.kmalloc(64, Gfp::KERNEL).unwrap());
    }
    for (object, cpu) in objects.iter().zip([1, 2]) {
        // SAFETY: RAM of the machine; the fault under test.
        unsafe { object.add(64).write(0) };
        assert!(machine.validate_caches().is_err());
        let reports = machine.hardware().take_reports();
        let [mm::report::Corruption::Object(damage)] = reports[..] else {
            panic!("{reports:?}");
        };
        assert_eq!(damage.allocated.unwrap().cpu.0, cpu);
        assert_eq!(damage.freed, None);
    }
    for object in objects {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    machine.finish();
}
