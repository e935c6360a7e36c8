//! R37: entry points of kernel virtual memory with sizes and addresses at every border: a typed error, or exactly what was
//! asked for; and nothing is changed, or all of it is undone.

use std::ptr::{NonNull, with_exposed_provenance_mut};

use mm::adapters::BadVfree;
use mm::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::{Layout, PAGE_SIZE};
use mm::pagetable::{Attributes, Cache, ChangeError, ProtectError, RangeError};
use mm::proc::vtop;
use mm::system::{AllocError, IoremapError, VmallocError, VmallocStats};
use mm_tests::sim::SimConfig;

use crate::world::{MIB, PAGE, START, World, at};
use mm_tests::rights::Name;

on_machines! {
    sizes_at_borders_are_served_or_refused,
    addresses_at_borders_are_those_of_nobody,
    rights_at_borders_are_refused,
    walks_at_borders_say_what_is_there,
}

const RAM: u64 = 64 * MIB;
/// Of areas.
const ADDRESSES: u64 = 16 * MIB;

/// How far from a border.
const OFFSETS: [i64; 11] = [
    -0x20_0000, -0x2000, -0x1001, -0x1000, -1, 0, 1, 0x800, 0xfff, 0x1000, 0x20_0000,
];

/// Where something begins or ends: halves of the address space, every region of the layout, and areas.
fn borders() -> Vec<u64> {
    let mut borders = vec![0, 1 << 47, 0xffff_8000_0000_0000, START, START + ADDRESSES];
    for (_, region) in Layout::LINUX_LIKE.regions() {
        borders.extend([region.start().as_u64(), region.end().as_u64()]);
    }
    borders
}

/// Addresses around all borders, and the last ones.
fn addresses() -> Vec<u64> {
    let around = |border: u64| OFFSETS.map(|offset| border.wrapping_add_signed(offset));
    let mut all: Vec<_> = borders().into_iter().flat_map(around).collect();
    all.extend([u64::MAX, u64::MAX - 1, u64::MAX - 0xfff, u64::MAX - 0x1000]);
    all.sort_unstable();
    all.dedup();
    all
}

/// Sizes from nothing to everything.
fn sizes() -> Vec<usize> {
    let mut all = vec![0, usize::MAX, usize::MAX - 1];
    for border in [
        1 << 12,
        1 << 21,
        // What is free, what there are addresses for, what there is RAM for.
        ADDRESSES as usize,
        RAM as usize,
        1 << 30,
        // The most that an area can have.
        1 << 36,
        1 << 39,
        1 << 47,
        1 << 48,
        1 << 52,
        1 << 63,
        usize::MAX - 0xfff,
    ] {
        let near = [-0x1000, -1, 0, 1, 0x1000];
        all.extend(near.map(|offset| usize::wrapping_add_signed(border, offset)));
    }
    all
}

fn pointer(address: u64) -> Option<NonNull<u8>> {
    NonNull::new(with_exposed_provenance_mut(address as usize))
}

/// What a refused request must leave as it was.
fn state<C: SimConfig>(world: &World<C>) -> (usize, VmallocStats, u64) {
    world.look();
    (
        world.mapped(),
        world.vmalloc_stats(),
        world.free_or_tables(),
    )
}

fn sizes_at_borders_are_served_or_refused<C: SimConfig>() {
    let world = World::<C>::new(RAM, ADDRESSES, 64);
    // Tables and what lies ready stay.
    let settle = || {
        let _ = world.vmalloc_purge();
        world.look();
        assert!(world.drain_all_pages());
        (world.mapped(), world.free_or_tables())
    };
    let before = settle();
    let (mut served, mut refused) = (0, 0);
    for size in sizes() {
        let pages = size.div_ceil(PAGE);
        for align in [0, 1, 3, 4095, PAGE, 1 << 21, 1 << 30, 1 << 47, 1 << 63] {
            for huge in [false, true] {
                let plain = align == PAGE;
                let got = match huge {
                    true if plain => world.vmalloc_huge(size, Gfp::KERNEL),
                    true => continue,
                    false => world.vmalloc_align(size, align, Gfp::KERNEL | Gfp::NOWARN),
                };
                match got {
                    Ok(area) => {
                        served += 1;
                        assert!(size > 0 && pages as u64 * PAGE_SIZE < ADDRESSES);
                        assert!(align.is_power_of_two());
                        assert!(at(area, 0).is_aligned((align as u64).max(PAGE_SIZE)));
                        assert_eq!(world.mapped(), before.0 + pages);
                        assert!(world.mapping(at(area, (pages - 1) * PAGE)).is_some());
                        assert_eq!(world.mapping(at(area, pages * PAGE)), None);
                        world.free(area);
                    }
                    Err(error) => {
                        refused += 1;
                        match error {
                            VmallocError::Empty => assert_eq!(size, 0),
                            VmallocError::Misaligned => assert!(!align.is_power_of_two()),
                            VmallocError::TooLarge => assert!(size as u64 > RAM / 2),
                            VmallocError::Alloc(AllocError::OutOfMemory) => {
                                assert!(size as u64 > RAM / 2);
                            }
                            VmallocError::NoSpace => {
                                let needed = size as u64 + 2 * PAGE_SIZE;
                                assert!(needed > ADDRESSES / 2 || align as u64 >= ADDRESSES / 2);
                            }
                            error => panic!("{size:#x} at {align:#x}: {error}"),
                        }
                    }
                }
                assert_eq!(settle(), before, "{size:#x} at {align:#x}");
            }
        }
    }
    assert!(served > 30 && refused > 300, "{served}, {refused}");
    world.finish();
}

