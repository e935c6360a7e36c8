//! What the kernel may do with its own pages: as a change, but never what can be both written and executed, and without a
//! trace when it is undone (Linux: `set_memory.c`).
#![forbid(unsafe_code)]

use super::PageTable;
use super::change::{Change, apply, is_all_mapped};
use super::error::ProtectError;
use super::level::PageSize;
use super::memory::TableMemory;
use super::node::Node;
use super::receipt::FlushReceipt;
use crate::addr::{VirtAddr, VirtRange};

impl PageTable {
    /// Changes every page of a range, all of which are mapped. Large pages that lie across an end are split; whatever can be one
    /// larger page afterwards, up to `largest`, is.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    pub(crate) fn protect<'a, M: TableMemory>(
        &self,
        memory: &'a M,
        range: VirtRange,
        (change, largest): (Change, PageSize),
    ) -> Result<FlushReceipt<'a, M>, ProtectError> {
        let mut receipt = FlushReceipt::new(memory);
        let may = |top| check(memory, top, (range, change));
        let cursor = self.lock_split(memory, range, &mut receipt, may)?;
        if apply(memory, cursor.top(), range, change) {
            receipt.add(range);
        }
        cursor.rejoin(self, largest, &mut receipt);
        Ok(receipt)
    }
}

/// Whether a range can be changed so. Context: locked.
fn check<M: TableMemory>(
    memory: &M,
    top: Node<'_>,
    (range, change): (VirtRange, Change),
) -> Result<(), ProtectError> {
    is_all_mapped(memory, top, range)?;
    match first_write_execute(memory, top, (range, change)) {
        Some(at) => Err(ProtectError::WriteExecute(at)),
        None => Ok(()),
    }
}

/// The first page that the change lets be both written and executed. Context: locked.
fn first_write_execute<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    (range, change): (VirtRange, Change),
) -> Option<VirtAddr> {
    node.parts(range).find_map(|(slot, part)| {
        let entry = slot.load();
        if let Some(below) = node.below(memory, entry) {
            return first_write_execute(memory, below, (part, change));
        }
        let size = node.level.page_size()?;
        let changed = change.of(entry, size, part.start());
        let is_both = changed != entry && changed.attributes(size).is_write_execute();
        is_both.then(|| part.start())
    })
}
