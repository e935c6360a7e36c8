//! Small pages put out of reach and back without a lock, by whoever has them, in any context.
#![forbid(unsafe_code)]

use super::PageTable;
use super::entry::Entry;
use super::error::ChangeError;
use super::level::Level;
use super::memory::TableMemory;
use super::node::{Node, first_part};
use crate::addr::VirtRange;

impl PageTable {
    /// Has the pages of a range, all of 4 KiB, be out of reach or within it. No table is locked, and CPUs are told nothing.
    /// Context: any; the tables of the range stay, and nobody else changes these pages.
    ///
    /// # Errors
    /// [`ChangeError::NotMapped`], also for larger pages: those before it are changed then; or what is wrong with the range.
    pub(crate) fn set_reach<M: TableMemory>(
        &self,
        memory: &M,
        range: VirtRange,
        is_reachable: bool,
    ) -> Result<(), ChangeError> {
        self.check(range)?;
        let mut left = range;
        while !left.is_empty() {
            let part = first_part(left, Level::PMD);
            let table = self.lowest_table(memory, part);
            let table = table.ok_or(ChangeError::NotMapped(part.start()))?;
            let change = |entry: Entry| match (entry.is_present(), is_reachable) {
                (true, false) => entry.to_protnone(),
                // What is out of reach was the kernel's, which is the same everywhere.
                (false, true) if entry.is_protnone() => entry.from_protnone(true),
                _ => entry,
            };
            for (slot, page) in table.parts(part) {
                if !slot.update(change).is_mapped() {
                    return Err(ChangeError::NotMapped(page.start()));
                }
            }
            left = VirtRange::new(part.end(), left.end()).unwrap_or_default();
        }
        Ok(())
    }

    /// The table of small pages that all of a range goes through, if there is one.
    fn lowest_table<'a, M: TableMemory>(
        &self,
        memory: &'a M,
        range: VirtRange,
    ) -> Option<Node<'a>> {
        let mut node = self.top(memory)?;
        while node.level != Level::PTE {
            let slot = node.table.slot(node.level.index(range.start()));
            node = node.below(memory, slot.load())?;
        }
        Some(node)
    }
}
