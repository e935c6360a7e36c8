//! Watermarks and reserves: how much of a zone a request must leave.
//!
//! Each zone has three marks. A request first looks for a zone that stays above `low`; when none
//! does, memory is short, and it goes down to `min`, or further if its flags let it
//! ([`AllocFlags`]). On top of the mark a zone keeps a reserve from requests that could as well be
//! served by a higher zone, so that these do not use up what only the lower zone can give
//! (Linux: `lowmem_reserve`). [`policy`] has the numbers.
//!
//! # Protocol
//!
//! Marks are written by one writer at a time (the system's settings lock) and read by anyone
//! without a lock; a reader may see some old and some new ones. `low` and reserve are
//! also kept added up, so the usual test is one load and one comparison. The test and the taking are not
//! one step: as many CPUs as pass the test at once may go as many blocks below a mark.
#![forbid(unsafe_code)]

pub mod policy;

use super::ZoneKind;
use crate::addr::{Order, Place};
use crate::config::PAGEBLOCK_FRAMES;
use crate::sync::atomic::{AtomicU64, Ordering};
use policy::{ByZone, Marks};

bitflags::bitflags! {
    /// What a request may do below a mark (Linux: `ALLOC_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct AllocFlags: u8 {
        /// Down to half of the mark (`ALLOC_HIGH`, later `ALLOC_MIN_RESERVE`).
        const HIGH = 1 << 0;
        /// A quarter further: the caller cannot wait (`ALLOC_HARDER`, later `ALLOC_NON_BLOCK`).
        const HARDER = 1 << 1;
        /// Half further: the caller is about to give all its memory back (`ALLOC_OOM`).
        const OOM = 1 << 2;
        /// To the last page (`ALLOC_NO_WATERMARKS`).
        const NO_WATERMARKS = 1 << 3;
        /// In pageblocks of CMA too (`ALLOC_CMA`).
        const CMA = 1 << 4;
    }
}

impl AllocFlags {
    /// Each of these opens pageblocks that are kept for large requests that cannot wait.
    pub const HIGH_ATOMIC: Self = Self::HARDER.union(Self::OOM).union(Self::NO_WATERMARKS);
    /// Each of these leads below the `min` mark.
    pub const RESERVES: Self = Self::HIGH.union(Self::HIGH_ATOMIC);
}

/// Which mark a request must leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// `WMARK_MIN`
    Min,
    /// `WMARK_LOW`
    Low,
    /// `WMARK_HIGH`
    High,
}

/// What a zone is asked to stay above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// The mark.
    pub mark: Mark,
    /// How far below it the request may go.
    pub flags: AllocFlags,
    /// The highest zone that could serve the request.
    pub highest: ZoneKind,
    /// How large a block it asks for.
    pub order: Order,
}

/// The marks and reserves of a zone. All zero until memory is up.
#[derive(Debug, Default)]
pub struct Watermarks {
    min: AtomicU64,
    low: AtomicU64,
    high: AtomicU64,
    /// By how much all three are raised for a while.
    boost: AtomicU64,
    /// How much that may be; 0 in zones that are not raised.
    max_boost: AtomicU64,
    /// By the highest zone of a request.
    reserve: [AtomicU64; ZoneKind::COUNT],
    /// `low + reserve`, by the highest zone of a request.
    floor: [AtomicU64; ZoneKind::COUNT],
}

impl Watermarks {
    /// Marks and reserves that are not set yet.
    pub(super) const fn new() -> Self {
        Self {
            min: AtomicU64::new(0),
            low: AtomicU64::new(0),
            high: AtomicU64::new(0),
            boost: AtomicU64::new(0),
            max_boost: AtomicU64::new(0),
            reserve: [const { AtomicU64::new(0) }; ZoneKind::COUNT],
            floor: [const { AtomicU64::new(0) }; ZoneKind::COUNT],
        }
    }

