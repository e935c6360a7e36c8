//! Rust's `alloc` on `kmalloc`: before memory is up, while it comes up, and after.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use mm::adapters::{EarlyHeapUsage, EarlyPages, KernelHeap};
use mm::addr::PhysRange;
use mm::buddy::Gfp;
use mm::platform::Platform;
use mm::system::{FreeEarlyError, Memory};
use mm_tests::for_every_config;
use mm_tests::lean::{self, Lean};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, SimPlatform, Usual};

const MIB: usize = 1 << 20;

for_every_config! {
    sizes_and_alignments_are_honoured,
    random_blocks_keep_what_they_hold,
    memory_that_runs_out_is_a_null_pointer,
}

/// Memory is up: no early pages are needed.
static NONE: EarlyPages<0> = EarlyPages::new();

type Heap<'m, C> = KernelHeap<&'m Memory<SimPlatform<C>>, 0>;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A block, filled with a byte.
struct Filled {
    first: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Filled {
    fn alloc(heap: &impl GlobalAlloc, layout: Layout, byte: u8) -> Option<Self> {
        // SAFETY: no size here is zero.
        let first = unsafe { heap.alloc(layout) };
        Self::fill(first, layout, byte)
    }

    fn zeroed(heap: &impl GlobalAlloc, layout: Layout, byte: u8) -> Option<Self> {
        // SAFETY: as above.
        let first = unsafe { heap.alloc_zeroed(layout) };
        let block = NonNull::new(first)?;
        assert!(holds(block.as_ptr(), layout.size(), 0), "{layout:?}");
        Self::fill(first, layout, byte)
    }

    fn fill(first: *mut u8, layout: Layout, byte: u8) -> Option<Self> {
        assert!(first.addr().is_multiple_of(layout.align()), "{layout:?}");
        NonNull::new(first)?;
        // SAFETY: the block has that many bytes, and is the caller's.
        unsafe { first.write_bytes(byte, layout.size()) };
        Some(Self {
            first,
            layout,
            byte,
        })
    }

    fn is_intact(&self) -> bool {
        holds(self.first, self.layout.size(), self.byte)
    }

    fn resize(self, heap: &impl GlobalAlloc, size: usize) -> Result<Self, Self> {
        // SAFETY: the block is the heap's, of that layout.
        let moved = unsafe { heap.realloc(self.first, self.layout, size) };
        if moved.is_null() {
            return Err(self);
        }
        assert!(holds(moved, self.layout.size().min(size), self.byte));
        let layout = layout(size, self.layout.align());
        Ok(Self::fill(moved, layout, self.byte).unwrap())
    }

    fn free(self, heap: &impl GlobalAlloc) {
        assert!(self.is_intact(), "{:?}", self.layout);
        // SAFETY: the block is the heap's, of that layout.
        unsafe { heap.dealloc(self.first, self.layout) };
    }
}

fn holds(first: *const u8, size: usize, byte: u8) -> bool {
    // SAFETY: a block of that size that the test owns, and has written to.
    let bytes = unsafe { std::slice::from_raw_parts(first, size) };
    bytes.iter().all(|&found| found == byte)
}

fn every_size<C: SimConfig>(step: usize) {
    let machine = Machine::<C>::with_ram(64 * MIB as u64);
    let heap = Heap::<C>::new(&machine, &NONE);
    for align in (0..=12).map(|shift| 1 << shift) {
        for size in (1..=16384).step_by(step) {
            let one = Filled::alloc(&heap, layout(size, align), 0xaa).unwrap();
            let other = Filled::zeroed(&heap, layout(size, align), 0x55).unwrap();
            one.free(&heap);
            other.free(&heap);
        }
    }
    for align in [8192, 65536, MIB, 2 * MIB, 4 * MIB] {
        for size in [1, 100, 8192, 100_000, 3 * MIB, 5 * MIB] {
            let block = Filled::alloc(&heap, layout(size, align), 1).unwrap();
            let block = block.resize(&heap, size + 100).ok().unwrap();
            block.free(&heap);
        }
    }
    machine.check();
    machine.finish();
}

fn sizes_and_alignments_are_honoured<C: SimConfig>() {
    every_size::<C>(37);
}

/// R24: all sizes up to 16 KiB with all alignments up to a page.
#[test]
fn every_size_and_alignment_is_honoured() {
    every_size::<Listed<Usual>>(1);
}

fn random_blocks_keep_what_they_hold<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(128 * MIB as u64);
    let heap = Heap::<C>::new(&machine, &NONE);
    let seed = seed("objects_heap");
    let mut random = Random::new(seed);
    let mut live: Vec<Filled> = Vec::new();
    for step in 0..10_000_u32 {
        let largest = 1 << random.below(16);
        let size = 1 + random.below(largest) as usize;
        let which = random.below(live.len().max(1) as u64) as usize;
        match random.below(10) {
            0..=4 => {
                let layout = layout(size, 1 << random.below(10));
                let byte = step.to_le_bytes()[0];
                live.extend(match random.below(4) {
                    0 => Filled::zeroed(&heap, layout, byte),
                    _ => Filled::alloc(&heap, layout, byte),
                });
            }
            5..=6 if !live.is_empty() => {
                let block = live.swap_remove(which);
                let block = block.resize(&heap, size);
                live.push(block.unwrap_or_else(|block| block));
            }
            _ if !live.is_empty() => live.swap_remove(which).free(&heap),
            _ => {}
        }
        if step % 2_500 == 0 {
            assert!(live.iter().all(Filled::is_intact), "seed {seed}");
            machine.check();
        }
    }
    live.into_iter().for_each(|block| block.free(&heap));
    machine.finish();
}

