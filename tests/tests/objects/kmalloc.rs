//! Sizes, alignment, contents, and what becomes of memory afterwards.

use std::collections::HashMap;
use std::ptr::NonNull;

use mm::addr::{Order, VirtAddr};
use mm::buddy::Gfp;
use mm::platform::{NodeId, Platform};
use mm::slab::{KMALLOC_MAX_CACHE_SIZE, size_roundup};
use mm::system::AllocError;
use mm_tests::for_every_config;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

for_every_config! {
    every_size_is_aligned_and_its_own,
    random_objects_keep_what_they_hold,
    memory_that_runs_out_comes_back,
}

fn fill<C: SimConfig>(_: &Machine<C>, object: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: an object of that size that the test owns.
    unsafe { object.write_bytes(byte, size) };
}

fn holds<C: SimConfig>(_: &Machine<C>, object: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: as above; it was filled.
    let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
    bytes.iter().all(|&found| found == byte)
}

fn free<C: SimConfig>(machine: &Machine<C>, object: NonNull<u8>) {
    // SAFETY: of an object that the test owns and forgets.
    unsafe { machine.kfree(object) }.unwrap();
}

/// Where an object lies: its address, and the node.
fn home_of<C: SimConfig>(machine: &Machine<C>, object: NonNull<u8>) -> (u64, NodeId) {
    let address = VirtAddr::from_ptr(object.as_ptr());
    let physical = machine.hardware().virt_to_phys(address).unwrap();
    let zone = machine.zone_of(physical.frame()).unwrap();
    (physical.as_u64(), zone.id().node)
}

/// R24: all sizes up to 16 KiB.
fn every_size_is_aligned_and_its_own<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    for size in 1..=16384 {
        let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
        let other = machine.kmalloc(size, Gfp::KERNEL | Gfp::ZERO).unwrap();
        let room = machine.ksize(object).unwrap();
        // What was not asked for is a red zone in the debug profile, of objects that are none of pages.
        let is_exact = C::PROFILE.is_debug() && size <= KMALLOC_MAX_CACHE_SIZE;
        let expected = if is_exact {
            Some(size)
        } else {
            size_roundup(size)
        };
        assert_eq!(Some(room), expected, "{size}");
        if size.is_power_of_two() {
            let align = size.clamp(8, 4096);
            assert_eq!(object.addr().get() % align, 0, "{size}");
        }
        assert!(holds(&machine, other, size, 0), "{size}");
        fill(&machine, object, room, 0xaa);
        fill(&machine, other, room, 0x55);
        assert!(holds(&machine, object, room, 0xaa));
        free(&machine, object);
        free(&machine, other);
    }
    machine.check();
    machine.finish();
}

fn random_objects_keep_what_they_hold<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(128 * MIB);
    let seed = seed("objects_kmalloc");
    let mut random = Random::new(seed);
    let mut live: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
    let mut places = HashMap::new();
    for step in 0..30_000_u32 {
        if random.below(100) < 55 || live.is_empty() {
            let largest = 1 << (3 + random.below(12));
            let size = 1 + random.below(largest) as usize;
            let family =
                [Gfp::empty(), Gfp::RECLAIMABLE, Gfp::ACCOUNT, Gfp::DMA][random.below(4) as usize];
            let Ok(object) = machine.kmalloc(size, Gfp::KERNEL | Gfp::NOWARN | family) else {
                continue;
            };
            assert!(
                places.insert(object.addr(), step).is_none(),
                "handed out twice, seed {seed}"
            );
            let byte = step.to_le_bytes()[0];
            fill(&machine, object, size, byte);
            live.push((object, size, byte));
        } else {
            let which = random.below(live.len() as u64) as usize;
            let (object, size, byte) = live.swap_remove(which);
            assert!(
                holds(&machine, object, size, byte),
                "step {step}, seed {seed}"
            );
            places.remove(&object.addr());
            free(&machine, object);
        }
        if step % 5_000 == 0 {
            machine.check();
        }
    }
    for (object, size, byte) in live {
        assert!(holds(&machine, object, size, byte), "seed {seed}");
        free(&machine, object);
    }
    machine.finish();
}

