//! The lock of a page table, and how many of its entries are in use: one word of its frame's record.
//!
//! Whoever holds the lock may change entries of the table; the entry that leads to a table belongs to that table's lock,
//! not to the one of the table that it stands in. A table without entries dies under its lock, and its entry in the
//! table above is cleared; whoever waits for the lock of a dead one looks again from above. Dead tables are freed, and stop
//! being dead ones, when all who may wait for them are gone: see [`crate::pagetable`].
#![forbid(unsafe_code)]

use super::Frame;
use crate::sync::atomic::{AtomicU32, Ordering, spin_loop};

const LOCKED: u32 = 1 << 31;
const DEAD: u32 = 1 << 30;
/// The table stays, even without entries.
const KEPT: u32 = 1 << 29;
/// Entries that are in use, 512 at most.
const LIVE: u32 = 0x3ff;

impl Frame {
    /// The frame is no table, dead or alive. Context: nobody who found it as one can still wait for its lock.
    pub(crate) fn end_table_lock(&self) {
        self.maps().store(0, Ordering::Relaxed);
    }
}

/// The table is gone: look from above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IsDead;

/// Lock and count of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableLock<'a>(&'a AtomicU32);

impl<'a> TableLock<'a> {
    /// That of the table whose record this is.
    #[inline]
    pub(crate) const fn of(frame: &'a Frame) -> Self {
        Self(frame.maps())
    }

    #[cfg(all(test, loom))]
    pub(crate) const fn of_a_model(word: &'a AtomicU32) -> Self {
        Self(word)
    }

    /// Begins a table's life, with entries in use; `is_locked` by the caller or by nobody. Context: nobody else knows
    /// the table yet.
    #[inline]
    pub(crate) fn begin(self, live: u32, is_locked: bool) {
        let locked = if is_locked { LOCKED } else { 0 };
        self.0.store(live | locked, Ordering::Relaxed);
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// The table is dead; the lock is not held then.
    ///
    /// # Context
    /// Pinned; holding locks of tables above it only.
    #[inline]
    pub(crate) fn lock(self) -> Result<(), IsDead> {
        let mut found = self.0.fetch_or(LOCKED, Ordering::Acquire);
        while found & LOCKED != 0 {
            while self.0.load(Ordering::Relaxed) & LOCKED != 0 {
                spin_loop();
            }
            found = self.0.fetch_or(LOCKED, Ordering::Acquire);
        }
        if found & DEAD == 0 {
            return Ok(());
        }
        self.unlock();
        Err(IsDead)
    }

    /// Lets others have the lock. Context: the lock is held.
    #[inline]
    pub(crate) fn unlock(self) {
        self.0.fetch_and(!LOCKED, Ordering::Release);
    }

    /// The table stays from now on, even without entries. Context: the lock is held.
    #[inline]
    pub(crate) fn keep(self) {
        self.0.fetch_or(KEPT, Ordering::Relaxed);
    }

    /// It does not any more. Context: the lock is held, and nobody remembers the table.
    pub(crate) fn let_go(self) {
        self.0.fetch_and(!KEPT, Ordering::Relaxed);
    }

    /// Whether it stays. Context: the lock is held, or the answer is a hint.
    #[inline]
    pub(crate) fn is_kept(self) -> bool {
        self.0.load(Ordering::Relaxed) & KEPT != 0
    }

    /// Whether it is without entries, and does not stay even so. Context: as [`Self::live`].
    #[inline]
    pub(crate) fn may_die(self) -> bool {
        self.0.load(Ordering::Relaxed) & (LIVE | KEPT) == 0
    }

    /// How many entries are in use. Context: the lock is held, or the answer is a hint.
    #[inline]
    pub(crate) fn live(self) -> u32 {
        self.0.load(Ordering::Relaxed) & LIVE
    }

    /// As many more are. Context: the lock is held, or the table stays and the entries are the caller's.
    #[inline]
    pub(crate) fn add(self, entries: u32) {
        self.0.fetch_add(entries, Ordering::Relaxed);
    }

    /// As many less are; answers how many are left. Context: the lock is held, or that of the table that the entry led to,
    /// or the table stays and the entries are the caller's.
    #[inline]
    pub(crate) fn sub(self, entries: u32) -> u32 {
        let before = self.0.fetch_sub(entries, Ordering::Relaxed);
        (before & LIVE).wrapping_sub(entries) & LIVE
    }

    /// Ends the table's life, and lets go of the lock. Context: the lock is held, and no entry is in use, or what the
    /// entries say is said elsewhere.
    pub(crate) fn die(self) {
        self.0.store(DEAD, Ordering::Release);
    }

    /// Whether somebody holds the lock. For checks.
    pub(crate) fn is_locked(self) -> bool {
        self.0.load(Ordering::Relaxed) & LOCKED != 0
    }

    /// Whether the table is dead. For checks.
    pub(crate) fn is_dead(self) -> bool {
        self.0.load(Ordering::Relaxed) & DEAD != 0
    }
}
