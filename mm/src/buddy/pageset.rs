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

pub mod classic;
mod gauges;
pub mod limits;
mod stack;

use self::classic::{ListMarks, Temperature};
pub use self::gauges::{Gauges, PageSetStats};
use self::gauges::{add, frames_of};
use self::limits::{Limits, Pattern};
use self::stack::Stack;
use super::fallback::Mixing;
use super::free_areas::FreeAreas;
use super::trace::Trace;
use super::{MigrateType, Request};
use crate::addr::{Order, Pfn, to_index};
use crate::frame::{CachedWord, FrameTable, Record, Word, ZoneId};
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;
use crate::sync::atomic::Ordering;

/// Types with lists of their own: what requests can ask for (Linux: `MIGRATE_PCPTYPES`).
const TYPES: [MigrateType; 3] = [
    MigrateType::Unmovable,
    MigrateType::Movable,
    MigrateType::Reclaimable,
];
/// Orders with lists of their own, those of single pages last.
const SIZES: [u8; 5] = [1, 2, 3, Order::PAGEBLOCK.as_u8(), 0];
/// Places for the lists of each order: as many as a mask bounds. One is not used.
const KINDS: usize = 4;
/// Places for lists of blocks, all orders but the first.
const BLOCKS: usize = 16;

const _: () = assert!(TYPES.len() < KINDS && (SIZES.len() - 1) * KINDS == BLOCKS);

/// One of a CPU's lists, by number: the place of its order among [`SIZES`] times four, and its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct List(usize);

impl List {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        // Single pages first.
        let rows = [BLOCKS].into_iter().chain((0..BLOCKS).step_by(KINDS));
        rows.flat_map(|row| (0..TYPES.len()).map(move |kind| Self(row | kind)))
    }

    /// The list for blocks of an order, if there is one, whose type a frame's state word names by
    /// `mobility`; a number that is no type with lists names a place that no block's state word fits.
    #[inline(always)]
    pub(crate) const fn of(mobility: usize, order: Order) -> Option<Self> {
        let row: usize = match order.as_u8() {
            0 => BLOCKS,
            1 => 0,
            2 => KINDS,
            3 => 2 * KINDS,
            9 => 3 * KINDS,
            _ => return None,
        };
        Some(Self((mobility & (KINDS - 1)) | row))
    }

    /// Whether blocks of an order have lists.
    #[inline(always)]
    pub(crate) const fn are_for(order: Order) -> bool {
        Self::of(0, order).is_some()
    }

    /// The list that serves a request, if there is one.
    #[inline(always)]
    pub(crate) const fn serving(request: Request) -> Option<Self> {
        Self::of(request.migrate().index(), request.order())
    }

    /// The list for a block whose record says `word`, if there is one.
    pub(crate) fn for_word(word: Word) -> Option<Self> {
        let list = Self::of(usize::from(word.mobility()), word.order());
        list.filter(|list| list.kind().bits() == word.mobility())
    }

    /// Where it is; masks instead of checks.
    #[inline(always)]
    const fn place(self) -> Place {
        if self.0 < BLOCKS {
            Place::Blocks(self.0 & (BLOCKS - 1))
        } else {
            Place::Pages(self.0 & (KINDS - 1))
        }
    }

    /// Whose blocks.
    pub(crate) fn kind(self) -> MigrateType {
        let kind = TYPES.get(self.0 & (KINDS - 1));
        kind.copied().unwrap_or(MigrateType::Unmovable)
    }

    /// How large they are.
    pub(crate) fn order(self) -> Order {
        let size = SIZES.get(self.0 / KINDS).copied();
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

/// Where a list is in a [`PageSet`].
#[derive(Clone, Copy)]
enum Place {
    Pages(usize),
    Blocks(usize),
}

/// Does something with the list at a place, whose type says how many blocks are at hand.
macro_rules! at {
    ($set:ident, $list:expr, $stack:ident => $body:expr) => {
        match $list.place() {
            Place::Pages(place) => {
                let $stack = &mut $set.pages[place];
                $body
            }
            Place::Blocks(place) => {
                let $stack = &mut $set.blocks[place];
                $body
            }
        }
    };
}

/// A block off a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) pfn: Pfn,
    pub(crate) record: Record,
    /// What the record must say, and what it says of the block with an owner.
    pub(crate) words: (CachedWord, Word),
}

