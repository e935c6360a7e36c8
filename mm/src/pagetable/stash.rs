//! Pages for tables, taken before locks are.
#![forbid(unsafe_code)]

use super::entry_io::Table;
use super::level::Level;
use super::memory::{OutOfTables, TableMemory};
use super::node::Node;
use crate::frame::TablePage;
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

    /// Makes one a table below one of `above`, without entries, and locked.
    pub(super) fn make_table(&mut self, above: Level) -> Option<Node<'a>> {
        let level = above.below()?;
        let page = self.take()?;
        let frames = self.memory.frames();
        let page: TablePage<'a> = match frames.make_page_table(page, level.number()) {
            Ok(page) => page,
            Err(page) => {
                self.memory.give_page(page);
                return None;
            }
        };
        page.lock().begin(0, true);
        let table = Table::of(self.memory.platform(), page)?;
        Some(Node { page, table, level })
    }
}

impl<M: TableMemory> Drop for Stash<'_, M> {
    fn drop(&mut self) {
        while let Some(page) = self.take() {
            self.memory.give_page(page);
        }
    }
}
