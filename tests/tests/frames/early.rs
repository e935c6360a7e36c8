//! R61: bringing memory up where early memory runs out, and running out of pages later.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::memblock::Direction;
use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::setup::LowMemory;
use mm::system::{AllocError, BringUpError};
use mm_tests::oracles::{Owners, Shape};
use mm_tests::sim::{BootError, Builder, Machine, Plain, SimConfig, Usual, Vmemmap};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Two zones and two sections, so that bring-up makes a dozen early allocations.
fn two_sections<C: SimConfig>() -> Builder<C> {
    Machine::<C>::new().ram(0, 24 * MIB).ram(128 * MIB, 8 * MIB)
}

/// Gives early allocation the room that two sections of records take and a little more, 64 bytes
/// at a time: so each of its allocations is once the first that fails.
fn starve<C: SimConfig>() {
    let mut refused = std::collections::BTreeSet::new();
    for room in (0..MIB).step_by(64) {
        let machine = two_sections::<C>()
            .early(Direction::BottomUp)
            .reserve(0, 3 * MIB - room)
            .early_limit(5 * MIB);
        match machine.try_boot() {
            Ok(machine) => {
                machine.finish();
                break;
            }
            Err(BootError::BringUp(BringUpError::NoEarlyMemory(error))) => {
                // The message names the size wanted.
                let message = error.to_string();
                refused.insert(message.split(" below").next().unwrap().to_owned());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    // Records, nodes, and for each zone its slots, its index and its areas.
    assert!(refused.len() >= 5, "{refused:?}");
}

#[test]
fn bring_up_fails_cleanly_at_each_of_its_early_allocations() {
    starve::<Usual>();
    starve::<(Plain, Vmemmap)>();
}

#[test]
fn a_machine_without_memory_does_not_boot() {
    let none = Machine::<Usual>::new().try_boot();
    assert!(matches!(none, Err(BootError::Plan(_))));
    let too_little = Machine::<Usual>::new().ram(0, 512 * KIB).try_boot();
    assert!(matches!(
        too_little,
        Err(BootError::BringUp(BringUpError::NoEarlyMemory(_)))
    ));
}

#[test]
fn each_zone_can_run_out_by_itself() {
    let machine = Machine::<Usual>::new()
        .ram(0, 24 * MIB)
        .ram(4 << 30, 24 * MIB)
        .kernelcore(36 * MIB)
        .boot();
    let managed: Vec<_> = machine.zones().map(|zone| zone.managed()).collect();
    for order in Order::all() {
        for gfp in [
            Gfp::DMA,
            Gfp::DMA32,
            Gfp::empty(),
            Gfp::HIGHMEM | Gfp::MOVABLE,
        ] {
            let mut blocks = Vec::new();
            let refused = loop {
                match machine.alloc_block(Gfp::KERNEL | gfp, order) {
                    Ok(block) => blocks.push(block),
                    Err(error) => break error,
                }
            };
            assert_eq!(refused, AllocError::OutOfMemory);
            // Where single pages were asked for, the zones allowed are empty now.
            let highest = mm::buddy::Request::new(Gfp::KERNEL | gfp, order)
                .unwrap()
                .highest();
            for zone in machine.zones().filter(|_| order == Order::ZERO) {
                let allowed = zone.kind().index() <= highest.index();
                assert_eq!(zone.free_frames() == 0, allowed || zone.managed() == 0);
            }
            machine.check();
            drop(blocks);
        }
    }
    let now: Vec<_> = machine.zones().map(|zone| zone.managed()).collect();
    assert_eq!(managed, now);
    machine.finish();
}

#[test]
fn a_firmware_map_boots_and_reserved_memory_is_never_handed_out() {
    let entry = |start, size, kind| FirmwareRegion { start, size, kind };
    // What QEMU reports for 64 MiB on a `q35`.
    let map = [
        entry(0, 0x9_fc00, 1),
        entry(0x9_fc00, 0x400, 2),
        entry(0xf_0000, 0x1_0000, 2),
        entry(0x10_0000, 0x3ed_f000, 1),
        entry(0x3fd_f000, 0x2_1000, 2),
        entry(0xfeff_c000, 0x4000, 2),
        entry(0xfffc_0000, 0x4_0000, 2),
    ];
    let machine = Machine::<Usual>::new()
        .firmware(&map, LowMemory::Reserve, "")
        .reserve(2 * MIB, 3 * MIB)
        .boot();
    assert_eq!(machine.booted().present, 0x9e + 0x3edf);
    let mut owners = Owners::of_zeroed();
    let mut blocks = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::KERNEL, Order::ZERO) {
        let at = block.pfn().addr().as_u64();
        assert!(!(2 * MIB..5 * MIB).contains(&at) && (MIB..0x3fd_f000).contains(&at));
        owners.took(machine.hardware().ram(), block.frames());
        blocks.push(block);
    }
    assert_eq!(blocks.len() as u64, machine.managed_frames());
    for block in blocks {
        owners.giving(machine.hardware().ram(), block.pfn());
    }
    assert!(owners.is_empty() && Shape::of(&machine).frames() == machine.managed_frames());
    machine.finish();
}

#[test]
#[should_panic(expected = "dropped its machine without calling `finish`")]
fn a_test_that_forgets_the_oracles_fails() {
    drop(Machine::<Usual>::with_ram(16 * MIB));
}

#[test]
#[should_panic(expected = "O5: other free blocks than before")]
fn a_leaked_page_is_found_at_the_end() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let _ = machine.alloc_page(Gfp::KERNEL).unwrap();
    machine.finish();
}

#[test]
#[should_panic(expected = "O2: word 255 of frame")]
fn a_write_into_anothers_page_is_found() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let mut owners = Owners::new();
    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    owners.took(machine.hardware().ram(), block.frames());
    let at = block.pfn().addr().checked_add(255 * 8 + 3).unwrap();
    machine.hardware().ram().scribble(at, 0xff);
    owners.giving(machine.hardware().ram(), block.pfn());
    drop(block);
    machine.finish();
}

#[test]
#[should_panic(expected = "O9: byte 0x10 of free frame")]
fn a_write_to_a_free_page_is_found_at_the_end() {
    let machine = Machine::<mm_tests::sim::Checked>::with_ram(16 * MIB);
    let (pfn, _) = machine.initial().blocks()[0];
    let at = pfn.addr().checked_add(0x10).unwrap();
    machine.hardware().ram().scribble(at, 0);
    machine.finish();
}
