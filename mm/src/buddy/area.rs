//! Free blocks of one zone within one 128 MiB section.
//!
//! Each of the 64 pageblocks keeps its own free lists, one per order below the pageblock order,
//! linked through the frame records by 16-bit offsets within the pageblock: neighbours are never
//! further away than that, and both fit into one word. Bit `b` of `largest[t][o]` says that
//! pageblock `b` has type `t` and its largest free block has order `o`, so "the lowest pageblock
//! that is just good enough" is one trailing-zero count.
#![forbid(unsafe_code)]

use core::mem::offset_of;

use super::MigrateType;
use crate::addr::{Order, to_count, to_index};
use crate::config::{PAGEBLOCK_FRAMES, PAGEBLOCK_ORDER, SECTION_PAGEBLOCKS};
use crate::frame::{SectionFrames, Word, ZoneId};

const NONE: u16 = u16::MAX;
/// A link to nowhere on either side.
const ALONE: u64 = 0xffff_ffff;

/// Tables by order and by type are padded to powers of two, so that a masked index needs no check.
pub(super) type ByOrder<T> = [T; 16];
/// See [`ByOrder`].
pub(super) type ByKind<T> = [T; 8];

/// The place of an order in [`ByOrder`].
#[inline]
pub(super) const fn slot(order: Order) -> usize {
    order.index() & 15
}

/// The place of a type in [`ByKind`].
#[inline]
pub(super) const fn row(kind: MigrateType) -> usize {
    kind.index() & 7
}

/// The bit of an order in a set of orders.
#[inline]
pub(super) fn bit(order: Order) -> u16 {
    1_u16.wrapping_shl(u32::from(order.as_u8()))
}

/// The largest order in a set of orders.
#[inline]
pub(super) fn largest_of(orders: u16) -> Option<Order> {
    let top = orders.checked_ilog2()?;
    Some(order_of(top))
}

/// The smallest order in a set of orders that is at least `order`.
#[inline]
pub(super) fn smallest_from(orders: u16, order: Order) -> Option<Order> {
    let fitting = u32::from(orders) & u32::MAX.wrapping_shl(u32::from(order.as_u8()));
    (fitting != 0).then(|| order_of(fitting.trailing_zeros()))
}

/// The order with this number; sets of orders hold no larger ones than there are.
#[inline]
fn order_of(number: u32) -> Order {
    let [number, ..] = number.to_le_bytes();
    Order::new(number).unwrap_or(Order::MAX)
}

/// Counts one block more.
#[inline]
pub(super) fn count_up(counts: &mut ByKind<ByOrder<u64>>, kind: MigrateType, order: Order) {
    let count = &mut counts[row(kind)][slot(order)];
    *count = count.wrapping_add(1);
}

/// Counts one block less.
#[inline]
pub(super) fn count_down(counts: &mut ByKind<ByOrder<u64>>, kind: MigrateType, order: Order) {
    let count = &mut counts[row(kind)][slot(order)];
    *count = count.wrapping_sub(1);
}

const _: () = assert!(
    PAGEBLOCK_ORDER < 16,
    "one list for each order below the pageblock's"
);

/// One pageblock: its type and its free blocks.
///
/// # Invariants
/// Bit `o` of `orders` is set exactly if a free block of order `o` starts in this pageblock; for
/// `o` below the pageblock order these are the blocks on `heads[o]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pageblock {
    heads: ByOrder<u16>,
    pub(super) orders: u16,
    pub(super) kind: MigrateType,
    /// The type to go back to when isolation ends.
    pub(super) kept: MigrateType,
}

impl Pageblock {
    /// Order of the largest free block that starts here.
    #[inline]
    pub(super) fn largest(&self) -> Option<Order> {
        largest_of(self.orders)
    }
}

/// Free blocks of a zone in one section.
#[derive(Debug)]
pub(crate) struct Area {
    pub(super) frames: SectionFrames,
    /// The state word of a free block of order 0 in this zone.
    pub(super) free_word: Word,
    pub(super) blocks: [Pageblock; SECTION_PAGEBLOCKS],
    pub(super) largest: ByKind<ByOrder<u64>>,
}

