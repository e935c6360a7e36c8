//! What everybody may know of a CPU's lists: how much is on them, and how much there may be.
#![forbid(unsafe_code)]

use core::mem::offset_of;

use crate::addr::{Order, field};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Off the limit while pageblocks are isolated, …
const ISOLATED: u64 = 1 << 33;
/// … and for each who keeps blocks from the lists otherwise.
const PAUSED: u64 = ISOLATED << 1;

/// What everybody may know of a CPU's lists. Written by the CPU itself with plain stores.
#[derive(Debug, Default)]
pub struct Gauges {
    /// How many frames there may be, in the lower half; less so many times [`PAUSED`] and [`ISOLATED`]
    /// that it is negative while nothing goes onto the lists.
    limit: AtomicU64,
    pub(super) count: AtomicU32,
    pub(super) batch: AtomicU32,
    pub(super) freed: AtomicU64,
    pub(super) refilled: AtomicU64,
    pub(super) drained: AtomicU64,
    pub(super) refills: AtomicU64,
    pub(super) drains: AtomicU64,
    /// Of frames handed out, those behind the first of their block.
    pub(super) behind_first: AtomicU64,
}

/// [`Gauges`] as read, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageSetStats {
    /// Frames on the lists.
    pub count: u64,
    /// How many there may be before some go back.
    pub high: u64,
    /// How many go over at once.
    pub batch: u64,
    /// Frames handed out to owners.
    pub allocated: u64,
    /// Blocks that they were.
    pub blocks: u64,
    /// Frames given back by owners.
    pub freed: u64,
    /// Times that blocks were fetched from the zone, …
    pub refills: u64,
    /// … and given back to it.
    pub drains: u64,
}

#[inline]
pub(super) const fn frames_of(order: Order) -> u32 {
    1_u32.wrapping_shl(order.bits())
}

#[inline]
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(amount);
    counter.store(sum, Ordering::Relaxed);
}

impl Gauges {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            limit: AtomicU64::new(0),
            count: AtomicU32::new(0),
            batch: AtomicU32::new(0),
            freed: AtomicU64::new(0),
            refilled: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            refills: AtomicU64::new(0),
            drains: AtomicU64::new(0),
            behind_first: AtomicU64::new(0),
        }
    }

    /// Where its numbers are, for [`Rows`](crate::addr::Rows): count, limit, batch, freed, refilled, drained, refills, drains.
    pub(crate) const FIELDS: [u16; 8] = [
        field(offset_of!(Self, count)),
        field(offset_of!(Self, limit)),
        field(offset_of!(Self, batch)),
        field(offset_of!(Self, freed)),
        field(offset_of!(Self, refilled)),
        field(offset_of!(Self, drained)),
        field(offset_of!(Self, refills)),
        field(offset_of!(Self, drains)),
    ];

    /// The numbers. Context: any; each may be stale.
    #[must_use]
    pub fn read(&self) -> PageSetStats {
        let count = u64::from(self.count.load(Ordering::Relaxed));
        let freed = self.freed.load(Ordering::Relaxed);
        // Whatever came in and is neither there nor went back to the zone was handed out.
        let came = self.refilled.load(Ordering::Relaxed).wrapping_add(freed);
        let left = self.drained.load(Ordering::Relaxed).wrapping_add(count);
        let allocated = came.saturating_sub(left);
        let behind_first = self.behind_first.load(Ordering::Relaxed);
        PageSetStats {
            count,
            high: u64::from(self.high()),
            batch: u64::from(self.batch.load(Ordering::Relaxed)),
            allocated,
            blocks: allocated.saturating_sub(behind_first),
            freed,
            refills: self.refills.load(Ordering::Relaxed),
            drains: self.drains.load(Ordering::Relaxed),
        }
    }

    /// Whether blocks are kept from the lists for now.
    #[inline(always)]
    pub(crate) fn are_closed(&self) -> bool {
        self.limit.load(Ordering::Relaxed).cast_signed() < 0
    }

    /// Whether a block of `order` more may come.
    #[inline(always)]
    pub(crate) fn may_have(&self, order: Order) -> bool {
        let limit = self.limit.load(Ordering::Relaxed).cast_signed();
        i64::from(self.count()).wrapping_add(i64::from(frames_of(order))) <= limit
    }

    /// How many frames may come.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        let limit = self.limit.load(Ordering::Relaxed).cast_signed();
        let room = limit.saturating_sub(i64::from(self.count()));
        usize::try_from(room).unwrap_or(0)
    }

    fn high(&self) -> u32 {
        let [a, b, c, d, ..] = self.limit.load(Ordering::Relaxed).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Says how many frames there may be. For the CPU itself.
    pub(super) fn set_high(&self, high: u32) {
        let before = self.high();
        if high != before {
            // Others change the rest.
            let change = u64::from(high).wrapping_sub(u64::from(before));
            self.limit.fetch_add(change, Ordering::Relaxed);
        }
    }

    /// Keeps blocks from the lists until [`Self::reopen`] is called as often, …
    pub(crate) fn close(&self) {
        self.limit.fetch_sub(PAUSED, Ordering::SeqCst);
    }

    /// … takes that back, …
    pub(crate) fn reopen(&self) {
        self.limit.fetch_add(PAUSED, Ordering::SeqCst);
    }

    /// … or keeps them from there while pageblocks are isolated. Context: zone lock held.
    pub(crate) fn close_for_isolation(&self, are_isolated: bool) {
        // `PAUSED` times anything leaves this bit alone.
        let is_closed = self.limit.load(Ordering::Relaxed) & ISOLATED != 0;
        match (is_closed, are_isolated) {
            (false, true) => self.limit.fetch_sub(ISOLATED, Ordering::SeqCst),
            (true, false) => self.limit.fetch_add(ISOLATED, Ordering::SeqCst),
            _ => return,
        };
    }

    /// Frames on the lists.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn change(&self, change: impl FnOnce(u32) -> u32) -> u32 {
        let count = change(self.count());
        self.count.store(count, Ordering::Relaxed);
        count
    }
}
