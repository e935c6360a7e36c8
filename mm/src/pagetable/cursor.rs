//! The lock on a range of addresses.
//!
//! A cursor locks the lowest table that all of its range goes through, and then, from there down and from lower to higher
//! addresses, every table that part of the range goes through. So cursors with addresses in common wait for each other, and
//! others do not, but where a range spans what several tables map. On the way down to the first table nothing is locked:
//! what was found is looked at again under the lock.
//!
//! An entry that leads to a table belongs to that table's lock. So whoever leaves a table without entries can clear the
//! entry that leads there without a lock on the table above, which it must not wait for; then it lets go of the dead table
//! and looks whether the one above is without entries too ([`Cursor::prune`]).
#![forbid(unsafe_code)]

use super::PageTable;
use super::entry::Entry;
use super::entry_io::Slot;
use super::level::PageSize;
use super::memory::{Reader, TableMemory};
use super::node::{Node, extent, last_of};
use super::receipt::FlushReceipt;
use super::split::{join, joined_as};
use crate::addr::{VirtAddr, VirtRange};
use crate::frame::IsDead;
use crate::platform::Platform;
use crate::sync::rank;

/// A table on the way is not the library's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForeignTable(pub(super) VirtAddr);

/// Takes note of the locks of tables as of one, where the order of locks is checked.
struct Noted<'a, P: Platform>(&'a P);

impl<'a, P: Platform> Noted<'a, P> {
    fn new(platform: &'a P) -> Self {
        if P::PROFILE.is_debug() {
            platform.lock_acquired(rank::PAGE_TABLE);
        }
        Self(platform)
    }
}

impl<P: Platform> Drop for Noted<'_, P> {
    fn drop(&mut self) {
        if P::PROFILE.is_debug() {
            self.0.lock_released(rank::PAGE_TABLE);
        }
    }
}

/// The tables that a range goes through, locked.
pub(super) struct Cursor<'a, M: TableMemory> {
    held: Held<'a, M>,
    _noted: Noted<'a, M::P>,
    /// The CPU stays here while others may wait; what this one waited for was not freed meanwhile.
    _reader: Reader<'a, M::P>,
}

/// Locks, to be given up.
struct Held<'a, M: TableMemory> {
    memory: &'a M,
    range: VirtRange,
    /// The lowest table that all of the range goes through.
    top: Node<'a>,
}

impl<M: TableMemory> Drop for Held<'_, M> {
    fn drop(&mut self) {
        unlock_below(self.memory, self.top, self.range);
        self.top.lock().unlock();
    }
}

impl<'a, M: TableMemory> Cursor<'a, M> {
    /// Waits until nobody else has a part of `range`, which was checked. Context: any but interrupts that a holder can be
    /// interrupted by; the caller holds no other cursor.
    pub(super) fn lock(
        tables: &PageTable,
        memory: &'a M,
        range: VirtRange,
    ) -> Result<Self, ForeignTable> {
        let reader = Reader::of(memory);
        let noted = Noted::new(memory.platform());
        loop {
            let top = lowest(tables, memory, range)?;
            if top.lock().lock().is_err() {
                continue;
            }
            // Somebody may have made a table below meanwhile.
            if only_entry(top, range).is_some_and(|slot| slot.load().leads_to_table()) {
                top.lock().unlock();
                continue;
            }
            let held = Held { memory, range, top };
            return match lock_below(memory, top, range) {
                None => Ok(Self {
                    held,
                    _noted: noted,
                    _reader: reader,
                }),
                Some(foreign) => Err(foreign),
            };
        }
    }

