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
        // INVARIANT: rounding up what the largest block holds stays within the largest block.
        Some(Self(log2(frames.next_power_of_two())))
    }

    /// The largest order, at most `largest`, whose block fits into `frames` frames (at least order 0).
    #[must_use]
    pub const fn at_most(frames: u64, largest: Self) -> Self {
        let order = log2(frames);
        // INVARIANT: no larger than `largest`.
        if order < largest.0 {
            Self(order)
        } else {
            largest
        }
    }

    /// The largest order, at most `largest`, to which `pfn` is aligned.
    #[must_use]
    pub const fn of_alignment(pfn: Pfn, largest: Self) -> Self {
        let order = log2(pfn.as_u64() & pfn.as_u64().wrapping_neg());
        let aligned_to_anything = pfn.as_u64() == 0;
        // INVARIANT: no larger than `largest`.
        if order < largest.0 && !aligned_to_anything {
            Self(order)
        } else {
            largest
        }
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
    #[expect(clippy::as_conversions, reason = "u8 to u32 widens; From is not const")]
    pub const fn frames(self) -> u64 {
        // An order is small, so nothing wraps; the plain shift would check that again each time.
        1_u64.wrapping_shl(self.0 as u32)
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

    /// The order of half a block; of a single page, a single page.
    #[inline]
    #[must_use]
    pub const fn half(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The order with this number, or the largest.
    #[must_use]
    pub(crate) const fn new_or_max(number: u8) -> Self {
        // INVARIANT: compared here.
        if number <= MAX_ORDER {
            Self(number)
        } else {
            Self::MAX
        }
    }

    /// The number, to shift by.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "`From` is not const")]
    pub(crate) const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// The order of a block `2^doublings` times the size, or the largest.
    #[inline]
    #[must_use]
    pub fn plus(self, doublings: u32) -> Self {
        let sum = u32::from(self.0).saturating_add(doublings);
        // INVARIANT: compared here.
        u8::try_from(sum).map_or(Self::MAX, |sum| Self(sum.min(MAX_ORDER)))
    }

    /// The order of a block of twice the size; of the largest, the largest.
    #[inline]
    #[must_use]
    pub const fn double(self) -> Self {
        // INVARIANT: compared here.
        if self.0 < MAX_ORDER {
            Self(self.0.wrapping_add(1))
        } else {
            self
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

/// Rounded down; zero for zero.
#[inline]
#[expect(clippy::as_conversions, reason = "a logarithm of 64 bits fits into 8")]
const fn log2(number: u64) -> u8 {
    (number | 1).ilog2() as u8
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
        for frames in 1..=1024_u64 {
            let up = Order::for_frames(frames).unwrap();
            assert!(up.frames() >= frames && up.frames() < 2 * frames);
            let down = Order::at_most(frames, Order::MAX);
            assert!(down.frames() <= frames && 2 * down.frames() > frames);
        }
        assert_eq!(Order::at_most(0, Order::MAX), Order::ZERO);
        assert_eq!(Order::at_most(u64::MAX, Order::MAX), Order::MAX);
    }

    #[test]
    fn alignment_is_the_lowest_bit_set() {
        assert_eq!(Order::of_alignment(Pfn::ZERO, Order::MAX), Order::MAX);
        assert_eq!(Order::of_alignment(Pfn::new(12), Order::MAX), Order(2));
        assert_eq!(
            Order::of_alignment(Pfn::new(1 << 40), Order::PAGEBLOCK),
            Order::PAGEBLOCK
        );
        assert_eq!(Order::of_alignment(Pfn::new(7), Order::MAX), Order::ZERO);
    }
}