fn memory_that_runs_out_comes_back<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(16 * MIB);
    for size in [8, 96, 1024, 8192] {
        let mut all = Vec::new();
        let error = loop {
            match machine.kmalloc(size, Gfp::ATOMIC | Gfp::NOWARN) {
                Ok(object) => all.push(object),
                Err(error) => break error,
            }
        };
        assert_eq!(error, AllocError::OutOfMemory);
        let mut pages = 0;
        machine.for_each_cache(|_, stats| pages += stats.pages);
        assert!(pages * 4096 > 8 * MIB, "{size}: {}", all.len());
        machine.check();
        for object in all {
            free(&machine, object);
        }
        machine.shrink_caches();
    }
    machine.finish();
}

#[test]
fn a_request_gets_the_pages_of_empty_slabs_and_of_objects_at_hand() {
    let machine = Machine::<Listed<Usual>>::with_ram(16 * MIB);
    let objects: Vec<_> = std::iter::from_fn(|| machine.kmalloc(512, Gfp::NOWAIT).ok()).collect();
    objects
        .into_iter()
        .for_each(|object| free(&machine, object));
    let take = || {
        machine
            .alloc_block(Gfp::KERNEL | Gfp::NOWARN, Order::ZERO)
            .ok()
    };
    let pages: Vec<_> = std::iter::from_fn(take).collect();
    let mut slabs = 0;
    machine.for_each_cache(|_, stats| slabs += stats.slabs);
    assert_eq!(slabs, 0, "none is kept when memory is short");
    drop(pages);
    machine.finish();
}

#[test]
fn sizes_that_are_none_are_refused() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    for size in [16 << 20, usize::MAX / 2, usize::MAX] {
        assert_eq!(
            machine.kmalloc(size, Gfp::KERNEL),
            Err(AllocError::OutOfMemory)
        );
    }
    assert_eq!(
        machine.kcalloc(usize::MAX / 2, 3, Gfp::KERNEL),
        Err(AllocError::OutOfMemory)
    );
    let nowhere = machine.kmalloc_node(8, Gfp::KERNEL, NodeId(7));
    assert_eq!(nowhere, Err(AllocError::NoSuchNode));
    machine.finish();
}

#[test]
fn an_object_grows_and_shrinks_in_place_where_it_fits() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let object = machine.kmalloc(48, Gfp::KERNEL).unwrap();
    fill(&machine, object, 48, 7);
    let change = |object, old, new| {
        // SAFETY: the test owns the object, which has `old` bytes, and forgets it.
        unsafe { machine.krealloc(object, (old, new), Gfp::KERNEL | Gfp::ZERO) }.unwrap()
    };
    assert_eq!(change(object, 48, 40), object);
    let same = change(object, 40, 64);
    assert_eq!(same, object);
    assert!(holds(&machine, same, 40, 7));
    // SAFETY: within the object.
    let added = unsafe { same.add(40) };
    assert!(holds(&machine, added, 24, 0), "new bytes are zero");
    let moved = change(same, 64, 5000);
    assert!(moved != object && holds(&machine, moved, 40, 7));
    let pages = change(moved, 5000, KMALLOC_MAX_CACHE_SIZE * 4);
    assert!(holds(&machine, pages, 40, 7));
    let small = change(pages, KMALLOC_MAX_CACHE_SIZE * 4, 16);
    assert!(holds(&machine, small, 16, 7));
    free(&machine, small);
    machine.finish();
}

#[test]
fn an_object_that_cannot_move_grows_with_zeroes_all_the_same() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let gfp = Gfp::KERNEL | Gfp::NOWARN;
    let object = machine.kmalloc(8192, gfp).unwrap();
    fill(&machine, object, 8192, 7);
    // Every smaller size is out of memory: the object stays where it is.
    let sizes = [8192, 4096, 2048, 1024, 512, 256, 192, 128, 96, 64];
    let mut all = Vec::new();
    for size in sizes {
        all.extend(std::iter::from_fn(|| machine.kmalloc(size, gfp).ok()));
    }
    let change = |old, new| {
        // SAFETY: the test owns the object, which has `old` bytes.
        unsafe { machine.krealloc(object, (old, new), gfp | Gfp::ZERO) }.unwrap()
    };
    assert_eq!((change(8192, 64), change(64, 128)), (object, object));
    // SAFETY: within the object.
    let added = unsafe { object.add(64) };
    assert!(holds(&machine, object, 64, 7) && holds(&machine, added, 64, 0));
    all.into_iter()
        .chain([object])
        .for_each(|object| free(&machine, object));
    machine.shrink_caches();
    machine.finish();
}