fn addresses_at_borders_are_those_of_nobody<C: SimConfig>() {
    let world = World::<C>::new(RAM, ADDRESSES, 64);
    // The first area of the region, and one that ends with it.
    let first = world.vmalloc(3 * PAGE, Gfp::KERNEL).unwrap();
    let rest = ADDRESSES as usize - 5 * PAGE;
    let last = world.vmalloc(rest, Gfp::KERNEL).unwrap();
    assert_eq!(at(last, rest + PAGE).as_u64(), START + ADDRESSES);
    assert_eq!(world.vmalloc(1, Gfp::KERNEL), Err(VmallocError::NoSpace));
    let before = state(&world);
    let mut asked = 0;
    for address in addresses() {
        let Some(pointer) = pointer(address) else {
            continue;
        };
        let here = VirtAddr::new(address);
        let is_inside = (START..START + ADDRESSES).contains(&address);
        assert_eq!(world.is_vmalloc_addr(here), is_inside);
        let mapped = world.mapping(here).filter(|_| is_inside);
        assert_eq!(world.vmalloc_to_pfn(here), mapped.map(|page| page.pfn));
        // SAFETY: refused, so nothing is given up.
        let outcomes = unsafe {
            [
                world.vunmap(pointer),
                world.vm_unmap_ram(pointer),
                world.iounmap(pointer),
            ]
        };
        let page = VirtAddr::new(address & !0xfff);
        assert_eq!(
            outcomes,
            [
                Err(BadVfree(here)),
                Err(BadVfree(here)),
                Err(BadVfree(page))
            ]
        );
        if ![at(first, 0), at(last, 0)].contains(&here) {
            // SAFETY: as above.
            let outcome = unsafe { world.vfree(pointer) };
            assert_eq!(outcome, Err(BadVfree(here)));
        }
        if is_inside {
            // SAFETY: as above.
            let outcome = unsafe { world.memunmap(pointer) };
            assert_eq!(outcome, Err(BadVfree(page)));
        }
        asked += 1;
        assert_eq!(
            (world.mapped(), world.vmalloc_stats()),
            (before.0, before.1)
        );
    }
    assert!(asked > 120, "{asked}");
    assert_eq!(state(&world), before);
    world.free(first);
    world.free(last);
    world.finish();
}

/// What is wrong with a range, said once more.
fn wrong(range: VirtRange) -> Option<ProtectError> {
    let (start, end) = (range.start().as_u64(), range.end().as_u64());
    let error = if start == end {
        RangeError::Empty
    } else if start % PAGE_SIZE != 0 || end % PAGE_SIZE != 0 {
        RangeError::Misaligned(range)
    } else if end > 1 << 47 && start < 0xffff_8000_0000_0000 {
        RangeError::NotCanonical(range)
    } else {
        return None;
    };
    Some(ProtectError::Change(ChangeError::Range(error)))
}

fn rights_at_borders_are_refused<C: SimConfig>() {
    let world = World::<C>::new(RAM, ADDRESSES, 64);
    let area = world.vmalloc(600 * PAGE, Gfp::KERNEL).unwrap();
    let all = VirtRange::new(at(area, 0), at(area, 600 * PAGE)).unwrap();
    let before = state(&world);
    let layout = Layout::LINUX_LIKE;
    let (mut asked, mut changed) = (0, 0);
    for start in addresses() {
        for size in [
            0,
            1,
            0x800,
            0x1000,
            0x1001,
            0x2000,
            0x20_0000,
            1 << 30,
            1 << 47,
            1 << 63,
        ] {
            // What wraps cannot be named.
            let Some(range) = VirtRange::from_size(VirtAddr::new(start), size) else {
                assert!(start.checked_add(size).is_none());
                continue;
            };
            for name in [Name::Ro, Name::X, Name::Nx, Name::Rw] {
                let outcome = name.call(&world, range);
                asked += 1;
                if let Some(error) = wrong(range) {
                    assert_eq!(outcome, Err(error), "{range:?}");
                    continue;
                }
                if all.covers(range) {
                    // Read-only, then executed too, then not, then written again: nothing is left of it.
                    assert_eq!(outcome, Ok(()), "{name:?} of {range:?}");
                    changed += 1;
                    continue;
                }
                let end = range.end().as_u64();
                let is_kernels = [layout.direct_map, layout.image]
                    .iter()
                    .any(|region| region.covers(range));
                let expected = if is_kernels {
                    // Nothing is mapped there on this machine.
                    let nothing = ChangeError::NotMapped(range.start());
                    ProtectError::Change(nothing)
                } else if start >= START && end <= START + ADDRESSES {
                    ProtectError::NoArea(range)
                } else {
                    ProtectError::Outside(range)
                };
                assert_eq!(outcome, Err(expected), "{range:?}");
            }
        }
    }
    assert!(asked > 3_000 && changed > 20, "{asked}, {changed}");
    assert_eq!(state(&world), before);
    assert!(
        (0..600)
            .all(|page| world.mapping(at(area, page * PAGE)).unwrap().how == Attributes::KERNEL)
    );
    world.hardware().check_tlbs().unwrap();
    world.free(area);
    world.finish();
}

