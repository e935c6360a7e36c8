//! What page tables should say: a naive map from pages to frames.

use std::collections::BTreeMap;

use mm::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm::config::PAGE_SIZE;
use mm::pagetable::{Attributes, Change, ChangeError, MapError, PageSize, PageTable, Protection};
use mm::system::Memory;
use mm_tests::sim::{Machine, SimConfig, SimPlatform};

/// Page tables of a machine beside what they should say.
pub(crate) struct Tables<'m, C: SimConfig> {
    pub(crate) memory: &'m Memory<SimPlatform<C>>,
    pub(crate) tables: PageTable,
    /// By page number.
    pages: BTreeMap<u64, (Pfn, Attributes)>,
}

pub(crate) fn range(start: u64, size: u64) -> VirtRange {
    VirtRange::from_size(VirtAddr::new(start), size).unwrap()
}

impl<'m, C: SimConfig> Tables<'m, C> {
    pub(crate) fn new(machine: &'m Machine<C>, root: mm::pagetable::Level) -> Self {
        Self {
            memory: machine,
            tables: machine.new_page_table(root).unwrap(),
            pages: BTreeMap::new(),
        }
    }

    fn numbers(range: VirtRange) -> std::ops::Range<u64> {
        range.start().as_u64() / PAGE_SIZE..range.end().as_u64() / PAGE_SIZE
    }

    pub(crate) fn map(
        &mut self,
        start: u64,
        frames: PfnRange,
        attributes: Attributes,
        largest: PageSize,
    ) -> Result<(), MapError> {
        let row = (VirtAddr::new(start), frames);
        // SAFETY: nobody runs through these tables.
        let outcome = unsafe {
            self.memory
                .map_pages(&self.tables, row, attributes, largest)
        };
        let wanted = Self::numbers(range(start, frames.frames() * PAGE_SIZE));
        let taken = self.pages.range(wanted.clone()).next().is_some();
        assert_eq!(outcome.is_ok(), !taken, "{outcome:?}");
        if outcome.is_ok() {
            let mut attributes = attributes;
            if start >> 63 == 1 {
                // All of the kernel's pages are global.
                attributes.protection |= Protection::GLOBAL;
            }
            let new = wanted.zip(frames.iter());
            self.pages
                .extend(new.map(|(page, pfn)| (page, (pfn, attributes))));
        }
        outcome
    }

    pub(crate) fn unmap(&mut self, range: VirtRange) {
        let mut seen = Vec::new();
        // SAFETY: as above.
        let receipt = unsafe {
            self.memory.unmap_pages(&self.tables, range, |at, leaf| {
                let frames = PfnRange::from_count(leaf.pfn, leaf.size.frames()).unwrap();
                let first = at.as_u64() / PAGE_SIZE;
                seen.extend(
                    (first..)
                        .zip(frames.iter())
                        .map(|(page, pfn)| (page, (pfn, leaf.attributes))),
                );
            })
        };
        let receipt = receipt.unwrap();
        let expected: Vec<_> = self
            .pages
            .range(Self::numbers(range))
            .map(|(k, v)| (*k, *v))
            .collect();
        assert_eq!(seen, expected);
        self.pages
            .retain(|page, _| !Self::numbers(range).contains(page));
        if !expected.is_empty() {
            assert!(receipt.range().covers(range));
        }
        receipt.complete();
    }

    pub(crate) fn protect(&mut self, range: VirtRange, change: Change) -> Result<(), ChangeError> {
        // SAFETY: as above.
        let outcome = unsafe { self.memory.change_pages(&self.tables, range, change) };
        let all = Self::numbers(range).all(|page| self.pages.contains_key(&page));
        assert_eq!(outcome.is_ok(), all, "{outcome:?}");
        outcome?.complete();
        for (_, (_, attributes)) in self.pages.range_mut(Self::numbers(range)) {
            match change {
                Change::Allow(more) => attributes.protection |= more,
                // The kernel's pages stay global.
                Change::Forbid(less) if range.start().as_u64() >> 63 == 1 => {
                    attributes.protection &= !less.difference(Protection::GLOBAL);
                }
                Change::Forbid(less) => attributes.protection &= !less,
                Change::Cache(cache) => attributes.cache = cache,
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn join(&self, range: VirtRange, largest: PageSize) {
        // SAFETY: as above.
        let receipt = unsafe { self.memory.join_pages(&self.tables, range, largest) };
        receipt.unwrap().complete();
    }

    /// Compares one page, by the walk of the CPU.
    pub(crate) fn compare_at(&self, at: u64) {
        let at = VirtAddr::new(at);
        let walk = self.memory.walk(&self.tables, at);
        let expected = self.pages.get(&(at.as_u64() / PAGE_SIZE));
        let expected_phys =
            expected.map(|(pfn, _)| pfn.addr().checked_add(at.as_u64() % PAGE_SIZE).unwrap());
        assert_eq!(walk.phys(at), expected_phys, "{at:?}");
        let attributes = walk.leaf().map(|leaf| leaf.attributes);
        assert_eq!(attributes, expected.map(|found| found.1), "{at:?}");
    }

    /// Compares everything, and recounts the tables.
    pub(crate) fn check(&self) -> u64 {
        let mut at = VirtAddr::new(0);
        let mut expected = self.pages.iter();
        while let Some((start, leaf)) = self.memory.next_leaf(&self.tables, at) {
            for index in 0..leaf.size.frames() {
                let (page, (pfn, attributes)) = expected.next().expect("too much is mapped");
                assert_eq!(*page, start.as_u64() / PAGE_SIZE + index);
                assert_eq!(*pfn, leaf.pfn.checked_add(index).unwrap());
                assert_eq!(*attributes, leaf.attributes);
            }
            at = start.checked_add(leaf.size.bytes()).unwrap();
        }
        assert_eq!(expected.next(), None, "too little is mapped");
        self.memory.validate_page_table(&self.tables).unwrap()
    }

    /// Ends the tables: all frames of theirs go back.
    pub(crate) fn finish(self) {
        self.check();
        // SAFETY: nobody else knows them.
        unsafe { self.memory.destroy_page_table(self.tables) };
        // Tables are freed after a grace period.
        self.memory.grace().barrier().unwrap();
    }
}

/// Readable and writable, for user code.
pub(crate) const USER: Attributes = Attributes {
    protection: Protection::USER.union(Protection::WRITE),
    cache: mm::pagetable::Cache::WriteBack,
};
