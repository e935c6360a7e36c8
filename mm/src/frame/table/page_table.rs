//! Blocks that become page tables, and what becomes of them.

use crate::addr::{Pfn, PfnRange};
use crate::frame::{Frame, FrameTable, Kind, TableLock};
use crate::mem::Exclusive;

/// A frame that is a page table: nobody else has it, and its bytes are entries.
///
/// # Invariants
/// Its record said [`Kind::Table`] when it was found: from [`FrameTable::make_page_table`] until [`FrameTable::end_page_table`] or
/// [`FrameTable::retire_page_table`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TablePage<'a> {
    pfn: Pfn,
    frame: &'a Frame,
}

impl<'a> TablePage<'a> {
    /// The frame's number.
    #[inline]
    pub(crate) const fn pfn(self) -> Pfn {
        self.pfn
    }

    /// Its lock and count.
    #[inline]
    pub(crate) const fn lock(self) -> TableLock<'a> {
        TableLock::of(self.frame)
    }

    /// How high the table stands.
    pub(crate) fn level(self) -> u8 {
        let [level, ..] = self.frame.private().to_le_bytes();
        level
    }

    /// The dead table below this one in a list.
    pub(crate) fn next_dead(self) -> u64 {
        self.frame.link()
    }

    /// Puts this dead table on top of a list.
    pub(crate) fn set_next_dead(self, next: u64) {
        self.frame.set_link(next);
    }
}

impl FrameTable {
    /// Makes a page a table of a level: its token is given up, its record says so. The bytes are the caller's affair.
    ///
    /// # Errors
    /// The token, if it is not for one frame of this table.
    pub(crate) fn make_page_table(
        &self,
        page: Exclusive,
        level: u8,
    ) -> Result<TablePage<'_>, Exclusive> {
        let frames = page.frames();
        let found = self.frame(frames.first());
        let Some(frame) = found.filter(|_| frames.frames() == 1) else {
            return Err(page);
        };
        frame.set_private(u64::from(level));
        frame.end_table_lock();
        frame.publish(frame.word().for_kind(Kind::Table));
        let _ = page.leak();
        Ok(TablePage {
            pfn: frames.first(),
            frame,
        })
    }

    /// The table that a frame is, if it is one. Context: any; whoever uses it holds a lock above it, or is where it cannot be
    /// freed.
    #[inline]
    pub(crate) fn page_table(&self, pfn: Pfn) -> Option<TablePage<'_>> {
        let frame = self.frame(pfn)?;
        let is_table = frame.word_acquire().is_table();
        is_table.then_some(TablePage { pfn, frame })
    }

    /// Turns a table that nothing leads to, and nobody waits for, back into its token. `None` if it is no table any more.
    pub(crate) fn end_page_table(&self, table: TablePage<'_>) -> Option<Exclusive> {
        let page = self.retire_page_table(table)?;
        table.frame.end_table_lock();
        Some(page)
    }

    /// The same for a dead table that somebody may have found before, and wait for: that it is dead stays in its record, where
    /// [`Frame::end_table_lock`] takes it away when a grace period is over.
    pub(crate) fn retire_page_table(&self, table: TablePage<'_>) -> Option<Exclusive> {
        let word = table.frame.word();
        if !word.is_table() {
            return None;
        }
        // One caller wins.
        let plain = word.for_kind(Kind::Plain);
        table.frame.exchange(word, plain).ok()?;
        table.frame.set_link(0);
        table.frame.set_private(0);
        let end = table.pfn.as_u64().saturating_add(1);
        let frames = PfnRange::from_numbers(table.pfn.as_u64(), end);
        // SAFETY: (1) the token was consumed by `make_page_table`, and the exchange lets one caller through; (2) only
        // adopted frames become tables.
        Some(unsafe { Exclusive::new(frames) })
    }
}
