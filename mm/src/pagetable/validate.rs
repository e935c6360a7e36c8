//! A recount of everything.
#![forbid(unsafe_code)]

use core::fmt;

use super::PageTable;
use super::entry::Decoded;
use super::memory::TableMemory;
use super::node::Node;
use crate::addr::Pfn;

/// What is wrong with a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableDamage {
    /// Its record counts other entries than there are.
    Miscount {
        /// The table.
        table: Pfn,
        /// What the record says.
        recorded: u32,
        /// How many there are.
        counted: u32,
    },
    /// It has no entry, was not freed, and does not stay.
    Empty(Pfn),
    /// Somebody holds its lock, or it is dead, though something leads to it.
    Locked(Pfn),
    /// Its record says that it stands at another level.
    Level(Pfn),
    /// An entry of it is neither nothing, nor a table, nor a page.
    BadEntry(Pfn, usize),
    /// The root is no table.
    NoRoot(Pfn),
}

impl fmt::Display for TableDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Miscount {
                table,
                recorded,
                counted,
            } => write!(
                f,
                "page table {table:?} has {counted} entries, not {recorded}"
            ),
            Self::Empty(table) => write!(f, "page table {table:?} has no entries"),
            Self::Locked(table) => write!(f, "page table {table:?} is locked or dead"),
            Self::Level(table) => write!(f, "page table {table:?} stands at another level"),
            Self::BadEntry(table, index) => write!(f, "entry {index} of page table {table:?}"),
            Self::NoRoot(table) => write!(f, "frame {table:?} is no page table"),
        }
    }
}

impl core::error::Error for TableDamage {}

impl PageTable {
    /// Recounts all tables of the library's own; answers how many there are. Context: nothing else runs.
    ///
    /// # Errors
    /// The first damage that was found.
    pub(crate) fn validate<M: TableMemory>(&self, memory: &M) -> Result<u64, TableDamage> {
        let root = self.top(memory).ok_or(TableDamage::NoRoot(self.root))?;
        self.recount(memory, root)
    }

    fn recount<M: TableMemory>(&self, memory: &M, node: Node<'_>) -> Result<u64, TableDamage> {
        let table = node.page.pfn();
        if node.lock().is_locked() || node.lock().is_dead() {
            return Err(TableDamage::Locked(table));
        }
        if node.page.level() != node.level.number() {
            return Err(TableDamage::Level(table));
        }
        let (mut counted, mut tables): (u32, u64) = (0, 1);
        for (index, slot) in node.table.slots().iter().enumerate() {
            let entry = slot.load();
            counted = counted.saturating_add(u32::from(!entry.is_none()));
            match entry.decode(node.level) {
                Decoded::Bad => return Err(TableDamage::BadEntry(table, index)),
                // One that the library did not make is its maker's affair.
                Decoded::Table(_) => {
                    if let Some(below) = node.below(memory, entry) {
                        tables = tables.saturating_add(self.recount(memory, below)?);
                    }
                }
                _ => {}
            }
        }
        let recorded = node.lock().live();
        if counted != recorded {
            return Err(TableDamage::Miscount {
                table,
                recorded,
                counted,
            });
        }
        let may_be_empty = node.level.number().saturating_add(1) >= self.levels;
        if counted == 0 && !may_be_empty && !node.lock().is_kept() {
            return Err(TableDamage::Empty(table));
        }
        Ok(tables)
    }
}
