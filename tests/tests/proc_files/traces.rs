//! Recordings of allocations: their text, and that they agree with the counters.

use expect_test::expect;
use mm::addr::Pfn;
use mm::buddy::{Gfp, Stats, Step};
use mm::proc::Recording;
use mm::system::{AllocError, Block};
use mm::zone::Zone;
use mm_tests::sim::{Machine, Usual};

use super::{order, small, with_every_zone};

/// The text below a heading, which keeps `expect!` from taking the indent for its own.
fn told(recording: &Recording) -> String {
    format!("steps:\n{recording}")
}

#[test]
fn an_allocation_explains_itself() {
    let machine = small();
    let mut recording = Recording::new();
    let block = Block::alloc_traced(&*machine, Gfp::KERNEL, order(7), &mut recording).unwrap();
    expect![[r#"
        steps:
         1. zone Normal: asked
         2. zone Normal: turned the pageblock at frame 0x100000 from Movable into Unmovable
         3. zone Normal: found a free block of order 10 at frame 0x100000 (Unmovable)
         4. zone Normal: halved it; the upper half at frame 0x100200 stays free, of order 9
         5. zone Normal: halved it; the upper half at frame 0x100100 stays free, of order 8
         6. zone Normal: halved it; the upper half at frame 0x100080 stays free, of order 7
    "#]]
    .assert_eq(&told(&recording));

    let mut recording = Recording::new();
    let pfn = block.into_raw();
    // SAFETY: the block was given up as a number just now.
    unsafe { machine.free_pages_traced(pfn, order(7), &mut recording) }.unwrap();
    expect![[r#"
        steps:
         1. keeps the block of order 7 at frame 0x100000 as it is, to be merged later
    "#]]
    .assert_eq(&told(&recording));
    machine.finish();
}

#[test]
fn a_stolen_page_explains_itself() {
    let machine = small();
    let mut pages = Vec::new();
    while let Ok(page) = machine.alloc_block(Gfp::DMA | Gfp::MEMALLOC, order(0)) {
        pages.push(page);
    }
    drop(pages.swap_remove(100));
    let before = stats(&machine);
    let mut recording = Recording::new();
    let gfp = Gfp::DMA | Gfp::MOVABLE | Gfp::MEMALLOC;
    let page = Block::alloc_traced(&*machine, gfp, order(0), &mut recording).unwrap();
    expect![[r#"
        steps:
         1. zone DMA: asked
         2. zone DMA: takes a block out of a pageblock that stays Unmovable
         3. zone DMA: found a free block of order 0 at frame 0x464 (Unmovable)
    "#]]
    .assert_eq(&told(&recording));
    let after = stats(&machine);
    assert_eq!(
        (after.steals - before.steals, after.claims - before.claims),
        (1, 0)
    );
    assert_eq!(counted(&recording), (0, 0, 0, 1));
    drop((page, pages));
    machine.finish();
}

#[test]
fn a_request_that_finds_nothing_tells_whom_it_asked() {
    let machine = small();
    let mut all = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::DMA, order(8)) {
        all.push(block);
    }
    let mut recording = Recording::new();
    let block = Block::alloc_traced(&*machine, Gfp::DMA, order(0), &mut recording);
    assert_eq!(block.err(), Some(AllocError::OutOfMemory));
    expect![[r#"
        steps:
         1. zone DMA: too little to spare: 0 frames are free, 0 are kept back
         2. zone DMA: too little to spare: 0 frames are free, 0 are kept back
         3. zone DMA: too little to spare: 0 frames are free, 0 are kept back
    "#]]
    .assert_eq(&told(&recording));
    drop(all);
    machine.finish();
}

fn stats(machine: &Machine<Usual>) -> Stats {
    let all = machine
        .zones()
        .map(|zone: &Zone| zone.snapshot(machine.platform()).stats);
    all.fold(Stats::ZERO, |sum, one| Stats {
        allocated: sum.allocated + one.allocated,
        freed: sum.freed + one.freed,
        splits: sum.splits + one.splits,
        merges: sum.merges + one.merges,
        claims: sum.claims + one.claims,
        steals: sum.steals + one.steals,
    })
}

/// What the steps of a recording add up to.
fn counted(recording: &Recording) -> (u64, u64, u64, u64) {
    assert_eq!(recording.lost(), 0);
    let count = |wanted: fn(&Step) -> bool| {
        u64::try_from(recording.steps().filter(wanted).count()).unwrap()
    };
    (
        count(|step| matches!(step, Step::Split { .. })),
        count(|step| matches!(step, Step::Merge { .. })),
        count(|step| matches!(step, Step::Claim { .. })),
        count(|step| matches!(step, Step::Steal { .. })),
    )
}

#[test]
fn the_steps_are_what_the_counters_count() {
    let machine = with_every_zone();
    let requests = [
        Gfp::HIGHUSER_MOVABLE,
        Gfp::KERNEL,
        Gfp::KERNEL | Gfp::RECLAIMABLE,
        Gfp::DMA,
    ];
    let mut taken: Vec<(Pfn, u8)> = Vec::new();
    let mut seen = Stats::ZERO;
    let mut since = |recording: &Recording| {
        let now = stats(&machine);
        let moved = (
            now.splits - seen.splits,
            now.merges - seen.merges,
            now.claims - seen.claims,
            now.steals - seen.steals,
        );
        seen = now;
        assert_eq!(counted(recording), moved, "{recording}");
    };
    // More than there is, so that types run out and take from each other.
    for turn in 0_u8..=u8::MAX {
        for gfp in requests {
            let size = turn % 8;
            let mut recording = Recording::new();
            let block = Block::alloc_traced(&*machine, gfp, order(size), &mut recording);
            since(&recording);
            taken.extend(block.ok().map(|block| (block.into_raw(), size)));
        }
    }
    assert!(stats(&machine).claims > 4, "types took from each other");
    let (before, mut told) = (stats(&machine).merges, 0);
    for (pfn, size) in taken {
        let mut recording = Recording::new();
        // SAFETY: taken above and kept as a number since.
        unsafe { machine.free_pages_traced(pfn, order(size), &mut recording) }.unwrap();
        let (splits, merges, claims, steals) = counted(&recording);
        assert_eq!((splits, claims, steals), (0, 0, 0), "{recording}");
        told += merges;
    }
    // To look merges the last block of each zone, which nobody is told.
    let silent = stats(&machine).merges - before - told;
    assert!(silent <= 10 * machine.zones().count() as u64, "{silent}");
    machine.finish();
}