#[test]
fn objects_of_a_node_come_from_it_and_go_back_there() {
    let builder = Machine::<Listed<Usual>>::new();
    let builder = builder
        .node(0, 0, 64 * MIB)
        .node(1, 64 * MIB, 64 * MIB)
        .cpus_on(&[0, 1]);
    let machine = builder.boot();
    let node_of = |object| home_of(&machine, object).1;
    let mut objects = Vec::new();
    for node in [0, 1, 1, 0, 1] {
        let object = machine.kmalloc_node(64, Gfp::KERNEL, NodeId(node)).unwrap();
        assert_eq!(node_of(object), NodeId(node));
        objects.push(object);
    }
    let near = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    assert_eq!(node_of(near), NodeId(0));
    objects.push(near);
    objects
        .into_iter()
        .for_each(|object| free(&machine, object));
    // What came back from the other node is not at hand here.
    let again: Vec<_> = (0..100)
        .map(|_| machine.kmalloc(64, Gfp::KERNEL).unwrap())
        .collect();
    assert!(again.iter().all(|&object| node_of(object) == NodeId(0)));
    again.into_iter().for_each(|object| free(&machine, object));
    machine.finish();
}

/// A CPU whose node has no memory has objects of the nearest node at hand, as the others have theirs.
#[test]
fn a_cpu_without_memory_of_its_own_has_objects_at_hand() {
    let builder = Machine::<Listed<Usual>>::new();
    let builder = builder
        .node(0, 0, 64 * MIB)
        .node(2, 64 * MIB, 64 * MIB)
        .distances(&[
            10, 40, 30, //
            40, 10, 20, //
            30, 20, 10,
        ])
        .cpus_on(&[0, 1]);
    let machine = builder.boot();
    let at_hand = || {
        let mut at_hand = 0;
        machine.for_each_cache(|_, stats| at_hand += stats.at_hand);
        at_hand
    };
    assert_eq!(at_hand(), 0);
    std::thread::scope(|scope| {
        let there = || {
            let _there = machine.cpu(1);
            // The first one is of a slab that is made for it.
            let objects = [(); 2].map(|()| machine.kmalloc(64, Gfp::KERNEL).unwrap());
            assert_eq!(
                objects.map(|object| home_of(&machine, object).1),
                [NodeId(2); 2]
            );
            let fetched = at_hand();
            assert!(fetched > 0);
            objects
                .into_iter()
                .for_each(|object| free(&machine, object));
            assert_eq!(at_hand(), fetched + 2);
        };
        scope.spawn(there).join().unwrap();
    });
    machine.shrink_caches();
    machine.finish();
}

/// What devices reach that a request names is kept, whatever the size: no cache has such objects, so pages serve it.
#[test]
fn objects_for_devices_lie_where_these_reach() {
    const DMA32_END: u64 = 1 << 32;
    let machine = Machine::<Listed<Usual>>::new()
        .ram(0, 64 * MIB)
        .ram(DMA32_END, 64 * MIB)
        .boot();
    let objects = [8, 64, 200, 4096, 8192, 100_000].map(|size| {
        let anywhere = machine.kmalloc(size, Gfp::KERNEL).unwrap();
        assert!(home_of(&machine, anywhere).0 >= DMA32_END, "{size}");
        let low = machine.kzalloc(size, Gfp::KERNEL | Gfp::DMA32).unwrap();
        assert!(home_of(&machine, low).0 < DMA32_END, "{size}");
        assert!(machine.ksize(low).unwrap() >= size);
        let both = machine.kmalloc(size, Gfp::KERNEL | Gfp::DMA32 | Gfp::RECLAIMABLE);
        [anywhere, low, both.unwrap()]
    });
    for object in objects.into_iter().flatten() {
        free(&machine, object);
    }
    machine.shrink_caches();
    machine.finish();
}
