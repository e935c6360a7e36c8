//! Real machines' firmware maps, all the way to free pages.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mm::memblock::setup::LowMemory;
use mm_tests::maps::FirmwareMapFile;
use mm_tests::sim::{Machine, Plain, Sparse};

/// Machines with more memory than this are left to the plan's own tests: their frame records
/// alone would take more than the host should have to give.
const LARGEST_FRAMES: u64 = 20 << 18;
const SHARE: usize = 4;

/// Boots a machine with a file's map, checks it, and takes and returns a little memory. Answers
/// whether it is small enough for that.
fn boots(file: &FirmwareMapFile) -> bool {
    let results = file.results();
    let line = results.first().map(|(_, linux)| linux.command_line());
    let machine = || {
        Machine::<(Plain, Sparse)>::new().firmware(
            &file.entries(),
            LowMemory::Reserve,
            &line.clone().unwrap_or_default(),
        )
    };
    let frames = machine().ram_frames();
    if !(1024..=LARGEST_FRAMES).contains(&frames) {
        return false;
    }
    let machine = machine().boot();
    let summary = machine.booted();
    assert_eq!(summary.present, frames);
    assert_eq!(summary.managed, machine.free_frames());
    machine.check();
    let blocks = machine.initial().blocks();
    let largest = blocks.iter().map(|(_, order)| *order).max().unwrap();
    drop(
        machine
            .alloc_block(mm::buddy::Gfp::KERNEL, largest)
            .unwrap(),
    );
    machine.finish();
    true
}

/// Boots every fourth map, from one on: so that four tests share the work.
fn boot_share(share: usize) {
    let (mut booted, mut left_out, mut wrong) = (0, Vec::new(), Vec::new());
    for file in FirmwareMapFile::all().iter().skip(share).step_by(SHARE) {
        match catch_unwind(AssertUnwindSafe(|| boots(file))) {
            Ok(true) => booted += 1,
            Ok(false) => left_out.push(file.name.clone()),
            Err(_) => wrong.push(file.name.clone()),
        }
    }
    println!("{booted} booted; left out for their size: {left_out:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(booted >= 20, "only {booted}");
}

#[test]
fn real_maps_reach_all_pages_free_and_conserved_first_share() {
    boot_share(0);
}

#[test]
fn real_maps_reach_all_pages_free_and_conserved_second_share() {
    boot_share(1);
}

#[test]
fn real_maps_reach_all_pages_free_and_conserved_third_share() {
    boot_share(2);
}

#[test]
fn real_maps_reach_all_pages_free_and_conserved_fourth_share() {
    boot_share(3);
}
