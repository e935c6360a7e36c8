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
use super::{MigrateType, Request};
use crate::addr::{Order, Pfn};
use crate::frame::{CachedWord, FrameTable, Word, ZoneId};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Types with lists of their own: what requests can ask for (Linux: `MIGRATE_PCPTYPES`).
const TYPES: [MigrateType; 3] = [
    MigrateType::Unmovable,
    MigrateType::Movable,
    MigrateType::Reclaimable,
];
/// Orders with lists of their own.
const SIZES: [u8; 5] = [0, 1, 2, 3, Order::PAGEBLOCK.as_u8()];
/// Lists of a CPU and zone.
const LISTS: usize = TYPES.len() * SIZES.len();
/// No list.
const NONE: u8 = u8::MAX;

/// The number of the list for a type and an order, by `type × 16 + order`: the way in which both
/// stand in a frame's state word.
const BY_WORD: [u8; 128] = {
    let mut table = [NONE; 128];
    let mut number: u8 = 0;
    let mut list = 0;
    while list < LISTS {
        let (kind, size) = (TYPES[list / SIZES.len()], SIZES[list % SIZES.len()]);
        let (row, column) = (kind.index() * 16, Order::new_or_max(size).index());
        table[row + column] = number;
        number += 1;
        list += 1;
    }
    table
};

/// One of a CPU's lists, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct List(u8);

impl List {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let orders = |kind| Order::all().filter_map(move |order| Self::new(kind, order));
        TYPES.into_iter().flat_map(orders)
    }

    /// The list for blocks of a type and order, if they have one.
    #[inline]
    pub(crate) fn new(kind: MigrateType, order: Order) -> Option<Self> {
        Self::at((kind.index() << 4) | order.index())
    }

    /// The list that serves a request, if there is one.
    #[inline(always)]
    pub(crate) fn serving(request: Request) -> Option<Self> {
        Self::at(request.shape())
    }

    /// The list for a block that is given back, by the state word in its record.
    #[inline]
    pub(crate) fn of(word: Word) -> Option<Self> {
        Self::at(word.shape())
    }

    #[inline]
    fn at(index: usize) -> Option<Self> {
        let number = BY_WORD[index & 127];
        (number != NONE).then_some(Self(number))
    }

    /// Its place; a mask instead of a check.
    #[inline]
    #[expect(clippy::as_conversions, reason = "`From` is not const")]
    const fn number(self) -> usize {
        self.0 as usize & 15
    }

    /// Whose blocks.
    pub(crate) fn kind(self) -> MigrateType {
        let row = self.number().div_euclid(SIZES.len());
        TYPES.get(row).copied().unwrap_or(MigrateType::Unmovable)
    }

    /// How large they are.
    pub(crate) fn order(self) -> Order {
        let column = self.number().rem_euclid(SIZES.len());
        let size = SIZES.get(column).copied();
        size.and_then(Order::new).unwrap_or(Order::ZERO)
    }

    /// The state word of a block of the zone `home` that is on the list.
    pub(crate) fn word(self, home: ZoneId) -> CachedWord {
        CachedWord::new(home, self.order(), self.kind().bits())
    }

    /// Frames in a block.
    fn frames(self) -> u32 {
        frames_of(self.order())
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
    /// Of frames handed out, those behind the first of their block.
    behind_first: AtomicU64,
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
    /// Blocks that they were.
    pub blocks: u64,
    /// Frames given back by owners.
    pub freed: u64,
    /// Times that blocks were fetched from the zone, …
    pub refills: u64,
    /// … and given back to it.
    pub drains: u64,
}

#[inline]
const fn frames_of(order: Order) -> u32 {
    1_u32.wrapping_shl(order.bits())
}

#[inline]
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
        let allocated = came.saturating_sub(left);
        let behind_first = self.behind_first.load(Ordering::Relaxed);
        PageSetStats {
            count,
            high: u64::from(self.high.load(Ordering::Relaxed)),
            batch: u64::from(self.batch.load(Ordering::Relaxed)),
            allocated,
            blocks: allocated.saturating_sub(behind_first),
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
    /// By [`List::number`]; one place is not used.
    lists: [Stack; 16],
    pattern: Pattern,
    /// What `freed` and `allocated` were at the last refill and drain.
    freed_before: u64,
    taken_before: u64,
}

impl PageSet {
    /// Empty lists for blocks of the zone `home`.
    pub(crate) fn new(home: ZoneId) -> Self {
        let stack = |number: usize| {
            let list = u8::try_from(number).map_or(List(0), List);
            Stack::new(list.word(home))
        };
        Self {
            lists: core::array::from_fn(stack),
            pattern: Pattern::NEW,
            freed_before: 0,
            taken_before: 0,
        }
    }

    /// Takes the block of `order` that was put on a list last, and the state word that its record
    /// must show.
    #[inline]
    pub(crate) fn take(
        &mut self,
        list: List,
        order: Order,
        gauges: &Gauges,
    ) -> Option<(Pfn, CachedWord)> {
        let stack = &mut self.lists[list.number()];
        let pfn = stack.pop()?;
        gauges.change(|count| count.wrapping_sub(frames_of(order)));
        if order > Order::ZERO {
            add(&gauges.behind_first, order.frames().wrapping_sub(1));
        }
        Some((pfn, stack.word()))
    }

    /// The state word of a block on a list.
    #[inline]
    pub(crate) const fn word(&self, list: List) -> CachedWord {
        self.lists[list.number()].word()
    }

    /// Puts a block of `order` that its owner gave back on a list. Answers whether there are too
    /// many now.
    #[inline]
    pub(crate) fn put(
        &mut self,
        list: List,
        order: Order,
        pfn: Pfn,
        (frames, gauges): (&FrameTable, &Gauges),
    ) -> bool {
        self.lists[list.number()].push(pfn, frames);
        add(&gauges.freed, order.frames());
        gauges.change(|count| count.wrapping_add(frames_of(order))) > self.pattern.high
    }

    /// Whether a block of `order` fits beside what is there without anything going back for it.
    #[inline]
    pub(crate) fn has_room(&self, order: Order, gauges: &Gauges) -> bool {
        frames_of(order) <= self.pattern.high.saturating_sub(gauges.count())
    }

    /// Brings blocks up from below, for a list that has none at hand.
    pub(crate) fn rise(&mut self, list: List, frames: &FrameTable) {
        self.lists[list.number()].rise(frames);
    }

    /// Whether a list has a block at hand.
    pub(crate) const fn has_at_hand(&self, list: List) -> bool {
        !self.lists[list.number()].is_empty()
    }

    /// Puts a block fetched from the zone on a list.
    pub(crate) fn stock(&mut self, list: List, pfn: Pfn, frames: &FrameTable) {
        self.lists[list.number()].push(pfn, frames);
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
        let order = list.order();
        let frames = self.pattern.refill(limits, order, gauges.count(), use_);
        self.publish(limits, gauges);
        let blocks = frames.wrapping_shr(order.bits());
        match order {
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
            let Some(pfn) = self.lists[list.number()].pop_old(frames) else {
                break;
            };
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
