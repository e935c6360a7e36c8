//! What has to happen after mappings were taken away.
#![forbid(unsafe_code)]

use core::fmt;

use super::memory::TableMemory;
use crate::addr::{Pfn, VirtRange};
use crate::frame::TablePage;

/// The end of the list of dead tables.
const END: u64 = u64::MAX;

/// Addresses that CPUs may still translate, and tables that they may still walk through: nothing that was mapped there may be
/// used for anything else before [`complete`](Self::complete). Dropping it completes it too.
#[must_use = "CPUs still know what was mapped until this is completed"]
pub struct FlushReceipt<'a, M: TableMemory> {
    memory: &'a M,
    range: VirtRange,
    /// Tables that nothing leads to any more, linked through their records.
    dead: u64,
}

impl<'a, M: TableMemory> FlushReceipt<'a, M> {
    /// Nothing has to happen yet.
    pub(super) const fn new(memory: &'a M) -> Self {
        Self {
            memory,
            range: VirtRange::EMPTY,
            dead: END,
        }
    }

    /// Adds addresses.
    pub(super) fn add(&mut self, range: VirtRange) {
        self.range = self.range.hull(range);
    }

    /// Adds a dead table.
    pub(super) fn push(&mut self, table: TablePage<'_>) {
        table.set_next_dead(self.dead);
        self.dead = table.pfn().as_u64();
    }

    /// Whether tables are to be freed.
    pub(super) const fn has_tables(&self) -> bool {
        self.dead != END
    }

    /// The addresses: those that were mapped, and what lies between them.
    #[must_use]
    pub const fn range(&self) -> VirtRange {
        self.range
    }

    /// Makes one of two: one flush will do for both.
    pub fn merge(mut self, mut other: Self) -> Self {
        self.range = self.range.hull(other.range);
        other.range = VirtRange::EMPTY;
        while let Some(table) = other.pop() {
            self.push(table);
        }
        self
    }

    /// Lets CPUs forget what was changed when they like; dead tables wait for all of them even so. Only for changes that do no
    /// harm as long as some CPUs have not noticed: a page that becomes reachable, or is guarded a little later. Context: any
    /// that may hold a table's lock; without dead tables, any.
    pub fn leave_stale(mut self) {
        if self.dead == END {
            self.range = VirtRange::EMPTY;
        }
    }

    fn pop(&mut self) -> Option<TablePage<'a>> {
        if self.dead == END {
            return None;
        }
        let table = self.memory.frames().page_table(Pfn::new(self.dead))?;
        self.dead = table.next_dead();
        Some(table)
    }

    /// Has all CPUs forget what was mapped; then the tables are free. Context: no lock held; see
    /// [`Memory::flush_tlb`](crate::system::Memory).
    pub fn complete(self) {
        drop(self);
    }
}

impl<M: TableMemory> Drop for FlushReceipt<'_, M> {
    fn drop(&mut self) {
        if !self.range.is_empty() {
            self.memory.flush(self.range, self.has_tables());
        }
        while let Some(table) = self.pop() {
            if let Some(page) = self.memory.frames().end_page_table(table) {
                self.memory.retire_page(page);
            }
        }
    }
}

impl<M: TableMemory> fmt::Debug for FlushReceipt<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushReceipt")
            .field("range", &self.range)
            .field("has_tables", &(self.dead != END))
            .finish_non_exhaustive()
    }
}
