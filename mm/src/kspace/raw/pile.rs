//! Frames that belong together and lie anywhere: one token for all of them.
//!
//! Blocks are linked through their records, whose link word nobody else uses while a block has one owner. So an area
//! knows its frames without memory for their numbers (Linux keeps an array of page pointers for each).

use core::iter;

use crate::addr::{Order, Pfn};
use crate::frame::FrameTable;
use crate::mem::EarlyRam;
use crate::pagetable::TableMemory;
use crate::platform::Platform;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Pages that go back together.
const BATCH: usize = 64;

/// What areas need of the machine.
pub(crate) trait Supply {
    /// The machine.
    type P: Platform;
    /// Memory for page tables.
    type M: TableMemory<P = Self::P>;

    /// The machine.
    fn platform(&self) -> &Self::P;

    /// Memory for page tables.
    fn memory(&self) -> &Self::M;

    /// All frames.
    fn frames(&self) -> &FrameTable;

    /// Memory for records of areas, for good. Context: task, no lock held.
    fn alloc_room(&self, bytes: u64) -> Option<EarlyRam>;

    /// There are more records of areas than before. Context: as `alloc_room`.
    fn records_grown(&self);

    /// Takes single pages back, and empties the places.
    ///
    /// # Safety
    ///
    /// The caller owns them as numbers, and nobody uses their bytes any more.
    unsafe fn free_pages(&self, pages: &mut [Option<Pfn>]);

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// As [`Self::free_pages`].
    unsafe fn free_block(&self, first: Pfn, order: Order);
}

/// Blocks with one owner, who has this value, in the order in which they came.
///
/// # Invariants
/// From `first` on, the records of `blocks` blocks lead to one another, up to `last`; nobody else owns them.
#[derive(Debug)]
#[must_use = "dropping it leaks the frames: release it"]
pub(crate) struct Pile {
    first: Option<Pfn>,
    last: Option<Pfn>,
    blocks: u64,
    frames: u64,
}

impl Pile {
    /// No frames.
    pub(crate) const fn new() -> Self {
        // INVARIANT: no blocks.
        Self {
            first: None,
            last: None,
            blocks: 0,
            frames: 0,
        }
    }

    /// A single page.
    ///
    /// # Safety
    ///
    /// As [`Self::push`].
    #[inline]
    pub(crate) const unsafe fn of_page(pfn: Pfn) -> Self {
        // INVARIANT: one block, the caller's word.
        Self {
            first: Some(pfn),
            last: Some(pfn),
            blocks: 1,
            frames: 1,
        }
    }

    /// The frame, if there is one only.
    #[inline]
    pub(crate) const fn single(&self) -> Option<Pfn> {
        match self.frames {
            1 => self.first,
            _ => None,
        }
    }

    /// Adds a block behind the others.
    ///
    /// # Safety
    ///
    /// The caller owns the block of `order` that starts at `pfn`, as a number, and gives it up. It is one of `frames`.
    #[inline]
    pub(crate) unsafe fn push(&mut self, frames: &FrameTable, pfn: Pfn, order: Order) {
        if let Some(last) = self.last.and_then(|last| frames.frame(last)) {
            last.set_link(pfn.as_u64());
        }
        // INVARIANT: it is the last one's successor, and the caller's word.
        let _ = self.first.get_or_insert(pfn);
        self.last = Some(pfn);
        self.blocks = self.blocks.wrapping_add(1);
        self.frames = self.frames.wrapping_add(order.frames());
    }

    /// How many frames there are.
    pub(crate) const fn frames(&self) -> u64 {
        self.frames
    }

    /// How many of the blocks at the front are of `order`.
    pub(crate) fn in_front(&self, frames: &FrameTable, order: Order) -> u64 {
        let blocks = self.iter(frames);
        crate::addr::to_count(blocks.take_while(|&(_, its)| its == order).count())
    }

