//! Orders: block sizes as powers of two.
#![forbid(unsafe_code)]

use core::fmt;

use super::Pfn;
use crate::config::{MAX_ORDER, PAGE_SHIFT, PAGE_SIZE, PAGEBLOCK_ORDER};

/// log2 of a block's size in frames.
///
/// # Invariants
/// At most [`MAX_ORDER`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Order(u8);

impl Order {
    /// One page.
    pub const ZERO: Self = Self(0);
    /// A pageblock: 2 MiB.
    pub const PAGEBLOCK: Self = Self(PAGEBLOCK_ORDER);
    /// The largest block.
    pub const MAX: Self = Self(MAX_ORDER);

    /// An order, or `None` above [`MAX_ORDER`].
    #[inline]
    #[must_use]
    pub const fn new(order: u8) -> Option<Self> {
        // INVARIANT: compared here.
        if order <= MAX_ORDER {
            Some(Self(order))
        } else {
            None
        }
    }

    /// The smallest order whose block holds `bytes`, or `None` above the largest block.
    #[must_use]
    pub const fn for_bytes(bytes: u64) -> Option<Self> {
        Self::for_frames(bytes.div_ceil(PAGE_SIZE))
    }

    /// The smallest order whose block holds `frames`, or `None` above the largest block.
    #[must_use]
    pub const fn for_frames(frames: u64) -> Option<Self> {
        if frames > Self::MAX.frames() {
            return None;
        }
        let mut order = Self::ZERO;
        while order.frames() < frames {
            // INVARIANT: the loop ends at the latest where the largest block holds `frames`.
            order = Self(order.0.saturating_add(1));
        }
        Some(order)
    }

    /// The largest order, at most `largest`, whose block fits into `frames` frames (at least order 0).
    #[must_use]
    pub const fn at_most(frames: u64, largest: Self) -> Self {
        let mut order = largest;
        while order.0 > 0 && order.frames() > frames {
            order = Self(order.0.saturating_sub(1));
        }
        order
    }

    /// The largest order, at most `largest`, to which `pfn` is aligned.
    #[must_use]
    pub const fn of_alignment(pfn: Pfn, largest: Self) -> Self {
        let mut order = largest;
        while order.0 > 0 && !pfn.is_aligned(order) {
            order = Self(order.0.saturating_sub(1));
        }
        order
    }

    /// The number itself.
    #[inline]
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// The number as an index into per-order tables.
    #[inline]
    #[must_use]
    #[expect(
        clippy::as_conversions,
        reason = "u8 to usize widens; From is not const"
    )]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Frames in a block.
    #[inline]
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.0
    }

    /// Bytes in a block.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.frames() << PAGE_SHIFT
    }

    /// The next larger order, or `None` at the largest.
    #[inline]
    #[must_use]
    pub const fn up(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }

    /// The next smaller order, or `None` at order 0.
    #[inline]
    #[must_use]
    pub const fn down(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(order) => Some(Self(order)),
            None => None,
        }
    }

    /// Every order from this one up to the largest.
    pub fn and_above(self) -> impl DoubleEndedIterator<Item = Self> {
        (self.0..=MAX_ORDER).map(Self)
    }

    /// Every order, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        Self::ZERO.and_above()
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}", self.0)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_blocks_and_refuse_what_no_block_holds() {
        assert_eq!(Order::for_bytes(0), Some(Order::ZERO));
        assert_eq!(Order::for_bytes(1), Some(Order::ZERO));
        assert_eq!(Order::for_bytes(4097), Order::new(1));
        assert_eq!(Order::for_bytes(4 << 20), Some(Order::MAX));
        assert_eq!(Order::for_bytes((4 << 20) + 1), None);
        assert_eq!(Order::for_bytes(u64::MAX), None);
        assert_eq!(Order::new(11), None);
        assert_eq!(Order::MAX.up(), None);
        assert_eq!(Order::ZERO.down(), None);
    }
}
