//! Marks are raised for a while when migrate types mix, so that kswapd makes room for whole
//! pageblocks: when, by how much, and that it ends.

use std::collections::VecDeque;
use std::sync::Mutex;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::buddy::relief::{Freed, Relief, ShrinkControl, Shrinker};
use mm::config::PAGEBLOCK_FRAMES;
use mm::platform::NodeId;
use mm::proc::zoneinfo;
use mm::zone::watermark::policy::{alloc_flags, lowered};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, Usual};

use crate::world::{Handle, machine, order, zone};

fn boost<C: SimConfig>(machine: &Machine<C>) -> u64 {
    zone(machine).watermarks().boost()
}

/// Movable pages, three of four in every pageblock; so others find no pageblock to take over as a
/// whole.
fn scatter<C: SimConfig>(machine: &Machine<C>) -> Vec<Handle<'_, C>> {
    let gfp = Gfp::HIGHUSER_MOVABLE.difference(Gfp::RECLAIM) | Gfp::NOWARN;
    let pages: Vec<_> = std::iter::from_fn(|| machine.alloc_block(gfp, Order::ZERO).ok()).collect();
    let keep = |page: &Handle<'_, C>| page.pfn().as_u64() % 16 < 12;
    let kept = pages.into_iter().filter(keep).collect();
    assert!(machine.drain_all_pages());
    // What the first ones did to the marks is over.
    let _ = machine.balance_node(NodeId(0));
    assert_eq!(boost(machine), 0);
    kept
}

fn every_mixing_raises_the_marks_and_wakes_kswapd<C: SimConfig>() {
    let machine = machine::<C>(64);
    machine.hardware().has_kswapd();
    // A whole pageblock of another type is no mixing.
    drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    assert_eq!(boost(&machine), 0);
    let mut live = scatter(&machine);
    let runs = machine.reclaim_stats().pageoutrun;
    let before = zone(&machine).watermarks().marks();
    let most = PAGEBLOCK_FRAMES.max(before.high * 3 / 2);
    assert!(most < 2 * PAGEBLOCK_FRAMES);
    let mut expected = 0;
    while expected < most {
        let steals = || {
            let stats = zone(&machine).snapshot(machine.hardware()).stats;
            stats.steals + stats.claims
        };
        let mixed = steals();
        // The rest of a pageblock's free pages, then one of the next.
        while steals() == mixed {
            live.push(machine.alloc_block(Gfp::KERNEL, order(2)).unwrap());
        }
        expected = (expected + PAGEBLOCK_FRAMES).min(most);
        assert_eq!(boost(&machine), expected);
        assert_eq!(machine.hardware().woken(), [NodeId(0)]);
    }
    let marks = zone(&machine).watermarks().marks();
    assert_eq!(marks, before.raised(most));
    assert_eq!(zone(&machine).watermarks().unboosted(), before);
    let mut text = String::new();
    zoneinfo(&machine, &mut text).unwrap();
    for line in [
        format!("        boost    {most}\n        min      {}\n", marks.min),
        format!("        high     {}\n", marks.high),
    ] {
        assert!(text.contains(&line), "{line}{text}");
    }
    // One run of kswapd, and all is as it was.
    assert!(machine.balance_node(NodeId(0)).is_balanced);
    assert_eq!(machine.reclaim_stats().pageoutrun, runs + 1);
    assert_eq!(zone(&machine).watermarks().marks(), before);
    drop(live);
    machine.finish();
}

#[test]
fn mixing_types_raises_the_marks_by_a_pageblock_up_to_a_bound_and_wakes_kswapd() {
    every_mixing_raises_the_marks_and_wakes_kswapd::<Usual>();
    every_mixing_raises_the_marks_and_wakes_kswapd::<Checked>();
    every_mixing_raises_the_marks_and_wakes_kswapd::<Listed<Usual>>();
}

#[test]
fn tiny_zones_a_factor_of_zero_and_a_machine_without_kswapd_raise_nothing() {
    // Eight MiB are four pageblocks, and some of them is not managed.
    for (mib, factor, has_kswapd) in [(8, 15_000, true), (64, 0, true), (64, 15_000, false)] {
        let machine = machine::<Usual>(mib);
        machine.set_watermark_boost_factor(factor).unwrap();
        assert_eq!(machine.tuning().unwrap().watermark_boost_factor, factor);
        if has_kswapd {
            machine.hardware().has_kswapd();
        }
        let mut live = scatter(&machine);
        live.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
        let stats = zone(&machine).snapshot(machine.hardware()).stats;
        assert!(stats.steals + stats.claims > 0);
        assert_eq!(boost(&machine), 0, "{mib} {factor} {has_kswapd}");
        assert!(machine.hardware().woken().is_empty());
        drop(live);
        machine.finish();
    }
}

