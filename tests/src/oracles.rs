//! Oracles: what must hold of any machine at any time, checked from the outside.
//!
//! | | what | where |
//! |---|---|---|
//! | O1 | conservation: managed = free + isolated + live + cached, present = managed + reserved | [`check`] |
//! | O2 | every frame has at most one owner, and nobody else writes to it | [`Owners`] |
//! | O3 | counters equal a recount | [`check`] |
//! | O4 | buddy shape: aligned, merged, on the right lists | [`check`] |
//! | O5 | nothing leaks: the free blocks are those of the start | [`Shape`] |
//! | O8 | no CPU remembers what is not in the page tables | [`Machine::finish`](crate::sim::Machine::finish) |
//! | O9 | free memory holds its poison | [`check`] |
//! | O11 | the CMA area holds free and movable pages, and what was given out | [`check`] |
//! | O10 | no lock held, interrupts unmasked, no circle in the lock order, no damage reported | [`check_quiet`] |
//!
//! The recounts read frame records one by one and share no code with the library's own
//! [`validate`](mm::system::Memory::validate), which is called as well.

mod hash;
mod owners;
mod recount;
mod shape;

pub use hash::state_hash;
pub use owners::Owners;
pub use recount::{Blocks, Found};
pub use shape::Shape;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::MigrateType;
use mm::config::{PAGE_SIZE, SECTION_FRAMES};
use mm::frame::FrameState;
use mm::mem::poison;
use mm::system::Memory;

use crate::sim::{SimConfig, SimPlatform};
use recount::Recount;

/// Runs O1, O3, O4, O9 and O11.
///
/// # Panics
/// If one is violated.
pub fn check<C: SimConfig>(memory: &Memory<SimPlatform<C>>) {
    if let Err(corruption) = memory.validate() {
        panic!("validate: {corruption}");
    }
    for zone in memory.zones() {
        let recount = Recount::of(memory, zone);
        let name = format!("zone {} of node {}", zone.kind(), zone.id().node);
        let census = recount.census;
        assert_eq!(zone.managed(), census.managed(), "O1: managed, {name}");
        assert_eq!(
            zone.present(),
            census.managed() + census.reserved,
            "O1: present, {name}"
        );
        let snapshot = zone.snapshot(memory.platform());
        let free = census.free + census.latent;
        assert_eq!(zone.free_frames(), free, "O3: free, {name}");
        assert_eq!(snapshot.free, free, "O3: free, {name}");
        assert_eq!(zone.latent_frames(), census.latent, "O3: latent, {name}");
        assert_eq!(snapshot.blocks, recount.blocks, "O3: blocks, {name}");
        assert_eq!(
            snapshot.stats.allocated - snapshot.stats.freed,
            census.live + zone.deferred_frames(),
            "O3: live frames, {name}"
        );
        let listed: u64 = zone
            .pagesets()
            .chain(zone.cold_pagesets())
            .map(|set| set.count)
            .sum();
        assert_eq!(
            listed + zone.deferred_frames(),
            census.cached,
            "O1: frames on lists and put off, {name}"
        );
    }
    check_shape(memory);
    check_cma(memory);
    if memory.options().is_some_and(|options| options.page_poison) {
        check_poison(memory);
    }
}

/// Sections that have RAM but no records.
#[must_use]
pub fn latent_sections<C: SimConfig>(memory: &Memory<SimPlatform<C>>) -> Vec<u64> {
    let ram = memory.platform().ram().ranges();
    let sections = ram.flat_map(|range| {
        let frames = range.whole_frames();
        frames.first().section()..frames.end().as_u64().div_ceil(SECTION_FRAMES)
    });
    let mut latent: Vec<_> = sections
        .filter(|&section| memory.page(Pfn::new(section * SECTION_FRAMES)).is_none())
        .collect();
    latent.dedup();
    latent
}

/// O5 for sections that were latent at the start: nobody has anything of them now.
///
/// # Panics
/// If somebody has.
pub fn check_all_free<C: SimConfig>(memory: &Memory<SimPlatform<C>>, sections: &[u64]) {
    let inside = Blocks::of(memory).filter(|found| sections.contains(&found.pfn.section()));
    for Found { pfn, word } in inside {
        let state = word.state();
        let unused = matches!(state, Some(FrameState::Free | FrameState::Reserved));
        assert!(unused, "O5: {pfn} is {state:?} at the end");
    }
}

