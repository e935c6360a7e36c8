//! Pages for tables, taken before locks are.
#![forbid(unsafe_code)]

use super::memory::{OutOfTables, TableMemory};
use crate::mem::Exclusive;

/// Pages that an operation can have: more than most need.
const ROOM: usize = 40;

/// Pages that a lock holder may make tables of. What is left goes back when it is dropped.
pub(super) struct Stash<'a, M: TableMemory> {
    memory: &'a M,
    pages: [Option<Exclusive>; ROOM],
    count: usize,
}

impl<'a, M: TableMemory> Stash<'a, M> {
    /// Pages that fit in.
    pub(super) const ROOM: usize = ROOM;

    pub(super) const fn new(memory: &'a M) -> Self {
        Self {
            memory,
            pages: [const { None }; ROOM],
            count: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Takes pages until there are `wanted`, [`ROOM`](Self::ROOM) at most.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<(), OutOfTables> {
        while self.count < wanted.min(ROOM) {
            let page = self.memory.take_page()?;
            self.pages[self.count] = Some(page);
            self.count = self.count.wrapping_add(1);
        }
        Ok(())
    }

    /// One of them.
    pub(super) fn take(&mut self) -> Option<Exclusive> {
        self.count = self.count.checked_sub(1)?;
        self.pages.get_mut(self.count)?.take()
    }
}

impl<M: TableMemory> Drop for Stash<'_, M> {
    fn drop(&mut self) {
        while let Some(page) = self.take() {
            self.memory.give_page(page);
        }
    }
}