#[test]
fn a_setting_that_changes_puts_the_marks_back() {
    let machine = machine::<Usual>(64);
    machine.hardware().has_kswapd();
    let mut live = scatter(&machine);
    live.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    assert_eq!(boost(&machine), PAGEBLOCK_FRAMES);
    machine.set_watermark_scale_factor(20).unwrap();
    assert_eq!(boost(&machine), 0);
    drop(live);
    machine.finish();
}

#[test]
fn a_request_that_wakes_nobody_leaves_that_to_the_next_one() {
    let machine = machine::<Usual>(64);
    machine.hardware().has_kswapd();
    let mut live = scatter(&machine);
    let mut take = |gfp| live.push(machine.alloc_block(gfp, Order::ZERO).unwrap());
    take(Gfp::empty());
    assert!(machine.hardware().woken().is_empty());
    assert_eq!(boost(&machine), PAGEBLOCK_FRAMES);
    take(Gfp::NOWAIT);
    assert_eq!(machine.hardware().woken(), [NodeId(0)]);
    take(Gfp::NOWAIT);
    assert!(machine.hardware().woken().is_empty(), "once is enough");
    drop(live);
    machine.finish();
}

#[test]
fn only_single_pages_that_cannot_wait_look_past_the_boost() {
    let machine = machine::<Usual>(64);
    machine.hardware().has_kswapd();
    let mut live = scatter(&machine);
    live.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    let base = zone(&machine).watermarks().unboosted().min;
    // Nobody reclaims, so the boost grows to its bound and stays.
    for (gfp, size) in [(Gfp::NOWAIT, 0), (Gfp::ATOMIC, 1), (Gfp::ATOMIC, 0)] {
        let alloc = || machine.alloc_block(gfp | Gfp::NOWARN, order(size)).ok();
        live.extend(std::iter::from_fn(alloc));
        let raised = if gfp == Gfp::ATOMIC && size == 0 {
            0
        } else {
            boost(&machine)
        };
        let kept = if gfp == Gfp::ATOMIC {
            0
        } else {
            zone(&machine).high_atomic().1
        };
        let least = lowered(base + raised, alloc_flags(gfp)) + kept;
        let most = least + (1 << size) - 1;
        let free = zone(&machine).free_frames();
        assert!(
            (least..=most).contains(&free),
            "{gfp:?} {size}: {free} {least}"
        );
    }
    assert!(boost(&machine) > 0);
    drop(live);
    machine.finish();
}

/// A cache of single pages, the oldest of which go first.
struct Cache(&'static Machine<Usual>, Mutex<VecDeque<Pfn>>);

impl Relief for Cache {
    fn count_objects(&self, _: &ShrinkControl) -> u64 {
        self.1.lock().unwrap().len() as u64
    }

    fn scan_objects(&self, _: &ShrinkControl, objects: u64) -> Option<Freed> {
        let mut pages = self.1.lock().unwrap();
        let most = pages.len().min(objects as usize);
        for page in pages.drain(..most) {
            // SAFETY: taken as a number, freed once.
            unsafe { self.0.free_pages(page, Order::ZERO) }.unwrap();
        }
        let pages = most as u64;
        Some(Freed {
            objects: pages,
            pages,
        })
    }
}

/// Shrinkers live for good, and so does the machine.
#[test]
fn kswapd_reclaims_for_a_boost_although_there_is_enough() {
    let machine: &'static Machine<Usual> = Box::leak(Box::new(machine(64)));
    machine.hardware().has_kswapd();
    let pages = (0..8192).map(|_| machine.alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap());
    let cache: &'static Cache = Box::leak(Box::new(Cache(machine, Mutex::new(pages.collect()))));
    let shrinker = Box::leak(Box::new(Shrinker::new("cache", cache)));
    machine.register_shrinker(shrinker).unwrap();
    assert_eq!(machine.balance_node(NodeId(0)).reclaimed, 0);
    // All the rest is used up and one page in four comes back; then one of another type is taken.
    let mut live = scatter(machine);
    live.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    let asked = boost(machine);
    assert!(asked > 0 && zone(machine).free_frames() > zone(machine).watermarks().marks().high);
    let balance = machine.balance_node(NodeId(0));
    assert!(balance.is_balanced);
    // Modestly: a part of what was asked for, and never the whole cache.
    assert!(
        (128..=asked + 256).contains(&balance.reclaimed),
        "{}",
        balance.reclaimed
    );
    assert_eq!(boost(machine), 0);
    assert_eq!(machine.balance_node(NodeId(0)).reclaimed, 0);
    drop(live);
    machine.check();
}