/// O11: in the CMA area there is nothing but free and movable pages, and what was given out in one
/// piece, which is as much as the area says.
fn check_cma<C: SimConfig>(memory: &Memory<SimPlatform<C>>) {
    let stats = memory.cma_stats();
    let mut taken = 0;
    for Found { pfn, word } in Blocks::of(memory) {
        if !stats.frames.contains(pfn) {
            continue;
        }
        match (word.state(), MigrateType::from_bits(word.mobility())) {
            (Some(FrameState::Free), _) => {}
            (Some(FrameState::Unique | FrameState::Shared), MigrateType::Cma) => {
                taken += word.order().frames();
            }
            (_, mobility) => assert_eq!(mobility, MigrateType::Movable, "O11: {pfn} {word:?}"),
        }
    }
    assert_eq!(stats.taken, taken, "O11: frames given out in one piece");
    let sums = memory.zones().map(|zone| zone.cma());
    let (frames, free) = sums.fold((0, 0), |sum, zone| (sum.0 + zone.0, sum.1 + zone.1));
    let lists = memory
        .zones()
        .map(|zone| zone.snapshot(memory.platform()).blocks);
    let listed = lists.map(|blocks| {
        let counts = blocks[MigrateType::Cma.index()]
            .into_iter()
            .zip(Order::all());
        counts
            .map(|(count, order)| count * order.frames())
            .sum::<u64>()
    });
    assert_eq!((frames, free), (stats.frames.frames(), listed.sum()), "O11");
}

/// O4: free blocks are aligned and merged, and nothing starts inside them.
fn check_shape<C: SimConfig>(memory: &Memory<SimPlatform<C>>) {
    for Found { pfn, word } in Blocks::of(memory) {
        if word.state() != Some(FrameState::Free) {
            continue;
        }
        let order = word.order();
        assert!(pfn.is_aligned(order), "O4: {pfn} is not aligned to {order}");
        for inside in PfnRange::block(pfn, order).iter().skip(1) {
            let state = memory.page(inside).and_then(|page| page.state());
            assert_eq!(
                state,
                Some(FrameState::Interior),
                "O4: frame {inside} inside the free block at {pfn}"
            );
        }
        if order == Order::MAX {
            continue;
        }
        let buddy = pfn.buddy(order);
        let twin = memory
            .page(buddy)
            .is_some_and(|page| page.frame().word() == word);
        assert!(
            !twin || !may_merge(memory, pfn, order),
            "O4: {pfn} and {buddy} of {order} are not merged"
        );
    }
}

/// Whether pageblock types allow the block and its buddy to merge.
fn may_merge<C: SimConfig>(memory: &Memory<SimPlatform<C>>, pfn: Pfn, order: Order) -> bool {
    if order < Order::PAGEBLOCK {
        return true;
    }
    let kind = |pfn| {
        let zone = memory.zone_of(pfn)?;
        zone.pageblock_type(memory.platform(), pfn)
    };
    let (one, other) = (kind(pfn), kind(pfn.buddy(order)));
    let plain = |kind: Option<MigrateType>| kind.is_some_and(MigrateType::is_mergeable);
    let isolated = one == Some(MigrateType::Isolate);
    (one == other && !isolated) || (plain(one) && plain(other))
}

/// O9: every byte of free memory holds the pattern.
fn check_poison<C: SimConfig>(memory: &Memory<SimPlatform<C>>) {
    for Found { pfn, word } in Blocks::of(memory) {
        if !matches!(word.state(), Some(FrameState::Free | FrameState::Cached)) {
            continue;
        }
        let bytes = memory
            .platform()
            .ram()
            .read(PfnRange::block(pfn, word.order()).addrs());
        let bad = bytes.iter().position(|&byte| byte != poison::PAGE_FREE);
        if let Some(bad) = bad.map(|at| at as u64) {
            panic!(
                "O9: byte {:#x} of free frame {} was written to",
                bad % PAGE_SIZE,
                pfn.saturating_add(bad / PAGE_SIZE)
            );
        }
    }
}

/// Runs O10, and looks for damage reports that no test has asked for.
///
/// # Panics
/// If there is something.
pub fn check_quiet<C: SimConfig>(memory: &Memory<SimPlatform<C>>) {
    let reports = memory.platform().take_reports();
    assert!(reports.is_empty(), "damage was reported: {reports:?}");
    let troubles = memory.platform().take_troubles();
    assert!(troubles.is_empty(), "O10: {troubles:?}");
}
