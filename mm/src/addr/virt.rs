//! Virtual addresses.
#![forbid(unsafe_code)]

use core::fmt;

use crate::config::{PAGE_SHIFT, PAGE_SIZE};

/// A virtual address: any 64-bit value, canonical or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// Wraps a number.
    #[inline]
    #[must_use]
    pub const fn new(addr: u64) -> Self {
        Self(addr)
    }

    /// The address of what `ptr` points to.
    #[inline]
    #[must_use]
    pub fn from_ptr<T: ?Sized>(ptr: *const T) -> Self {
        Self(super::to_count(ptr.addr()))
    }

    /// The address as a number.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// `self + bytes`, or `None` past the end of the space.
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

    /// Whether the CPU takes the address with `levels` levels of page tables, 4 or 5: all bits above the
    /// ones it translates equal the highest of these (SDM vol. 1, 3.3.7.1).
    #[inline]
    #[must_use]
    pub const fn is_canonical(self, levels: u8) -> bool {
        let lower_half_bits = if levels == 5 { 56 } else { 47 };
        let above = self.0 >> lower_half_bits;
        above == 0 || above == u64::MAX >> lower_half_bits
    }

    /// The distance from `origin`, or `None` if `origin` lies above.
    #[inline]
    #[must_use]
    pub const fn offset_from(self, origin: Self) -> Option<u64> {
        self.0.checked_sub(origin.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A half-open range of virtual addresses, possibly empty. It does not reach the last byte of the space, which no page
/// that is mapped holds.
///
/// # Invariants
/// `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VirtRange {
    start: VirtAddr,
    end: VirtAddr,
}

impl VirtRange {
    /// No byte at all.
    pub const EMPTY: Self = Self {
        start: VirtAddr(0),
        end: VirtAddr(0),
    };

    /// The range `start..end`, or `None` if it would be turned around.
    #[inline]
    #[must_use]
    pub const fn new(start: VirtAddr, end: VirtAddr) -> Option<Self> {
        if start.0 <= end.0 {
            // INVARIANT: compared just above.
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// `size` bytes from `start`, or `None` past the end of the space.
    #[inline]
    #[must_use]
    pub const fn from_size(start: VirtAddr, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            // INVARIANT: a checked sum is never below its first term.
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The first address.
    #[inline]
    #[must_use]
    pub const fn start(self) -> VirtAddr {
        self.start
    }

    /// The first address behind the range.
    #[inline]
    #[must_use]
    pub const fn end(self) -> VirtAddr {
        self.end
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub const fn size(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Length in whole pages, a last partial one not counted.
    #[inline]
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.size() >> PAGE_SHIFT
    }

    /// Whether there is nothing in the range.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether both ends lie between pages.
    #[inline]
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        (self.start.0 | self.end.0) & PAGE_SIZE.wrapping_sub(1) == 0
    }

    /// Whether `addr` lies in the range.
    #[inline]
    #[must_use]
    pub const fn contains(self, addr: VirtAddr) -> bool {
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
    #[inline]
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
}

impl fmt::Debug for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}-{:#018x}", self.start.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_at_the_top_of_the_space_does_not_wrap() {
        let top = VirtAddr::new(u64::MAX - 0xfff);
        assert_eq!(top.checked_add(0x1000), None);
        assert_eq!(VirtAddr::new(u64::MAX).align_up(0x1000), None);
        assert_eq!(VirtAddr::new(5).checked_sub(6), None);
        assert_eq!(VirtRange::from_size(top, 0x1000), None);
        assert!(VirtRange::from_size(top, 0xfff).is_some());
    }

    #[test]
    fn the_hole_between_the_halves_is_not_canonical() {
        for (addr, four, five) in [
            (0, true, true),
            (0x7fff_ffff_ffff, true, true),
            (0x8000_0000_0000, false, true),
            (0xff_ffff_ffff_ffff, false, true),
            (0x100_0000_0000_0000, false, false),
            (0xfeff_ffff_ffff_ffff, false, false),
            (0xff00_0000_0000_0000, false, true),
            (0xffff_7fff_ffff_ffff, false, true),
            (0xffff_8000_0000_0000, true, true),
            (u64::MAX, true, true),
        ] {
            assert_eq!(VirtAddr::new(addr).is_canonical(4), four, "{addr:#x}");
            assert_eq!(VirtAddr::new(addr).is_canonical(5), five, "{addr:#x}");
        }
    }

    #[test]
    fn ranges_know_what_they_hold() {
        let range = |start, end| VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)).unwrap();
        assert_eq!(VirtRange::new(VirtAddr::new(2), VirtAddr::new(1)), None);
        let pages = range(0x1000, 0x3000);
        assert_eq!((pages.size(), pages.pages()), (0x2000, 2));
        assert!(pages.is_page_aligned() && !range(0x1000, 0x2fff).is_page_aligned());
        assert!(pages.contains(VirtAddr::new(0x2fff)) && !pages.contains(VirtAddr::new(0x3000)));
        assert!(pages.covers(range(0x1000, 0x1000)) && !pages.covers(range(0xfff, 0x1001)));
        assert!(!pages.overlaps(range(0x3000, 0x4000)) && pages.overlaps(range(0x2fff, 0x4000)));
        assert_eq!(pages.hull(range(0x8000, 0x9000)), range(0x1000, 0x9000));
        assert_eq!(pages.hull(VirtRange::EMPTY), pages);
    }
}
