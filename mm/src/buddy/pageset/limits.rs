//! How many pages a CPU keeps, and how many it moves at once: as current Linux does
//! (`mm/page_alloc.c`: `zone_batchsize`, `zone_highsize`, `nr_pcp_alloc`, `nr_pcp_free`,
//! `nr_pcp_high`).
//!
//! `batch` pages go over in one hold of the zone lock; after refills without a page given back in
//! between, and drains without one taken, that many are doubled up to five times. `high` is how
//! many a CPU may keep; it grows with what the zone would have been asked for otherwise, and falls
//! back when the zone is short.
#![forbid(unsafe_code)]

use crate::addr::Order;
use crate::config::PAGE_SIZE;
use crate::sync::atomic::{AtomicU32, Ordering};

/// A batch is doubled so many times at most (Linux: `CONFIG_PCP_BATCH_SCALE_MAX`).
const DOUBLINGS: u32 = 5;
/// The smallest `vm.percpu_pagelist_high_fraction` (Linux: `MIN_PERCPU_PAGELIST_HIGH_FRACTION`).
pub const HIGH_FRACTION_MIN: u32 = 8;

/// What a zone allows each CPU. In frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// How many go over at once.
    pub batch: u32,
    /// The least that `high` falls to.
    pub high_min: u32,
    /// The most that `high` grows to.
    pub high_max: u32,
}

/// Frames that go over at once for a zone of `managed` frames (Linux: `zone_batchsize`): a
/// thousandth of the zone, at most 1 MiB, a quarter of that, just below a power of two, so that the
/// lists of all CPUs do not march in step.
#[must_use]
pub const fn batch(managed: u64) -> u32 {
    let most = (1 << 20) / PAGE_SIZE;
    let thousandth = managed >> 10;
    let bounded = if thousandth > most { most } else { thousandth };
    let quarter = bounded >> 2;
    if quarter < 1 {
        return 1;
    }
    let half_more = quarter.wrapping_add(quarter >> 1);
    let power = 1_u32 << half_more.ilog2();
    if power > 1 { power.wrapping_sub(1) } else { 1 }
}

/// The limits for a zone of `managed` frames with this `low` mark that `cpus` CPUs are near to.
/// `fraction` is `vm.percpu_pagelist_high_fraction`: 0 lets `high` move, anything else fixes it
/// to that part of the zone (Linux: `zone_highsize`, `zone_set_pageset_high_and_batch`).
#[must_use]
pub fn limits(managed: u64, low: u64, cpus: u32, fraction: u32) -> Limits {
    let batch = batch(managed);
    let high = |total: u64| {
        let each = total.div_euclid(u64::from(cpus.max(1)));
        // At least four batches, but never so much that a small zone ends up in lists.
        let least = u64::from(batch).wrapping_mul(4);
        u32::try_from(each.max(least)).unwrap_or(u32::MAX)
    };
    let part = |fraction: u32| managed.div_euclid(u64::from(fraction.max(1)));
    let (high_min, high_max) = if fraction == 0 {
        (high(low), high(part(HIGH_FRACTION_MIN)))
    } else {
        (high(part(fraction)), high(part(fraction)))
    };
    Limits {
        batch,
        high_min,
        // In a tiny zone the low mark is the larger part.
        high_max: high_max.max(high_min),
    }
}

/// A zone's [`Limits`], to be changed while CPUs look at them.
#[derive(Debug, Default)]
pub(crate) struct SharedLimits {
    batch: AtomicU32,
    high_min: AtomicU32,
    high_max: AtomicU32,
}

impl SharedLimits {
    pub(crate) const fn new() -> Self {
        Self {
            batch: AtomicU32::new(0),
            high_min: AtomicU32::new(0),
            high_max: AtomicU32::new(0),
        }
    }

    /// Sets all; a CPU may see some old and some new ones.
    pub(crate) fn set(&self, limits: Limits) {
        self.batch.store(limits.batch, Ordering::Relaxed);
        self.high_min.store(limits.high_min, Ordering::Relaxed);
        self.high_max.store(limits.high_max, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Limits {
        Limits {
            batch: self.batch.load(Ordering::Relaxed),
            high_min: self.high_min.load(Ordering::Relaxed),
            high_max: self.high_max.load(Ordering::Relaxed),
        }
    }
}

/// How a CPU has been using its lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pattern {
    /// How many frames the CPU keeps before it gives some back.
    pub(super) high: u32,
    /// How often the batch is doubled for refills, …
    refill_doublings: u32,
    /// … and for drains.
    drain_doublings: u32,
}

impl Pattern {
    /// Nothing used yet.
    pub(super) const NEW: Self = Self {
        high: 0,
        refill_doublings: 0,
        drain_doublings: 0,
    };

    /// Frames to be fetched, for a list of `order`, by a CPU that has `count` frames. `only_taken`:
    /// none was given back since the last refill. `short`: the zone is below its high mark.
    pub(super) fn refill(
        &mut self,
        limits: Limits,
        order: Order,
        count: u32,
        (only_taken, short): (bool, bool),
    ) -> u32 {
        let base = limits.batch.max(1);
        self.clamp(limits);
        self.refill_doublings = match only_taken && order == Order::ZERO {
            true => self.refill_doublings.saturating_add(1).min(DOUBLINGS),
            false => 0,
        };
        let batch = base.wrapping_shl(self.refill_doublings);
        if limits.high_min != limits.high_max && !short {
            self.high = self.high.saturating_add(batch);
            self.clamp(limits);
        }
        // What is fetched must leave room for pages that are given back.
        let room = self.high.saturating_sub(count).saturating_sub(base);
        batch.min(room.max(base))
    }