    /// The marks as they hold now, boost included (Linux: `min_wmark_pages`, …). Context: any;
    /// stale when they arrive.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.unboosted().raised(self.boost())
    }

    /// The marks as they are when nothing was boosted. Context: any; stale when they arrive.
    #[must_use]
    pub fn unboosted(&self) -> Marks {
        Marks {
            min: self.min.load(Ordering::Relaxed),
            low: self.low.load(Ordering::Relaxed),
            high: self.high.load(Ordering::Relaxed),
        }
    }

    /// Where the marks are.
    pub(super) fn places(&self) -> [Place; 4] {
        [
            Place::of("min", &self.min),
            Place::of("low", &self.low),
            Place::of("high", &self.high),
            Place::of("boost", &self.boost),
        ]
    }

    /// By how much the marks are raised because migrate types were mixed (Linux:
    /// `watermark_boost`). Context: any; stale when it arrives.
    #[inline]
    #[must_use]
    pub fn boost(&self) -> u64 {
        self.boost.load(Ordering::Relaxed)
    }

    /// Raises the marks by a pageblock, as far as they may be raised (Linux: `boost_watermark`).
    /// Answers whether the zone is one of those that are.
    pub(super) fn raise(&self) -> bool {
        let most = self.max_boost.load(Ordering::Relaxed);
        let raised = |now: u64| Some(now.saturating_add(PAGEBLOCK_FRAMES).min(most));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.boost.fetch_update(set, fetch, raised);
        most > 0
    }

    /// Lowers the marks again, by what reclaim found them raised by.
    pub(crate) fn lower(&self, boost: u64) {
        let lowered = |now: u64| Some(now.saturating_sub(boost));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.boost.fetch_update(set, fetch, lowered);
    }

    /// What the zone keeps from requests, by their highest zone (Linux: `lowmem_reserve`, in
    /// `/proc/zoneinfo` `protection`). Context: any.
    #[must_use]
    pub fn protection(&self) -> ByZone {
        ZoneKind::ALL.map(|highest| self.reserve(highest))
    }

    fn reserve(&self, highest: ZoneKind) -> u64 {
        self.reserve[highest.index()].load(Ordering::Relaxed)
    }

    /// Sets everything; nothing is raised then. The caller holds the settings lock.
    pub(crate) fn set(&self, marks: Marks, max_boost: u64, protection: &ByZone) {
        self.max_boost.store(max_boost, Ordering::Relaxed);
        self.boost.store(0, Ordering::Relaxed);
        self.min.store(marks.min, Ordering::Relaxed);
        self.low.store(marks.low, Ordering::Relaxed);
        self.high.store(marks.high, Ordering::Relaxed);
        let places = self.reserve.iter().zip(&self.floor);
        for ((reserve, floor), &kept) in places.zip(protection) {
            reserve.store(kept, Ordering::Relaxed);
            floor.store(marks.low.saturating_add(kept), Ordering::Relaxed);
        }
    }

    /// What a zone must have more of so that a page of it can go the usual way: the `low` mark
    /// and the reserve. Context: any.
    #[inline]
    #[must_use]
    pub fn low_floor(&self, highest: ZoneKind) -> u64 {
        let floor = self.floor[highest.index()].load(Ordering::Relaxed);
        // Both are less than the frames of a machine.
        floor.wrapping_add(self.boost())
    }

    /// What a zone must have more of so that a page of it can go, in general (Linux: what
    /// `__zone_watermark_ok` compares with). Context: any.
    #[must_use]
    pub fn floor(&self, limit: Limit) -> u64 {
        if limit.flags.contains(AllocFlags::NO_WATERMARKS) {
            return 0;
        }
        // A single page that cannot wait looks past the boost: that is to have memory reclaimed,
        // not to have interrupt handlers fail.
        let is_urgent = limit.flags.contains(AllocFlags::HARDER) && limit.order == Order::ZERO;
        let marks = match limit.mark {
            Mark::Min if is_urgent => self.unboosted(),
            _ => self.marks(),
        };
        let mark = match limit.mark {
            Mark::Min => marks.min,
            Mark::Low => marks.low,
            Mark::High => marks.high,
        };
        policy::lowered(mark, limit.flags).saturating_add(self.reserve(limit.highest))
    }
}

