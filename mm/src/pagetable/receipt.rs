//! What has to happen after mappings were taken away.
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr;

use super::memory::TableMemory;
use crate::addr::{Pfn, VirtRange};
use crate::frame::{HeldBlocks, TablePage};
use crate::mem::Exclusive;

/// The end of the list of dead tables.
const END: u64 = u64::MAX;

/// Addresses that CPUs may still translate, and tables that they may still walk through: nothing that was mapped there may be
/// used for anything else before [`complete`](Self::complete). What is [kept](Self::keep) with it is freed then, not before.
/// Dropping it completes it too.
#[must_use = "CPUs still know what was mapped until this is completed"]
pub struct FlushReceipt<'a, M: TableMemory> {
    memory: &'a M,
    range: VirtRange,
    /// Tables that nothing leads to any more, linked through their records.
    dead: u64,
    /// What was mapped, and is to be free then.
    kept: HeldBlocks,
}

impl<'a, M: TableMemory> FlushReceipt<'a, M> {
    /// Nothing has to happen yet.
    pub(super) const fn new(memory: &'a M) -> Self {
        Self {
            memory,
            range: VirtRange::EMPTY,
            dead: END,
            kept: HeldBlocks::none(),
        }
    }

    /// The machine.
    pub(crate) const fn machine(&self) -> &'a M {
        self.memory
    }

    /// Has a block freed when CPUs have forgotten it. One that is not the machine's comes back.
    pub(crate) fn keep_block(&mut self, block: Exclusive) -> Result<(), Exclusive> {
        self.memory.frames().hold(&mut self.kept, block)
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

    /// Makes one of two: one flush will do for both. If the other one is another machine's, it is completed by itself.
    pub fn merge(mut self, mut other: Self) -> Self {
        // Each machine has one frame table.
        if !ptr::eq(self.memory.frames(), other.memory.frames()) {
            return self;
        }
        self.range = self.range.hull(other.range);
        other.range = VirtRange::EMPTY;
        while let Some(table) = other.pop() {
            self.push(table);
        }
        while let Some(block) = self.memory.frames().take_held(&mut other.kept) {
            if let Err(block) = self.keep_block(block) {
                self.memory.free_block(block);
            }
        }
        self
    }

    /// Lets CPUs forget what was changed when they like; dead tables, and blocks that are kept, wait for all of them even so. Only for changes that do no
    /// harm as long as some CPUs have not noticed: a page that becomes reachable, or is guarded a little later. Context: any
    /// that may hold a table's lock; without dead tables, any.
    pub fn leave_stale(mut self) {
        if self.dead == END && self.kept.is_empty() {
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
            if let Some(page) = self.memory.frames().retire_page_table(table) {
                self.memory.retire_page(page);
            }
        }
        while let Some(block) = self.memory.frames().take_held(&mut self.kept) {
            self.memory.free_block(block);
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
