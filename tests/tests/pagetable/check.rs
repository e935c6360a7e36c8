//! `page_table_check=on`: which page may be mapped twice (R35), against the table of Linux's documentation.

use std::collections::BTreeMap;
use std::iter;

use mm::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm::buddy::Gfp;
use mm::pagetable::{
    Attributes, Change, ChangeError, Level, MapError, PageSize, PageTable, Protection,
};
use mm::report::{Backing, Corruption, DoubleMapping};
use mm::system::PageTableCheck;
use mm_tests::for_every_config;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Machine, SimConfig};

use crate::model::{USER, range};

const MIB: u64 = 1 << 20;
const BASE: u64 = 0x40_0000;
const PAGE: u64 = 4096;

for_every_config! {
    every_cell_of_the_table_is_decided_as_documented,
    random_mappings_agree_with_a_list,
    nothing_is_counted_unless_asked_for,
    what_is_freed_while_it_is_mapped_is_told_and_stays_out,
    without_room_for_counts_nothing_is_mapped,
    absurd_rows_are_refused_before_frames_are_counted,
}

const READ: Attributes = Attributes {
    protection: Protection::USER,
    ..USER
};

pub(crate) fn machine<C: SimConfig>(check: PageTableCheck) -> Machine<C> {
    let mut machine = Machine::<C>::new()
        .ram(0, 32 * MIB)
        .options(|options| options.page_table_check = check)
        .boot();
    // The first page that is mapped has room made for the counts of its section, for good.
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let mapped = (BASE, frames(1024, 1));
    map(&machine, &tables, mapped, (Backing::Named, false)).unwrap();
    unmap(&machine, &tables, (BASE, 1));
    // SAFETY: nobody knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.drain_all_pages();
    machine.rebase();
    machine
}

fn frames(first: u64, count: u64) -> PfnRange {
    PfnRange::from_count(Pfn::new(first), count).unwrap()
}

fn map<C: SimConfig>(
    machine: &Machine<C>,
    tables: &PageTable,
    (at, frames): (u64, PfnRange),
    (backing, is_writable): (Backing, bool),
) -> Result<(), MapError> {
    let attributes = if is_writable { USER } else { READ };
    let row = (VirtAddr::new(at), frames);
    // SAFETY: nobody runs through these tables.
    unsafe { machine.map_user_pages(tables, row, attributes, PageSize::Size2M, backing) }
}

fn unmap<C: SimConfig>(machine: &Machine<C>, tables: &PageTable, (at, pages): (u64, u64)) {
    // SAFETY: as above.
    unsafe { machine.unmap_pages(tables, range(at, pages * PAGE), |_, _| ()) }
        .unwrap()
        .complete();
}

fn allow_write<C: SimConfig>(
    machine: &Machine<C>,
    tables: &PageTable,
    (at, pages): (u64, u64),
) -> Result<(), ChangeError> {
    let change = Change::Allow(Protection::WRITE);
    // SAFETY: as above.
    let receipt = unsafe { machine.change_pages(tables, range(at, pages * PAGE), change) };
    receipt.map(drop)
}

fn end<C: SimConfig>(machine: Machine<C>, tables: PageTable) {
    // SAFETY: nobody knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    for pfn in 0..32 * MIB / PAGE {
        assert_eq!(machine.mapped_as(Pfn::new(pfn)), None, "{pfn}");
    }
    machine.finish();
}

/// The one report since the last look.
fn told<C: SimConfig>(machine: &Machine<C>) -> Option<DoubleMapping> {
    match machine.platform().take_reports().as_slice() {
        [] => None,
        [Corruption::DoubleMapping(found)] => Some(*found),
        other => panic!("{other:?}"),
    }
}

