//! Taking mappings away for somebody who has CPUs forget them later, many at a time.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::entry::Entry;
use super::error::ChangeError;
use super::memory::TableMemory;
use super::node::{Node, whole};
use crate::addr::VirtRange;

impl PageTable {
    /// Takes away what is mapped in a range, across whose ends no large page lies. Tables stay, without entries if need be: the
    /// addresses are mapped again soon. CPUs go on to translate them until the caller flushes.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub(crate) fn clear<M: TableMemory>(
        &self,
        memory: &M,
        range: VirtRange,
    ) -> Result<(), ChangeError> {
        self.check(range)?;
        let cursor = Cursor::lock(self, memory, range)?;
        clear(memory, cursor.top(), range);
        Ok(())
    }
}

/// Clears the entries for `range`. Context: locked.
fn clear<M: TableMemory>(memory: &M, node: Node<'_>, range: VirtRange) {
    let mut gone: u32 = 0;
    if node.level.below().is_none() {
        for slot in node.slots(range) {
            if !slot.load().is_none() {
                slot.store(Entry::NONE);
                gone = gone.wrapping_add(1);
            }
        }
    } else {
        for (slot, part) in node.parts(range) {
            let entry = slot.load();
            if let Some(below) = node.below(memory, entry) {
                clear(memory, below, part);
            } else if whole(part, node.level).is_some() && !entry.is_none() {
                slot.store(Entry::NONE);
                gone = gone.wrapping_add(1);
            }
        }
    }
    let _ = node.lock().sub(gone);
}
