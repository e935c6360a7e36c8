//! Frames of others, devices, and memory that may be either.

use std::ptr::NonNull;

use mm::adapters::BadVfree;
use mm::addr::{Order, Pfn, PhysAddr};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Cache, MapError, Protection};
use mm::proc::vmallocinfo;
use mm::system::{IoremapError, VmallocError};
use mm_tests::sim::{Listed, Plain, Sparse, Usual};

use crate::world::{MIB, PAGE, START, World, at};

#[test]
fn frames_of_others_are_mapped_as_named_and_stay_theirs() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let blocks: Vec<_> = (0..70)
        .map(|_| world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap())
        .collect();
    let frames: Vec<Pfn> = blocks.iter().rev().map(|block| block.pfn()).collect();
    let how = Attributes::KERNEL_RO.with_cache(Cache::WriteCombining);
    // SAFETY: they are the test's until the purge below.
    let area = unsafe { world.vmap(&frames, how) }.unwrap();
    for (page, pfn) in frames.iter().enumerate() {
        let mapped = world.mapping(at(area, page * PAGE)).unwrap();
        assert_eq!((mapped.pfn, mapped.how), (*pfn, how));
    }
    assert_eq!(world.mapping(at(area, frames.len() * PAGE)), None);
    let mut text = String::new();
    vmallocinfo(&**world, &mut text).unwrap();
    assert!(text.ends_with("pages=70 vmap\n"), "{text}");
    // SAFETY: refused, so nothing is given up.
    let wrong = unsafe {
        [
            world.vfree(area),
            world.vm_unmap_ram(area),
            world.iounmap(area),
        ]
    };
    assert_eq!(wrong, [Err(BadVfree(at(area, 0))); 3]);
    // SAFETY: nobody uses it.
    unsafe { world.vunmap(area) }.unwrap();
    let _ = world.vmalloc_purge();
    world.look();
    // SAFETY: as above.
    let area = unsafe { world.vm_map_ram(&frames[..16]) }.unwrap();
    // SAFETY: as above.
    unsafe { world.vm_unmap_ram(area) }.unwrap();
    let _ = world.vmalloc_purge();
    // SAFETY: nothing is mapped.
    let none = unsafe { world.vmap(&[], how) };
    assert_eq!(none, Err(VmallocError::Empty));
    for forbidden in [Protection::USER, Protection::WRITE | Protection::EXECUTE] {
        let mut how = Attributes::KERNEL;
        how.protection |= forbidden;
        // SAFETY: as above.
        let refused = unsafe { world.vmap(&frames, how) };
        assert_eq!(refused, Err(VmallocError::Forbidden(how)));
    }
    assert_eq!(
        (world.mapped(), world.vmalloc_stats().areas),
        (0, 1),
        "one lies ready"
    );
    drop(blocks);
    world.finish();
}

const DEVICE: PhysAddr = PhysAddr::new(0xfed0_0000);

fn ioremap(
    world: &World<Usual>,
    at: PhysAddr,
    size: u64,
    cache: Cache,
) -> Result<NonNull<u8>, IoremapError> {
    // SAFETY: there is no device, and nobody uses the address.
    unsafe { world.ioremap(at, size, cache) }
}

fn iounmap(world: &World<Usual>, at: NonNull<u8>) {
    // SAFETY: nobody uses it.
    unsafe { world.iounmap(at) }.unwrap();
}

#[test]
fn devices_are_mapped_as_they_are_to_be_cached() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    for cache in [
        Cache::Uncached,
        Cache::WriteCombining,
        Cache::WriteThrough,
        Cache::WriteBack,
    ] {
        let odd = DEVICE.checked_add(0x123).unwrap();
        let device = ioremap(&world, odd, 0x1000, cache).unwrap();
        assert_eq!(device.addr().get() % PAGE, 0x123);
        let first = at(device, 0).align_down(4096);
        let mapped = world.mapping(first).unwrap();
        assert_eq!((mapped.pfn.addr(), mapped.how.cache), (DEVICE, cache));
        assert!(
            world.mapping(at(device, PAGE)).is_some(),
            "the rest is in the next page"
        );
        assert_eq!(world.mapping(at(device, 2 * PAGE)), None);
        let mut text = String::new();
        vmallocinfo(&**world, &mut text).unwrap();
        assert!(text.contains("phys=0x00000000fed00000 ioremap\n"), "{text}");
        for other in [Cache::Uncached, Cache::WriteBack] {
            let second = ioremap(&world, DEVICE, 1, other);
            match other == cache {
                true => iounmap(&world, second.unwrap()),
                false => assert_eq!(second, Err(IoremapError::Conflict(cache))),
            }
        }
        let beside = DEVICE.checked_add(0x2000).unwrap();
        let beside = ioremap(&world, beside, 0x1000, Cache::WriteThrough).unwrap();
        iounmap(&world, beside);
        iounmap(&world, device);
        world.look();
    }
    let large = PhysAddr::new(0x1_0000_0000);
    let device = ioremap(&world, large, 5 * MIB, Cache::WriteCombining).unwrap();
    assert!(at(device, 0).is_aligned(2 * MIB));
    assert!(
        world
            .mapping(at(device, 4 * MIB as usize - 1))
            .unwrap()
            .huge
    );
    let last = world.mapping(at(device, 5 * MIB as usize - 1)).unwrap();
    assert_eq!(
        (last.huge, last.pfn.addr().as_u64()),
        (false, 0x1_0000_0000 + 5 * MIB - 4096)
    );
    iounmap(&world, device);
    world.finish();
}

