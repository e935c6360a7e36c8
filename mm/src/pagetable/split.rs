//! Large pages cut into smaller ones, and put together again.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::entry::{Decoded, Entry};
use super::entry_io::Slot;
use super::error::ChangeError;
use super::level::{ENTRIES, Level, PageSize};
use super::memory::TableMemory;
use super::node::{Node, extent, whole};
use super::receipt::FlushReceipt;
use super::stash::Stash;
use crate::addr::{VirtRange, to_count};

/// Entries of a table that is full.
const ALL: u32 = 512;
const _: () = assert!(ENTRIES == 512);

impl PageTable {
    /// Locks a range once no large page lies across one of its ends: those that do are split, with pages for tables that are
    /// taken before. Whether `may` lets it be changed is asked before, with the tables locked: what is refused is not
    /// split.
    ///
    /// # Errors
    /// [`ChangeError`], or what `may` answers; nothing is changed then.
    pub(super) fn lock_split<'a, M: TableMemory, E: From<ChangeError>>(
        &self,
        memory: &'a M,
        range: VirtRange,
        receipt: &mut FlushReceipt<'a, M>,
        may: impl Fn(Node<'a>) -> Result<(), E>,
    ) -> Result<Cursor<'a, M>, E> {
        self.check(range).map_err(ChangeError::from)?;
        let mut stash = Stash::new(memory);
        loop {
            let cursor = Cursor::lock(self, memory, range).map_err(ChangeError::from)?;
            may(cursor.top())?;
            let missing = across(memory, cursor.top(), range)?;
            if missing <= stash.len() {
                if missing != 0 {
                    split(memory, cursor.top(), range, (&mut stash, receipt));
                    // The new tables are locked, as all below the top are.
                }
                return Ok(cursor);
            }
            drop(cursor);
            stash.fill(missing).map_err(ChangeError::from)?;
        }
    }

    /// Puts pages together that tables map in one piece with the same rights, wherever one large page of `largest` at most
    /// would do: a table that maps 512 pages in a row becomes one entry.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub(crate) fn join<'a, M: TableMemory>(
        &self,
        memory: &'a M,
        range: VirtRange,
        largest: PageSize,
    ) -> Result<FlushReceipt<'a, M>, ChangeError> {
        self.check(range)?;
        let mut receipt = FlushReceipt::new(memory);
        let cursor = Cursor::lock(self, memory, range)?;
        join(memory, cursor.top(), (range, largest), false, &mut receipt);
        Ok(receipt)
    }
}

/// How many tables it takes to split the large pages that lie across an end of `range`. Context: locked.
fn across<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    range: VirtRange,
) -> Result<usize, ChangeError> {
    let mut count: usize = 0;
    for (slot, part) in ends(node, range) {
        let entry = slot.load();
        let more = if entry.leads_to_table() {
            let below = node.below(memory, entry);
            across(
                memory,
                below.ok_or(ChangeError::Foreign(part.start()))?,
                part,
            )?
        } else if entry.is_mapped() {
            tables_for(part, node.level)
        } else {
            0
        };
        count = count.saturating_add(more);
    }
    Ok(count)
}

/// The first and the last entry for a range: only there can a large page lie across an end.
fn ends<'a>(node: Node<'a>, range: VirtRange) -> impl Iterator<Item = (&'a Slot, VirtRange)> {
    let mut parts = node.parts(range);
    let first = parts.next();
    let last = first.and_then(|(_, part)| {
        let start = super::node::last_of(range).align_down(node.level.entry_bytes());
        let last = VirtRange::new(start, range.end()).filter(|last| last.start() >= part.end());
        last.map(|last| (node.table.slot(node.level.index(start)), last))
    });
    let is_lowest = node.level.below().is_none();
    first.into_iter().chain(last).filter(move |_| !is_lowest)
}

