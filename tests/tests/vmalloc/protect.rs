//! `set_memory_*` of areas: rights of their pages, one by one, that end with the area.

use std::ptr::NonNull;

use mm::addr::{Order, PhysAddr, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Cache, ChangeError, ProtectError, RangeError};
use mm_tests::rights::{Name, Page, allowed};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Listed, Plain, SimConfig, Sparse, Usual};

use crate::world::{MIB, PAGE, START, World, at};

on_machines! {
    rights_of_an_area_change_by_pages_and_end_with_it,
    large_pages_of_an_area_are_split_and_put_together_again,
    random_rights_of_areas_agree_with_a_list_of_pages,
}

/// As areas are handed out.
const NEW: Page = Page {
    write: true,
    execute: false,
    present: true,
};

/// Whether every one of `pages` pages can be read and written, and not executed.
fn are_new<C: SimConfig>(world: &World<C>, area: NonNull<u8>, pages: usize) -> bool {
    (0..pages).all(|page| allowed(world, at(area, page * PAGE)) == NEW.allows())
}

/// Pages of an area.
fn part(area: NonNull<u8>, first: usize, pages: usize) -> VirtRange {
    let (start, end) = (at(area, first * PAGE), at(area, (first + pages) * PAGE));
    VirtRange::new(start, end).unwrap()
}

fn rights_of_an_area_change_by_pages_and_end_with_it<C: SimConfig>() {
    let world = World::<C>::new(64 * MIB, 64 * MIB, 64);
    // One page, those that lie ready, one that does not; across two tables of pages.
    for pages in [1, 5, 16, 20, 700] {
        let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        world.fill(area, pages, 7);
        let frame = world.vmalloc_to_pfn(at(area, 0));
        assert!(are_new(&world, area, pages));
        let (first, count) = (pages / 3, pages.div_ceil(2));
        let some = part(area, first, count);
        assert_eq!(Name::Ro.call(&world, some), Ok(()));
        world.hardware().check_tlbs().unwrap();
        for page in 0..pages {
            let is_in = (first..first + count).contains(&page);
            let found = allowed(&world, at(area, page * PAGE));
            assert_eq!(found, [true, !is_in, false], "page {page} of {pages}");
        }
        // Code: read-only first.
        assert_eq!(Name::X.call(&world, some), Ok(()));
        let refused = Name::Rw.call(&world, some);
        assert_eq!(refused, Err(ProtectError::WriteExecute(some.start())));
        assert_eq!(allowed(&world, some.start()), [true, false, true]);
        world.hardware().check_tlbs().unwrap();
        assert!(world.holds(area, pages, 7) && world.vmalloc_to_pfn(at(area, 0)) == frame);
        world.look();
        world.free(area);
        // Nobody has the rights any more, nor the area.
        assert_eq!(Name::Nx.call(&world, some), Err(ProtectError::NoArea(some)));
        let _ = world.vmalloc_purge();
        assert_eq!(Name::Nx.call(&world, some), Err(ProtectError::NoArea(some)));
        let next = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        assert_eq!(next, area, "the same addresses");
        assert!(are_new(&world, next, pages), "{pages} pages");
        world.free(next);
        // Freed where nobody may sleep.
        let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        assert_eq!(Name::Ro.call(&world, part(area, 0, pages)), Ok(()));
        world.hardware().in_atomic(|| world.free(area));
        let _ = world.vmalloc_purge();
        let next = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        assert!(are_new(&world, next, pages), "{pages} pages");
        world.free(next);
        let _ = world.vmalloc_purge();
    }
    world.finish();
}

