//! A CPU's own pages of a zone (Linux: `per_cpu_pages`, `zone.pageset`): most requests for single
//! pages and small blocks are served from here, without a lock.
//!
//! There is a list for each migrate type and each of the orders 0 to 3 and 9. Blocks come from the
//! zone and go back there many at a time, so the zone lock is taken once for a batch. They are
//! fetched in whatever orders are free, never as one contiguous piece.
//!
//! A block on a list is marked [`Cached`](crate::frame::FrameState::Cached). It does not count as
//! free, nor does it merge.
#![forbid(unsafe_code)]

pub mod limits;
mod stack;

use self::limits::{Limits, Pattern};
use self::stack::Stack;
use super::MigrateType;
use crate::addr::{Order, Pfn};
use crate::frame::FrameTable;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Types with lists of their own: what requests can ask for (Linux: `MIGRATE_PCPTYPES`).
const TYPES: usize = 3;
/// Orders above 0 with lists of their own.
const LARGE: usize = 4;

/// One of a CPU's lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct List {
    kind: MigrateType,
    order: Order,
}

impl List {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let kinds = MigrateType::ALL.into_iter().take(TYPES);
        kinds.flat_map(|kind| Order::all().filter_map(move |order| Self::new(kind, order)))
    }

    /// The list for blocks of a type and order, if they have one.
    #[inline]
    pub(crate) const fn new(kind: MigrateType, order: Order) -> Option<Self> {
        let small = order.as_u8() <= 3 || order.as_u8() == Order::PAGEBLOCK.as_u8();
        if small && kind.index() < TYPES {
            Some(Self { kind, order })
        } else {
            None
        }
    }

    /// Whose blocks.
    #[inline]
    pub(crate) const fn kind(self) -> MigrateType {
        self.kind
    }

    /// How large they are.
    #[inline]
    pub(crate) const fn order(self) -> Order {
        self.order
    }

    /// Frames in a block.
    #[inline]
    fn frames(self) -> u32 {
        1_u32.wrapping_shl(u32::from(self.order.as_u8()))
    }

    #[inline]
    const fn row(self) -> usize {
        match self.kind {
            MigrateType::Movable => 1,
            MigrateType::Reclaimable => 2,
            _ => 0,
        }
    }

    /// The place among the orders above 0.
    #[inline]
    const fn column(self) -> usize {
        match self.order.as_u8() {
            1 => 0,
            2 => 1,
            3 => 2,
            _ => 3,
        }
    }
}

/// What everybody may know of a CPU's lists. Written by the CPU itself with plain stores.
#[derive(Debug, Default)]
pub struct Gauges {
    count: AtomicU32,
    high: AtomicU32,
    batch: AtomicU32,
    freed: AtomicU64,
    refilled: AtomicU64,
    drained: AtomicU64,
    refills: AtomicU64,
    drains: AtomicU64,
}

/// [`Gauges`] as read, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageSetStats {
    /// Frames on the lists.
    pub count: u64,
    /// How many there may be before some go back.
    pub high: u64,
    /// How many go over at once.
    pub batch: u64,
    /// Frames handed out to owners.
    pub allocated: u64,
    /// Frames given back by owners.
    pub freed: u64,
    /// Times that blocks were fetched from the zone, …
    pub refills: u64,
    /// … and given back to it.
    pub drains: u64,
}

fn add(counter: &AtomicU64, amount: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(amount);
    counter.store(sum, Ordering::Relaxed);
}

impl Gauges {
    /// The numbers. Context: any; each may be stale.
    #[must_use]
    pub fn read(&self) -> PageSetStats {
        let count = u64::from(self.count.load(Ordering::Relaxed));
        let freed = self.freed.load(Ordering::Relaxed);
        // Whatever came in and is neither there nor went back to the zone was handed out.
        let came = self.refilled.load(Ordering::Relaxed).wrapping_add(freed);
        let left = self.drained.load(Ordering::Relaxed).wrapping_add(count);
        PageSetStats {
            count,
            high: u64::from(self.high.load(Ordering::Relaxed)),
            batch: u64::from(self.batch.load(Ordering::Relaxed)),
            allocated: came.saturating_sub(left),
            freed,
            refills: self.refills.load(Ordering::Relaxed),
            drains: self.drains.load(Ordering::Relaxed),
        }
    }

    /// Frames on the lists.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    #[inline]
    fn change(&self, change: impl FnOnce(u32) -> u32) -> u32 {
        let count = change(self.count());
        self.count.store(count, Ordering::Relaxed);
        count
    }
}

/// The lists of one CPU for one zone.
#[derive(Debug)]
pub(crate) struct PageSet {
    single: [Stack<64>; TYPES],
    large: [[Stack<16>; LARGE]; TYPES],
    pattern: Pattern,
    /// What `freed` and `allocated` were at the last refill and drain.
    freed_before: u64,
    taken_before: u64,
}

