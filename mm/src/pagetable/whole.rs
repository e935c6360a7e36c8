//! Page tables as a whole: tables of others in them, and their end.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::entry::Entry;
use super::error::MapError;
use super::memory::TableMemory;
use super::node::Node;
use crate::addr::{Pfn, VirtAddr, VirtRange};

impl PageTable {
    /// Lets the entry of the root for an address lead to somebody else's table.
    ///
    /// # Errors
    /// The entry is in use, or what is wrong with the address.
    pub(crate) fn adopt<M: TableMemory>(
        &self,
        memory: &M,
        at: VirtAddr,
        table: Pfn,
    ) -> Result<(), MapError> {
        let bytes = self.top_level().entry_bytes();
        // The last byte of the space is in no range.
        let start = at.align_down(bytes);
        let range = VirtRange::from_size(start, bytes.wrapping_sub(crate::config::PAGE_SIZE));
        let range = range.unwrap_or_default();
        self.check(range)?;
        let cursor = Cursor::lock(self, memory, range)?;
        let root = cursor.top();
        let slot = root.table.slot(root.level.index(start));
        if root.level != self.top_level() || !slot.load().is_none() {
            return Err(MapError::Occupied(start));
        }
        slot.store(Entry::table(table, start.as_u64() >> 63 == 0));
        root.lock().add(1);
        Ok(())
    }

    /// Frees all tables. Context: nobody else knows them.
    pub(crate) fn destroy<M: TableMemory>(self, memory: &M) {
        if let Some(root) = self.top(memory) {
            free(memory, root);
        }
    }
}

/// Frees a table and those below it.
fn free<M: TableMemory>(memory: &M, node: Node<'_>) {
    if node.level.below().is_some() {
        for slot in node.table.slots() {
            if let Some(below) = node.below(memory, slot.load()) {
                free(memory, below);
            }
        }
    }
    for slot in node.table.slots() {
        let entry = slot.load();
        slot.store(Entry::NONE);
        let is_page = node.below(memory, entry).is_none() && entry.is_mapped();
        if let (Some(counts), Some(size), true) =
            (memory.map_counts(), node.level.page_size(), is_page)
        {
            counts.end(memory.platform(), &entry.as_leaf(size));
        }
    }
    if let Some(page) = memory.frames().end_page_table(node.page) {
        memory.give_page(page);
    }
}
