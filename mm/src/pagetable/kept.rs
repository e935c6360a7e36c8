//! Tables that stay though they may map nothing: those of addresses that are mapped again soon.
//!
//! Tables that are made for [`Empties::Kept`] are not freed with their last entry. So whoever has addresses for long can
//! remember the table of pages that they lie in ([`PteTable`]), and map and clear them without the walk from the root, and
//! without any lock: the entries for a range belong to whoever has the range, the table does not die, and the number of its
//! entries is counted by atomic additions. [`PageTable::release`] gives such tables up, of addresses that nobody remembers
//! a table for.
#![forbid(unsafe_code)]

use super::PageTable;
use super::attributes::Attributes;
use super::cursor::{Cursor, lowest};
use super::entry::{Entry, leaf_bits};
use super::entry_io::Slot;
use super::error::{ChangeError, MapError};
use super::level::{Level, PageSize};
use super::map::{Frames, is_clear};
use super::memory::{Reader, TableMemory};
use super::node::{Node, first_in_use, whole};
use super::receipt::FlushReceipt;
use crate::addr::{Pfn, VirtAddr, VirtRange, to_index};
use crate::config::PAGE_SHIFT;

/// What becomes of tables that are made and are without entries later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Empties {
    /// They are freed with the last entry.
    Freed,
    /// They stay.
    Kept,
}

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

    /// Frees the tables of a range that stayed for it alone, and are without entries: it is to be mapped otherwise. Nobody
    /// remembers a table of it.
    ///
    /// # Errors
    /// [`MapError::Occupied`] where something is mapped after all, or what is wrong with the range; nothing is changed then.
    pub(crate) fn release<'a, M: TableMemory>(
        &self,
        memory: &'a M,
        range: VirtRange,
    ) -> Result<FlushReceipt<'a, M>, MapError> {
        self.check(range)?;
        let cursor = Cursor::lock(self, memory, range)?;
        // Looked at under the locks that the tables go under.
        is_clear(memory, cursor.top(), range)?;
        let mut receipt = FlushReceipt::new(memory);
        self.unmap_locked(cursor, range, (Empties::Freed, &mut receipt), |_, _| ());
        Ok(receipt)
    }

    /// The table of pages that all of a range goes through, if there is one, and it stays.
    pub(crate) fn pte_table<M: TableMemory>(
        &self,
        memory: &M,
        range: VirtRange,
    ) -> Option<PteTable> {
        self.check(range).ok()?;
        let _reader = Reader::of(memory);
        let node = lowest(self, memory, range).ok()?;
        let stays = node.level == Level::PTE && node.lock().is_kept();
        stays.then(|| PteTable(node.page.pfn()))
    }
}

/// Clears the entries for `range`. Context: locked.
fn clear<M: TableMemory>(memory: &M, node: Node<'_>, range: VirtRange) {
    if node.level.below().is_none() {
        clear_pages(node, node.slots(range));
        if node.lock().live() == 0 {
            // A large page was split here, perhaps.
            node.lock().keep();
        }
        return;
    }
    let mut gone: u32 = 0;
    for (slot, part) in node.parts(range) {
        let entry = slot.load();
        if let Some(below) = node.below(memory, entry) {
            clear(memory, below, part);
        } else if whole(part, node.level).is_some() && !entry.is_none() {
            slot.store(Entry::NONE);
            gone = gone.wrapping_add(1);
        }
    }
    let _ = node.lock().sub(gone);
}

/// The same in a table of pages.
#[inline]
fn clear_pages(node: Node<'_>, slots: &[Slot]) {
    let gone = clear_slots(slots);
    let _ = node.lock().sub(gone);
}

/// Clears places; answers in how many something stood. By fours, as [`first_in_use`] looks.
#[inline]
fn clear_slots(slots: &[Slot]) -> u32 {
    let clear = |gone: u32, slot: &Slot| {
        let was = u32::from(!slot.load().is_none());
        slot.store(Entry::NONE);
        gone.wrapping_add(was)
    };
    if let [slot] = slots {
        return clear(0, slot);
    }
    let (fours, rest) = slots.as_chunks::<4>();
    let gone = fours
        .iter()
        .fold(0, |gone, four| four.iter().fold(gone, clear));
    rest.iter().fold(gone, clear)
}

/// A table of pages that stays as long as somebody remembers it, by its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PteTable(Pfn);

impl PteTable {
    /// One number for it; 0 is that of none: no table is at physical address 0.
    pub(crate) fn encode(table: Option<Self>) -> u64 {
        table.map_or(0, |table| table.0.as_u64())
    }

    /// The table with a number.
    #[inline]
    pub(crate) const fn decode(number: u64) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(Pfn::new(number))),
        }
    }

    #[inline]
    fn node<M: TableMemory>(self, memory: &M) -> Option<Node<'_>> {
        let node = Node::at(memory, self.0, Level::PTE)?;
        debug_assert!(node.lock().is_kept(), "{self:?}");
        Some(node)
    }

    /// Maps frames in so many pages from an address on, which lie in this table, and are the caller's. `None` if there is no
    /// such table. Context: any.
    ///
    /// # Errors
    /// [`MapError::Occupied`], or [`MapError::Frames`] where there are not enough; nothing is changed then.
    #[inline]
    pub(crate) fn map<M: TableMemory>(
        self,
        memory: &M,
        (at, pages): (VirtAddr, u64),
        frames: &mut impl Frames,
        attributes: Attributes,
    ) -> Option<Result<(), MapError>> {
        let node = self.node(memory)?;
        let slots = pages_at(node, at, pages)?;
        let bits = leaf_bits(PageSize::Size4K, attributes);
        if let Some(at) = first_in_use(at, slots) {
            return Some(Err(MapError::Occupied(at)));
        }
        let written = frames.write(0, slots, (PageSize::Size4K, bits));
        if written != slots.len() {
            // Not counted yet.
            slots.iter().for_each(|slot| slot.store(Entry::NONE));
            return Some(Err(MapError::Frames));
        }
        node.lock().add(u32::try_from(slots.len()).unwrap_or(0));
        Some(Ok(()))
    }

    /// Maps a frame at a page that lies in this table, and is the caller's. `false` if there is no such table, or something is
    /// mapped there. Context: any.
    #[inline]
    pub(crate) fn map_page<M: TableMemory>(
        self,
        memory: &M,
        at: VirtAddr,
        (frame, attributes): (Pfn, Attributes),
    ) -> bool {
        let Some(node) = self.node(memory) else {
            return false;
        };
        let slot = node.table.slot(Level::PTE.index(at));
        if !slot.load().is_none() {
            return false;
        }
        let bits = leaf_bits(PageSize::Size4K, attributes);
        slot.store(Entry::from_bits(frame.as_u64() << PAGE_SHIFT | bits));
        node.lock().add(1);
        true
    }

    /// Clears so many pages from an address on, which lie in this table, and are the caller's. `false` if there is no such
    /// table. Context: any.
    #[inline]
    pub(crate) fn clear<M: TableMemory>(self, memory: &M, at: VirtAddr, pages: u64) -> bool {
        let Some(node) = self.node(memory) else {
            return false;
        };
        let slots = pages_at(node, at, pages);
        slots.map(|slots| clear_pages(node, slots)).is_some()
    }
}

/// The places of so many pages from an address on in a table of pages. `None` if they do not all lie there.
#[inline]
fn pages_at(node: Node<'_>, at: VirtAddr, pages: u64) -> Option<&[Slot]> {
    let first = Level::PTE.index(at);
    let places = first..first.wrapping_add(to_index(pages));
    node.table.slots().get(places)
}