/// On lists of no zone.
const NOWHERE: CachedWord = {
    let (node, zone) = (NodeId(0), 0);
    CachedWord::new(ZoneId { node, zone }, Order::ZERO, 0)
};

/// The lists of one CPU for one zone.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PageSet {
    /// Single pages, which come and go by hundreds. First: their places are then at a multiple from the start of a
    /// CPU's cell.
    pages: [Stack<257>; KINDS],
    /// Blocks of several pages.
    blocks: [Stack<33>; BLOCKS],
    pattern: Pattern,
    /// Which one of two sets this is, with `percpu_pagelists=classic`.
    classic: Option<Temperature>,
    /// What `freed` and `allocated` were at the last refill and drain.
    freed_before: u64,
    taken_before: u64,
}

impl PageSet {
    /// Lists of no zone.
    pub(crate) const NONE: Self = Self {
        pages: [const { Stack::new(NOWHERE) }; KINDS],
        blocks: [const { Stack::new(NOWHERE) }; BLOCKS],
        pattern: Pattern::NEW,
        classic: None,
        freed_before: 0,
        taken_before: 0,
    };

    /// Empty lists for blocks of the zone `home`; with fixed marks, if a temperature is given.
    pub(crate) fn new(home: ZoneId, classic: Option<Temperature>) -> Self {
        Self {
            pages: core::array::from_fn(|place| Stack::new(List(BLOCKS | place).word(home))),
            blocks: core::array::from_fn(|place| Stack::new(List(place).word(home))),
            pattern: Pattern::NEW,
            classic,
            freed_before: 0,
            taken_before: 0,
        }
    }

    /// Whether there are lists for blocks of `order`.
    pub(crate) fn has_lists(&self, order: Order) -> bool {
        self.classic.is_none() || order == Order::ZERO
    }

    /// The fixed marks, if these are lists with such.
    pub(crate) fn marks(&self, limits: Limits) -> Option<ListMarks> {
        self.classic
            .map(|temperature| ListMarks::of(temperature, limits.batch))
    }

    /// Whether blocks should be fetched before one is taken.
    pub(crate) fn is_low(&self, list: List, limits: Limits, gauges: &Gauges) -> bool {
        let is_low = |marks: ListMarks| gauges.count() <= marks.low;
        !self.has_at_hand(list) || self.marks(limits).is_some_and(is_low)
    }

    /// Whether blocks should go back before another comes.
    pub(crate) fn is_full(&mut self, limits: Limits, gauges: &Gauges) -> bool {
        let Some(marks) = self.marks(limits) else {
            return false;
        };
        let _ = self.pattern.hold_at(marks.high, marks.batch);
        self.publish(limits, gauges);
        gauges.count() >= marks.high
    }

    /// Takes the block of `order` that was put on a list last.
    #[inline(always)]
    pub(crate) fn take(&mut self, list: List, order: Order, gauges: &Gauges) -> Option<Taken> {
        let taken = self.take_page(list)?;
        Self::note_block_taken(order, gauges);
        Some(taken)
    }

    /// As [`Self::take`], and turns the block into its token.
    ///
    /// # Errors
    /// There is none, or its record is damaged; it is on no list any more then.
    #[inline(always)]
    pub(crate) fn take_intact<P: Platform>(
        &mut self,
        list: List,
        (order, is_compound): (Order, bool),
        gauges: &Gauges,
    ) -> Result<(Pfn, Exclusive), Option<Corruption>> {
        let taken = at!(self, list, stack => {
            // One comparison with what stands in the stack: nothing is kept in between.
            stack.pop_claimed(|stack, pfn, record| {
                record.uncache_by::<P>((pfn, order), || {
                    let (cached, word) = stack.words();
                    (cached, if is_compound { word.compound() } else { word })
                })
            })
        });
        match taken {
            Ok(taken) => {
                Self::note_block_taken(order, gauges);
                Ok(taken)
            }
            Err(None) => Err(None),
            Err(damage) => {
                Self::note_block_taken(order, gauges);
                Err(damage)
            }
        }
    }