fn large_pages_of_an_area_are_split_and_put_together_again<C: SimConfig>() {
    let world = World::<C>::new(64 * MIB, 64 * MIB, 64);
    let pages = 1024;
    let is_huge = |at| world.mapping(at).unwrap().huge;
    let new = || world.vmalloc_huge(pages * PAGE, Gfp::KERNEL).unwrap();
    let area = new();
    assert!(is_huge(at(area, 0)) && is_huge(at(area, 512 * PAGE)));
    let before = world.free_or_tables();
    let page = part(area, 700, 1);
    assert_eq!(Name::Ro.call(&world, page), Ok(()));
    assert!(is_huge(at(area, 0)) && !is_huge(page.start()));
    assert_eq!(allowed(&world, page.start()), [true, false, false]);
    assert!(are_new(&world, area, 700));
    world.look();
    assert_eq!(Name::Rw.call(&world, page), Ok(()));
    assert!(is_huge(page.start()), "one page again");
    world.grace().barrier().unwrap();
    assert!(world.drain_all_pages());
    assert_eq!(world.free_or_tables(), before, "no table is left");
    // All of one and a part of the other; freed like that.
    assert_eq!(Name::Ro.call(&world, part(area, 0, 600)), Ok(()));
    world.hardware().check_tlbs().unwrap();
    assert!(is_huge(at(area, 0)) && !is_huge(at(area, 512 * PAGE)));
    world.free(area);
    world.look();
    let _ = world.vmalloc_purge();
    let next = new();
    assert_eq!(next, area, "the same addresses");
    assert!(is_huge(at(area, 0)) && is_huge(at(area, 512 * PAGE)));
    assert!(are_new(&world, next, pages));
    // Small areas where it was split.
    assert_eq!(Name::Np.call(&world, part(area, 513, 1)), Ok(()));
    world.free(next);
    let _ = world.vmalloc_purge();
    let small: Vec<_> = (0..1024 / 17)
        .map(|_| world.vmalloc(16 * PAGE, Gfp::KERNEL).unwrap())
        .collect();
    assert!(small.iter().all(|&area| are_new(&world, area, 16)));
    world.look();
    small.into_iter().for_each(|area| world.free(area));
    world.finish();
}

fn random_rights_of_areas_agree_with_a_list_of_pages<C: SimConfig>() {
    let mut random = Random::new(seed("set_memory_areas"));
    let world = World::<C>::new(64 * MIB, 256 * MIB, 256);
    let mut areas = Vec::new();
    let mut refused = 0;
    for round in 0..cases(600) {
        if areas.len() < 4 || random.below(24) == 0 {
            let size = [1, 3, 16, 40, 600, 1100][random.below_index(6)] * PAGE;
            let area = match random.below(3) {
                0 => world.vmalloc_huge(size, Gfp::KERNEL),
                _ => world.vmalloc(size, Gfp::KERNEL),
            };
            let Ok(area) = area else { continue };
            assert!(are_new(&world, area, size / PAGE), "{area:?}, {size:#x}");
            areas.push((area, vec![NEW; size / PAGE]));
        }
        let index = random.below_index(areas.len());
        if areas.len() > 8 || random.below(24) == 0 {
            let (area, _) = areas.swap_remove(index);
            world.free(area);
            // What waits may be remembered, which is not looked for here.
            let _ = world.vmalloc_purge();
            continue;
        }
        let (area, list) = &mut areas[index];
        let first = random.below_index(list.len());
        let most = [3, 600][random.below_index(2)];
        let count = 1 + random.below_index(most);
        let count = count.min(list.len() - first);
        let (name, range) = (Name::ALL[random.below_index(6)], part(*area, first, count));
        let pages = &mut list[first..first + count];
        let is_wrong = |page: &Page| {
            let after = page.after(name);
            after != *page && after.write && after.execute
        };
        let is_wrong = pages.iter().any(is_wrong);
        let outcome = name.call(&world, range);
        if is_wrong {
            assert!(matches!(outcome, Err(ProtectError::WriteExecute(at)) if at < range.end()));
            refused += 1;
        } else {
            assert_eq!(outcome, Ok(()), "{name:?} of {range:?}");
            pages.iter_mut().for_each(|page| *page = page.after(name));
        }
        world.hardware().check_tlbs().unwrap();
        let step = 1 + list.len() / 16;
        for page in (0..list.len())
            .skip(first % step)
            .step_by(step)
            .chain([first])
        {
            let found = allowed(&world, at(*area, page * PAGE));
            assert_eq!(found, list[page].allows(), "{name:?}, page {page}");
        }
        assert_eq!(world.mapping(at(*area, list.len() * PAGE)), None);
        if round % 100 == 0 {
            world.look();
        }
    }
    assert!(refused > 10, "{refused}");
    areas.into_iter().for_each(|(area, _)| world.free(area));
    world.finish();
}

