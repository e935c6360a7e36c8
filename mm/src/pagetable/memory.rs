//! What page tables need of the memory around them.
#![forbid(unsafe_code)]

use core::fmt;

use super::check::MapCounts;
use crate::addr::VirtRange;
use crate::frame::FrameTable;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::sync::Pin;
use crate::sync::grace::Guard;

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

    /// Frees a table that was led to, when all are gone that [read tables](Self::read) by now. Context: as the caller's.
    fn retire_page(&self, page: Exclusive);

    /// Frees a block that CPUs have forgotten. Context: as the caller's.
    fn free_block(&self, block: Exclusive);

    /// No table that is found from now on is freed before the answer is dropped, though nobody locks it. `None` as long as
    /// none is freed at all. Context: any.
    fn read(&self) -> Option<Guard<'_, Self::P>>;

    /// How often frames are mapped for user code, where that is counted.
    fn map_counts(&self) -> Option<&MapCounts> {
        None
    }

    /// Has all CPUs forget what they know of `range`; where tables are freed, what they know of the way there too. Context:
    /// no lock held.
    fn flush(&self, range: VirtRange, frees_tables: bool);
}

/// Somebody who goes by tables without a lock, or waits for the lock of one: it stays on this CPU, and no table that it finds
/// is freed. A pin alone is not enough: who waits for readers asks CPUs for them, and a CPU that never had any, or that takes
/// an interrupt under the pin, says that there are none.
pub(super) struct Reader<'a, P: Platform> {
    _guard: Option<Guard<'a, P>>,
    _pin: Option<Pin<'a, P>>,
}

impl<'a, P: Platform> Reader<'a, P> {
    #[inline]
    pub(super) fn of<M: TableMemory<P = P>>(memory: &'a M) -> Self {
        let guard = memory.read();
        let pin = guard.is_none().then(|| Pin::new(memory.platform()));
        Self {
            _guard: guard,
            _pin: pin,
        }
    }
}