/// How many tables it takes to split a page of `level` so that `part` of it is pages of its own.
fn tables_for(part: VirtRange, level: Level) -> usize {
    let Some(below) = level.below().filter(|_| whole(part, level).is_none()) else {
        return 0;
    };
    let bytes = below.entry_bytes();
    if below == Level::PTE {
        return 1;
    }
    let [start, end] = [part.start(), part.end()].map(|at| at.align_down(bytes));
    let first = usize::from(!part.start().is_aligned(bytes));
    let last = usize::from(!part.end().is_aligned(bytes) && (first == 0 || start != end));
    first.saturating_add(last).saturating_add(1)
}

/// Splits the large pages across the ends of `range`. Context: locked; there are as many pages as [`across`] said.
fn split<'a, M: TableMemory>(
    memory: &'a M,
    node: Node<'a>,
    range: VirtRange,
    (stash, receipt): (&mut Stash<'a, M>, &mut FlushReceipt<'a, M>),
) {
    for (slot, part) in ends(node, range) {
        let entry = slot.load();
        if let Some(size) = node.level.page_size()
            && entry.is_mapped()
            && !entry.leads_to_table()
            && whole(part, node.level).is_none()
            && let Some(below) = cut(size, entry, stash)
        {
            slot.store(Entry::table(below.page.pfn(), entry.is_user()));
            // CPUs may know the large page: what follows may change a part of it.
            receipt.add(extent(part.start(), node.level));
        }
        if let Some(below) = node.below(memory, slot.load()) {
            split(memory, below, part, (&mut *stash, &mut *receipt));
        }
    }
}

/// A table that maps what a large page does, locked.
fn cut<'a, M: TableMemory>(
    size: PageSize,
    entry: Entry,
    stash: &mut Stash<'a, M>,
) -> Option<Node<'a>> {
    let made = stash.make_table(size.level())?;
    made.lock().add(ALL);
    let mut piece = entry.first_piece(size)?.bits();
    for slot in made.table.slots() {
        slot.store(Entry::from_bits(piece));
        piece = piece.wrapping_add(made.level.entry_bytes());
    }
    Some(made)
}

/// Puts together what the tables below one map for `range`, from the lowest level up; `across` its ends too, or only
/// within it. Context: locked.
pub(super) fn join<'a, M: TableMemory>(
    memory: &'a M,
    node: Node<'a>,
    (range, largest): (VirtRange, PageSize),
    across: bool,
    receipt: &mut FlushReceipt<'a, M>,
) {
    for (slot, part) in node.tables(range) {
        let Some(below) = node.below(memory, slot.load()) else {
            continue;
        };
        join(memory, below, (part, largest), across, receipt);
        let may_be = across || whole(part, node.level).is_some();
        if let Some(entry) = joined_as(below, largest).filter(|_| may_be) {
            slot.store(entry);
            below.lock().die();
            receipt.push(below.page);
            let joined = extent(part.start(), node.level);
            receipt.add(joined);
        }
    }
}

/// The entry for a page of `largest` at most that maps what a table does, if one can. Context: locked.
pub(super) fn joined_as(node: Node<'_>, largest: PageSize) -> Option<Entry> {
    let mut sizes = PageSize::ALL.into_iter();
    let size = sizes.find(|size| size.level().below() == Some(node.level))?;
    if size > largest {
        return None;
    }
    joined(node, size)
}

/// The entry for a page of `size` that maps what a full table does, if one can.
fn joined(below: Node<'_>, size: PageSize) -> Option<Entry> {
    if below.lock().live() != ALL || below.lock().is_kept() {
        return None;
    }
    let first = below.table.slot(0).load();
    let Decoded::Leaf(leaf) = first.decode(below.level) else {
        return None;
    };
    if leaf.pfn.as_u64() & size.frames().wrapping_sub(1) != 0 {
        return None;
    }
    // Noted by the CPU at any time: no difference.
    let plain = |entry: Entry| entry.with_young(true).bits();
    let step = below.level.entry_bytes();
    for (index, slot) in below.table.slots().iter().enumerate() {
        let offset = to_count(index).wrapping_mul(step);
        if plain(slot.load()) != plain(first).wrapping_add(offset) {
            return None;
        }
    }
    Some(first.joined(leaf.size, size))
}
