//! R28: 35,000 objects of random sizes and alignments on 8 CPUs (Linux: `pcpu_alloc_test`).

use mm::config::PAGE_SIZE;
use mm_tests::oracles;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, Plain, SimConfig, Sparse, Usual};

use super::{MIB, alloc, copy, dirty, free, is_dirty};

const OBJECTS: usize = 35_000;
const CPUS: u32 = 8;

fn scattered<C: SimConfig>(name: &str) {
    let machine = Machine::<C>::new().ram(0, 768 * MIB).cpus(CPUS).boot();
    let mut random = Random::new(seed(name));
    let mut objects = Vec::new();
    for number in 0..OBJECTS {
        let size = 1 + random.below(PAGE_SIZE / 4) as usize;
        let align = 2 << random.below(11);
        let first = alloc(&machine, (size, align));
        assert_eq!(first.addr().get() % align, 0, "{size} bytes by {align}");
        // Every copy is zeroed; what others had is not.
        dirty(&machine, first, size, number as u8);
        objects.push((first, size, number as u8));
    }
    let stats = machine.percpu_stats();
    assert_eq!(stats.objects, OBJECTS);
    machine.validate_percpu().unwrap();

    // All copies of all objects are disjoint.
    let mut all = Vec::new();
    for cpu in 0..CPUS {
        all.extend(objects.iter().map(|(first, size, _)| {
            let bytes = copy(&machine, *first, cpu, *size).as_ptr_range();
            (bytes.start.addr(), bytes.end.addr())
        }));
    }
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].0));

    while !objects.is_empty() {
        let (first, size, stamp) = objects.swap_remove(random.below_index(objects.len()));
        is_dirty(&machine, first, size, stamp);
        free(&machine, first, size);
    }
    machine.validate_percpu().unwrap();
    // One chunk is kept, and perhaps those of objects at hand.
    assert!(machine.percpu_stats().chunks <= 1 + 80);
    machine.shrink_percpu();
    assert_eq!(machine.percpu_stats().chunks, 0);
    oracles::check(&machine);
    machine.finish();
}

#[test]
fn thousands_of_objects_are_apart_and_zeroed() {
    scattered::<Usual>("percpu_scattered");
}

#[test]
fn thousands_of_objects_are_apart_in_the_plain_profile() {
    scattered::<(Plain, Sparse)>("percpu_scattered_plain");
}
