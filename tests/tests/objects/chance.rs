//! R22: nobody can tell which object of a new slab comes next.

use std::collections::{HashMap, HashSet};

use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::KmemCache;
use mm_tests::sim::{Listed, Machine, Usual};

const OBJECTS: usize = 32;
const SLABS: usize = 10_000;

/// Whether counts are as even as those of a fair die: between the quantiles 0.001 and 0.999 of the
/// chi-square distribution (Wilson and Hilferty 1931).
fn is_even(counts: &[usize]) -> bool {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let square = |count: usize| (count as f64 - expected).powi(2) / expected;
    let sum: f64 = counts.iter().map(|&count| square(count)).sum();
    let freedom = (counts.len() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    let quantile = |z: f64| freedom * (1.0 - spread + z * spread.sqrt()).powi(3);
    println!(
        "chi-square {sum:.1} of {}..{}",
        quantile(-3.09),
        quantile(3.09)
    );
    (quantile(-3.09)..quantile(3.09)).contains(&sum)
}

#[test]
fn objects_of_new_slabs_come_in_an_order_that_is_any() {
    let mut machine = Machine::<Listed<Usual>>::with_ram(96 << 20);
    let cache = KmemCache::create(&*machine, "test", (128, 8), SlabFlags::NO_MERGE).unwrap();
    let objects: Vec<_> = (0..OBJECTS * (SLABS + 2))
        .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
        .collect();
    assert_eq!(cache.stats().objects_per_slab, OBJECTS as u64);
    let mut slabs: HashMap<usize, Vec<usize>> = HashMap::new();
    for object in &objects {
        let address = object.addr().get();
        slabs
            .entry(address / 4096)
            .or_default()
            .push(address % 4096 / 128);
    }
    let (mut first, mut distance) = ([0; OBJECTS], [0; OBJECTS]);
    let whole: Vec<_> = slabs
        .values()
        .filter(|slab| slab.len() == OBJECTS)
        .collect();
    assert!(whole.len() >= SLABS);
    for slab in whole {
        first[slab[0]] += 1;
        distance[(OBJECTS + slab[1] - slab[0]) % OBJECTS] += 1;
    }
    assert!(is_even(&first), "{first:?}");
    assert_eq!(distance[0], 0);
    assert!(is_even(&distance[1..]), "{distance:?}");
    // The check can fail.
    assert!(!is_even(&[1000, 1000, 1200, 1000]) && !is_even(&[1000; 32]));
    for object in objects {
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    }
    cache.destroy().unwrap();
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.rebase();
    machine.finish();
}

/// R21: a free object's word is its mark, the address of the word and the cache's secret, combined; no two caches have
/// the same.
#[test]
fn no_two_caches_have_the_same_secret() {
    const AT_HAND: u64 = u16::MAX as u64 - 1;
    let mut machine = Machine::<Usual>::with_ram(96 << 20);
    // What caches need stays for the next ones.
    for round in 0..2 {
        if round == 1 {
            machine.rebase();
        }
        let caches: Vec<_> = (0..100)
            .map(|_| KmemCache::create(&*machine, "test", (64, 8), SlabFlags::NO_MERGE).unwrap())
            .collect();
        let secrets: HashSet<u64> = caches
            .iter()
            .map(|cache| {
                let object = cache.alloc(Gfp::KERNEL).unwrap();
                // SAFETY: allocated above.
                unsafe { cache.free(object) }.unwrap();
                // SAFETY: the middle of an object, which nobody uses.
                let word = unsafe { object.add(32) }.cast::<u64>();
                // SAFETY: as above.
                let found = unsafe { word.read() };
                found ^ AT_HAND ^ (word.addr().get() as u64).swap_bytes()
            })
            .collect();
        assert_eq!(secrets.len(), 100);
        assert!(!secrets.contains(&0));
        caches
            .into_iter()
            .for_each(|cache| cache.destroy().unwrap());
    }
    machine.finish();
}