/// Whether a device may be cached so is known before it is mapped: so no table is made for what is refused, and no CPU is
/// told to forget a page.
#[test]
fn a_device_is_not_mapped_before_it_is_known_how_it_is_cached() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let device = ioremap(&world, DEVICE, 0x3000, Cache::Uncached).unwrap();
    let tables = world.page_table_frames();
    let other = ioremap(&world, DEVICE, 5 * MIB, Cache::WriteCombining);
    assert_eq!(other, Err(IoremapError::Conflict(Cache::Uncached)));
    assert_eq!(world.page_table_frames(), tables);
    assert_eq!(world.mapped(), 3);
    // Who is refused is on no list: what is mapped still is.
    let again = ioremap(&world, DEVICE, 1, Cache::WriteBack);
    assert_eq!(again, Err(IoremapError::Conflict(Cache::Uncached)));
    iounmap(&world, device);
    let device = ioremap(&world, DEVICE, 5 * MIB, Cache::WriteCombining).unwrap();
    assert!(world.page_table_frames() > tables);
    iounmap(&world, device);
    world.finish();
}

/// Who frees a device's area and may not sleep leaves it mapped: until the purge, nobody maps the device cached in another way.
#[test]
fn a_device_is_never_mapped_in_two_ways() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let large = PhysAddr::new(0x1_0000_0000);
    let inside = large.checked_add(MIB).unwrap();
    for is_atomic in [true, false] {
        let device = ioremap(&world, large, 5 * MIB, Cache::Uncached).unwrap();
        match is_atomic {
            true => world.hardware().in_atomic(|| iounmap(&world, device)),
            false => iounmap(&world, device),
        }
        assert_eq!(world.mapping(at(device, 0)).is_some(), is_atomic);
        let flushes = world.flushes();
        // Cached in the same way, it may be mapped beside what CPUs remember; …
        let same = ioremap(&world, inside, MIB, Cache::Uncached).unwrap();
        assert_eq!(world.flushes(), flushes);
        iounmap(&world, same);
        // … and what is elsewhere in any way.
        let elsewhere = ioremap(&world, DEVICE, 1, Cache::WriteBack).unwrap();
        assert_eq!(world.flushes(), flushes);
        let other = ioremap(&world, inside, MIB, Cache::WriteCombining).unwrap();
        assert!(world.flushes() > flushes, "no CPU remembers it otherwise");
        assert_eq!(world.mapping(at(device, 0)), None);
        iounmap(&world, other);
        iounmap(&world, elsewhere);
        let _ = world.vmalloc_purge();
    }
    world.finish();
}

/// Where no large page fits at the start, none is used in the middle, for which nothing makes room.
#[test]
fn a_device_that_is_not_aligned_is_mapped_over_tables_that_stayed() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 2048);
    // Tables of small areas stay, all over the first few MiB.
    let areas: Vec<_> = (0..1800)
        .map(|_| world.vmalloc(PAGE, Gfp::KERNEL).unwrap())
        .collect();
    areas.into_iter().for_each(|area| world.free(area));
    let _ = world.vmalloc_purge();
    let first = world.vmalloc(3 * PAGE, Gfp::KERNEL).unwrap();
    for skew in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        // Sometimes the device lies in its frames as the area does in its addresses.
        let place = PhysAddr::new(0x1_0000_0000 + skew * PAGE as u64);
        let device = ioremap(&world, place, 6 * MIB, Cache::Uncached);
        iounmap(
            &world,
            device.unwrap_or_else(|error| panic!("{skew}: {error}")),
        );
        let _ = world.vmalloc_purge();
    }
    world.free(first);
    world.finish();
}