/// Counting frame by frame would take years.
fn absurd_rows_are_refused_before_frames_are_counted<C: SimConfig>() {
    let machine = machine::<C>(PageTableCheck::On);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    for (at, frames) in [
        (BASE, frames(0, 1 << 60)),
        (BASE, frames(5, (1 << 40) - 4)),
        (BASE + 1, frames(5, 1)),
        (0x8000_0000_0000, frames(5, 1)),
        (BASE, frames(5, 1 << 36)),
    ] {
        let refused = map(&machine, &tables, (at, frames), (Backing::Named, true));
        assert!(
            matches!(refused, Err(MapError::Frames | MapError::Range(_))),
            "{refused:?}"
        );
    }
    assert_eq!(machine.mapped_as(Pfn::new(5)), None);
    end(machine, tables);
}

fn every_cell_of_the_table_is_decided_as_documented<C: SimConfig>() {
    use Backing::{Anonymous, Named};
    let machine = machine::<C>(PageTableCheck::On);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let cells = [
        (Anonymous, Anonymous, false, true),
        (Anonymous, Anonymous, true, false),
        (Anonymous, Named, false, false),
        (Anonymous, Named, true, false),
        (Named, Anonymous, false, false),
        (Named, Anonymous, true, false),
        (Named, Named, false, true),
        (Named, Named, true, true),
    ];
    // One page; a large one, of which one is mapped a second time; two large ones, the second of which is.
    for (count, again, at_fault) in [
        (1, frames(1024, 1), 1024),
        (512, frames(1100, 1), 1100),
        (512, frames(512, 1024), 1024),
    ] {
        for (current, new, is_writable, is_allowed) in cells {
            for was_writable in [false, true] {
                let first = (BASE, frames(1024, count));
                map(&machine, &tables, first, (current, was_writable)).unwrap();
                let before = machine.validate_page_table(&tables).unwrap();
                let second = (BASE + 64 * MIB, again);
                let outcome = map(&machine, &tables, second, (new, is_writable));
                let cell = format!("{current} {was_writable}, {new} {is_writable}: {outcome:?}");
                let pfn = Pfn::new(at_fault);
                if is_allowed {
                    assert_eq!(outcome, Ok(()), "{cell}");
                    assert_eq!(machine.mapped_as(pfn), Some((current, 2)), "{cell}");
                    assert_eq!(told(&machine), None);
                    // Nor is it made so afterwards.
                    let at = second.0 + (at_fault - again.first().as_u64()) * PAGE;
                    let write = allow_write(&machine, &tables, (at, 1));
                    assert_eq!(
                        write.is_ok(),
                        current == Named || is_writable,
                        "{cell}: {write:?}"
                    );
                    let expected =
                        matches!(write, Err(ChangeError::Prohibited(found)) if found.pfn == pfn);
                    assert!(write.is_ok() || expected);
                    assert_eq!(told(&machine).is_some(), write.is_err());
                    unmap(&machine, &tables, (second.0, again.frames()));
                } else {
                    let wrong = DoubleMapping {
                        pfn,
                        current,
                        new,
                        is_writable,
                    };
                    assert_eq!(outcome, Err(MapError::Prohibited(wrong)), "{cell}");
                    assert_eq!(told(&machine), Some(wrong));
                    for other in again.iter().filter(|pfn| !first.1.contains(*pfn)) {
                        assert_eq!(machine.mapped_as(other), None, "{cell}");
                    }
                    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
                }
                assert_eq!(machine.mapped_as(pfn), Some((current, 1)), "{cell}");
                // One's own may be written to.
                assert_eq!(allow_write(&machine, &tables, (BASE, count)), Ok(()));
                unmap(&machine, &tables, (BASE, count));
                assert_eq!(machine.mapped_as(pfn), None);
            }
        }
    }
    end(machine, tables);
}

/// A mapping, as the list has it.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    pfn: Pfn,
    backing: Backing,
    is_writable: bool,
}

