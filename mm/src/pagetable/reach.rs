//! Small pages put out of reach and back without a lock, by whoever has them, in any context.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::lowest;
use super::entry::Entry;
use super::error::ChangeError;
use super::level::Level;
use super::memory::{Reader, TableMemory};
use super::node::first_part;
use crate::addr::VirtRange;

impl PageTable {
    /// Has the pages of a range, all of 4 KiB, be out of reach or within it. No table is locked, and CPUs are told nothing.
    /// Context: any; nobody else changes these pages, or puts them together to larger ones.
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
        let _reader = Reader::of(memory);
        let mut left = range;
        while !left.is_empty() {
            let part = first_part(left, Level::PMD);
            let table = lowest(self, memory, part).ok();
            let table = table.filter(|table| table.level == Level::PTE);
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
}