    /// The blocks, first one first.
    pub(crate) fn iter<'a>(
        &self,
        frames: &'a FrameTable,
    ) -> impl Iterator<Item = (Pfn, Order)> + use<'a> {
        walk(frames, self.first, self.blocks)
    }

    /// Gives all frames back, which nobody uses any more.
    pub(crate) fn release<S: Supply>(self, supply: &S) {
        let mut pages = Returned::new();
        self.release_with(supply, &mut pages);
        pages.free(supply);
    }

    /// The same; single pages go back together with others.
    #[inline]
    pub(crate) fn release_with<S: Supply>(self, supply: &S, pages: &mut Returned) {
        for (pfn, order) in self.iter(supply.frames()) {
            if order != Order::ZERO {
                // SAFETY: the invariant; the walk has left it, and does not come back.
                unsafe { supply.free_block(pfn, order) };
                continue;
            }
            // INVARIANT: as above.
            pages.pages[pages.full % BATCH] = Some(pfn);
            pages.full = pages.full.wrapping_add(1);
            if pages.full == BATCH {
                pages.free(supply);
            }
        }
    }
}

/// Pages that nobody uses any more, on their way back.
///
/// # Invariants
/// The first `full` places have pages that this value owns.
#[derive(Debug)]
#[must_use = "dropping it leaks the frames: free them"]
pub(crate) struct Returned {
    pages: [Option<Pfn>; BATCH],
    full: usize,
}

impl Returned {
    /// None.
    pub(crate) const fn new() -> Self {
        // INVARIANT: no pages.
        Self {
            pages: [None; BATCH],
            full: 0,
        }
    }

    /// Gives them back.
    pub(crate) fn free<S: Supply>(&mut self, supply: &S) {
        let pages = self.pages.get_mut(..self.full).unwrap_or_default();
        if !pages.is_empty() {
            // SAFETY: the invariant.
            unsafe { supply.free_pages(pages) };
        }
        // INVARIANT: they are somebody else's.
        self.full = 0;
    }
}

/// The blocks of a pile, from its first frame on.
fn walk(
    frames: &FrameTable,
    first: Option<Pfn>,
    blocks: u64,
) -> impl Iterator<Item = (Pfn, Order)> {
    let mut next = first;
    let mut left = blocks;
    iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let pfn = next?;
        let frame = frames.frame(pfn)?;
        // The last one's link is anything: nobody follows it.
        next = Some(Pfn::new(frame.link()));
        Some((pfn, frame.word().order()))
    })
}

/// Where an area keeps its frames.
///
/// # Invariants
/// Unless it is 0, the word is for a pile that was put here: its first frame, and how many blocks it has, from bit 40 on.
#[derive(Debug, Default)]
pub(crate) struct PileSlot(AtomicU64);

/// Physical addresses have 52 bits at most, frame numbers 40.
const BLOCKS_SHIFT: u32 = 40;

/// Blocks that a pile may have to be kept.
pub(crate) const MOST_BLOCKS: u64 = (1 << (u64::BITS - BLOCKS_SHIFT)) - 1;

impl PileSlot {
    const fn unpack(word: u64) -> (Option<Pfn>, u64) {
        let blocks = word >> BLOCKS_SHIFT;
        let pfn = Pfn::new(word & ((1 << BLOCKS_SHIFT) - 1));
        (if blocks > 0 { Some(pfn) } else { None }, blocks)
    }

    /// Keeps a pile of [`MOST_BLOCKS`] at most. What was here leaks.
    #[inline]
    pub(crate) fn put(&self, pile: Pile) {
        let word = match (pile.first, pile.blocks) {
            (Some(first), blocks @ 1..=MOST_BLOCKS) => first.as_u64() | blocks << BLOCKS_SHIFT,
            _ => 0,
        };
        // INVARIANT: the token is consumed.
        self.0.store(word, Ordering::Release);
    }

    /// The pile again, for one caller; an empty one for others.
    #[inline]
    pub(crate) fn take(&self) -> Pile {
        let (first, blocks) = Self::unpack(self.0.swap(0, Ordering::AcqRel));
        // INVARIANT: `put` consumed the token, and the exchange lets one through.
        Pile {
            first,
            last: None,
            blocks,
            frames: 0,
        }
    }

    /// The blocks, for who looks: anything, if somebody takes the pile meanwhile.
    pub(crate) fn look<'a>(
        &self,
        frames: &'a FrameTable,
    ) -> impl Iterator<Item = (Pfn, Order)> + use<'a> {
        let (first, blocks) = Self::unpack(self.0.load(Ordering::Acquire));
        walk(frames, first, blocks)
    }
}