fn random_mappings_agree_with_a_list<C: SimConfig>() {
    use Backing::{Anonymous, Named};
    const FRAMES: u64 = 24;
    const PLACES: u64 = 64;
    let mut random = Random::new(seed("page_table_check"));
    let machine = machine::<C>(PageTableCheck::On);
    let spaces = [(); 3].map(|()| machine.new_page_table(Level::P4D).unwrap());
    let mut list: BTreeMap<(usize, u64), Mapped> = BTreeMap::new();
    let mut refused = 0;
    for _ in 0..cases(10_000) {
        let key @ (space, place) = (random.below_index(3), random.below(PLACES));
        let tables = &spaces[space];
        let at = BASE + place * PAGE;
        let others = |pfn: Pfn| list.values().filter(move |mapped| mapped.pfn == pfn);
        match random.below(4) {
            0 | 1 => {
                let pfn = Pfn::new(2048 + random.below(FRAMES));
                let backing = [Anonymous, Named][random.below_index(2)];
                let is_writable = random.below(2) == 0;
                let mut with = others(pfn);
                let is_right = match with.next() {
                    None => true,
                    Some(first) => {
                        first.backing == backing && !(backing == Anonymous && is_writable)
                    }
                };
                let outcome = map(
                    &machine,
                    tables,
                    (at, frames(pfn.as_u64(), 1)),
                    (backing, is_writable),
                );
                match outcome {
                    Ok(()) => {
                        assert!(is_right && !list.contains_key(&key));
                        list.insert(
                            key,
                            Mapped {
                                pfn,
                                backing,
                                is_writable,
                            },
                        );
                    }
                    Err(MapError::Occupied(_)) => assert!(is_right && list.contains_key(&key)),
                    Err(MapError::Prohibited(found)) => {
                        assert!(!is_right && found.pfn == pfn && told(&machine) == Some(found));
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            2 => {
                unmap(&machine, tables, (at, 1));
                list.remove(&key);
            }
            _ => {
                let outcome = allow_write(&machine, tables, (at, 1));
                let Some(found) = list.get(&key).copied() else {
                    assert!(matches!(outcome, Err(ChangeError::NotMapped(_))));
                    continue;
                };
                let is_shared = found.backing == Anonymous && others(found.pfn).count() > 1;
                let is_right = found.is_writable || !is_shared;
                assert_eq!(outcome.is_ok(), is_right, "{found:?}: {outcome:?}");
                assert_eq!(told(&machine).is_some(), !is_right);
                if is_right && let Some(mapped) = list.get_mut(&key) {
                    mapped.is_writable = true;
                }
                refused += u64::from(!is_right);
            }
        }
        let pfn = Pfn::new(2048 + random.below(FRAMES));
        let mut of_it = list.values().filter(|mapped| mapped.pfn == pfn);
        let first = of_it.next();
        let expected = first.map(|first| (first.backing, 1 + of_it.count() as u32));
        assert_eq!(machine.mapped_as(pfn), expected);
    }
    assert!(refused > cases(10_000) / 20, "{refused}");
    // What is mapped when tables end is counted off too.
    for tables in spaces {
        // SAFETY: nobody knows them.
        unsafe { machine.destroy_page_table(tables) };
    }
    let tables = machine.new_page_table(Level::P4D).unwrap();
    end(machine, tables);
}

fn nothing_is_counted_unless_asked_for<C: SimConfig>() {
    let machine = machine::<C>(PageTableCheck::Off);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    map(
        &machine,
        &tables,
        (BASE, frames(1024, 2)),
        (Backing::Anonymous, true),
    )
    .unwrap();
    let again = (BASE + MIB, frames(1024, 2));
    assert_eq!(
        map(&machine, &tables, again, (Backing::Named, true)),
        Ok(())
    );
    assert_eq!(machine.mapped_as(Pfn::new(1024)), None);
    let leaf = machine.next_leaf(&tables, VirtAddr::new(BASE)).unwrap().1;
    assert_eq!(leaf.attributes, USER);
    end(machine, tables);
}

/// User code that still reaches a page would see what its next owner writes there.
fn what_is_freed_while_it_is_mapped_is_told_and_stays_out<C: SimConfig>() {
    let machine = machine::<C>(PageTableCheck::On);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let told = |pfn, backing, count| {
        let report = Corruption::FreedWhileMapped {
            pfn,
            backing,
            count,
        };
        assert_eq!(machine.hardware().take_reports(), [report]);
    };
    let kept = machine.quarantined_frames();

    // A page, mapped twice; a page in the midst of a block; each way that pages are freed.
    let page = machine.alloc_page(Gfp::KERNEL).unwrap();
    let alone = PfnRange::from_count(page, 1).unwrap();
    for at in [BASE, BASE + PAGE] {
        map(&machine, &tables, (at, alone), (Backing::Anonymous, false)).unwrap();
    }
    // SAFETY: the test's own.
    unsafe { machine.free_pages(page, Order::ZERO) }.unwrap();
    told(page, Backing::Anonymous, 2);
    let order = Order::new(3).unwrap();
    let block = machine.alloc_block(Gfp::KERNEL, order).unwrap();
    let inside = Pfn::new(block.pfn().as_u64() + 5);
    let row = (BASE + 2 * PAGE, PfnRange::from_count(inside, 1).unwrap());
    map(&machine, &tables, row, (Backing::Named, true)).unwrap();
    drop(block);
    told(inside, Backing::Named, 1);
    let mut batch = [(); 3].map(|()| Some(machine.alloc_page(Gfp::KERNEL).unwrap()));
    let second = batch[1].unwrap();
    let row = (BASE + 3 * PAGE, PfnRange::from_count(second, 1).unwrap());
    map(&machine, &tables, row, (Backing::Named, true)).unwrap();
    // SAFETY: the test's own.
    assert_eq!(unsafe { machine.free_pages_bulk(&mut batch) }, Ok(()));
    told(second, Backing::Named, 1);
    assert_eq!(machine.quarantined_frames(), kept + 1 + 8 + 1);

    // Nobody gets any of it, whether it is mapped still or not any more.
    unmap(&machine, &tables, (BASE, 4));
    let out = [alone, PfnRange::from_count(second, 1).unwrap()];
    let gfp = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN;
    let all: Vec<_> = iter::from_fn(|| machine.alloc_page(gfp).ok()).collect();
    for pfn in &all {
        assert!(out.iter().all(|range| !range.contains(*pfn)));
        assert!(!(0..8).contains(&(pfn.as_u64().wrapping_sub(inside.as_u64() - 5))));
    }
    for pfn in all {
        // SAFETY: the test's own.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    // SAFETY: nobody knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.check();
    machine.abandon();
}

/// Counts are made with the first mapping of a section; where there is no memory for them, that is refused.
fn without_room_for_counts_nothing_is_mapped<C: SimConfig>() {
    let machine = Machine::<C>::new()
        .ram(0, 32 * MIB)
        .options(|options| options.page_table_check = PageTableCheck::On)
        .boot();
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let gfp = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut all: Vec<_> = iter::from_fn(|| machine.alloc_page(gfp).ok()).collect();
    let row = (BASE, PfnRange::from_count(all[0], 1).unwrap());
    let refused = map(&machine, &tables, row, (Backing::Anonymous, true));
    assert_eq!(refused, Err(MapError::OutOfTables));
    assert_eq!(machine.next_leaf(&tables, VirtAddr::new(0)), None);
    for pfn in all.drain(1..) {
        // SAFETY: the test's own.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    map(&machine, &tables, row, (Backing::Anonymous, true)).unwrap();
    unmap(&machine, &tables, (BASE, 1));
    // SAFETY: the test's own.
    unsafe { machine.free_pages(all[0], Order::ZERO) }.unwrap();
    // SAFETY: nobody knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.check();
    machine.abandon();
}
