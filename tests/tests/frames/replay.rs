//! R64, the host's half: a deterministic sequence gives one sequence of frame numbers, whatever
//! the profile and the memory model, and wherever it runs.

use mm::buddy::Gfp;
use mm::platform::NodeId;
use mm::slab::SlubDebug;
use mm::system::{PageLists, Populate};
use mm_tests::for_every_config;
use mm_tests::sim::{
    Checked, Classic, Given, Latent, Listed, Machine, OnMachine, Plain, SimConfig, Sparse, Usual,
};
use mm_workload::{Live, Outcome};

const SEED: u64 = 0x6d6d;
const OPERATIONS: u64 = 100_000;
const SLOTS: usize = 4_096;

/// Free memory as a small machine has it: some of it below 16 MiB, holes, odd ends.
fn given() -> Given {
    Given::new(&[
        (0x10_0000, 0x15_3000),
        (0x40_0000, 0xff_f000),
        (0x100_0000, 0x3fd_f000),
        (0x500_0000, 0x9fb_1000),
    ])
}

fn play<C: SimConfig>(seed: u64) -> Outcome {
    let machine = given().boot::<C>();
    let mut slots = vec![None::<Live>; SLOTS];
    let outcome = mm_workload::run(
        &mut OnMachine::new(&machine, Gfp::empty()),
        &mut slots,
        seed,
        OPERATIONS,
    );
    machine.finish();
    outcome
}

for_every_config! { a_sequence_gives_the_same_frames_everywhere }

fn a_sequence_gives_the_same_frames_everywhere<C: SimConfig>() {
    let outcome = play::<C>(SEED);
    // Page lists, and where records lie, make a difference.
    let usual = match (C::LISTS, C::POPULATE) {
        (PageLists::Off, Populate::AtBoot) => play::<Usual>(SEED),
        (PageLists::Off, Populate::OnDemand) => play::<Latent<Usual>>(SEED),
        (PageLists::Tuned, Populate::AtBoot) => play::<Listed<Usual>>(SEED),
        (PageLists::Tuned, Populate::OnDemand) => play::<Latent<Listed<Usual>>>(SEED),
        (PageLists::Classic, _) => play::<Classic<Usual>>(SEED),
    };
    assert_eq!(outcome, usual);
    // Both answers occur, and plenty of each.
    assert!(
        outcome.served > 10_000 && outcome.failed > 1_000,
        "{outcome:?}"
    );
}

/// Two nodes of different size, a CPU on each, and policies of all kinds.
fn play_nodes<C: SimConfig>(seed: u64) -> Outcome {
    let machine = Machine::<C>::new()
        .ram(0x10_0000, 95 << 20)
        .node(1, 0x800_0000, 64 << 20)
        .cpus_on(&[0, 1])
        // What the kernel itself takes to look at objects differs by profile.
        .options(|options| options.slub_debug = SlubDebug::OFF)
        .boot();
    machine.set_interleave_weight(NodeId(1), 3).unwrap();
    let mut slots = vec![None::<Live>; SLOTS];
    let mut pages = OnMachine::new(&machine, Gfp::NOWARN).with_nodes(2);
    let outcome = mm_workload::run(&mut pages, &mut slots, seed, OPERATIONS);
    machine.finish();
    outcome
}

#[test]
fn a_sequence_with_policies_gives_the_same_frames_in_every_profile() {
    let outcome = play_nodes::<Usual>(SEED);
    assert_eq!(outcome, play_nodes::<(Plain, Sparse)>(SEED));
    assert_eq!(outcome, play_nodes::<Checked>(SEED));
    assert!(
        outcome.served > 10_000 && outcome.failed > 1_000,
        "{outcome:?}"
    );
    assert_eq!(
        play_nodes::<Listed<Usual>>(SEED),
        play_nodes::<Listed<Checked>>(SEED)
    );
    assert_ne!(outcome.hash, play_nodes::<Usual>(SEED + 1).hash);
}

#[test]
fn another_seed_gives_other_frames() {
    assert_ne!(play::<Usual>(SEED).hash, play::<Usual>(SEED + 1).hash);
}

#[test]
fn free_memory_is_exactly_what_was_given() {
    let machine = given().boot::<Usual>();
    let node = &machine.nodes()[0];
    let free: u64 = node.zones().iter().map(|zone| zone.free_frames()).sum();
    assert_eq!(free, 0x53 + 0xbff + 0x2fdf + 0x4fb1);
    let ranges = machine.initial().ranges();
    let starts: Vec<_> = ranges.iter().map(|range| range.first().as_u64()).collect();
    assert_eq!(starts[..4], [0x100, 0x400, 0x1000, 0x5000]);
    machine.finish();
}