/// Frames that no entry can name.
#[test]
fn frames_above_the_architecture_are_no_area() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let top = 1_u64 << 40;
    let areas = world.vmalloc_stats().areas;
    for (place, high) in [
        (0, top),
        (3, top),
        (15, top + 5),
        (7, u64::MAX),
        (9, 1 << 63),
    ] {
        let mut frames = [Pfn::new(5); 16];
        frames[place] = Pfn::new(high);
        // SAFETY: refused.
        let refused = unsafe { world.vmap(&frames, Attributes::KERNEL) };
        assert_eq!(
            refused,
            Err(VmallocError::Map(MapError::Frames)),
            "{high:#x}"
        );
        // SAFETY: as above.
        let refused = unsafe { world.vm_map_ram(&frames[..place + 1]) };
        assert_eq!(refused, Err(VmallocError::Map(MapError::Frames)));
    }
    assert_eq!((world.mapped(), world.vmalloc_stats().areas), (0, areas));
    // SAFETY: there is nothing, and nobody uses the address.
    let area = unsafe { world.vmap(&[Pfn::new(top - 1)], Attributes::KERNEL) }.unwrap();
    assert_eq!(world.mapping(at(area, 0)).unwrap().pfn, Pfn::new(top - 1));
    // SAFETY: as above.
    unsafe { world.vunmap(area) }.unwrap();
    world.finish();
}

/// R37: what is no device, by its address.
#[test]
fn wrong_ranges_of_devices_are_refused_and_nothing_is_changed() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let top = 1_u64 << 52;
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        1 << 20,
        1 << 51,
        1 << 52,
        1 << 63,
        u64::MAX,
    ];
    let places = [
        0,
        1,
        0xfff,
        0x1000,
        64 * MIB - 1,
        64 * MIB,
        top - 4097,
        top - 4096,
    ];
    let edges = [top - 1, top, top + 1, 1 << 63, u64::MAX - 4096, u64::MAX];
    let places = places.iter().chain(&edges);
    for &place in places {
        for size in sizes {
            let found = ioremap(&world, PhysAddr::new(place), size, Cache::Uncached);
            let end = place.checked_add(size);
            match found {
                Ok(device) => {
                    assert!(size > 0 && place >= 64 * MIB && end.unwrap() <= top);
                    iounmap(&world, device);
                }
                Err(IoremapError::Area(VmallocError::Empty)) => assert_eq!(size, 0),
                Err(IoremapError::BadRange(_)) => assert!(end.is_none_or(|end| end > top)),
                Err(IoremapError::Ram(ram)) => {
                    assert!(place < 64 * MIB && ram.as_u64() < 64 * MIB);
                }
                Err(IoremapError::Area(VmallocError::TooLarge | VmallocError::NoSpace)) => {
                    assert!(size > 16 * MIB, "{place:#x} {size:#x}");
                }
                Err(error) => panic!("{place:#x} {size:#x}: {error}"),
            }
            assert_eq!(world.mapped(), 0);
            world.validate_vmalloc().unwrap();
        }
    }
    world.finish();
}

#[test]
fn memory_is_remapped_only_if_the_direct_map_does_not_do() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let ram = PhysAddr::new(MIB + 5);
    let remap = |at, size, cache| {
        // SAFETY: nobody uses the address.
        unsafe { world.memremap(at, size, cache) }
    };
    let direct = remap(ram, 100, Cache::WriteBack).unwrap();
    assert!(!world.is_vmalloc_addr(at(direct, 0)));
    // SAFETY: nobody uses it.
    unsafe { world.memunmap(direct) }.unwrap();
    let cached = remap(ram, 100, Cache::Uncached);
    assert!(matches!(cached, Err(IoremapError::Ram(_))));
    let edge = remap(PhysAddr::new(64 * MIB - 4096), 8192, Cache::WriteBack);
    assert!(
        matches!(edge, Err(IoremapError::Ram(_))),
        "half of it is no RAM"
    );
    let beyond = remap(PhysAddr::new(64 * MIB), 8192, Cache::WriteBack).unwrap();
    assert!(world.is_vmalloc_addr(at(beyond, 0)));
    // SAFETY: as above.
    unsafe { world.memunmap(beyond) }.unwrap();
    world.finish();
}

/// Who may not sleep waits for nobody who has page tables just now. What lies in one table is unmapped at once if
/// nobody has it; anything else stays mapped until somebody may sleep.
#[test]
fn nobody_waits_for_page_tables_where_it_may_not_sleep() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    for (pages, left) in [(3, 0), (600, 600)] {
        let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        world.hardware().in_atomic(|| world.free(area));
        assert_eq!(world.mapped(), left);
        // SAFETY: refused.
        let again = unsafe { world.vfree(area) };
        assert_eq!(again, Err(BadVfree(at(area, 0))));
        assert_eq!(world.vmalloc_purge(), 1);
        assert_eq!(world.mapped(), 0);
    }
    world.finish();
}