fn memory_that_runs_out_is_a_null_pointer<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(16 * MIB as u64);
    let heap = Heap::<C>::new(&machine, &NONE);
    for size in [40, 3000, 70_000] {
        let take = || Filled::alloc(&heap, layout(size, 8), 3);
        let all: Vec<_> = std::iter::from_fn(take).collect();
        // Debugged caches have more around each object than 40 bytes.
        assert!(8 * all.len() * size > 8 * MIB, "{size}: {}", all.len());
        machine.check();
        for block in all {
            // What is larger cannot be had: it stays what it was.
            let block = block.resize(&heap, 32 * MIB).err().unwrap();
            block.free(&heap);
        }
        machine.shrink_caches();
    }
    for size in [17 * MIB, isize::MAX as usize & !7] {
        assert!(Filled::alloc(&heap, layout(size, 8), 0).is_none());
    }
    let _ = machine.hardware().take_failures();
    machine.finish();
}

/// What is taken while memory is short, in the handler of an interrupt for instance, does not sleep.
#[test]
fn who_may_not_sleep_is_served_without_waiting() {
    let machine = Machine::<Listed<Checked>>::with_ram(16 * MIB as u64);
    let heap = Heap::<Listed<Checked>>::new(&machine, &NONE);
    let take = || Filled::alloc(&heap, layout(4000, 8), 3);
    let all: Vec<_> = machine
        .hardware()
        .in_atomic(|| std::iter::from_fn(take).collect());
    assert!(all.len() > 500, "{}", all.len());
    assert!(machine.hardware().take_sleeps().is_empty());
    all.into_iter().for_each(|block| block.free(&heap));
    machine.finish();
}

type Early<'m> = KernelHeap<&'m Memory<Lean>, 16>;

fn early_heap(memory: &Memory<Lean>) -> Early<'_> {
    Early::new(memory, Box::leak(Box::new(EarlyPages::new())))
}

fn usage(used_bytes: usize, returned_pages: usize) -> EarlyHeapUsage {
    EarlyHeapUsage {
        used_bytes,
        returned_bytes: returned_pages * 4096,
        size_bytes: 16 * 4096,
    }
}

/// Gives back as if the early pages were the machine's first.
fn give_back(heap: &Early<'_>, at: PhysRange) -> Result<EarlyHeapUsage, FreeEarlyError> {
    // SAFETY: the pages were reserved, and nobody has them. (1) is not kept: the heap's own are not the machine's, so
    // that nobody gets those that are given back.
    unsafe { heap.give_back_early(at.start()) }
}

#[test]
fn blocks_from_before_memory_is_up_live_on_and_their_pages_go_back() {
    let memory = Memory::new(Lean::new());
    let heap = early_heap(&memory);
    assert!(Filled::alloc(&heap, layout(17 * 4096, 8), 0).is_none());
    assert!(Filled::alloc(&heap, layout(8, 8192), 0).is_none());
    let take = |size, byte| Filled::alloc(&heap, layout(size, 16), byte).unwrap();
    let (kept, grown) = (take(100, 1), take(300, 2));
    let grown = grown.resize(&heap, 9000).ok().unwrap();
    let moved = take(100, 3);
    // SAFETY: freed here for good.
    unsafe { heap.dealloc(take(5000, 0xff).first, layout(5000, 16)) };
    let zeroed = Filled::zeroed(&heap, layout(5000, 16), 4).unwrap();
    let places = [&kept, &grown, &moved, &zeroed].map(|block| block.first.addr());
    let early = heap.early_pages().addr().get();
    assert!(
        places
            .iter()
            .all(|at| (early..early + 16 * 4096).contains(at))
    );
    assert_eq!(heap.early_usage(), usage(128 + 9024 + 128 + 5056, 0));
    let reserved = PhysRange::EMPTY;
    assert_eq!(give_back(&heap, reserved), Err(FreeEarlyError::NotUp));

    let reserved = lean::bring_up(&memory, 64 * MIB, 16 * 4096);
    let late = take(100, 5);
    assert!(!(early..early + 16 * 4096).contains(&late.first.addr()));
    let free = memory.free_frames();
    // Blocks lie in the first four pages.
    assert_eq!(give_back(&heap, reserved), Ok(usage(14336, 12)));
    assert_eq!(memory.free_frames(), free + 12);
    assert_eq!(give_back(&heap, reserved), Ok(usage(14336, 12)));
    // One that changes its size moves, unless it gets smaller.
    let moved = moved.resize(&heap, 20_000).ok().unwrap();
    assert!(!(early..early + 16 * 4096).contains(&moved.first.addr()));
    let grown = grown.resize(&heap, 3000).ok().unwrap();
    assert_eq!(grown.first.addr(), places[1]);
    zeroed.free(&heap);
    grown.free(&heap);
    assert_eq!(give_back(&heap, reserved), Ok(usage(128, 15)));
    kept.free(&heap);
    assert_eq!(give_back(&heap, reserved), Ok(usage(0, 16)));
    assert_eq!(
        memory.free_frames(),
        free + 16 - 8,
        "a block of 20,000 bytes"
    );
    late.free(&heap);
    moved.free(&heap);
    memory.validate().unwrap();
}

