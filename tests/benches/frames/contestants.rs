//! The frame allocators that are compared, behind one interface.

use std::alloc::Layout;
use std::hint::black_box;
use std::ptr::NonNull;

use bitmap_allocator::{BitAlloc, BitAlloc64K};
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::system::Memory;
use mm_tests::lean::{self, Lean};
use spin::Mutex;

const PAGE: usize = 4096;

/// One CPU's share of an allocator that has such, or the whole of one that has not.
pub(crate) trait Ops {
    /// Takes `1 << order` frames; their first number.
    fn alloc(&mut self, order: u8) -> Option<usize>;
    /// Gives back what `alloc` gave.
    fn free(&mut self, frame: usize, order: u8);
}

/// An allocator in the race.
pub(crate) trait Contestant: Ops + Sized + 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// Whether it makes large blocks of small ones.
    const MERGES: bool = true;
    /// How a CPU uses it while another one does too.
    type Cpu: Ops + Send + 'static;
    /// One that has so many bytes to give, all free.
    fn new(bytes: usize) -> Self;
    /// Two CPUs' ways to it.
    fn on_two_cpus(self) -> [Self::Cpu; 2];
}

/// Ours, through plain frame numbers as the others.
#[derive(Clone, Copy)]
pub(crate) struct Ours(&'static Memory<Lean>);

impl Ops for Ours {
    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        let order = Order::new(order)?;
        let pfn = self.0.alloc_pages(Gfp::KERNEL, order).ok()?;
        Some(pfn.as_u64() as usize)
    }

    #[inline]
    fn free(&mut self, frame: usize, order: u8) {
        let order = Order::new(order).unwrap();
        // SAFETY: the workloads give back what they got, once, and use no bytes of it.
        let freed = unsafe { self.0.free_pages(Pfn::new(frame as u64), order) };
        freed.unwrap();
    }
}

impl Contestant for Ours {
    const NAME: &'static str = "mm";
    type Cpu = Self;

    fn new(bytes: usize) -> Self {
        Self(Box::leak(Box::new(lean::boot(bytes))))
    }

    fn on_two_cpus(self) -> [Self; 2] {
        [self; 2]
    }
}

/// The floor: for each CPU an array of page numbers and one of 2 MiB block numbers, nothing else.
/// It never merges or splits, and a page freed on one CPU is lost to the other.
pub(crate) struct Floor {
    cpus: [[Vec<usize>; 2]; 2],
}

impl Floor {
    #[inline]
    fn array(&mut self, order: u8) -> &mut Vec<usize> {
        &mut self.cpus[lean::cpu() as usize][usize::from(order > 0)]
    }
}

impl Ops for Floor {
    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.array(order).pop()
    }

    #[inline]
    fn free(&mut self, frame: usize, order: u8) {
        self.array(order).push(frame);
    }
}

impl Contestant for Floor {
    const NAME: &'static str = "floor";
    const MERGES: bool = false;
    type Cpu = Self;

    fn new(bytes: usize) -> Self {
        let array = || {
            let pages = (0..bytes / PAGE).rev().collect();
            let blocks = (0..bytes / PAGE).rev().step_by(512).collect();
            [pages, blocks]
        };
        let empty = || array().map(|mut array: Vec<usize>| array.drain(..0).collect());
        Self {
            cpus: [array(), empty()],
        }
    }

    fn on_two_cpus(mut self) -> [Self; 2] {
        self.cpus[1] = self.cpus[0].clone();
        let twin = Self {
            cpus: self.cpus.clone(),
        };
        [self, twin]
    }
}

/// `buddy_system_allocator::FrameAllocator`: free blocks in ordered sets.
pub(crate) struct BuddyFrames(buddy_system_allocator::FrameAllocator<11>);

impl Ops for BuddyFrames {
    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.0.alloc(1 << order)
    }

    #[inline]
    fn free(&mut self, frame: usize, order: u8) {
        self.0.dealloc(frame, 1 << order);
    }
}