/// Both neighbours of a free block in one word.
#[derive(Clone, Copy)]
struct Link {
    next: u16,
    prev: u16,
}

impl Link {
    #[inline]
    fn from_bits(bits: u64) -> Self {
        let [n0, n1, p0, p1, ..] = bits.to_le_bytes();
        Self {
            next: u16::from_le_bytes([n0, n1]),
            prev: u16::from_le_bytes([p0, p1]),
        }
    }

    #[inline]
    fn bits(self) -> u64 {
        u64::from(self.next) | u64::from(self.prev) << 16
    }
}

impl Area {
    /// Bytes before the type of the first pageblock, …
    pub(crate) const FIRST_TYPE: u64 =
        to_count(offset_of!(Self, blocks)).wrapping_add(to_count(offset_of!(Pageblock, kind)));
    /// … and from one to the next.
    pub(crate) const TYPE_STRIDE: u64 = to_count(size_of::<Pageblock>());

    /// An area without free blocks, all pageblocks of type `kind`.
    pub(super) fn new(frames: SectionFrames, home: ZoneId, kind: MigrateType) -> Self {
        let block = Pageblock {
            heads: [NONE; 16],
            orders: 0,
            kind,
            kept: kind,
        };
        let free_word = Word::free(home, Order::ZERO);
        Self {
            frames,
            free_word,
            blocks: [block; SECTION_PAGEBLOCKS],
            largest: [[0; 16]; 8],
        }
    }

    /// The state word at an offset into the section.
    #[inline]
    pub(super) fn word(&self, at: u64) -> Word {
        self.frames.at(at).word()
    }

    /// The state word of a free block of this zone.
    #[inline]
    pub(super) fn free_word(&self, order: Order) -> Word {
        self.free_word.plus_order(order)
    }

    /// Whether a free block of exactly `order` starts at `at`: one comparison.
    #[inline]
    pub(super) fn is_free(&self, at: u64, order: Order) -> bool {
        self.word(at) == self.free_word(order)
    }

    /// The pageblock around an offset.
    #[inline]
    pub(super) fn block_of(&self, at: u64) -> &Pageblock {
        &self.blocks[block_index(at)]
    }

    /// Makes a free block of the frames at `at` and puts it on its list.
    #[inline]
    pub(super) fn push(&mut self, at: u64, order: Order) {
        self.frames.at(at).publish(self.free_word(order));
        let block = &mut self.blocks[block_index(at)];
        block.orders |= bit(order);
        if order >= Order::PAGEBLOCK {
            return;
        }
        let offset = offset_in_block(at);
        let next = core::mem::replace(&mut block.heads[slot(order)], offset);
        self.frames
            .at(at)
            .set_link(Link { next, prev: NONE }.bits());
        if next != NONE {
            let neighbour = self.frames.at(start_of_block(at) | u64::from(next));
            let link = Link::from_bits(neighbour.link());
            neighbour.set_link(
                Link {
                    prev: offset,
                    ..link
                }
                .bits(),
            );
        }
    }

    /// As [`Self::push`], where the list is known to be empty and the order's bit is set already.
    #[inline]
    pub(super) fn push_alone(&mut self, at: u64, order: Order) {
        let frame = self.frames.at(at);
        frame.publish(self.free_word(order));
        frame.set_link(ALONE);
        self.blocks[block_index(at)].heads[slot(order)] = offset_in_block(at);
    }

    /// Takes a free block off its list; its state word is the caller's to change.
    #[inline]
    pub(super) fn unlink(&mut self, at: u64, order: Order) {
        let block = &mut self.blocks[block_index(at)];
        if order >= Order::PAGEBLOCK {
            block.orders &= !bit(order);
            return;
        }
        let Link { next, prev } = Link::from_bits(self.frames.at(at).link());
        let base = start_of_block(at);
        if prev == NONE {
            block.heads[slot(order)] = next;
            if next == NONE {
                block.orders &= !bit(order);
                return;
            }
        } else {
            let before = self.frames.at(base | u64::from(prev));
            before.set_link(
                Link {
                    next,
                    ..Link::from_bits(before.link())
                }
                .bits(),
            );
        }
        if next != NONE {
            let after = self.frames.at(base | u64::from(next));
            after.set_link(
                Link {
                    prev,
                    ..Link::from_bits(after.link())
                }
                .bits(),
            );
        }
    }