/// With 64 bits the direct map has every frame of RAM, and no others.
#[test]
fn frames_are_reached_without_being_mapped() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let block = world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let first = world.kmap_local(block.pfn()).unwrap();
    // SAFETY: a page that the test owns.
    unsafe { first.write_bytes(0x5a, PAGE) };
    assert!(block.bytes().iter().all(|&byte| byte == 0x5a));
    assert_eq!(world.kmap_local(block.pfn()), Some(first));
    assert_eq!(world.mapped(), 0);
    assert_eq!(world.kmap_local(DEVICE.frame()), None);
    assert_eq!(world.kmap_local(Pfn::new(u64::MAX)), None);
    drop(block);
    world.finish();
}

fn kvfree(world: &World<impl mm_tests::sim::SimConfig>, first: NonNull<u8>) {
    // SAFETY: the test forgets it.
    unsafe { world.kvfree(first) }.unwrap();
}

#[test]
fn memory_is_contiguous_if_that_is_easy() {
    let world = World::<Listed<(Plain, Sparse)>>::new(64 * MIB, 256 * MIB, 64);
    for size in [1, 100, PAGE, 8 * PAGE] {
        let first = world.kvmalloc(size, Gfp::KERNEL).unwrap();
        assert!(!world.is_vmalloc_addr(at(first, 0)));
        kvfree(&world, first);
    }
    // A page in each pageblock: nothing larger than 1 MiB is in one piece.
    let held: Vec<_> = std::iter::from_fn(|| {
        world
            .alloc_block(Gfp::NOWAIT | Gfp::NOWARN, Order::PAGEBLOCK)
            .ok()
    })
    .collect();
    let frames: Vec<_> = held.iter().map(|block| block.pfn()).collect();
    drop(held);
    let kept: Vec<_> = frames
        .iter()
        .filter_map(|pfn| {
            world
                .alloc_contig_range(mm::addr::PfnRange::block(*pfn, Order::ZERO), Gfp::KERNEL)
                .ok()
        })
        .collect();
    assert!(kept.len() > 20);
    let size = 3 * MIB as usize;
    let first = world.kvmalloc(size, Gfp::KERNEL).unwrap();
    assert!(
        world.is_vmalloc_addr(at(first, 0)),
        "there is no such block"
    );
    let atomic = world.kvmalloc(size, Gfp::ATOMIC | Gfp::NOWARN);
    assert!(atomic.is_err(), "who may not sleep maps nothing");
    kvfree(&world, first);
    drop(kept);
    world.finish();
}

#[test]
fn bytes_move_with_their_memory() {
    let world = World::<Usual>::new(64 * MIB, 256 * MIB, 64);
    let realloc = |first, sizes, gfp| {
        // SAFETY: the test has it, and goes on with the answer.
        unsafe { world.kvrealloc(first, sizes, gfp) }.unwrap()
    };
    let first = world.vmalloc(3 * PAGE, Gfp::KERNEL).unwrap();
    world.fill(first, 3, 7);
    let zero = Gfp::KERNEL | Gfp::ZERO;
    let same = realloc(first, (2 * PAGE, 3 * PAGE), zero);
    assert_eq!(same, first, "it fits");
    assert!(world.holds(first, 2, 7));
    // SAFETY: a page of an area that the test owns.
    let last =
        unsafe { std::slice::from_raw_parts(world.page(at(first, 2 * PAGE)).as_ptr(), PAGE) };
    assert!(last.iter().all(|&byte| byte == 0), "new bytes are zeroed");
    let small = realloc(first, (3 * PAGE, 100), Gfp::KERNEL);
    assert!(!world.is_vmalloc_addr(at(small, 0)));
    // SAFETY: 100 bytes of kmalloc.
    let bytes = unsafe { std::slice::from_raw_parts(small.as_ptr(), 100) };
    assert!(bytes.iter().all(|&byte| byte == 7));
    let large = realloc(small, (100, 5000), zero);
    // SAFETY: 5000 bytes of kmalloc.
    let bytes = unsafe { std::slice::from_raw_parts(large.as_ptr(), 5000) };
    assert!(
        bytes[..100].iter().all(|&byte| byte == 7) && bytes[100..].iter().all(|&byte| byte == 0)
    );
    kvfree(&world, large);
    let wrong = NonNull::new(std::ptr::without_provenance_mut(START as usize)).unwrap();
    // SAFETY: there is no such area.
    assert!(unsafe { world.kvfree(wrong) }.is_err());
    world.finish();
}