impl Contestant for BuddyFrames {
    const NAME: &'static str = "buddy_system_allocator frames";
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let mut frames = buddy_system_allocator::FrameAllocator::new();
        // Not from 0, which has no lowest bit set.
        frames.add_frame(1 << 20, (1 << 20) + bytes / PAGE);
        Self(frames)
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// `buddy_system_allocator::Heap`: free blocks in lists that run through the blocks themselves.
pub(crate) struct BuddyHeap(buddy_system_allocator::Heap<32>);

fn layout(order: u8) -> Layout {
    Layout::from_size_align(PAGE << order, PAGE << order).unwrap()
}

impl Ops for BuddyHeap {
    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        let block = self.0.alloc(layout(order)).ok()?;
        Some(block.as_ptr().expose_provenance())
    }

    #[inline]
    fn free(&mut self, frame: usize, order: u8) {
        let block = NonNull::new(std::ptr::with_exposed_provenance_mut(frame)).unwrap();
        // SAFETY: the workloads give back what they got, once, with its order.
        unsafe { self.0.dealloc(block, layout(order)) };
    }
}

impl Contestant for BuddyHeap {
    const NAME: &'static str = "buddy_system_allocator heap";
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        const ALIGN: usize = 4 << 20;
        let ram: &'static mut [u8] = Box::leak(vec![0; bytes + ALIGN].into_boxed_slice());
        let skip = ram.as_ptr().align_offset(ALIGN);
        let first = ram[skip..].as_mut_ptr().expose_provenance();
        let mut heap = buddy_system_allocator::Heap::empty();
        // Block by block as large as our largest: the crate would take all as one block.
        for start in (first..first + bytes).step_by(ALIGN) {
            // SAFETY: a leaked allocation that nobody else uses.
            unsafe { heap.add_to_heap(start, start + ALIGN) };
        }
        Self(heap)
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// `bitmap_allocator::BitAlloc`: a tree of 16-bit sets, lowest address first.
pub(crate) struct Bitmap(Box<BitAlloc64K>);

impl Ops for Bitmap {
    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        if order == 0 {
            self.0.alloc()
        } else {
            self.0.alloc_contiguous(None, 1 << order, order.into())
        }
    }

    #[inline]
    fn free(&mut self, frame: usize, order: u8) {
        let freed = if order == 0 {
            self.0.dealloc(frame)
        } else {
            self.0.dealloc_contiguous(frame, 1 << order)
        };
        black_box(freed);
    }
}

impl Contestant for Bitmap {
    const NAME: &'static str = "bitmap_allocator";
    type Cpu = Locked<Self>;

    fn new(bytes: usize) -> Self {
        let mut bits = Box::new(BitAlloc64K::DEFAULT);
        bits.insert(0..bytes / PAGE);
        Self(bits)
    }

    fn on_two_cpus(self) -> [Locked<Self>; 2] {
        Locked::twice(self)
    }
}

/// An allocator that two CPUs share as people do it: under one spin lock.
pub(crate) struct Locked<C: 'static>(&'static Mutex<C>);

impl<C> Locked<C> {
    fn twice(inner: C) -> [Self; 2] {
        let lock = Box::leak(Box::new(Mutex::new(inner)));
        [Self(lock), Self(lock)]
    }
}

impl<C: Ops> Ops for Locked<C> {
    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.0.lock().alloc(order)
    }

    #[inline]
    fn free(&mut self, frame: usize, order: u8) {
        self.0.lock().free(frame, order);
    }
}

/// An allocator that does nothing: what a workload costs by itself, where instructions are counted.
pub(crate) struct Nothing(usize);

impl Ops for Nothing {
    #[inline]
    fn alloc(&mut self, _: u8) -> Option<usize> {
        Some(self.0)
    }

    #[inline]
    fn free(&mut self, _: usize, _: u8) {}
}

impl Contestant for Nothing {
    const NAME: &'static str = "nothing";
    type Cpu = Self;

    fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    fn on_two_cpus(self) -> [Self; 2] {
        let twin = Self(self.0);
        [self, twin]
    }
}
