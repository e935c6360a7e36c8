//! Ranges that cannot be mapped: typed errors, and nothing changes (R37).

use mm::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm::pagetable::{Attributes, Change, Level, MapError, PageSize, Protection};
use mm_tests::for_every_config;
use mm_tests::sim::{Machine, SimConfig};

const MIB: u64 = 1 << 20;

for_every_config! {
    ranges_at_every_border_are_mapped_exactly_or_refused,
    frames_above_the_architecture_are_refused,
    a_frame_that_cannot_be_is_the_last_that_is_asked_for,
}

/// Whether 4 levels can map it, said once more.
fn is_right(start: u64, size: u64) -> bool {
    let end = u128::from(start) + u128::from(size);
    let lower = end <= 1 << 47;
    let upper = start >= 0xffff_8000_0000_0000 && end <= u128::from(u64::MAX) - 0xfff + 0xfff;
    size > 0 && start.is_multiple_of(4096) && size.is_multiple_of(4096) && (lower || upper)
}

fn ranges_at_every_border_are_mapped_exactly_or_refused<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let borders = [
        0,
        1 << 30,
        1 << 39,
        1 << 47,
        0xffff_8000_0000_0000,
        0xffff_c900_0000_0000,
        0xffff_ffff_8000_0000,
        u64::MAX,
    ];
    let mut checked = 0;
    for border in borders {
        for delta in [
            -0x20_1000_i64,
            -0x2000,
            -0x1001,
            -0x1000,
            -1,
            0,
            1,
            0x800,
            0x1000,
            0x1f_f000,
        ] {
            let start = border.wrapping_add_signed(delta);
            for size in [
                0_u64,
                1,
                0xfff,
                0x1000,
                0x1001,
                0x2000,
                0x20_0000,
                0x20_1000,
                1 << 63,
                u64::MAX - 0xfff,
            ] {
                checked += 1;
                let Some(range) = VirtRange::from_size(VirtAddr::new(start), size) else {
                    // No such range can be named.
                    assert!(u128::from(start) + u128::from(size) > u128::from(u64::MAX));
                    continue;
                };
                let before = machine.validate_page_table(&tables).unwrap();
                if size > 1 << 30 {
                    // SAFETY: nobody runs through these tables; also below.
                    let refused = unsafe { machine.unmap_pages(&tables, range, |_, _| ()) };
                    assert_eq!(refused.is_ok(), is_right(start, size), "{range:?}");
                    continue;
                }
                // SAFETY: as above.
                let outcome = unsafe {
                    machine.map_each_page(
                        &tables,
                        range,
                        |page| Pfn::new(5 + page),
                        Attributes::KERNEL,
                    )
                };
                assert_eq!(
                    outcome.is_ok(),
                    is_right(start, size),
                    "{range:?}: {outcome:?}"
                );
                if outcome.is_err() {
                    assert!(matches!(outcome, Err(MapError::Range(_))));
                    // SAFETY: as above.
                    assert!(unsafe { machine.unmap_pages(&tables, range, |_, _| ()) }.is_err());
                    let change = Change::Forbid(Protection::WRITE);
                    // SAFETY: as above.
                    assert!(unsafe { machine.change_pages(&tables, range, change) }.is_err());
                    // SAFETY: as above.
                    let joined = unsafe { machine.join_pages(&tables, range, PageSize::Size2M) };
                    assert!(joined.is_err());
                    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
                    continue;
                }
                let mut pages = 0;
                let sink = |_: VirtAddr, _: mm::pagetable::Leaf| pages += 1;
                // SAFETY: as above.
                unsafe { machine.unmap_pages(&tables, range, sink) }
                    .unwrap()
                    .complete();
                assert_eq!(pages, size / 4096);
            }
        }
    }
    assert!(checked >= 800);
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}

/// Nobody is asked for a frame after one that cannot be, and that page is mapped to nothing: not while those before it are
/// there, and not afterwards.
fn a_frame_that_cannot_be_is_the_last_that_is_asked_for<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let at = VirtAddr::new(0xffff_c900_0000_0000);
    // Across the end of a table of pages.
    let first = at.checked_add(510 * 4096).unwrap();
    let range = VirtRange::from_size(first, 600 * 4096).unwrap();
    for bad in [0, 1, 2, 3, 514, 599] {
        let mut asked = Vec::new();
        let frame_of = |page| {
            asked.push(page);
            // Of those that are in other tables: this one's are locked, not hidden.
            for page in 0..page {
                let walk = machine.walk(&tables, at_page(first, page));
                let phys = walk.phys(at_page(first, page));
                assert!(phys.is_none_or(|phys| phys.as_u64() == (page + 7) * 4096));
            }
            let there = machine.next_leaf(&tables, at_page(first, bad));
            assert_eq!(there, None, "nothing is mapped from {bad} on");
            Pfn::new(if page == bad { 1 << 40 } else { page + 7 })
        };
        // SAFETY: nobody runs through these tables.
        let outcome =
            unsafe { machine.map_each_page(&tables, range, frame_of, Attributes::KERNEL) };
        assert_eq!(outcome, Err(MapError::Frames));
        assert!(asked.iter().copied().eq(0..=bad), "{bad}: {asked:?}");
        assert_eq!(machine.next_leaf(&tables, VirtAddr::new(0)), None);
        let counted = machine.validate_page_table(&tables).unwrap();
        assert!(counted <= 2, "tables without entries are gone: {counted}");
    }
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}

fn at_page(first: VirtAddr, page: u64) -> VirtAddr {
    first.checked_add(page * 4096).unwrap()
}

fn frames_above_the_architecture_are_refused<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let at = VirtAddr::new(0xffff_c900_0000_0000);
    let top = 1_u64 << 40;
    for (first, count, is_right) in [(top - 1, 1, true), (top - 1, 2, false), (top, 1, false)] {
        let frames = PfnRange::from_count(Pfn::new(first), count).unwrap();
        // SAFETY: nobody runs through these tables.
        let outcome = unsafe {
            machine.map_pages(&tables, (at, frames), Attributes::KERNEL, PageSize::Size4K)
        };
        let expected = if is_right {
            Ok(())
        } else {
            Err(MapError::Frames)
        };
        assert_eq!(outcome, expected);
        // One by one it is found out in their midst; those before it are taken away again.
        let there = at.checked_add(1 << 30).unwrap();
        let range = VirtRange::from_size(there, 3 * 4096).unwrap();
        let frame_of = |page| Pfn::new(first + (page + count - 1) / 3);
        // SAFETY: as above.
        let outcome =
            unsafe { machine.map_each_page(&tables, range, frame_of, Attributes::KERNEL) };
        assert_eq!(outcome, expected);
        let next = machine.next_leaf(&tables, there);
        assert_eq!(next.map(|(at, _)| at), is_right.then_some(there));
        // SAFETY: as above.
        unsafe { machine.unmap_pages(&tables, range, |_, _| ()) }
            .unwrap()
            .complete();
    }
    // More bytes than there are addresses.
    let frames = PfnRange::from_count(Pfn::ZERO, top).unwrap();
    // SAFETY: as above.
    let outcome =
        unsafe { machine.map_pages(&tables, (at, frames), Attributes::KERNEL, PageSize::Size1G) };
    assert!(outcome.is_err());
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}