#[test]
fn early_pages_serve_one_heap() {
    static EARLY: EarlyPages<16> = EarlyPages::new();
    let memory = Memory::new(Lean::new());
    let (first, second) = (Early::new(&memory, &EARLY), Early::new(&memory, &EARLY));
    let block = Filled::alloc(&first, layout(100, 8), 1).unwrap();
    assert!(Filled::alloc(&second, layout(100, 8), 2).is_none());
    let reserved = lean::bring_up(&memory, 64 * MIB, 16 * 4096);
    assert_eq!(give_back(&second, reserved), Ok(usage(0, 0)));
    assert_eq!(give_back(&first, reserved), Ok(usage(128, 15)));
    block.free(&first);
}

#[test]
fn pages_that_were_not_reserved_are_not_given_back() {
    let memory = Memory::new(Lean::new());
    let heap = early_heap(&memory);
    let reserved = lean::bring_up(&memory, 64 * MIB, 4096);
    let free = memory.free_frames();
    let next = reserved.end().frame();
    assert_eq!(
        give_back(&heap, reserved),
        Err(FreeEarlyError::NotReserved(next))
    );
    assert_eq!(memory.free_frames(), free);
    memory.validate().unwrap();
}

#[test]
fn a_block_of_nobody_is_reported() {
    let machine = Machine::<Usual>::with_ram(64 * MIB as u64);
    let heap = Heap::<Usual>::new(&machine, &NONE);
    let block = machine.kmalloc(64, Gfp::KERNEL).unwrap().as_ptr();
    let layout = layout(64, 8);
    // SAFETY: the second free is refused.
    unsafe { heap.dealloc(block, layout) };
    assert!(machine.hardware().take_reports().is_empty());
    // SAFETY: as above.
    unsafe { heap.dealloc(block, layout) };
    // SAFETY: refused.
    unsafe { heap.dealloc(heap.early_pages().as_ptr(), layout) };
    assert_eq!(machine.hardware().take_reports().len(), 2);
    machine.finish();
}

/// Where the kernel's image is seen through the direct map, `kmalloc` hands early pages out again where they were.
#[test]
fn a_block_where_an_early_page_was_has_the_room_that_kmalloc_gave_it() {
    let memory = Memory::new(Lean::new());
    let reserved = lean::bring_up(&memory, 64 * MIB, 17 * 4096);
    let pages = memory.platform().direct_map(reserved).unwrap();
    // SAFETY: reserved RAM, which lives as long as the machine; zeroes are no block.
    let pages = unsafe { pages.cast::<EarlyPages<16>>().as_ref() };
    let heap = Early::new(&memory, pages);
    let early = heap.early_pages().addr().get();
    // SAFETY: (1) they are where the direct map shows them; (2) they were reserved, and are the test's.
    let left = unsafe { heap.give_back_early(reserved.start()) };
    assert_eq!(left, Ok(usage(0, 16)));
    let small = layout(20, 8);
    let block = std::iter::from_fn(|| {
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { heap.alloc(small) })
    })
    .find(|block| {
        let at = block.addr().get();
        (early..early + 16 * 4096).contains(&at) && at.is_multiple_of(64)
    });
    let block = block.expect("no block where the early pages were");
    // SAFETY: allocated just now, with that layout.
    let grown = unsafe { heap.realloc(block.as_ptr(), small, 60) };
    let room = NonNull::new(grown).and_then(|grown| memory.ksize(grown));
    assert!(room >= Some(60), "{room:?}");
    memory.validate().unwrap();
}
