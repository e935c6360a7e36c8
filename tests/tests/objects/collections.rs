//! Collections of other crates on `kmalloc`, with requests and nodes of their own.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use hashbrown::{DefaultHashBuilder, HashMap};
use mm::adapters::KmallocIn;
use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::platform::{NodeId, Platform};
use mm_tests::for_every_config;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

for_every_config! {
    a_vector_keeps_its_elements,
    a_map_does_what_another_one_does,
}

fn a_vector_keeps_its_elements<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let kernel = KmallocIn::new(&*machine, Gfp::KERNEL);
    let mut numbers = Vec::new_in(kernel);
    // Up to 8 MiB: past the largest class and the largest block.
    (0..1_000_000_u64).for_each(|number| numbers.push(number));
    numbers.truncate(600_000);
    numbers.shrink_to_fit();
    assert!(numbers.iter().copied().eq(0..600_000));
    let boxed = Box::new_in([7_u64; 100], kernel);
    let nothing = Box::new_in((), kernel);
    let mut words: Vec<Vec<u8, _>, _> = Vec::new_in(kernel);
    words.extend((0..500_u16).map(|length| {
        let mut word = Vec::new_in(kernel);
        word.resize(length.into(), length.to_le_bytes()[0]);
        word
    }));
    let is_intact = |(length, word): (u16, &Vec<u8, _>)| {
        word.len() == usize::from(length)
            && word.iter().all(|&byte| byte == length.to_le_bytes()[0])
    };
    assert!((0..).zip(&words).all(is_intact));
    assert!(boxed.iter().all(|&word| word == 7));
    drop((numbers, words, boxed, nothing));
    machine.finish();
}

fn a_map_does_what_another_one_does<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let atomic = KmallocIn::new(&*machine, Gfp::ATOMIC);
    let seed = seed("objects_collections");
    let mut random = Random::new(seed);
    let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), atomic);
    let mut model = BTreeMap::new();
    for step in 0..20_000_u32 {
        let key = random.below(3_000);
        match random.below(3) {
            0 => assert_eq!(map.remove(&key), model.remove(&key), "seed {seed}"),
            _ => assert_eq!(
                map.insert(key, step),
                model.insert(key, step),
                "seed {seed}"
            ),
        }
    }
    map.shrink_to_fit();
    assert_eq!(map.into_iter().collect::<BTreeMap<_, _>>(), model);
    machine.finish();
}

#[test]
fn blocks_are_zeroed_grow_and_shrink_as_the_trait_says() {
    let machine = Machine::<Listed<Usual>>::with_ram(64 * MIB);
    let kernel = KmallocIn::new(&*machine, Gfp::KERNEL);
    for align in [1, 16, 64, 4096, 65536] {
        let layout = |size| Layout::from_size_align(size, align).unwrap();
        let mut block = kernel.allocate_zeroed(layout(0)).unwrap();
        let mut size = 0;
        for next in [0, 10, 48, 100, 5000, 70_000, 5 << 20, 90_000, 300, 7, 0] {
            let (first, layouts) = (block.cast::<u8>(), (layout(size), layout(next)));
            block = match next >= size {
                // SAFETY: the block is of that layout, and forgotten.
                true => unsafe { kernel.grow_zeroed(first, layouts.0, layouts.1) },
                // SAFETY: as above.
                false => unsafe { kernel.shrink(first, layouts.0, layouts.1) },
            }
            .unwrap();
            assert!(block.len() >= next && block.cast::<u8>().addr().get() % align == 0);
            // SAFETY: a block of that size that the test owns.
            let bytes = unsafe { block.as_mut() };
            let kept = size.min(next);
            assert!(
                bytes[..kept].iter().all(|&byte| byte == 9),
                "{size} to {next}"
            );
            assert!(
                bytes[kept..next].iter().all(|&byte| byte == 0),
                "{size} to {next}"
            );
            bytes.fill(9);
            size = next;
        }
    }
    machine.finish();
}

#[test]
fn a_collection_lives_on_the_node_that_it_is_asked_of() {
    let builder = Machine::<Listed<Usual>>::new();
    let builder = builder.node(0, 0, 64 * MIB).node(1, 64 * MIB, 64 * MIB);
    let machine = builder.cpus_on(&[0, 1]).boot();
    let far = KmallocIn::new(&*machine, Gfp::KERNEL).on(NodeId(1));
    let mut numbers = Vec::new_in(far);
    for number in 0..1_000_000_u64 {
        numbers.push(number);
        if numbers.len().is_power_of_two() {
            let first = VirtAddr::from_ptr(numbers.as_ptr());
            let first = machine.hardware().virt_to_phys(first).unwrap();
            let zone = machine.zone_of(first.frame()).unwrap();
            assert_eq!(zone.id().node, NodeId(1));
        }
    }
    drop(numbers);
    machine.finish();
}

#[test]
fn out_of_memory_is_an_error_and_changes_nothing() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let kernel = KmallocIn::new(&*machine, Gfp::KERNEL | Gfp::NOWARN);
    let mut numbers = Vec::new_in(kernel);
    numbers.extend(0..1000_u64);
    assert!(numbers.try_reserve(2 << 20).is_err());
    assert!(numbers.try_reserve(usize::MAX).is_err());
    assert!(numbers.iter().copied().eq(0..1000));
    let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), kernel);
    map.insert(1, 2);
    assert!(map.try_reserve(4 << 20).is_err());
    assert_eq!(map.get(&1), Some(&2));
    drop((numbers, map));
    machine.finish();
}

#[test]
fn a_block_of_nobody_is_reported() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let kernel = KmallocIn::new(&*machine, Gfp::KERNEL);
    let mut byte = 0_u8;
    // SAFETY: it is refused.
    unsafe { kernel.deallocate(NonNull::from(&mut byte), Layout::new::<u8>()) };
    assert_eq!(machine.hardware().take_reports().len(), 1);
    machine.finish();
}
