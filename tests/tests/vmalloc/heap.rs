//! Large requests where memory is in pieces: `kvmalloc`, and Rust's `alloc`.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use mm::adapters::{EarlyPages, KernelHeap};
use mm::addr::{Order, PfnRange};
use mm::buddy::Gfp;
use mm::system::{Memory, PageRun};
use mm_tests::sim::{Listed, Plain, SimPlatform, Sparse};

use crate::world::{MIB, PAGE, World, at};

type Config = Listed<(Plain, Sparse)>;

/// Bytes that are more than the largest block, and pages of them.
const LARGE: usize = 9 << 20;
const PAGES: usize = LARGE / PAGE;

static NONE: EarlyPages<0> = EarlyPages::new();

/// A page in each pageblock: nothing larger than 1 MiB is in one piece.
fn in_pieces(world: &World<Config>) -> Vec<PageRun<&Memory<SimPlatform<Config>>>> {
    let take = || {
        world
            .alloc_block(Gfp::NOWAIT | Gfp::NOWARN, Order::PAGEBLOCK)
            .ok()
    };
    let held: Vec<_> = std::iter::from_fn(take).collect();
    let frames: Vec<_> = held.iter().map(|block| block.pfn()).collect();
    drop(held);
    let keep = |pfn| {
        world
            .alloc_contig_range(PfnRange::block(pfn, Order::ZERO), Gfp::KERNEL)
            .ok()
    };
    frames.into_iter().filter_map(keep).collect()
}

#[test]
fn requests_above_the_largest_block_are_mapped_where_memory_is_in_pieces() {
    let world = World::<Config>::new(96 * MIB, 256 * MIB, 64);
    let whole = world.kvmalloc(LARGE, Gfp::KERNEL).unwrap();
    assert!(!world.is_vmalloc_addr(at(whole, 0)), "that is easy");
    // SAFETY: of `kvmalloc`, and given up.
    unsafe { world.kvfree(whole) }.unwrap();
    let kept = in_pieces(&world);
    assert!(kept.len() > 20);
    assert!(world.kmalloc(LARGE, Gfp::KERNEL | Gfp::NOWARN).is_err());
    let first = world.kvmalloc(LARGE, Gfp::KERNEL).unwrap();
    assert!(world.is_vmalloc_addr(at(first, 0)));
    world.fill(first, PAGES, 0x5a);
    // SAFETY: so many bytes of `kvmalloc`, which the test goes on with.
    let larger = unsafe { world.kvrealloc(first, (LARGE, 2 * LARGE), Gfp::KERNEL | Gfp::ZERO) };
    let larger = larger.unwrap();
    assert!(world.is_vmalloc_addr(at(larger, 0)));
    assert!(world.holds(larger, PAGES, 0x5a));
    let rest = NonNull::new(larger.as_ptr().wrapping_add(LARGE)).unwrap();
    assert!(world.holds(rest, PAGES, 0), "new bytes are zeroed");
    // SAFETY: of `kvmalloc`, and given up.
    unsafe { world.kvfree(larger) }.unwrap();
    drop(kept);
    world.finish();
}

#[test]
fn rusts_large_blocks_are_mapped_where_memory_is_in_pieces() {
    let world = World::<Config>::new(96 * MIB, 256 * MIB, 64);
    let memory: &Memory<_> = &world;
    let heap = KernelHeap::new(memory, &NONE);
    let kept = in_pieces(&world);
    let large = Layout::from_size_align(LARGE, 16).unwrap();
    // SAFETY: the size is not zero.
    let first = NonNull::new(unsafe { heap.alloc_zeroed(large) }).unwrap();
    assert!(world.is_vmalloc_addr(at(first, 0)));
    assert!(world.holds(first, PAGES, 0));
    world.fill(first, PAGES, 0x5a);
    // SAFETY: the heap's, of that layout.
    let moved = unsafe { heap.realloc(first.as_ptr(), large, 2 * LARGE) };
    let moved = NonNull::new(moved).unwrap();
    assert!(world.holds(moved, PAGES, 0x5a));
    let twice = Layout::from_size_align(2 * LARGE, 16).unwrap();
    // SAFETY: as above.
    let small = unsafe { heap.realloc(moved.as_ptr(), twice, 100) };
    // SAFETY: 100 bytes that are contiguous.
    let bytes = unsafe { std::slice::from_raw_parts(small, 100) };
    assert!(bytes.iter().all(|&byte| byte == 0x5a));
    // A block of `kmalloc` grows into an area.
    // SAFETY: as above.
    let grown = unsafe { heap.realloc(small, Layout::from_size_align(100, 16).unwrap(), LARGE) };
    let grown = NonNull::new(grown).unwrap();
    assert!(world.is_vmalloc_addr(at(grown, 0)));
    let start = world.page(at(grown, 0));
    // SAFETY: a page of the block.
    let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), 100) };
    assert!(bytes.iter().all(|&byte| byte == 0x5a));
    // SAFETY: as above; given up where nobody may sleep.
    world
        .hardware()
        .in_atomic(|| unsafe { heap.dealloc(grown.as_ptr(), large) });
    // Who may not sleep gets nothing, and alignments of more than a page are honoured.
    // SAFETY: as above.
    let none = world.hardware().in_atomic(|| unsafe { heap.alloc(large) });
    assert!(none.is_null());
    let aligned = Layout::from_size_align(LARGE, 1 << 16).unwrap();
    // SAFETY: as above.
    let first = NonNull::new(unsafe { heap.alloc(aligned) }).unwrap();
    assert!(at(first, 0).is_aligned(1 << 16));
    // SAFETY: as above.
    unsafe { heap.dealloc(first.as_ptr(), aligned) };
    drop(kept);
    world.finish();
}
