//! Page tables as a whole: tables of others in them, and their end.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::entry::Entry;
use super::error::MapError;
use super::level::Level;
use super::memory::{OutOfTables, TableMemory};
use super::node::{Node, is_users};
use super::stash::Stash;
use crate::addr::{Pfn, VirtAddr, VirtRange};

impl PageTable {
    /// Lets the entry of 512 GiB for an address lead to somebody else's table: an entry of the root with four levels, and
    /// with five one of the table below it, which stays as long as the root.
    ///
    /// # Errors
    /// The entry is in use, what is wrong with the address, or no memory for the table below the root.
    pub(crate) fn adopt<M: TableMemory>(
        &self,
        memory: &M,
        at: VirtAddr,
        table: Pfn,
    ) -> Result<(), MapError> {
        let bytes = Level::P4D.entry_bytes();
        // The last byte of the space is in no range.
        let start = at.align_down(bytes);
        let range = VirtRange::from_size(start, bytes.wrapping_sub(crate::config::PAGE_SIZE));
        let range = range.unwrap_or_default();
        self.check(range)?;
        let mut stash = Stash::new(memory);
        let entry = Entry::table(table, is_users(start));
        loop {
            let cursor = Cursor::lock(self, memory, range)?;
            let top = cursor.top();
            let slot = top.table.slot(top.level.index(start));
            if top.level < Level::P4D || !slot.load().is_none() {
                return Err(MapError::Occupied(start));
            }
            if top.level == Level::P4D {
                slot.store(entry);
                top.lock().add(1);
                return Ok(());
            }
            if stash.len() == 0 {
                drop(cursor);
                stash.fill(1)?;
                continue;
            }
            // Locked, and let go with the rest.
            let made = stash.make_table(top.level).ok_or(OutOfTables)?;
            made.table.slot(made.level.index(start)).store(entry);
            made.lock().add(1);
            slot.store(Entry::table(made.page.pfn(), is_users(start)));
            top.lock().add(1);
            return Ok(());
        }
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
    let counts = memory.map_counts().zip(node.level.page_size());
    for slot in node.table.slots() {
        let entry = slot.load();
        slot.store(Entry::NONE);
        if let Some((counts, size)) = counts
            && node.below(memory, entry).is_none()
            && entry.is_mapped()
        {
            counts.end(memory.platform(), &entry.as_leaf(size));
        }
    }
    if let Some(page) = memory.frames().end_page_table(node.page) {
        memory.give_page(page);
    }
}
