//! Taking mappings away.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::entry::{Entry, Leaf};
use super::error::ChangeError;
use super::kept::Empties;
use super::level::{ENTRIES, Level, PageSize};
use super::memory::TableMemory;
use super::node::Node;
use super::receipt::FlushReceipt;
use crate::addr::{VirtAddr, VirtRange, to_count};
use crate::buddy::tell;
use crate::config::PAGE_SIZE;
use crate::report::{Event, EventKind};

impl PageTable {
    /// Takes away whatever is mapped in a range, and shows each page to `sink`. Tables that are left without entries go too.
    ///
    /// The frames may be used for something else when the receipt is completed, not before. The sink runs with tables locked:
    /// it does not come back here, and takes no lock that is held around a call here.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub(crate) fn unmap<'a, M: TableMemory>(
        &self,
        memory: &'a M,
        range: VirtRange,
        sink: impl FnMut(VirtAddr, Leaf),
    ) -> Result<FlushReceipt<'a, M>, ChangeError> {
        let mut receipt = FlushReceipt::new(memory);
        let any = |_| Ok::<_, ChangeError>(());
        let cursor = self.lock_split(memory, range, &mut receipt, any)?;
        self.unmap_locked(cursor, range, (Empties::Kept, &mut receipt), sink);
        Ok(receipt)
    }

    /// The same for a range across whose ends no large page lies; tables that stay are freed as well, if that is wanted, where
    /// the range is all that they map.
    pub(super) fn unmap_locked<'a, M: TableMemory>(
        &self,
        cursor: Cursor<'a, M>,
        range: VirtRange,
        (kept, receipt): (Empties, &mut FlushReceipt<'a, M>),
        sink: impl FnMut(VirtAddr, Leaf),
    ) {
        let mut clear = Clear {
            memory: cursor.memory(),
            root: self.top_level(),
            kept,
            receipt: &mut *receipt,
            sink,
            has_cleared: false,
        };
        let top = cursor.top();
        clear.clear(top, range);
        clear.let_go(top, range);
        let has_cleared = clear.has_cleared;
        if has_cleared {
            tell(cursor.memory().platform(), || {
                Event::pages(EventKind::Unmap, range.start(), range.pages())
            });
        }
        cursor.prune(self, receipt);
        // Tables can have been without entries before: CPUs may know the way through them even so.
        if has_cleared || receipt.has_tables() {
            receipt.add(range);
        }
    }
}

/// Clearing entries.
struct Clear<'r, 'a, M: TableMemory, S> {
    memory: &'a M,
    root: Level,
    /// What becomes of tables that stay.
    kept: Empties,
    receipt: &'r mut FlushReceipt<'a, M>,
    sink: S,
    has_cleared: bool,
}

impl<'a, M: TableMemory, S: FnMut(VirtAddr, Leaf)> Clear<'_, 'a, M, S> {
    /// Clears the entries for `range`. Context: locked, and no large page lies across an end.
    fn clear(&mut self, node: Node<'a>, range: VirtRange) {
        if node.level.below().is_none() {
            self.clear_pages(node, range);
            return;
        }
        let mut gone: u32 = 0;
        for (slot, part) in node.parts(range) {
            let entry = slot.load();
            if let Some(below) = node.below(self.memory, entry) {
                self.clear(below, part);
                self.let_go(below, part);
                // The root leads to the same tables for good.
                if !below.lock().may_die() || node.level == self.root {
                    continue;
                }
                slot.store(Entry::NONE);
                below.lock().die();
                self.receipt.push(below.page);
                gone = gone.wrapping_add(1);
            } else if let Some(size) = node.level.page_size().filter(|_| !entry.is_none()) {
                slot.store(Entry::NONE);
                gone = gone.wrapping_add(1);
                self.has_cleared = true;
                self.hidden(part.start(), entry, size);
            }
        }
        let _ = node.lock().sub(gone);
    }

    /// Lets go of a table that a range is all for, if that is wanted. Context: locked.
    fn let_go(&self, node: Node<'_>, range: VirtRange) {
        let all = to_count(ENTRIES).saturating_mul(node.level.entry_bytes());
        if self.kept == Empties::Freed && range.size() == all {
            node.lock().let_go();
        }
    }

    #[inline]
    fn clear_pages(&mut self, node: Node<'a>, range: VirtRange) {
        let mut gone: u32 = 0;
        let mut at = range.start().as_u64();
        for slot in node.slots(range) {
            let entry = slot.load();
            if entry.is_present() {
                slot.store(Entry::NONE);
                gone = gone.wrapping_add(1);
                (self.sink)(VirtAddr::new(at), entry.as_leaf(PageSize::Size4K));
            } else if !entry.is_none() {
                slot.store(Entry::NONE);
                gone = gone.wrapping_add(1);
                self.hidden(VirtAddr::new(at), entry, PageSize::Size4K);
            }
            at = at.wrapping_add(PAGE_SIZE);
        }
        self.has_cleared |= gone != 0;
        let _ = node.lock().sub(gone);
    }

    /// Shows a page out of everybody's reach; other things that are not present are no pages.
    fn hidden(&mut self, at: VirtAddr, entry: Entry, size: PageSize) {
        if entry.is_mapped() {
            (self.sink)(at, entry.as_leaf(size));
        }
    }
}