    /// The lowest table that all of the range goes through.
    #[inline]
    pub(super) const fn top(&self) -> Node<'a> {
        self.held.top
    }

    /// The memory that the tables lie in.
    pub(super) const fn memory(&self) -> &'a M {
        self.held.memory
    }

    /// Clears the way to the top table if that is without entries, and so on upwards; lets go of all locks.
    ///
    /// The tables that the root leads to stay for good: other roots may lead to them too.
    pub(super) fn prune(self, tables: &PageTable, receipt: &mut FlushReceipt<'a, M>) {
        let Self {
            held,
            _noted,
            _reader,
        } = self;
        let Held { memory, range, top } = held;
        if !top.lock().may_die() || is_kept(tables, top) {
            return;
        }
        unlock_below(memory, top, range);
        core::mem::forget(held);
        let mut empty = top;
        loop {
            let way = way_to(tables, memory, range.start(), empty);
            let Some((above, slot)) = way.filter(|_| empty.lock().may_die()) else {
                empty.lock().unlock();
                return;
            };
            slot.store(Entry::NONE);
            empty.lock().die();
            receipt.push(empty.page);
            // Nothing is locked now: whoever waits above may go on.
            if above.lock().sub(1) != 0 || above.lock().is_kept() || is_kept(tables, above) {
                return;
            }
            if let Err(IsDead) = above.lock().lock() {
                return;
            }
            empty = above;
        }
    }

    /// Puts pages together to larger ones, up to `largest`, wherever a table that the range goes through allows it, and those
    /// above it then; lets go of all locks. What a table maps outside the range counts too, and no table is locked for
    /// it that the range does not go through.
    pub(super) fn rejoin(
        self,
        tables: &PageTable,
        largest: PageSize,
        receipt: &mut FlushReceipt<'a, M>,
    ) {
        let Self {
            held,
            _noted,
            _reader,
        } = self;
        let Held { memory, range, top } = held;
        join(memory, top, (range, largest), true, receipt);
        let Some(mut entry) = joined_as(top, largest) else {
            return;
        };
        // All that the table has is pages: nothing below it is locked.
        core::mem::forget(held);
        let mut full = top;
        loop {
            let Some((above, slot)) = way_to(tables, memory, range.start(), full) else {
                full.lock().unlock();
                return;
            };
            slot.store(entry);
            full.lock().die();
            receipt.push(full.page);
            receipt.add(extent(range.start(), above.level));
            // Nothing is locked now: whoever waits above may go on.
            if let Err(IsDead) = above.lock().lock() {
                return;
            }
            let Some(larger) = joined_as(above, largest) else {
                above.lock().unlock();
                return;
            };
            (full, entry) = (above, larger);
        }
    }
}

/// Whether a table stays even if it is without entries.
fn is_kept(tables: &PageTable, node: Node<'_>) -> bool {
    node.level.number().saturating_add(1) >= tables.levels
}

/// The place in a table that all of `range` goes through, if it is one.
#[inline]
fn only_entry<'a>(node: Node<'a>, range: VirtRange) -> Option<&'a Slot> {
    let first = node.level.index(range.start());
    let is_one = first == node.level.index(last_of(range)) && node.level.below().is_some();
    is_one.then(|| node.table.slot(first))
}

/// The lowest table that all of `range` goes through, as of now.
#[inline]
pub(super) fn lowest<'a, M: TableMemory>(
    tables: &PageTable,
    memory: &'a M,
    range: VirtRange,
) -> Result<Node<'a>, ForeignTable> {
    let foreign = ForeignTable(range.start());
    let mut node = tables.top(memory).ok_or(foreign)?;
    while let Some(slot) = only_entry(node, range) {
        let entry = slot.load();
        if !entry.leads_to_table() {
            break;
        }
        match node.below(memory, entry) {
            Some(below) => node = below,
            // It died, and is no table any more: what led to it is gone.
            None if slot.load() != entry => {}
            None => return Err(foreign),
        }
    }
    Ok(node)
}

/// Locks all tables below one that a range goes through. The answer is the first that is foreign, which has no lock.
fn lock_below<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    range: VirtRange,
) -> Option<ForeignTable> {
    let mut foreign = None;
    for (slot, part) in node.tables(range) {
        loop {
            let entry = slot.load();
            if !entry.leads_to_table() {
                break;
            }
            match node.below(memory, entry) {
                Some(below) if below.lock().lock().is_ok() => {
                    // The lowest tables lead nowhere.
                    if below.level.below().is_some() {
                        foreign = foreign.or(lock_below(memory, below, part));
                    }
                    break;
                }
                None if slot.load() == entry => {
                    foreign = foreign.or(Some(ForeignTable(part.start())));
                    break;
                }
                // It died: the entry is clear by now.
                _ => {}
            }
        }
    }
    foreign
}

/// Unlocks what [`lock_below`] locked, and what was made since.
fn unlock_below<M: TableMemory>(memory: &M, node: Node<'_>, range: VirtRange) {
    for (slot, part) in node.tables(range) {
        if let Some(below) = node.below(memory, slot.load()) {
            if below.level.below().is_some() {
                unlock_below(memory, below, part);
            }
            below.lock().unlock();
        }
    }
}

/// The table that leads to a locked one, and where: neither changes while that is locked.
fn way_to<'a, M: TableMemory>(
    tables: &PageTable,
    memory: &'a M,
    at: VirtAddr,
    node: Node<'a>,
) -> Option<(Node<'a>, &'a Slot)> {
    let mut above = tables.top(memory)?;
    loop {
        let slot = above.table.slot(above.level.index(at));
        let entry = slot.load();
        if entry.table_pfn() == Some(node.page.pfn()) {
            return Some((above, slot));
        }
        above = above.below(memory, entry)?;
    }
}