    /// Where the first block on a pageblock's list of `order` starts; the list is not empty.
    #[inline]
    pub(super) fn first(&self, block: usize, order: Order) -> u64 {
        let head = u64::from(self.blocks[block & 63].heads[slot(order)]);
        let offset = if order < Order::PAGEBLOCK { head } else { 0 };
        base_of(block) | offset & (PAGEBLOCK_FRAMES - 1)
    }

    /// Marks the frames at `at` as part of a larger block.
    #[inline]
    pub(super) fn absorb(&self, at: u64) {
        self.frames.at(at).publish(Word::INTERIOR);
    }

    /// The free blocks on a pageblock's list of `order`, at most as many as can exist.
    pub(super) fn list(&self, block: usize, order: Order) -> impl Iterator<Item = u64> + '_ {
        let base = base_of(block);
        let limit = to_index(PAGEBLOCK_FRAMES >> order.as_u8()).max(1);
        let has_blocks = self.blocks[block].orders & bit(order) != 0;
        let first = has_blocks.then(|| self.first(block, order));
        let is_list = order < Order::PAGEBLOCK;
        core::iter::successors(first, move |&at| {
            let next = Link::from_bits(self.frames.at(at).link()).next;
            (is_list && next != NONE).then(|| base | u64::from(next))
        })
        .take(limit)
    }

    /// Whether every block on a list is its next one's previous one.
    pub(super) fn links_are_mutual(&self, block: usize, order: Order) -> bool {
        if order >= Order::PAGEBLOCK {
            return true;
        }
        let mut before = NONE;
        self.list(block, order).all(|at| {
            let link = Link::from_bits(self.frames.at(at).link());
            let mutual = link.prev == before;
            before = offset_in_block(at);
            mutual
        })
    }

    /// The block of the largest order that covers a pageblock together with the one before it:
    /// where it starts, and its state word.
    pub(super) fn covering_pair(&self, block: usize) -> Option<(u64, Word)> {
        let lower = base_of(block & !1);
        let word = self.word(lower);
        let starts_block = matches!(
            word.state(),
            Some(state) if state.starts_block()
        );
        let covers = block & 1 == 1 && starts_block && word.order() == Order::MAX;
        covers.then_some((lower, word))
    }

    /// Walks a pageblock from block to block: offset and state word of everything that starts
    /// in it, single frames where nothing does.
    pub(super) fn walk(&self, block: usize) -> impl Iterator<Item = (u64, Word)> + '_ {
        let start = base_of(block);
        let end = start.saturating_add(PAGEBLOCK_FRAMES);
        let mut at = start;
        core::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (here, word) = (at, self.word(at));
            let frames = match word.state() {
                Some(state) if state.starts_block() => word.order().frames(),
                _ => 1,
            };
            at = at.saturating_add(frames);
            Some((here, word))
        })
    }
}

/// Index of the pageblock that holds an offset into the section.
#[inline]
pub(super) const fn block_index(at: u64) -> usize {
    to_index(at >> PAGEBLOCK_ORDER) & (SECTION_PAGEBLOCKS - 1)
}

/// First offset of a pageblock.
#[inline]
pub(super) const fn base_of(block: usize) -> u64 {
    to_count(block) << PAGEBLOCK_ORDER
}

#[inline]
const fn start_of_block(at: u64) -> u64 {
    at & !(PAGEBLOCK_FRAMES - 1)
}

#[inline]
fn offset_in_block(at: u64) -> u16 {
    let [low, high, ..] = (at & (PAGEBLOCK_FRAMES - 1)).to_le_bytes();
    u16::from_le_bytes([low, high])
}