    #[inline(always)]
    fn note_block_taken(order: Order, gauges: &Gauges) {
        gauges.change(|count| count.wrapping_sub(frames_of(order)));
        if order > Order::ZERO {
            add(&gauges.behind_first, order.frames().wrapping_sub(1));
        }
    }

    /// Takes a single page; [`Self::note_taken`] tells how many they were.
    #[inline(always)]
    pub(crate) fn take_page(&mut self, list: List) -> Option<Taken> {
        at!(self, list, stack => {
            let (pfn, record) = stack.pop()?;
            let words = stack.words();
            Some(Taken { pfn, record, words })
        })
    }

    /// Takes single pages into the empty ones of `places`: see [`Stack::pop_into`].
    #[inline(always)]
    pub(crate) fn take_pages<T>(
        &mut self,
        list: List,
        places: &mut [Option<T>],
        mut hand_out: impl FnMut(Taken) -> Option<T>,
        gauges: &Gauges,
    ) -> usize {
        let (full, taken) = at!(self, list, stack => {
            stack.pop_into(places, |pfn, record, words| hand_out(Taken { pfn, record, words }))
        });
        Self::note_taken(u32::try_from(taken).unwrap_or(u32::MAX), gauges);
        full
    }

    /// Takes note of single pages that were taken.
    #[inline(always)]
    pub(crate) fn note_taken(pages: u32, gauges: &Gauges) {
        gauges.change(|count| count.wrapping_sub(pages));
    }

    /// The state word of a block on a list, and the one that it has with an owner.
    #[inline(always)]
    pub(crate) const fn words(&mut self, list: List) -> (CachedWord, Word) {
        at!(self, list, stack => stack.words())
    }

    /// Puts a block of `order` that its owner gave back on a list.
    #[inline(always)]
    pub(crate) fn put(
        &mut self,
        list: List,
        order: Order,
        (pfn, record): (Pfn, Record),
        gauges: &Gauges,
    ) {
        at!(self, list, stack => stack.push(pfn, record));
        add(&gauges.freed, order.frames());
        gauges.change(|count| count.wrapping_add(frames_of(order)));
    }

    /// The same whether there is room or not. Answers whether there are too many now.
    pub(crate) fn put_anyway(
        &mut self,
        list: List,
        order: Order,
        block: (Pfn, Record),
        gauges: &Gauges,
    ) -> bool {
        self.put(list, order, block, gauges);
        gauges.count() > self.pattern.high
    }

    /// Puts a single page on a list; [`Self::note_put`] tells how many they were.
    #[inline(always)]
    pub(crate) fn put_page(&mut self, list: List, (pfn, record): (Pfn, Record)) {
        at!(self, list, stack => stack.push(pfn, record));
    }

    /// Takes note of single pages that their owners gave back.
    #[inline(always)]
    pub(crate) fn note_put(pages: u32, gauges: &Gauges) {
        add(&gauges.freed, u64::from(pages));
        gauges.change(|count| count.wrapping_add(pages));
    }

    /// Whether a block of `order` fits beside what is there without anything going back for it.
    #[inline]
    pub(crate) fn has_room(&self, order: Order, gauges: &Gauges) -> bool {
        frames_of(order) <= self.pattern.high.saturating_sub(gauges.count())
    }

    /// Whether no block of `order` is to come onto the lists now.
    pub(crate) fn refuses(&self, order: Order, gauges: &Gauges) -> bool {
        // Large blocks do not drive small ones out.
        let has_room = order == Order::ZERO || self.has_room(order, gauges);
        gauges.are_closed() || !self.has_lists(order) || !has_room
    }

    /// Brings blocks up from below, for a list that has none at hand.
    pub(crate) fn rise(&mut self, list: List, frames: &FrameTable) {
        at!(self, list, stack => stack.rise(frames));
    }

    /// Where a list was found damaged since this was asked last: the blocks behind are lost, and count no
    /// more.
    pub(crate) fn take_broken(&mut self, list: List, gauges: &Gauges) -> Option<Pfn> {
        let (pfn, lost) = at!(self, list, stack => stack.take_broken())?;
        let lost = u32::try_from(lost).unwrap_or(u32::MAX);
        Self::note_gone(lost.saturating_mul(list.frames()), gauges);
        Some(pfn)
    }