/// Only who has a whole area may change what it may be used for; what is refused changes nothing.
#[test]
fn what_is_not_all_of_one_area_is_refused() {
    let world = World::<Usual>::new(64 * MIB, 64 * MIB, 64);
    let first = world.vmalloc(3 * PAGE, Gfp::KERNEL).unwrap();
    let second = world.vmalloc(2 * PAGE, Gfp::KERNEL).unwrap();
    assert_eq!(at(second, 0), at(first, 4 * PAGE));
    let block = world.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let frames = [block.pfn()];
    // SAFETY: the frame is the test's until the purge at the end; there is no such device.
    let (mapped, short, device) = unsafe {
        (
            world.vmap(&frames, Attributes::KERNEL).unwrap(),
            world.vm_map_ram(&frames).unwrap(),
            world.ioremap(PhysAddr::new(1 << 32), 4096, Cache::Uncached),
        )
    };
    let device = device.unwrap();
    let before = (world.mapped(), world.vmalloc_stats());
    let range =
        |start: u64, pages: u64| VirtRange::from_size(VirtAddr::new(start), pages * 4096).unwrap();
    let end = START + 64 * MIB;
    let none = [
        part(first, 0, 4),
        part(first, 2, 2),
        part(first, 3, 1),
        part(first, 0, 6),
        part(short, 0, 1),
        part(device, 0, 1),
        range(START + MIB, 1),
        range(end - 4096, 1),
        range(START, 64 * MIB / 4096),
    ];
    let outside = [
        range(START - 4096, 2),
        range(START - 4096, 1),
        range(end - 4096, 2),
        range(end, 1),
        range(0x1000, 1),
    ];
    let odd = VirtRange::from_size(at(first, 8), PAGE as u64).unwrap();
    let empty = VirtRange::from_size(at(first, 0), 0).unwrap();
    for name in Name::ALL {
        for range in none {
            assert_eq!(name.call(&world, range), Err(ProtectError::NoArea(range)));
        }
        for range in outside {
            assert_eq!(name.call(&world, range), Err(ProtectError::Outside(range)));
        }
        let wrong = |error| Err(ProtectError::Change(ChangeError::Range(error)));
        assert_eq!(name.call(&world, odd), wrong(RangeError::Misaligned(odd)));
        assert_eq!(name.call(&world, empty), wrong(RangeError::Empty));
    }
    assert_eq!((world.mapped(), world.vmalloc_stats()), before);
    assert!(are_new(&world, first, 3) && are_new(&world, second, 2));
    assert!(are_new(&world, short, 1) && are_new(&world, mapped, 1));
    // Frames of others: by this area only.
    assert_eq!(Name::Ro.call(&world, part(mapped, 0, 1)), Ok(()));
    assert_eq!(allowed(&world, at(mapped, 0)), [true, false, false]);
    assert!(are_new(&world, short, 1));
    world.hardware().check_tlbs().unwrap();
    world.look();
    // SAFETY: nobody uses them.
    unsafe {
        world.vunmap(mapped).unwrap();
        world.vm_unmap_ram(short).unwrap();
        world.iounmap(device).unwrap();
    }
    world.free(first);
    world.free(second);
    let _ = world.vmalloc_purge();
    drop(block);
    world.finish();
}

/// A large page is not split without memory for the table; all of it takes none.
#[test]
fn without_memory_for_tables_no_right_changes() {
    let world = World::<Listed<(Plain, Sparse)>>::new(32 * MIB, 64 * MIB, 64);
    let area = world.vmalloc_huge(2 * MIB as usize, Gfp::KERNEL).unwrap();
    let mut blocks = Vec::new();
    while let Ok(block) = world.alloc_block(Gfp::KERNEL | Gfp::MEMALLOC, Order::ZERO) {
        blocks.push(block);
    }
    for name in [Name::Ro, Name::Nx, Name::Np] {
        let outcome = name.call(&world, part(area, 9, 1));
        let expected = ProtectError::Change(ChangeError::OutOfTables);
        assert_eq!(outcome, Err(expected));
        assert!(are_new(&world, area, 512));
    }
    assert_eq!(Name::Ro.call(&world, part(area, 0, 512)), Ok(()));
    assert_eq!(allowed(&world, at(area, 0)), [true, false, false]);
    drop(blocks);
    assert_eq!(Name::Rw.call(&world, part(area, 9, 1)), Ok(()));
    assert_eq!(allowed(&world, at(area, 9 * PAGE)), [true, true, false]);
    world.free(area);
    world.finish();
}
