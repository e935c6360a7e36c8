//! Requests larger than the largest block.

use std::ptr::NonNull;

use mm::addr::{Order, VirtAddr};
use mm::buddy::Gfp;
use mm::frame::FreeError;
use mm::platform::{NodeId, Platform};
use mm::slab::{BadFree, size_roundup};
use mm::system::AllocError;
use mm_tests::for_every_config;
use mm_tests::sim::{Latent, Listed, Machine, SimConfig, Usual};

const MIB: usize = 1 << 20;

for_every_config! {
    a_large_piece_is_as_large_as_asked_and_comes_back_whole,
    there_is_a_piece_as_long_as_enough_pageblocks_are_free,
}

fn fill(piece: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: a piece of that size that the test owns.
    unsafe { piece.write_bytes(byte, size) };
}

fn holds(piece: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: as above; it was written to.
    let bytes = unsafe { std::slice::from_raw_parts(piece.as_ptr(), size) };
    bytes.iter().all(|&found| found == byte)
}

fn free<C: SimConfig>(machine: &Machine<C>, piece: NonNull<u8>) -> Result<(), BadFree> {
    // SAFETY: of a piece that the test owns and forgets, or of nothing that anybody has.
    unsafe { machine.kfree(piece) }
}

fn a_large_piece_is_as_large_as_asked_and_comes_back_whole<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(256 * MIB as u64);
    for size in [4 * MIB + 1, 5 * MIB, 8 * MIB + 4097, 33 * MIB, 100 * MIB] {
        let before = machine.free_frames();
        let piece = machine.kmalloc(size, Gfp::KERNEL | Gfp::ZERO).unwrap();
        assert!(piece.addr().get().is_multiple_of(2 * MIB));
        assert_eq!(machine.ksize(piece), size_roundup(size));
        let frames = size.div_ceil(4096) as u64;
        assert_eq!(machine.free_frames(), before - frames, "not a page more");
        assert!(holds(piece, size, 0));
        fill(piece, size, 0x5a);
        machine.check();
        let inside = piece.map_addr(|first| first.checked_add(2 * MIB).unwrap());
        assert_eq!(machine.ksize(inside), None, "it starts elsewhere");
        assert!(free(&machine, inside).is_err() && machine.ksize(piece).is_some());
        free(&machine, piece).unwrap();
        assert!(machine.drain_all_pages());
        assert_eq!(machine.free_frames(), before);
        assert!(free(&machine, piece).is_err(), "a second time");
    }
    machine.finish();
}

/// Every third pageblock of 2 MiB has a page in use: no piece of 5 MiB fits, until one of them is free again.
fn there_is_a_piece_as_long_as_enough_pageblocks_are_free<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB as u64);
    let order = Order::PAGEBLOCK;
    let take = || machine.alloc_block(Gfp::KERNEL | Gfp::NOWARN, order).ok();
    let mut blocks: Vec<_> = std::iter::from_fn(take).collect();
    blocks.sort_by_key(|block| block.pfn());
    let mut kept = Vec::new();
    for (place, block) in blocks.into_iter().enumerate() {
        if place % 3 == 0 {
            kept.push(block);
        }
    }
    let ask = || machine.kmalloc(5 * MIB, Gfp::KERNEL | Gfp::NOWARN);
    assert_eq!(ask(), Err(AllocError::OutOfMemory));
    machine.check();
    drop(kept.remove(3));
    let piece = ask().unwrap();
    assert_eq!(ask(), Err(AllocError::OutOfMemory));
    machine.check();
    free(&machine, piece).unwrap();
    drop(kept);
    machine.finish();
}

#[test]
fn a_piece_changes_its_size_with_what_it_holds() {
    let machine = Machine::<Listed<Usual>>::with_ram(128 * MIB as u64);
    let mut piece = machine.kmalloc(1000, Gfp::KERNEL).unwrap();
    let mut old = 1000;
    fill(piece, old, 7);
    for new in [MIB, 5 * MIB, 5 * MIB + 100, 17 * MIB, 6 * MIB, 100] {
        // SAFETY: the test owns the piece, which has `old` bytes.
        piece = unsafe { machine.krealloc(piece, (old, new), Gfp::KERNEL) }.unwrap();
        assert!(machine.ksize(piece).unwrap() >= new);
        assert!(holds(piece, old.min(new), 7), "{old} to {new}");
        fill(piece, new, 7);
        old = new;
    }
    free(&machine, piece).unwrap();
    machine.finish();
}

#[test]
fn a_large_piece_comes_from_the_node_that_it_is_asked_of() {
    let builder = Machine::<Listed<Usual>>::new();
    let builder = builder.node(0, 0, 64 * MIB as u64);
    let builder = builder.node(1, 64 * MIB as u64, 64 * MIB as u64);
    let machine = builder.cpus_on(&[0, 1]).boot();
    let gfp = Gfp::KERNEL | Gfp::THISNODE;
    let piece = machine.kmalloc_node(20 * MIB, gfp, NodeId(1)).unwrap();
    let address = VirtAddr::from_ptr(piece.as_ptr());
    let first = machine.hardware().virt_to_phys(address).unwrap().frame();
    assert_eq!(machine.zone_of(first).unwrap().id().node, NodeId(1));
    let more = machine.kmalloc_node(50 * MIB, gfp, NodeId(1));
    assert_eq!(more, Err(AllocError::OutOfMemory));
    free(&machine, piece).unwrap();
    machine.finish();
}

#[test]
fn parts_of_a_large_piece_are_no_blocks_of_their_own() {
    let machine = Machine::<Usual>::with_ram(64 * MIB as u64);
    let piece = machine.kmalloc(6 * MIB, Gfp::KERNEL).unwrap();
    let address = VirtAddr::from_ptr(piece.as_ptr());
    let first = machine.hardware().virt_to_phys(address).unwrap().frame();
    for part in 0..3 {
        let pfn = first.checked_add(part * Order::PAGEBLOCK.frames()).unwrap();
        // SAFETY: it is refused.
        let freed = unsafe { machine.free_pages(pfn, Order::PAGEBLOCK) };
        let order = Order::PAGEBLOCK;
        assert_eq!(freed, Err(FreeError::WrongOrder { actual: order }));
        assert!(machine.get_page(pfn).is_none());
    }
    free(&machine, piece).unwrap();
    machine.finish();
}

/// Nobody waits, nothing is drained elsewhere; and marks hold.
#[test]
fn who_may_not_wait_gets_a_large_piece_where_there_is_one() {
    let machine = Machine::<Latent<Listed<Usual>>>::with_ram(512 * MIB as u64);
    let piece = machine.kmalloc(40 * MIB, Gfp::ATOMIC).unwrap();
    let rest = machine.kmalloc(machine.free_frames() as usize * 4096, Gfp::ATOMIC);
    assert_eq!(rest, Err(AllocError::OutOfMemory));
    let more = machine.kmalloc(100 * MIB, Gfp::ATOMIC).unwrap();
    free(&machine, more).unwrap();
    free(&machine, piece).unwrap();
    machine.finish();
}