fn walks_at_borders_say_what_is_there<C: SimConfig>() {
    let world = World::<C>::new(RAM, ADDRESSES, 64);
    let area = world.vmalloc(2 * PAGE, Gfp::KERNEL).unwrap();
    let before = state(&world);
    let space = world.kernel_space().unwrap();
    for address in addresses() {
        let here = VirtAddr::new(address);
        let mut text = String::new();
        vtop(&**world, space, here, &mut text).unwrap();
        let is_canonical = !(1 << 47..0xffff_8000_0000_0000).contains(&address);
        assert_eq!(text.contains("not canonical"), !is_canonical, "{text}");
        let offset = address.wrapping_sub(START);
        let is_mapped = offset < 2 * PAGE_SIZE;
        assert_eq!(text.contains("\nphysical "), is_mapped, "{text}");
        if is_mapped {
            let frame = world.vmalloc_to_pfn(here).unwrap();
            let phys = frame.addr().as_u64() + address % PAGE_SIZE;
            assert!(text.contains(&format!("physical {phys:#018x}")), "{text}");
        }
        // Never a frame for what is not canonical.
        assert!(is_canonical || world.walk(&space.tables, here).leaf().is_none());
    }
    assert_eq!(state(&world), before);
    world.free(area);
    world.finish();
}

/// Lists of frames, and devices, of every length that can be said.
#[test]
fn frames_of_others_at_borders_are_mapped_or_refused() {
    use mm_tests::sim::Usual;

    let world = World::<Usual>::new(RAM, ADDRESSES, 64);
    let block = world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let settle = || {
        let _ = world.vmalloc_purge();
        world.look();
        (world.mapped(), world.vmalloc_stats().lazy_pages)
    };
    let before = settle();
    let most = ADDRESSES as usize / PAGE - 1;
    for count in [0, 1, 2, 511, 512, 513, most - 1, most, most + 1, 1 << 20] {
        let frames: Vec<Pfn> = vec![block.pfn(); count];
        let right = match count {
            0 => Err(VmallocError::Empty),
            count if count > most => Err(VmallocError::NoSpace),
            _ => Ok(()),
        };
        // SAFETY: the frame is the test's until the purge.
        let (mapped, short) = unsafe {
            let mapped = world.vmap(&frames, Attributes::KERNEL_RO);
            let outcome = mapped.map(|area| world.vunmap(area).unwrap());
            let _ = settle();
            let short = world.vm_map_ram(&frames);
            (outcome, short.map(|area| world.vm_unmap_ram(area).unwrap()))
        };
        assert_eq!((mapped, short), (right, right), "{count} frames");
        assert_eq!(settle(), before);
    }
    // What `memremap` may not have: what wraps, what is above all memory, half of it RAM.
    let top = 1_u64 << 52;
    for place in [
        0,
        1,
        0xfff,
        RAM - 1,
        RAM,
        RAM + 1,
        top - 0x1000,
        top - 1,
        top,
        u64::MAX,
    ] {
        for size in [
            0,
            1,
            0xfff,
            0x1000,
            0x1001,
            RAM,
            1 << 47,
            1 << 51,
            1 << 63,
            u64::MAX,
        ] {
            for cache in [Cache::WriteBack, Cache::Uncached] {
                // SAFETY: nobody uses the address.
                let got = unsafe { world.memremap(PhysAddr::new(place), size, cache) };
                let end = place.checked_add(size).filter(|&end| end <= top);
                match got {
                    Ok(found) => {
                        let is_ram = !world.is_vmalloc_addr(at(found, 0));
                        let end = end.expect("a range");
                        assert!(size > 0 && (end <= RAM) == is_ram && (place >= RAM) != is_ram);
                        assert!(!is_ram || cache == Cache::WriteBack);
                        // SAFETY: as above.
                        unsafe { world.memunmap(found) }.unwrap();
                    }
                    Err(IoremapError::Area(VmallocError::Empty)) => assert_eq!(size, 0),
                    Err(IoremapError::BadRange(at)) => {
                        assert!(end.is_none() && at == PhysAddr::new(place));
                    }
                    Err(IoremapError::Ram(at)) => assert!(place < RAM && at.as_u64() < RAM),
                    Err(IoremapError::Area(VmallocError::TooLarge | VmallocError::NoSpace)) => {
                        assert!(size >= ADDRESSES - PAGE_SIZE);
                    }
                    Err(error) => panic!("{place:#x} {size:#x}: {error}"),
                }
                assert_eq!(settle(), before, "{place:#x} {size:#x}");
            }
        }
    }
    drop(block);
    world.finish();
}
