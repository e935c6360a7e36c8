//! Size classes (Linux: `kmalloc_info`, `kmalloc_size_index`).
#![forbid(unsafe_code)]

use core::alloc::Layout;

use super::SlabFlags;
use crate::addr::{Order, to_count, to_index};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;

/// Sizes of objects. A power of two is aligned to itself.
pub(super) const SIZES: [usize; 13] = [
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];

/// The largest size that caches serve; larger requests get pages.
pub const KMALLOC_MAX_CACHE_SIZE: usize = 8192;

/// Which caches serve a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Family {
    /// Those for everything else.
    Normal = 0,
    /// Objects that can be reclaimed.
    Reclaimable = 1,
    /// Objects that somebody is charged for.
    Accounted = 2,
    /// Objects for devices that reach 16 MiB.
    Dma = 3,
}

impl Family {
    pub(super) const ALL: [Self; 4] = [Self::Normal, Self::Reclaimable, Self::Accounted, Self::Dma];

    /// The family that a request asks for (Linux: `kmalloc_type`: DMA goes before everything else, and
    /// reclaimable before accounted). None for DMA32: whole pages are what comes from there (Linux warns, and
    /// hands out what lies anywhere).
    #[inline(always)]
    const fn of(gfp: Gfp) -> Option<Self> {
        const SPECIAL: Gfp = Gfp::DMA
            .union(Gfp::DMA32)
            .union(Gfp::RECLAIMABLE)
            .union(Gfp::ACCOUNT);
        if !gfp.intersects(SPECIAL) {
            Some(Self::Normal)
        } else if gfp.contains(Gfp::DMA) {
            Some(Self::Dma)
        } else if gfp.contains(Gfp::DMA32) {
            None
        } else if gfp.contains(Gfp::RECLAIMABLE) {
            Some(Self::Reclaimable)
        } else {
            Some(Self::Accounted)
        }
    }

    /// What its caches are named after.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Normal => "kmalloc-",
            Self::Reclaimable => "kmalloc-rcl-",
            Self::Accounted => "kmalloc-cg-",
            Self::Dma => "dma-kmalloc-",
        }
    }

    pub(super) const fn flags(self) -> SlabFlags {
        match self {
            Self::Normal | Self::Accounted => SlabFlags::empty(),
            Self::Reclaimable => SlabFlags::RECLAIM_ACCOUNT,
            Self::Dma => SlabFlags::CACHE_DMA,
        }
    }

    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    const fn index(self) -> usize {
        self as usize
    }
}

/// The classes up to 192, by eighths.
const SMALL: [u8; 24] = [
    0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6,
];

/// The class that serves a size, if one does.
#[inline(always)]
#[expect(clippy::as_conversions, reason = "widened, in a constant function")]
pub(super) const fn class_of(size: usize) -> Option<usize> {
    let last = size.saturating_sub(1);
    let eighth = last >> 3;
    if eighth < SMALL.len() {
        return Some(SMALL[eighth] as usize);
    }
    if size > KMALLOC_MAX_CACHE_SIZE {
        return None;
    }
    // 256 is class 7, and each power of two has the next one.
    let bits = usize::BITS.wrapping_sub(last.leading_zeros());
    Some((bits as usize).wrapping_sub(1))
}

/// The number of the cache for a size and family.
#[inline(always)]
pub(super) const fn cache_of(size: usize, family: Family) -> Option<usize> {
    match class_of(size) {
        Some(class) => Some(family.index().wrapping_mul(SIZES.len()).wrapping_add(class)),
        None => None,
    }
}

/// The number of the cache for a request.
#[inline(always)]
pub(crate) const fn cache_for(size: usize, gfp: Gfp) -> Option<usize> {
    match Family::of(gfp) {
        Some(family) => cache_of(size, family),
        None => None,
    }
}

/// The alignment that a class promises (Linux: `ARCH_KMALLOC_MINALIGN` and powers of two).
pub(super) const fn align_of(size: usize) -> usize {
    if size.is_power_of_two() {
        if size < 4096 { size } else { 4096 }
    } else {
        1 << size.trailing_zeros()
    }
}

/// How large an object of at least `size` bytes really is (Linux: `kmalloc_size_roundup`). `None` if there
/// is no such size. Context: any.
#[must_use]
pub fn size_roundup(size: usize) -> Option<usize> {
    match class_of(size) {
        Some(class) => SIZES.get(class).copied(),
        None => match Order::for_bytes(to_count(size)) {
            Some(order) => Some(to_index(order.bytes())),
            None => size.checked_next_multiple_of(to_index(PAGE_SIZE)),
        },
    }
}

/// What to ask `kmalloc` for so that its promise of alignment is enough for a layout. `None` if whole pages
/// have to be: the alignment is larger than a page.
///
/// A multiple of the alignment is in a class that is aligned to it: a power of two is to itself, and of
/// the others 96 is to 32 and 192 to 64, where no larger alignment has a multiple between the class below and them.
#[inline(always)]
pub(crate) const fn size_for(layout: Layout) -> Option<usize> {
    let (size, align) = (layout.size(), layout.align());
    if align <= 8 {
        return Some(size);
    }
    if align > to_index(PAGE_SIZE) {
        return None;
    }
    // A layout's size, rounded up to its alignment, is a size.
    match layout.pad_to_align().size() {
        0 => Some(align),
        padded => Some(padded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_gets_the_smallest_class_that_holds_it() {
        for size in 1..=KMALLOC_MAX_CACHE_SIZE {
            let smallest = SIZES.iter().position(|&class| class >= size);
            assert_eq!(class_of(size), smallest, "{size}");
            assert_eq!(size_roundup(size), smallest.map(|class| SIZES[class]));
        }
        assert_eq!(class_of(KMALLOC_MAX_CACHE_SIZE + 1), None);
        assert_eq!(size_roundup(8193), Some(16384));
        assert_eq!(size_roundup(4 << 20), Some(4 << 20));
        assert_eq!(size_roundup((4 << 20) + 1), Some((4 << 20) + 4096));
        assert_eq!(size_roundup(usize::MAX), None);
    }

    #[test]
    fn each_layout_gets_a_class_that_is_aligned_enough() {
        for align in (0..=12).map(|shift| 1_usize << shift) {
            for size in 1..=KMALLOC_MAX_CACHE_SIZE {
                let layout = Layout::from_size_align(size, align).unwrap();
                let asked = size_for(layout).unwrap();
                let class = SIZES[class_of(asked).unwrap()];
                assert!(class >= size && align_of(class) >= align, "{layout:?}");
            }
        }
        assert_eq!(size_for(Layout::from_size_align(1, 8192).unwrap()), None);
    }

    #[test]
    fn families_go_by_flags() {
        assert_eq!(Family::of(Gfp::KERNEL), Some(Family::Normal));
        assert_eq!(Family::of(Gfp::KERNEL_ACCOUNT), Some(Family::Accounted));
        let both = Gfp::KERNEL_ACCOUNT | Gfp::RECLAIMABLE;
        assert_eq!(Family::of(both), Some(Family::Reclaimable));
        assert_eq!(Family::of(both | Gfp::DMA), Some(Family::Dma));
        assert_eq!(Family::of(both | Gfp::DMA32), None);
    }
}
