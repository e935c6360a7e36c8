//! Page frame numbers and ranges of them.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Order, PhysAddr, PhysRange};
use crate::config::{
    MAX_PHYS_BITS, PAGE_SHIFT, PAGEBLOCK_FRAMES, SECTION_FRAME_SHIFT, SECTION_FRAMES,
};

/// A page frame number: a physical address in units of 4 KiB pages.
///
/// A `Pfn` is data, not a right: owning memory is what handles are for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pfn(u64);

impl Pfn {
    /// Frame 0.
    pub const ZERO: Self = Self(0);
    /// One past the last frame that the architecture can address.
    pub const LIMIT: Self = Self(1 << (MAX_PHYS_BITS - PAGE_SHIFT));

    /// Wraps a frame number.
    #[inline]
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame number.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The address of the frame's first byte, or `None` if 64 bits cannot hold it.
    #[inline]
    #[must_use]
    pub const fn checked_addr(self) -> Option<PhysAddr> {
        if self.0 >> (u64::BITS - PAGE_SHIFT) == 0 {
            Some(PhysAddr::new(self.0 << PAGE_SHIFT))
        } else {
            None
        }
    }

    /// The address of the frame's first byte; frames past the 64-bit space give its last address.
    #[inline]
    #[must_use]
    pub const fn addr(self) -> PhysAddr {
        match self.checked_addr() {
            Some(addr) => addr,
            None => PhysAddr::MAX,
        }
    }

    /// The frame `frames` further on, or `None` past the 64-bit space.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, frames: u64) -> Option<Self> {
        match self.0.checked_add(frames) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The frame `frames` further on, stopping at the largest number.
    #[inline]
    #[must_use]
    pub const fn saturating_add(self, frames: u64) -> Self {
        Self(self.0.saturating_add(frames))
    }

    /// The distance from `origin`, or `None` if `origin` lies above.
    #[inline]
    #[must_use]
    pub const fn offset_from(self, origin: Self) -> Option<u64> {
        self.0.checked_sub(origin.0)
    }

    /// The other half of the block of twice the size: Knuth's buddy, `pfn ^ 2^order`.
    #[inline]
    #[must_use]
    pub const fn buddy(self, order: Order) -> Self {
        Self(self.0 ^ order.frames())
    }

    /// The first frame of the naturally aligned block of `order` around this frame.
    #[inline]
    #[must_use]
    pub const fn align_down(self, order: Order) -> Self {
        Self(self.0 & !order.frames().wrapping_sub(1))
    }

    /// The first frame at or above that is aligned to `order`, stopping at the largest number.
    #[inline]
    #[must_use]
    pub const fn align_up(self, order: Order) -> Self {
        Self(self.0.saturating_add(order.frames().wrapping_sub(1))).align_down(order)
    }

    /// Whether a block of `order` may start here.
    #[inline]
    #[must_use]
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & order.frames().wrapping_sub(1) == 0
    }

    /// The number of the 128 MiB section that holds the frame.
    #[inline]
    #[must_use]
    pub const fn section(self) -> u64 {
        self.0 >> SECTION_FRAME_SHIFT
    }

    /// Where the frame lies in its section, in frames.
    #[inline]
    #[must_use]
    pub const fn section_offset(self) -> u64 {
        self.0 & (SECTION_FRAMES - 1)
    }

    /// Where the frame lies in its pageblock, in frames.
    #[inline]
    #[must_use]
    pub const fn pageblock_offset(self) -> u64 {
        self.0 & (PAGEBLOCK_FRAMES - 1)
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of page frames, possibly empty.
///
/// # Invariants
/// `first <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PfnRange {
    first: Pfn,
    end: Pfn,
}

impl PfnRange {
    /// No frame at all.
    pub const EMPTY: Self = Self {
        first: Pfn::ZERO,
        end: Pfn::ZERO,
    };

    /// The range `first..end`, or `None` if it would be turned around.
    #[inline]
    #[must_use]
    pub const fn new(first: Pfn, end: Pfn) -> Option<Self> {
        if first.0 <= end.0 {
            Some(Self { first, end })
        } else {
            None
        }
    }

