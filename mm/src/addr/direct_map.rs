//! RAM that is mapped at one offset.
#![forbid(unsafe_code)]

use core::ptr::{NonNull, with_exposed_provenance_mut};

use super::{PhysAddr, PhysRange, VirtAddr, to_index};

/// A direct map as most kernels have it: RAM mapped at its physical address plus one constant
/// (Linux: `PAGE_OFFSET`). It answers what
/// [`Platform`](crate::platform::Platform) asks about addresses; that the RAM is really mapped
/// there is the word of the `unsafe impl` that uses it.
#[derive(Clone, Copy, Debug)]
pub struct DirectMap {
    base: VirtAddr,
    ram: &'static [PhysRange],
}

impl DirectMap {
    /// A map of `ram`, with physical address 0 at `base`. Ranges that touch must be given as
    /// one: a block of pages may cross their border. The list is walked for each answer, so
    /// the largest range comes first where that matters.
    #[must_use]
    pub const fn new(base: VirtAddr, ram: &'static [PhysRange]) -> Self {
        Self { base, ram }
    }

    /// Where physical address 0 is, or would be.
    #[inline]
    #[must_use]
    pub const fn base(&self) -> VirtAddr {
        self.base
    }

    /// The RAM that is mapped, in the order it was given.
    #[must_use]
    pub const fn ram(&self) -> &'static [PhysRange] {
        self.ram
    }

    /// Where `range` is mapped, or `None` if part of it is not RAM of this map (Linux: `__va`).
    /// Context: any.
    #[inline]
    #[must_use]
    pub fn phys_to_virt(&self, range: PhysRange) -> Option<NonNull<u8>> {
        self.ram.iter().find(|ram| ram.covers(range))?;
        let address = self.base.checked_add(range.start().as_u64())?;
        NonNull::new(with_exposed_provenance_mut(to_index(address.as_u64())))
    }

    /// The physical address behind `addr`, or `None` if no RAM of this map is there (Linux:
    /// `__pa`). Context: any.
    #[inline]
    #[must_use]
    pub fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        let phys = PhysAddr::new(addr.offset_from(self.base)?);
        self.ram
            .iter()
            .any(|ram| ram.contains(phys))
            .then_some(phys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: [PhysRange; 2] = [
        PhysRange::from_size(PhysAddr::new(0x10_0000), 0x10_0000),
        PhysRange::from_size(PhysAddr::new(0x1000), 0x2000),
    ];
    const BASE: u64 = 0xffff_8800_0000_0000;

    #[test]
    fn only_ram_is_reached_and_the_way_back_leads_there() {
        let map = DirectMap::new(VirtAddr::new(BASE), &RAM);
        for (start, size, inside) in [
            (0x1000, 0x2000, true),
            (0x2fff, 1, true),
            (0x2fff, 2, false),
            (0xfff, 1, false),
            (0, 0x3000, false),
            (0x10_0000, 0x10_0000, true),
            (0x20_0000, 1, false),
            (u64::MAX, 1, false),
        ] {
            let range = PhysRange::from_size(PhysAddr::new(start), size);
            let found = map
                .phys_to_virt(range)
                .map(|p| VirtAddr::from_ptr(p.as_ptr()));
            let expected = inside.then(|| VirtAddr::new(BASE + start));
            assert_eq!(found, expected, "{start:#x}+{size:#x}");
            let back = expected.and_then(|at| map.virt_to_phys(at));
            assert_eq!(back, inside.then(|| PhysAddr::new(start)));
        }
    }

    #[test]
    fn addresses_outside_the_map_have_no_physical_ones() {
        let map = DirectMap::new(VirtAddr::new(BASE), &RAM);
        for addr in [0, BASE - 1, BASE, BASE + 0xfff, BASE + 0x3000, u64::MAX] {
            assert_eq!(map.virt_to_phys(VirtAddr::new(addr)), None, "{addr:#x}");
        }
    }

    #[test]
    fn ram_past_the_end_of_the_address_space_is_not_reached() {
        let map = DirectMap::new(VirtAddr::new(u64::MAX - 0x1fff), &RAM);
        assert!(map.phys_to_virt(RAM[1]).is_some());
        assert_eq!(map.phys_to_virt(RAM[0]), None);
    }
}
