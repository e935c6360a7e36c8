//! R63: all of it on eight CPUs of two nodes, for long, while one request for pages in a thousand fails and NMIs come
//! between. Nothing is lost, and nothing grows.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::platform::Platform;
use mm::sync::shootdown::Lazy;
use mm::system::FailPageAlloc;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, Usual};
use mm_tests::threads::join;

use super::player::{MIB, Player, World};

const CPUS: u32 = 8;
/// What a player does in a round.
const STEPS: u64 = 1_500;
/// What it holds at most.
const LIVE: usize = 60;

#[derive(Default)]
struct Sums {
    refused: AtomicU64,
    nmis: AtomicU64,
    pages: AtomicU64,
}

/// What comes to a CPU while a player is at something: where it takes interrupts, what other CPUs want of it; and, seldom, an NMI
/// that takes a page or gives one back.
fn come<C: SimConfig>(
    machine: &Machine<C>,
    held: &RefCell<Vec<Pfn>>,
    random: &RefCell<Random>,
    sums: &Sums,
) {
    let (hardware, mut random) = (machine.hardware(), random.borrow_mut());
    if hardware.irqs_are_on() {
        machine.serve_tlb();
        if random.below(8) == 0 && hardware.is_called(hardware.current_cpu().0) {
            let masked = hardware.irq_save();
            machine.drain_wanted();
            hardware.irq_restore(masked);
        }
    }
    if random.below(64) != 0 {
        return;
    }
    sums.nmis.fetch_add(1, Ordering::Relaxed);
    let mut held = held.borrow_mut();
    hardware.in_atomic(|| {
        if held.len() < 8 && random.below(2) == 0 {
            if let Ok(pfn) = machine.alloc_pages_nolock(Gfp::KERNEL, Order::ZERO) {
                sums.pages.fetch_add(1, Ordering::Relaxed);
                held.push(pfn);
            }
        } else if let Some(pfn) = held.pop() {
            // SAFETY: allocated by this handler, and not given back yet.
            unsafe { machine.free_pages_nolock(pfn, Order::ZERO) }.unwrap();
        }
    });
}

/// What one CPU does in a round.
fn play<C: SimConfig>(world: &World<C>, cpu: u32, seed: u64, sums: &Sums) {
    let _here = world.machine.cpu(1 + cpu);
    let held = RefCell::default();
    let random = RefCell::new(Random::new(!seed ^ u64::from(cpu)));
    world.machine.hardware().answers(1 + cpu, true);
    let come = || come(&world.machine, &held, &random, sums);
    world.machine.hardware().with_nmis(come, || {
        let mut player = Player::new(world, u64::from(cpu), seed);
        (0..STEPS).for_each(|_| player.step(LIVE));
        sums.refused.fetch_add(player.end(), Ordering::Relaxed);
    });
    world.machine.hardware().answers(1 + cpu, false);
    for pfn in held.take() {
        // SAFETY: allocated by the handler.
        unsafe { world.machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
}

fn endures<C: SimConfig>(name: &str, rounds: u64) {
    let seed = seed("endures");
    // One in a thousand, once the machine is up.
    let rule = FailPageAlloc {
        interval: 10,
        space: 4096,
        ..FailPageAlloc::per_cent(1, seed)
    };
    let builder = Machine::<C>::new()
        .node(0, 0, 80 * MIB)
        .node(1, 80 * MIB, 80 * MIB)
        .cpus_on(&[0, 0, 0, 0, 0, 1, 1, 1, 1])
        .options(|options| options.fail_page_alloc = Some(rule));
    let world = World::new(builder, CPUS as usize);
    let machine = &world.machine;
    let sums = Sums::default();
    let before = world.settle();
    for round in 0..rounds {
        machine.idle(Lazy::Offline, || {
            thread::scope(|scope| {
                let (world, sums) = (&world, &sums);
                let seed = seed.wrapping_add(round);
                join((0..CPUS).map(|cpu| scope.spawn(move || play(world, cpu, seed, sums))));
            });
        });
        let after = world.settle();
        world.look();
        assert_eq!(
            after,
            before,
            "frames, after round {round} of seed {seed:#x}: {:?}",
            machine.vmalloc_stats()
        );
    }
    let refused = sums.refused.into_inner();
    let (nmis, pages) = (sums.nmis.into_inner(), sums.pages.into_inner());
    let injected = machine.injected_failures();
    println!(
        "{name}: {} operations in {rounds} rounds, {injected} requests failed on purpose ({refused} operations refused), {nmis} \
         NMIs got {pages} pages; 0 frames more or fewer",
        rounds * STEPS * u64::from(CPUS),
    );
    assert!(pages > 0);
    world.finish();
}

/// For an hour: `MM_CASES=3000`.
#[test]
fn everything_at_once_endures() {
    endures::<Listed<Usual>>("hardened", cases(20));
    endures::<Listed<Checked>>("debug", cases(10));
}
