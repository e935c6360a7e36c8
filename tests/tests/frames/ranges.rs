//! Exact ranges that are larger than what one hold of the zone's lock may deal with.

use std::thread;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::{Gfp, MigrateType, RangeError};
use mm::system::{ContigError, Options};
use mm_tests::oracles::{Shape, state_hash};
use mm_tests::sim::{Checked, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;
/// Frames that are dealt with under one hold: eight pageblocks.
const HOLD: u64 = 8 * 512;
const GFP: Gfp = Gfp::KERNEL;

/// How many holds it takes to deal with [`large`] once.
const PARTS: u64 = 11;

/// Wholly free memory: ten holds and a bit at each end.
fn large() -> PfnRange {
    let first = Pfn::new(((64 * MIB) >> 12) + 100);
    PfnRange::from_count(first, 10 * HOLD + 1000).unwrap()
}

fn machine<C: SimConfig>() -> Machine<C> {
    // What is done to the bytes of free memory is no concern of these tests.
    let bare = |options: &mut Options| {
        options.page_poison = false;
        options.init_on_alloc = false;
    };
    let machine = Machine::new().ram(0, 320 * MIB).cpus(2);
    machine.options(bare).boot()
}

fn types<C: SimConfig>(machine: &Machine<C>) -> Vec<Option<MigrateType>> {
    let pageblocks = (0..machine.frames().unwrap().limit().as_u64()).step_by(512);
    let kind = |pfn| {
        let pfn = Pfn::new(pfn);
        let zone = machine.zones().find(|zone| zone.span().contains(pfn))?;
        zone.pageblock_type(machine.hardware(), pfn)
    };
    pageblocks.map(kind).collect()
}

#[test]
fn a_large_range_is_taken_in_bounded_holds_and_comes_back() {
    let machine = machine::<Checked>();
    let before = machine.hardware().taken_locks();
    let run = machine.alloc_contig_range(large(), GFP).unwrap();
    let holds = machine.hardware().taken_locks() - before;
    // Looked at twice, isolated once, taken once: each a part at a time.
    assert_eq!((run.frames(), holds), (large(), 4 * PARTS));
    machine.check();
    assert!(!types(&machine).contains(&Some(MigrateType::Isolate)));
    drop(run);
    machine.finish();
}

#[test]
fn a_page_in_use_behind_the_first_hold_leaves_everything_as_it_was() {
    let machine = machine::<Usual>();
    for offset in [HOLD - 101, HOLD, 6 * HOLD + 5, 10 * HOLD + 999] {
        let taken = PfnRange::from_count(large().first().saturating_add(offset), 1).unwrap();
        let page = machine.alloc_contig_range(taken, GFP).unwrap();
        let (before, kinds) = (state_hash(&machine), types(&machine));
        let pfn = taken.first();
        let busy = ContigError::Range(RangeError::Busy { pfn });
        assert_eq!(machine.alloc_contig_range(large(), GFP).unwrap_err(), busy);
        assert_eq!((state_hash(&machine), types(&machine)), (before, kinds));
        drop(page);
    }
    machine.finish();
}

#[test]
fn an_isolated_pageblock_behind_a_busy_one_is_named_first() {
    let machine = machine::<Usual>();
    let page = PfnRange::from_count(large().first(), 1).unwrap();
    let page = machine.alloc_contig_range(page, GFP).unwrap();
    let pfn = large().end().align_down(Order::PAGEBLOCK);
    let last = PfnRange::block(pfn, Order::PAGEBLOCK);
    let zone = machine.zone_of(page.frames().first()).unwrap();
    zone.isolate(machine.hardware(), last).unwrap();
    let isolated = ContigError::Range(RangeError::Isolated { pfn });
    let refused = machine.alloc_contig_range(large(), GFP);
    assert_eq!(refused.unwrap_err(), isolated);
    zone.unisolate(machine.hardware(), last);
    drop(page);
    machine.finish();
}

/// Takes `large()` on CPU 0 while CPU 1 does `visit` in the gap between its holds with that number.
fn with_visitor(machine: &Machine<Checked>, gap: u64, visit: impl FnOnce() + Send) -> String {
    let gaps = machine.hardware().gaps(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let _here = machine.cpu(1);
            let (mut visit, mut number) = (Some(visit), 0);
            gaps.each(|| {
                number += 1;
                if number == gap {
                    visit.take().unwrap()();
                }
            });
            assert!(visit.is_none(), "there are only {number} gaps");
        });
        let outcome = machine.alloc_contig_range(large(), GFP);
        machine.hardware().no_more_gaps();
        match outcome {
            Ok(run) => {
                assert_eq!(run.frames(), large());
                machine.check();
                String::from("taken")
            }
            Err(error) => error.to_string(),
        }
    })
}

#[test]
fn between_two_holds_nobody_is_served_from_the_range() {
    let machine = machine::<Checked>();
    // While parts are isolated, when all are, and while they are taken.
    for (gap, so_far) in [
        (2 * PARTS + 5, 5),
        (3 * PARTS, PARTS),
        (3 * PARTS + 5, PARTS),
    ] {
        let isolated = PfnRange::from_numbers(
            large().first().align_down(Order::PAGEBLOCK).as_u64(),
            (large().first().as_u64() / HOLD + so_far) * HOLD,
        )
        .intersect(large());
        let outcome = with_visitor(&machine, gap, || {
            let mut pages = Vec::new();
            while let Ok(page) = machine.alloc_block(Gfp::HIGHUSER_MOVABLE, Order::PAGEBLOCK) {
                assert!(page.frames().intersect(isolated).is_empty(), "{page:?}");
                pages.push(page);
            }
            assert!(pages.len() > 50);
        });
        assert_eq!(outcome, "taken", "gap {gap}");
    }
    machine.finish();
}

#[test]
fn a_page_taken_before_its_part_is_isolated_is_noticed_and_all_is_undone() {
    let machine = machine::<Checked>();
    let kinds = types(&machine);
    let late = large().first().saturating_add(8 * HOLD);
    let outcome = with_visitor(&machine, 2 * PARTS + 5, || {
        let page = PfnRange::from_count(late, 1).unwrap();
        std::mem::forget(machine.alloc_contig_range(page, GFP).unwrap());
    });
    assert_eq!(outcome, format!("frame {late} is in use"));
    // SAFETY: the page that the other CPU left behind.
    unsafe { machine.free_pages(late, Order::ZERO) }.unwrap();
    assert_eq!(types(&machine), kinds);
    machine.finish();
}

#[test]
fn an_isolation_that_somebody_else_ends_is_noticed_and_all_is_undone() {
    let machine = machine::<Checked>();
    let before = Shape::of(&machine);
    let pfn = large()
        .first()
        .align_down(Order::MAX)
        .saturating_add(8 * HOLD);
    let outcome = with_visitor(&machine, 3 * PARTS + 5, || {
        let zone = machine.zone_of(pfn).unwrap();
        zone.unisolate(machine.hardware(), PfnRange::block(pfn, Order::PAGEBLOCK));
    });
    assert_eq!(outcome, format!("frame {pfn} is in use"));
    assert!(!types(&machine).contains(&Some(MigrateType::Isolate)));
    before.assert_same(&Shape::of(&machine));
    machine.finish();
}
