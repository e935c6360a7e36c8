//! Page tables: entries, and cursors over ranges of them.
//!
//! A [`PageTable`] maps, unmaps and changes ranges, each with one walk for each table that is touched ([`Entry`] says what
//! stands in one). Whoever changes a range locks the tables that it goes through (`cursor`). The record of a table's frame
//! holds its lock and how many of its entries are in use, so that a table without entries is freed at once: cleared from the
//! table above, forgotten by all CPUs, and freed after a grace period, since somebody may be walking through it or waiting
//! for its lock.
//!
//! What was unmapped is not anybody's before all CPUs have forgotten it: `unmap` answers a receipt, and completing that is
//! what makes it so.
//!
//! Linux counterparts: `pgtable.h`, `mm/memory.c`, `mm/vmalloc.c` (walks), `set_memory.c` (splitting and joining).

mod attributes;
mod change;
mod check;
mod cursor;
mod entry;
mod entry_io;
mod error;
mod kept;
mod level;
mod map;
mod memory;
mod node;
mod protect;
mod reach;
mod receipt;
mod split;
mod stash;
mod unmap;
mod validate;
mod walk;
mod whole;

pub use attributes::{Attributes, Cache, PAT, Protection};
pub use change::Change;
pub use check::MapCounts;
pub use entry::{Decoded, Entry, Leaf, Migration, SoftBits, SwapEntry};
pub(crate) use entry_io::Slot;
pub use error::{ChangeError, MapError, ProtectError, RangeError};
pub(crate) use kept::{Empties, PteTable};
pub use level::{ENTRIES, Level, PageSize};
pub(crate) use map::{EachBy, Frames, InAList, InARow};
pub use memory::{OutOfTables, TableMemory};
pub use receipt::FlushReceipt;
pub use validate::TableDamage;
pub use walk::{Span, Step, Walk};

use crate::addr::{Pfn, VirtRange};
use cursor::ForeignTable;
use node::{Node, last_of};

/// The page tables of an address space, by their root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageTable {
    root: Pfn,
    /// 4 or 5.
    levels: u8,
}

impl PageTable {
    /// Tables without an entry. Context: as taking a page.
    ///
    /// # Errors
    /// No memory for the root.
    pub(crate) fn new<M: TableMemory>(memory: &M, levels: Level) -> Result<Self, OutOfTables> {
        let page = memory.take_page()?;
        let made = memory.frames().make_page_table(page, levels.number());
        let page = made.map_err(|page| {
            memory.give_page(page);
            OutOfTables
        })?;
        page.lock().begin(0, false);
        Ok(Self {
            root: page.pfn(),
            levels: levels.number(),
        })
    }

    /// The frame of the root: what goes into CR3.
    #[must_use]
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// How many levels there are, 4 or 5.
    #[must_use]
    pub const fn levels(&self) -> u8 {
        self.levels
    }

    /// The level of the root.
    const fn top_level(&self) -> Level {
        if self.levels == 5 {
            Level::PGD
        } else {
            Level::P4D
        }
    }

    /// The root.
    #[inline]
    fn top<'a, M: TableMemory>(&self, memory: &'a M) -> Option<Node<'a>> {
        let level = self.top_level();
        let page = memory.frames().page_table(self.root)?;
        // Another machine's tables may have their root where this one has some other table.
        if page.level() != level.number() {
            return None;
        }
        Node::of(memory, page, level)
    }

    /// Checks that a range can be mapped.
    pub(crate) fn check(&self, range: VirtRange) -> Result<(), RangeError> {
        if range.is_empty() {
            return Err(RangeError::Empty);
        }
        if !range.is_page_aligned() {
            return Err(RangeError::Misaligned(range));
        }
        let (first, last) = (range.start(), last_of(range));
        let one_half = first.as_u64() >> 63 == last.as_u64() >> 63;
        if !one_half || !first.is_canonical(self.levels) || !last.is_canonical(self.levels) {
            return Err(RangeError::NotCanonical(range));
        }
        Ok(())
    }
}

impl From<ForeignTable> for MapError {
    fn from(ForeignTable(at): ForeignTable) -> Self {
        Self::Foreign(at)
    }
}

impl From<ForeignTable> for ChangeError {
    fn from(ForeignTable(at): ForeignTable) -> Self {
        Self::Foreign(at)
    }
}