    /// Whether a list has a block at hand.
    pub(crate) const fn has_at_hand(&self, list: List) -> bool {
        match list.place() {
            Place::Pages(place) => !self.pages[place].is_empty(),
            Place::Blocks(place) => !self.blocks[place].is_empty(),
        }
    }

    /// Fetches up to so many blocks from the zone. Answers how many there were.
    pub(crate) fn fetch<P: Platform>(
        &mut self,
        areas: &mut FreeAreas,
        (list, wanted): (List, (u32, Mixing)),
        frames: &FrameTable,
        platform: &P,
        trace: &mut impl Trace,
    ) -> u32 {
        // The list is found once, not for each block.
        at!(self, list, stack => {
            let put = |pfn, record| stack.push(pfn, record);
            areas.fetch(list, wanted, frames, platform, trace, put)
        })
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
        let frames = match self.marks(limits) {
            Some(marks) => self.pattern.hold_at(marks.high, marks.batch),
            None => self.pattern.refill(limits, order, gauges.count(), use_),
        };
        self.publish(limits, gauges);
        let blocks = frames.wrapping_shr(order.bits());
        match order {
            Order::PAGEBLOCK => 1,
            _ => blocks.max(1),
        }
    }

    /// Takes note that blocks came from the zone. It is to be told before the zone's lock is let go: who
    /// looks for memory finds each free block counted here or there.
    pub(crate) fn note_came(list: List, blocks: u32, gauges: &Gauges) {
        let frames = blocks.wrapping_mul(list.frames());
        gauges.change(|count| count.wrapping_add(frames));
        add(&gauges.refilled, u64::from(frames));
    }

    /// Takes note of a refill.
    pub(crate) fn note_refill(gauges: &Gauges) {
        add(&gauges.refills, 1);
    }

    /// How many frames to give back, now that there are too many.
    pub(crate) fn surplus(&mut self, limits: Limits, short: bool, gauges: &Gauges) -> u32 {
        let taken = gauges.read().allocated;
        let only_given = taken == self.taken_before;
        self.taken_before = taken;
        let use_ = (only_given, short);
        let frames = match self.marks(limits) {
            Some(marks) => self.pattern.hold_at(marks.high, marks.batch),
            None => self.pattern.drain(limits, gauges.count(), use_),
        };
        self.publish(limits, gauges);
        frames
    }

    fn publish(&self, limits: Limits, gauges: &Gauges) {
        gauges.set_high(self.pattern.high);
        gauges.batch.store(limits.batch, Ordering::Relaxed);
    }

    /// Moves up to `most` frames, the oldest of a list first, into `batch`. Answers how many blocks
    /// they are; [`Self::note_went`] tells when they are in the zone.
    pub(crate) fn take_old(
        &mut self,
        list: List,
        most: u32,
        batch: &mut [Pfn],
        frames: &FrameTable,
    ) -> usize {
        let blocks = to_index(u64::from(most.div_ceil(list.frames())));
        let places = batch.len().min(blocks);
        let batch = &mut batch[..places];
        at!(self, list, stack => stack.take_old(batch, frames))
    }

    /// Takes note that blocks are in the zone now. It is to be told after the zone's lock was let go: who
    /// looks for memory finds each free block counted here or there.
    pub(crate) fn note_went(list: List, blocks: usize, gauges: &Gauges) {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        Self::note_gone(blocks.wrapping_mul(list.frames()), gauges);
    }

    /// Takes note of frames that are on no list any more, and did not go to owners.
    fn note_gone(frames: u32, gauges: &Gauges) {
        add(&gauges.drained, u64::from(frames));
        let count = gauges.count().wrapping_sub(frames);
        // Who sees this and then looks at the zone sees them there.
        gauges.count.store(count, Ordering::Release);
    }

    /// Takes note of a drain.
    pub(crate) fn note_drain(gauges: &Gauges) {
        add(&gauges.drains, 1);
    }
}