impl PageSet {
    /// Empty lists, to be used only once `high` is set.
    pub(crate) const fn new() -> Self {
        Self {
            single: [const { Stack::new() }; TYPES],
            large: [const { [const { Stack::new() }; LARGE] }; TYPES],
            pattern: Pattern::NEW,
            freed_before: 0,
            taken_before: 0,
        }
    }

    #[inline]
    fn push(&mut self, list: List, pfn: Pfn, frames: &FrameTable) {
        if list.order == Order::ZERO {
            self.single[list.row()].push(pfn, frames);
        } else {
            self.large[list.row()][list.column()].push(pfn, frames);
        }
    }

    /// Takes the block that was put on a list last.
    #[inline]
    pub(crate) fn take(&mut self, list: List, frames: &FrameTable, gauges: &Gauges) -> Option<Pfn> {
        let pfn = if list.order == Order::ZERO {
            self.single[list.row()].pop(frames)
        } else {
            self.large[list.row()][list.column()].pop(frames)
        }?;
        gauges.change(|count| count.wrapping_sub(list.frames()));
        Some(pfn)
    }

    /// Puts a block that its owner gave back on a list. Answers whether there are too many now.
    #[inline]
    pub(crate) fn put(
        &mut self,
        list: List,
        pfn: Pfn,
        frames: &FrameTable,
        gauges: &Gauges,
    ) -> bool {
        self.push(list, pfn, frames);
        add(&gauges.freed, u64::from(list.frames()));
        gauges.change(|count| count.wrapping_add(list.frames())) > self.pattern.high
    }

    /// Whether a block fits beside what is there without anything going back for it.
    #[inline]
    pub(crate) fn has_room(&self, list: List, gauges: &Gauges) -> bool {
        list.frames()
            <= self
                .pattern
                .high
                .wrapping_sub(gauges.count().min(self.pattern.high))
    }

    /// Puts a block fetched from the zone on a list.
    #[inline]
    pub(crate) fn stock(&mut self, list: List, pfn: Pfn, frames: &FrameTable) {
        self.push(list, pfn, frames);
    }

    /// How many blocks to fetch for a list that is empty.
    pub(crate) fn wanted(
        &mut self,
        list: List,
        limits: Limits,
        short: bool,
        gauges: &Gauges,
    ) -> u32 {
        let freed = gauges.freed.load(Ordering::Relaxed);
        let only_taken = freed == self.freed_before;
        self.freed_before = freed;
        let use_ = (only_taken, short);
        let frames = self
            .pattern
            .refill(limits, list.order, gauges.count(), use_);
        self.publish(limits, gauges);
        let blocks = frames.wrapping_shr(u32::from(list.order.as_u8()));
        match list.order {
            Order::PAGEBLOCK => 1,
            _ => blocks.max(1),
        }
    }

    /// Takes note that blocks came from the zone.
    pub(crate) fn note_refill(list: List, blocks: u32, gauges: &Gauges) {
        let frames = blocks.wrapping_mul(list.frames());
        gauges.change(|count| count.wrapping_add(frames));
        add(&gauges.refilled, u64::from(frames));
        add(&gauges.refills, 1);
    }

    /// How many frames to give back, now that there are too many.
    pub(crate) fn surplus(&mut self, limits: Limits, short: bool, gauges: &Gauges) -> u32 {
        let taken = gauges.read().allocated;
        let only_given = taken == self.taken_before;
        self.taken_before = taken;
        let use_ = (only_given, short);
        let frames = self.pattern.drain(limits, gauges.count(), use_);
        self.publish(limits, gauges);
        frames
    }

    fn publish(&self, limits: Limits, gauges: &Gauges) {
        gauges.high.store(self.pattern.high, Ordering::Relaxed);
        gauges.batch.store(limits.batch, Ordering::Relaxed);
    }

    /// Moves up to `most` frames, the oldest of a list first, into `batch`. Answers how many blocks
    /// they are.
    pub(crate) fn take_old(
        &mut self,
        list: List,
        most: u32,
        batch: &mut [Pfn],
        frames: &FrameTable,
        gauges: &Gauges,
    ) -> usize {
        let blocks = most.div_ceil(list.frames());
        let mut taken: usize = 0;
        for (place, _) in batch.iter_mut().zip(0..blocks) {
            let oldest = if list.order == Order::ZERO {
                self.single[list.row()].pop_old(frames)
            } else {
                self.large[list.row()][list.column()].pop_old(frames)
            };
            let Some(pfn) = oldest else { break };
            *place = pfn;
            taken = taken.wrapping_add(1);
        }
        let went = u32::try_from(taken)
            .unwrap_or(u32::MAX)
            .wrapping_mul(list.frames());
        gauges.change(|count| count.wrapping_sub(went));
        add(&gauges.drained, u64::from(went));
        taken
    }

    /// Takes note of a drain.
    pub(crate) fn note_drain(gauges: &Gauges) {
        add(&gauges.drains, 1);
    }
}