    /// Frames to be given back by a CPU that has `count` frames, more than `high`. `only_given`:
    /// none was taken since the last drain.
    pub(super) fn drain(
        &mut self,
        limits: Limits,
        count: u32,
        (only_given, short): (bool, bool),
    ) -> u32 {
        let base = limits.batch.max(1);
        let is_first = self.high == 0;
        self.clamp(limits);
        if is_first && count <= self.high {
            return 0;
        }
        self.drain_doublings = match only_given {
            true => self.drain_doublings.saturating_add(1).min(DOUBLINGS),
            false => 0,
        };
        let batch = base.wrapping_shl(self.drain_doublings);
        if short {
            self.high = self.high.saturating_sub(batch).max(limits.high_min);
        } else if limits.high_min != limits.high_max {
            let needed = batch.saturating_add(base);
            self.high = self.high.max(needed);
            self.clamp(limits);
        }
        let over = count.saturating_sub(self.high);
        // At least what is too much; of the rest, a batch stays for the next request.
        let most = count.saturating_sub(base).max(over);
        batch.max(over).min(most).max(1)
    }

    /// For lists with fixed marks: answers how many frames go over at once.
    pub(super) const fn hold_at(&mut self, high: u32, batch: u32) -> u32 {
        self.high = high;
        batch
    }

    /// Keeps `high` within the limits. While they change, the least may be more than the most: the
    /// least holds then.
    fn clamp(&mut self, limits: Limits) {
        let most = limits.high_max.max(limits.high_min);
        self.high = self.high.clamp(limits.high_min, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_a_quarter_of_a_thousandth_just_below_a_power_of_two() {
        for (managed, expected) in [
            (0, 1),
            (3_840, 1),
            (16_384, 3),
            (100_000, 31),
            (255_000, 63),
            (1 << 30, 63),
        ] {
            assert_eq!(batch(managed), expected, "{managed}");
        }
    }

    #[test]
    fn a_zone_with_marks_as_large_as_itself_has_limits_that_can_be_kept() {
        for (managed, low) in [(205, 160), (1, 1), (0, 0), (100, 10_000)] {
            let limits = limits(managed, low, 4, 0);
            assert!(limits.high_min <= limits.high_max, "{limits:?}");
            let mut pattern = Pattern::default();
            for count in 1..300 {
                assert!(pattern.drain(limits, count, (false, count % 2 == 0)) <= count);
                let _ = pattern.refill(limits, Order::ZERO, count, (true, false));
            }
        }
        // Settings change under the eyes of a CPU: it may see the old one of the two.
        let torn = Limits {
            batch: 1,
            high_min: 40,
            high_max: 25,
        };
        let mut pattern = Pattern::default();
        assert!(pattern.drain(torn, 100, (true, false)) <= 100);
    }

    #[test]
    fn requests_in_a_row_double_the_batch_and_a_page_given_back_ends_that() {
        let limits = Limits {
            batch: 63,
            high_min: 252,
            high_max: 10_000,
        };
        let mut pattern = Pattern::default();
        let mut fetched = [0; 8];
        for fetch in &mut fetched {
            *fetch = pattern.refill(limits, Order::ZERO, 0, (true, false));
        }
        assert_eq!(fetched, [126, 252, 504, 1008, 2016, 2016, 2016, 2016]);
        assert_eq!(pattern.refill(limits, Order::ZERO, 0, (false, false)), 63);
        assert!(pattern.high <= limits.high_max && pattern.high > limits.high_min);
    }

    #[test]
    fn a_short_zone_gets_its_pages_back() {
        let limits = Limits {
            batch: 63,
            high_min: 252,
            high_max: 10_000,
        };
        let mut pattern = Pattern {
            high: 5_000,
            ..Pattern::default()
        };
        for _ in 0..8 {
            assert!(pattern.drain(limits, 5_001, (true, true)) >= 63);
        }
        assert_eq!(pattern.high, limits.high_min);
    }

    #[test]
    fn the_least_holds_where_the_most_would_be_less() {
        let tiny = limits(203, 40, 1, 0);
        assert!(tiny.high_min <= tiny.high_max, "{tiny:?}");
        // As a CPU may see them in the midst of a change.
        let tiny = Limits {
            high_max: 25,
            ..tiny
        };
        let mut pattern = Pattern::default();
        for flags in [(true, true), (true, false), (false, false)] {
            pattern.refill(tiny, Order::ZERO, 0, flags);
            pattern.drain(tiny, tiny.high_min + 1, flags);
            assert_eq!(pattern.high, tiny.high_min);
        }
    }

    #[test]
    fn what_is_drained_leaves_no_more_than_high() {
        let limits = Limits {
            batch: 7,
            high_min: 28,
            high_max: 28,
        };
        let mut pattern = Pattern::default();
        for count in 29..600 {
            let drained = pattern.drain(limits, count, (false, false));
            assert!(drained >= 1 && drained <= count);
            assert!(count - drained <= 28, "{count} {drained}");
        }
    }
}
