//! What page tables need of the memory around them.
#![forbid(unsafe_code)]

use core::fmt;

use super::check::MapCounts;
use crate::addr::VirtRange;
use crate::frame::FrameTable;
use crate::mem::Exclusive;
use crate::platform::Platform;

/// There is no memory for page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfTables;

impl fmt::Display for OutOfTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for page tables")
    }
}

impl core::error::Error for OutOfTables {}

/// Memory for tables, and the translations that CPUs keep: what [`Memory`](crate::system::Memory) is to page tables.
pub trait TableMemory {
    /// The machine.
    type P: Platform;

    /// The machine.
    fn platform(&self) -> &Self::P;

    /// Records of its frames.
    fn frames(&self) -> &FrameTable;

    /// A page of zeroes. Context: as the caller's; may sleep where that may.
    fn take_page(&self) -> Result<Exclusive, OutOfTables>;

    /// Takes a page back that nothing ever led to. Context: as the caller's.
    fn give_page(&self, page: Exclusive);

    /// Frees a table that was led to, when nobody can be walking through it any more. Context: as the caller's.
    fn retire_page(&self, page: Exclusive);

    /// How often frames are mapped for user code, where that is counted.
    fn map_counts(&self) -> Option<&MapCounts> {
        None
    }

    /// Has all CPUs forget what they know of `range`; where tables are freed, what they know of the way there too. Context:
    /// no lock held.
    fn flush(&self, range: VirtRange, frees_tables: bool);
}
