//! Where things lie in the kernel's half of the address space.
#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::{VirtAddr, VirtRange};

/// What lies where in a kernel's half of the address space. A kernel chooses; [`Layout::LINUX_LIKE`] is what the
/// reference kernel has. Regions that a kernel does without are empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// All RAM, at one offset: physical address 0 is, or would be, at its start (Linux: `PAGE_OFFSET`).
    pub direct_map: VirtRange,
    /// For what is virtually contiguous, and device memory (Linux: `VMALLOC_START` to `VMALLOC_END`).
    pub vmalloc: VirtRange,
    /// The frame table, one record for each frame (Linux: `VMEMMAP_START`).
    pub vmemmap: VirtRange,
    /// What each CPU has of its own: one unit for each CPU, one after the other. Empty on a host, where these addresses lead
    /// nowhere: the library zeroes copies by them.
    pub percpu: VirtRange,
    /// Slots with fixed addresses (Linux: `FIXADDR_START`).
    pub fixmap: VirtRange,
    /// The kernel's image (Linux: `__START_KERNEL_map`).
    pub image: VirtRange,
}

const TIB: u64 = 1 << 40;

const fn region(start: u64, size: u64) -> VirtRange {
    match VirtRange::from_size(VirtAddr::new(start), size) {
        Some(range) => range,
        None => VirtRange::EMPTY,
    }
}

impl Layout {
    /// A layout like that of Linux on x86_64 with 4 levels (Linux: `Documentation/arch/x86/x86_64/mm.rst`, without KASLR), for
    /// those who know those addresses by heart. `vmalloc`, `vmemmap` and `image` are where Linux has them. `direct_map` starts
    /// 512 GiB lower, where Linux keeps the LDTs of user code (the map itself until 4.20); `percpu` and `fixmap`
    /// are here only, in what Linux uses for KASAN's shadow memory and for `cpu_entry_area`. All lie in the canonical half of 48
    /// bits, so they serve with 5 levels too, where Linux has others.
    pub const LINUX_LIKE: Self = Self {
        direct_map: region(0xffff_8800_0000_0000, 64 * TIB),
        vmalloc: region(0xffff_c900_0000_0000, 32 * TIB),
        vmemmap: region(0xffff_ea00_0000_0000, TIB),
        percpu: region(0xffff_ec00_0000_0000, TIB),
        fixmap: region(0xffff_fe00_0000_0000, 2 << 20),
        image: region(0xffff_ffff_8000_0000, 512 << 20),
    };

    /// The regions with their names, lowest first in [`Self::LINUX_LIKE`].
    #[must_use]
    pub const fn regions(&self) -> [(&'static str, VirtRange); 6] {
        [
            ("direct map", self.direct_map),
            ("vmalloc", self.vmalloc),
            ("vmemmap", self.vmemmap),
            ("percpu", self.percpu),
            ("fixmap", self.fixmap),
            ("kernel image", self.image),
        ]
    }

    /// Checks that regions start and end at pages, do not overlap, and have canonical addresses with `levels`
    /// levels of page tables.
    ///
    /// # Errors
    /// The first region that is not so.
    pub fn check(&self, levels: u8) -> Result<(), LayoutError> {
        let regions = self.regions();
        for (index, &(name, range)) in regions.iter().enumerate() {
            if range.is_empty() {
                continue;
            }
            let last = range.end().checked_sub(1).unwrap_or_default();
            let same_half = range.start().as_u64() >> 63 == last.as_u64() >> 63;
            let canonical = range.start().is_canonical(levels) && last.is_canonical(levels);
            if !range.is_page_aligned() || !canonical || !same_half {
                return Err(LayoutError::Misplaced(name, range));
            }
            let others = regions.iter().skip(index.saturating_add(1));
            for &(other, found) in others {
                if range.overlaps(found) {
                    return Err(LayoutError::Overlap(name, other));
                }
            }
        }
        Ok(())
    }

    /// The region that holds `addr`, with its name.
    #[must_use]
    pub fn region_of(&self, addr: VirtAddr) -> Option<(&'static str, VirtRange)> {
        let holds = |region: &(_, VirtRange)| region.1.contains(addr);
        self.regions().into_iter().find(holds)
    }
}

/// What is wrong with a [`Layout`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// A region does not start and end at pages with canonical addresses of one half.
    Misplaced(&'static str, VirtRange),
    /// Two regions have bytes in common.
    Overlap(&'static str, &'static str),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misplaced(name, range) => {
                write!(f, "{name} at {range:?}: not pages of one canonical half")
            }
            Self::Overlap(one, other) => write!(f, "{one} and {other} overlap"),
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_layout_is_in_order_with_either_number_of_levels() {
        assert_eq!(Layout::LINUX_LIKE.check(4), Ok(()));
        assert_eq!(Layout::LINUX_LIKE.check(5), Ok(()));
        let mut last = VirtAddr::new(0);
        for (name, range) in Layout::LINUX_LIKE.regions() {
            assert!(last <= range.start(), "{name}");
            last = range.end();
        }
    }

    #[test]
    fn regions_that_overlap_or_lie_in_the_hole_are_named() {
        let mut layout = Layout::LINUX_LIKE;
        layout.percpu = layout.vmemmap;
        assert_eq!(
            layout.check(4),
            Err(LayoutError::Overlap("vmemmap", "percpu"))
        );
        layout.percpu = region(0x7fff_ffff_f000, 0x2000);
        let misplaced = LayoutError::Misplaced("percpu", layout.percpu);
        assert_eq!(layout.check(4), Err(misplaced));
        assert_eq!(layout.check(5), Ok(()));
        layout.percpu = region(0x1800, 0x1000);
        assert!(layout.check(5).is_err());
        layout.percpu = VirtRange::EMPTY;
        assert_eq!(layout.check(4), Ok(()));
    }

    #[test]
    fn addresses_are_found_in_their_region() {
        let layout = Layout::LINUX_LIKE;
        let found = layout.region_of(VirtAddr::new(0xffff_c900_0000_1000));
        assert_eq!(found, Some(("vmalloc", layout.vmalloc)));
        assert_eq!(layout.region_of(VirtAddr::new(0xffff_8000_0000_0000)), None);
    }
}