/// Whether a block of `order` can go and leave `floor` frames of `free` (Linux:
/// `zone_watermark_ok`; that there is a block of that size at all is left to who takes it).
#[inline]
#[must_use]
pub const fn spares(free: u64, order: Order, floor: u64) -> bool {
    free.saturating_sub(order.frames().wrapping_sub(1)) > floor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Watermarks {
        let watermarks = Watermarks::new();
        let marks = Marks {
            min: 100,
            low: 125,
            high: 150,
        };
        watermarks.set(marks, 600, &[0, 10, 50, 50, 50]);
        watermarks
    }

    #[test]
    fn a_block_goes_while_the_floor_stays() {
        for size in 0..=10 {
            let order = Order::new(size).unwrap();
            for floor in [0, 1, 125, 1 << 40] {
                let least = floor + order.frames();
                assert!(spares(least, order, floor));
                assert!(!spares(least - 1, order, floor));
                assert!(!spares(0, order, floor));
            }
        }
    }

    #[test]
    fn the_quick_floor_is_the_low_mark_and_the_reserve() {
        let watermarks = example();
        for (highest, floor) in [
            (ZoneKind::Dma, 125),
            (ZoneKind::Dma32, 135),
            (ZoneKind::Normal, 175),
        ] {
            let limit = Limit {
                mark: Mark::Low,
                flags: AllocFlags::empty(),
                highest,
                order: Order::ZERO,
            };
            assert_eq!(watermarks.low_floor(highest), floor);
            assert_eq!(watermarks.floor(limit), floor);
        }
    }

    #[test]
    fn flags_and_mark_make_the_limit() {
        let watermarks = example();
        let none = AllocFlags::empty();
        let both = AllocFlags::HIGH | AllocFlags::HARDER;
        for (mark, flags, left) in [
            (Mark::Min, none, 110),
            (Mark::Low, none, 135),
            (Mark::High, none, 160),
            (Mark::Min, both, 10 + 50 - 12),
            (Mark::Min, AllocFlags::NO_WATERMARKS | both, 0),
        ] {
            let highest = ZoneKind::Dma32;
            let limit = Limit {
                mark,
                flags,
                highest,
                order: Order::ZERO,
            };
            assert_eq!(watermarks.floor(limit), left, "{limit:?}");
        }
    }

    #[test]
    fn a_boost_raises_all_marks_within_its_bound_but_not_for_a_single_page_that_cannot_wait() {
        let watermarks = example();
        assert!(watermarks.raise());
        assert_eq!(watermarks.marks(), watermarks.unboosted().raised(512));
        assert!(watermarks.raise());
        assert_eq!(watermarks.boost(), 600);
        assert_eq!(watermarks.low_floor(ZoneKind::Dma), 125 + 600);
        let floor = |flags, order| {
            watermarks.floor(Limit {
                mark: Mark::Min,
                flags,
                highest: ZoneKind::Dma,
                order,
            })
        };
        let one = Order::new(1).unwrap();
        assert_eq!(floor(AllocFlags::empty(), Order::ZERO), 700);
        assert_eq!(floor(AllocFlags::HIGH, Order::ZERO), 350);
        assert_eq!(floor(AllocFlags::HARDER, Order::ZERO), 75);
        assert_eq!(floor(AllocFlags::HARDER, one), 525);
        watermarks.lower(512);
        assert_eq!(watermarks.boost(), 88);
        watermarks.lower(512);
        assert_eq!(watermarks.boost(), 0);
        watermarks.raise();
        watermarks.set(watermarks.unboosted(), 0, &[0; 5]);
        assert!(!watermarks.raise());
        assert_eq!(watermarks.boost(), 0);
    }
}
