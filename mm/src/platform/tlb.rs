//! What a CPU is to forget of its translations, and by which instructions: SDM vol. 3A, "Operations that Invalidate
//! TLBs and Paging-Structure Caches". Platforms carry the [steps](TlbFeatures::steps) out; which ones they
//! are is the same in a kernel and in a simulator.
#![forbid(unsafe_code)]

use crate::addr::{VirtAddr, VirtRange};
use crate::config::PAGE_SIZE;

/// What a CPU is to forget of its translations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbFlush {
    /// All of them, global ones included, and those of address spaces that are not current.
    All,
    /// Those of some whole pages, by whatever page size they are mapped, global ones included.
    Pages(VirtRange),
}

/// What a CPU has, and uses, for forgetting translations. The default is the least of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlbFeatures {
    /// CR4.PGE is set: a load of CR3 leaves global pages.
    pub global_pages: bool,
    /// CR4.PCIDE is set: translations carry the number of their address space, and those of other address spaces than
    /// the current one are kept.
    pub pcids: bool,
    /// There is INVPCID (CPUID leaf 7, EBX bit 10).
    pub invpcid: bool,
}

/// A step of a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbStep {
    /// INVLPG: a page of the current address space, or a global one, and all that is remembered of page tables of
    /// the current address space.
    Page(VirtAddr),
    /// INVPCID of type 2: everything, in one instruction.
    Everything,
    /// CR4.PGE to the other value, and back: everything, in two that cost more.
    TogglePge,
    /// CR3 with the value that it has: everything of the current address space that is not global.
    ReloadCr3,
}

impl TlbFeatures {
    /// The step that forgets everything.
    #[must_use]
    pub const fn whole(self) -> TlbStep {
        match self {
            Self { invpcid: true, .. } => TlbStep::Everything,
            // Whatever the bit was: a change of it is what counts.
            Self { pcids: true, .. }
            | Self {
                global_pages: true, ..
            } => TlbStep::TogglePge,
            _ => TlbStep::ReloadCr3,
        }
    }

    /// The steps of a flush, as few as will do: one for each page that INVLPG can reach, or [one for all](Self::whole).
    pub fn steps(self, what: TlbFlush) -> impl Iterator<Item = TlbStep> + use<> {
        let pages = match what {
            TlbFlush::Pages(range) if self.reaches_by_page(range) => Some(range),
            _ => None,
        };
        let whole = pages.is_none().then(|| self.whole());
        let each = pages.into_iter().flat_map(|range| {
            let first = range.start();
            let after = move |page: &VirtAddr| page.checked_add(PAGE_SIZE);
            core::iter::successors(Some(first), after).take_while(move |page| *page < range.end())
        });
        whole.into_iter().chain(each.map(TlbStep::Page))
    }

    /// Whether INVLPG forgets the pages of a range in all address spaces. With PCIDs it does only where they are global, as
    /// all of the kernel's are: nothing in its half is mapped, or changed, so that it is not ([`Protection::GLOBAL`]).
    ///
    /// [`Protection::GLOBAL`]: crate::pagetable::Protection::GLOBAL
    fn reaches_by_page(self, range: VirtRange) -> bool {
        /// The upper half of addresses is the kernel's.
        const KERNEL: u64 = 1 << 63;
        !self.pcids || (self.global_pages && range.start().as_u64() & KERNEL != 0)
    }

    /// What is to be forgotten where page tables are to be freed that lay above some pages. What CPUs remember of tables
    /// is never global, so with PCIDs, other address spaces keep it when a page is forgotten.
    #[must_use]
    pub const fn with_tables(self, pages: TlbFlush) -> TlbFlush {
        match self.pcids {
            true => TlbFlush::All,
            false => pages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const KERNEL: VirtAddr = VirtAddr::new(0xffff_c900_0000_0000);
    const USER: VirtAddr = VirtAddr::new(0x40_0000);

    fn steps(features: TlbFeatures, start: VirtAddr, pages: u64) -> Vec<TlbStep> {
        let range = VirtRange::from_size(start, pages.wrapping_mul(PAGE_SIZE)).unwrap();
        features.steps(TlbFlush::Pages(range)).collect()
    }

    #[test]
    fn everything_goes_in_the_step_that_costs_least() {
        use TlbStep::{Everything, ReloadCr3, TogglePge};
        for (global_pages, pcids, invpcid, expected) in [
            (false, false, false, ReloadCr3),
            (true, false, false, TogglePge),
            (false, true, false, TogglePge),
            (true, true, false, TogglePge),
            (false, false, true, Everything),
            (true, false, true, Everything),
            (false, true, true, Everything),
            (true, true, true, Everything),
        ] {
            let features = TlbFeatures {
                global_pages,
                pcids,
                invpcid,
            };
            assert_eq!(features.whole(), expected);
            assert!(features.steps(TlbFlush::All).eq([expected]));
        }
    }

    #[test]
    fn pages_go_one_by_one_where_that_reaches_all_address_spaces() {
        let second = KERNEL.checked_add(PAGE_SIZE).unwrap();
        let one_by_one = [TlbStep::Page(KERNEL), TlbStep::Page(second)];
        let mut features = TlbFeatures {
            global_pages: true,
            ..TlbFeatures::default()
        };
        assert_eq!(steps(features, KERNEL, 2), one_by_one);
        assert_eq!(steps(features, USER, 1), [TlbStep::Page(USER)]);
        features.pcids = true;
        assert_eq!(steps(features, KERNEL, 2), one_by_one);
        assert_eq!(steps(features, USER, 1), [TlbStep::TogglePge]);
        features.global_pages = false;
        assert_eq!(steps(features, KERNEL, 2), [TlbStep::TogglePge]);
        features.invpcid = true;
        assert_eq!(steps(features, KERNEL, 2), [TlbStep::Everything]);
    }

    #[test]
    fn the_last_page_of_all_addresses_can_be_forgotten() {
        let last = VirtAddr::new(0_u64.wrapping_sub(PAGE_SIZE.wrapping_mul(2)));
        let found = steps(TlbFeatures::default(), last, 1);
        assert_eq!(found, [TlbStep::Page(last)]);
    }
}