    /// `first..end` by number; an `end` below `first` gives an empty range at `first`.
    #[inline]
    #[must_use]
    pub const fn from_numbers(first: u64, end: u64) -> Self {
        let end = if end < first { first } else { end };
        Self {
            first: Pfn(first),
            end: Pfn(end),
        }
    }

    /// `frames` frames from `first`, or `None` past the 64-bit space.
    #[inline]
    #[must_use]
    pub const fn from_count(first: Pfn, frames: u64) -> Option<Self> {
        match first.checked_add(frames) {
            Some(end) => Some(Self { first, end }),
            None => None,
        }
    }

    /// The block of `order` that starts at `first`.
    #[inline]
    #[must_use]
    pub const fn block(first: Pfn, order: Order) -> Self {
        Self {
            first,
            end: first.saturating_add(order.frames()),
        }
    }

    /// The first frame.
    #[inline]
    #[must_use]
    pub const fn first(self) -> Pfn {
        self.first
    }

    /// The first frame behind the range.
    #[inline]
    #[must_use]
    pub const fn end(self) -> Pfn {
        self.end
    }

    /// How many frames there are.
    #[inline]
    #[must_use]
    pub const fn frames(self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }

    /// Whether there is no frame in the range.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.first.0 == self.end.0
    }

    /// Whether `pfn` lies in the range.
    #[inline]
    #[must_use]
    pub const fn contains(self, pfn: Pfn) -> bool {
        self.first.0 <= pfn.0 && pfn.0 < self.end.0
    }

    /// Whether every frame of `other` lies in the range.
    #[inline]
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.first.0 <= other.first.0 && other.end.0 <= self.end.0
    }

    /// What the two have in common; empty if nothing.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self::from_numbers(self.first.0.max(other.first.0), self.end.0.min(other.end.0))
    }

    /// The addresses of the frames' bytes.
    #[must_use]
    pub fn addrs(self) -> PhysRange {
        PhysRange::from_size(
            self.first.addr(),
            self.frames().saturating_mul(crate::config::PAGE_SIZE),
        )
    }

    /// Every frame, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Pfn> {
        (self.first.0..self.end.0).map(Pfn)
    }

    /// Cuts the range into the fewest naturally aligned blocks of at most `largest`, lowest first.
    pub fn blocks(self, largest: Order) -> impl Iterator<Item = (Pfn, Order)> {
        let mut rest = self;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let first = rest.first;
            let order =
                Order::of_alignment(first, largest).min(Order::at_most(rest.frames(), largest));
            rest = Self::from_numbers(first.0.saturating_add(order.frames()), rest.end.0);
            Some((first, order))
        })
    }
}

impl fmt::Debug for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.first.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_disjoint_and_cover_the_range() {
        let range = PfnRange::from_numbers(3, 1 << 12);
        let mut next = range.first();
        for (first, order) in range.blocks(Order::MAX) {
            assert_eq!(first, next);
            assert!(first.is_aligned(order));
            next = first.checked_add(order.frames()).unwrap();
        }
        assert_eq!(next, range.end());
    }

    #[test]
    fn frames_past_the_address_space_have_no_address() {
        assert_eq!(Pfn::new(u64::MAX).checked_addr(), None);
        assert_eq!(Pfn::new(u64::MAX).addr(), PhysAddr::MAX);
        assert_eq!(Pfn::new(u64::MAX).checked_add(1), None);
        assert_eq!(PfnRange::from_count(Pfn::new(u64::MAX), 1), None);
        assert_eq!(Pfn::new(u64::MAX).align_up(Order::MAX).as_u64() & 0x3ff, 0);
    }

    #[test]
    fn the_buddy_of_the_buddy_is_the_block_itself() {
        let order = Order::new(3).unwrap();
        assert_eq!(Pfn::new(8).buddy(order), Pfn::new(0));
        assert_eq!(Pfn::new(8).buddy(order).buddy(order), Pfn::new(8));
    }
}
