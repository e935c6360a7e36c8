//! Physical addresses and ranges of them.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Pfn, PfnRange};
use crate::config::{PAGE_SHIFT, PAGE_SIZE};

/// A physical address, in bytes. Any 64-bit value: firmware reports nonsense, and whoever
/// turns an address into a frame checks it there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// Address 0.
    pub const ZERO: Self = Self(0);
    /// The last address that 64 bits can name.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps a number of bytes.
    #[inline]
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The address as a number of bytes.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// `self + bytes`, or `None` past the end of the 64-bit space.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// `self - bytes`, or `None` below zero.
    #[inline]
    #[must_use]
    pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
        match self.0.checked_sub(bytes) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// `self + bytes`, stopping at the last address.
    #[inline]
    #[must_use]
    pub const fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The distance from `origin`, or `None` if `origin` lies above.
    #[inline]
    #[must_use]
    pub const fn offset_from(self, origin: Self) -> Option<u64> {
        self.0.checked_sub(origin.0)
    }

    /// Rounds down to a multiple of `align`, a power of two.
    #[inline]
    #[must_use]
    pub const fn align_down(self, align: u64) -> Self {
        debug_assert!(align.is_power_of_two());
        Self(self.0 & !(align.wrapping_sub(1)))
    }

    /// Rounds up to a multiple of `align`, a power of two; `None` past the end of the space.
    #[inline]
    #[must_use]
    pub const fn align_up(self, align: u64) -> Option<Self> {
        match self.checked_add(align.wrapping_sub(1)) {
            Some(raised) => Some(raised.align_down(align)),
            None => None,
        }
    }

    /// Whether the address is a multiple of `align`, a power of two.
    #[inline]
    #[must_use]
    pub const fn is_aligned(self, align: u64) -> bool {
        self.0 & align.wrapping_sub(1) == 0
    }

    /// The frame that holds this address.
    #[inline]
    #[must_use]
    pub const fn frame(self) -> Pfn {
        Pfn::new(self.0 >> PAGE_SHIFT)
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of physical addresses, possibly empty.
///
/// # Invariants
/// `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PhysRange {
    start: PhysAddr,
    end: PhysAddr,
}

impl PhysRange {
    /// No byte at all.
    pub const EMPTY: Self = Self {
        start: PhysAddr::ZERO,
        end: PhysAddr::ZERO,
    };

    /// The range `start..end`, or `None` if it would be turned around.
    #[inline]
    #[must_use]
    pub const fn new(start: PhysAddr, end: PhysAddr) -> Option<Self> {
        if start.0 <= end.0 {
            // INVARIANT: compared just above.
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// `size` bytes from `start`, clipped at the end of the 64-bit space.
    #[inline]
    #[must_use]
    pub const fn from_size(start: PhysAddr, size: u64) -> Self {
        // INVARIANT: a saturating sum is never below its first term.
        Self {
            start,
            end: start.saturating_add(size),
        }
    }

    /// The first address.
    #[inline]
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// The first address behind the range.
    #[inline]
    #[must_use]
    pub const fn end(self) -> PhysAddr {
        self.end
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub const fn size(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether there is nothing in the range.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `addr` lies in the range.
    #[inline]
    #[must_use]
    pub const fn contains(self, addr: PhysAddr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Whether every byte of `other` lies in the range.
    #[inline]
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether the two have a byte in common.
    #[inline]
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The smallest range with all bytes of both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        // INVARIANT: each start is at most its own end.
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    /// What the two have in common; empty (at an unspecified place) if nothing.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end).max(start);
        // INVARIANT: `end` was raised to at least `start`.
        Self { start, end }
    }

    /// The whole frames inside the range: the start rounded up, the end rounded down.
    #[must_use]
    pub fn whole_frames(self) -> PfnRange {
        let first = self.start.0.div_ceil(PAGE_SIZE);
        let end = self.end.0 >> PAGE_SHIFT;
        PfnRange::from_numbers(first, end.max(first))
    }

    /// Every frame that the range touches: the start rounded down, the end rounded up.
    #[must_use]
    pub fn touched_frames(self) -> PfnRange {
        if self.is_empty() {
            return PfnRange::EMPTY;
        }
        PfnRange::from_numbers(self.start.0 >> PAGE_SHIFT, self.end.0.div_ceil(PAGE_SIZE))
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

/// As Linux prints ranges: `[mem 0x0000000000001000-0x000000000009ffff]`, the end inclusive.
impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.end.0.wrapping_sub(1);
        write!(f, "[mem {:#018x}-{last:#018x}]", self.start.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_at_the_top_of_the_space_does_not_wrap() {
        assert_eq!(PhysAddr::MAX.checked_add(1), None);
        assert_eq!(PhysAddr::MAX.align_up(PAGE_SIZE), None);
        assert_eq!(PhysAddr::ZERO.checked_sub(1), None);
        assert_eq!(PhysRange::from_size(PhysAddr::MAX, 10).size(), 0);
        let top = PhysRange::new(PhysAddr::new(1), PhysAddr::MAX).unwrap();
        assert_eq!(top.touched_frames().end(), Pfn::new(1 << 52));
        assert_eq!(top.whole_frames().first(), Pfn::new(1));
    }

    #[test]
    fn fragments_below_a_page_hold_no_whole_frame() {
        let fragment = PhysRange::new(PhysAddr::new(0x1001), PhysAddr::new(0x1fff)).unwrap();
        assert!(fragment.whole_frames().is_empty());
        assert_eq!(fragment.touched_frames().frames(), 1);
        let empty = PhysRange::from_size(PhysAddr::new(0x1800), 0);
        assert!(empty.touched_frames().is_empty());
    }

    #[test]
    fn intersections_of_strangers_are_empty() {
        let low = PhysRange::from_size(PhysAddr::new(0), 10);
        let high = PhysRange::from_size(PhysAddr::new(20), 10);
        assert!(low.intersect(high).is_empty());
        assert!(!low.overlaps(high));
        assert!(low.covers(PhysRange::from_size(PhysAddr::new(9), 1)));
    }
}
