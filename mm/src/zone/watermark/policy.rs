//! The numbers behind watermarks and reserves: pure functions, as Linux 6.1 computes them.
//!
//! All amounts are frames unless a name says otherwise. Divisions round down, as Linux's do.
#![forbid(unsafe_code)]

use super::AllocFlags;
use crate::buddy::Gfp;
use crate::config::{PAGE_SHIFT, PAGEBLOCK_FRAMES};
use crate::zone::ZoneKind;

/// Frames by kind of zone.
pub type ByZone = [u64; ZoneKind::COUNT];

/// What `vm.watermark_scale_factor` is unless it is set.
pub const SCALE_FACTOR: u32 = 10;
/// What `vm.watermark_boost_factor` is unless it is set.
pub const BOOST_FACTOR: u32 = 15_000;
/// What `vm.watermark_scale_factor` may be: 0.01 % to 30 % of a zone.
pub const SCALE_FACTORS: core::ops::RangeInclusive<u32> = 1..=3000;
/// What `vm.lowmem_reserve_ratio` is unless it is set.
pub const RESERVE_RATIO: [u32; ZoneKind::COUNT] = [256, 256, 32, 0, 0];

/// Machines with less memory have no huge pages (Linux: `hugepage_init`).
pub const HUGE_PAGE_MACHINE: u64 = (512 << 20) >> PAGE_SHIFT;

/// A zone's marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// What ordinary requests leave.
    pub min: u64,
    /// Below this, memory is short: only the slow path goes on.
    pub low: u64,
    /// Above this, there is enough again.
    pub high: u64,
}

impl Marks {
    /// All three, higher by so much.
    #[must_use]
    pub const fn raised(self, frames: u64) -> Self {
        Self {
            min: self.min.saturating_add(frames),
            low: self.low.saturating_add(frames),
            high: self.high.saturating_add(frames),
        }
    }
}

/// A part of a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// What a zone has.
    pub part: u64,
    /// What all zones have.
    pub whole: u64,
}

/// `vm.min_free_kbytes` for so much low memory: `4 × sqrt(KiB)`, so 1 % of 160 MiB but 0.1 % of
/// 16 GiB (Linux: `calculate_min_free_kbytes`).
#[must_use]
pub fn min_free_kib(lowmem: u64) -> u64 {
    let root = to_kib(lowmem).saturating_mul(16).isqrt();
    root.clamp(128, 262_144)
}

/// What huge pages raise `vm.min_free_kbytes` to: in each zone two pageblocks for themselves and
/// two for each pair of migrate types, so that types seldom mix; at most a twentieth of what is
/// `available` above the high marks (Linux: `set_recommended_min_free_kbytes`).
#[must_use]
pub fn huge_page_min_free_kib(zones: u64, available: u64) -> u64 {
    const TYPES: u64 = 3;
    const PER_ZONE: u64 = PAGEBLOCK_FRAMES * (2 + TYPES * TYPES);
    let wanted = zones.saturating_mul(PER_ZONE);
    to_kib(wanted.min(available.div_euclid(20)))
}

/// A zone's marks: its share of `min_free_kib`, and above it two equal steps of a quarter of
/// that or of `scale_factor` ten-thousandths of the zone, whichever is more (Linux:
/// `__setup_per_zone_wmarks`; high memory, which it treats apart, does not exist here).
#[must_use]
pub fn marks(min_free_kib: u64, zone: Share, scale_factor: u32) -> Marks {
    let whole = Share {
        whole: zone.whole.max(1),
        ..zone
    };
    let min = fraction(min_free_kib >> (PAGE_SHIFT - 10), whole);
    let scaled = Share {
        part: u64::from(scale_factor),
        whole: 10_000,
    };
    let step = min.div_euclid(4).max(fraction(zone.part, scaled));
    let low = min.saturating_add(step);
    Marks {
        min,
        low,
        high: low.saturating_add(step),
    }
}

/// What each zone of a node keeps from requests that may use higher zones too, by the highest
/// zone of the request: all that the zones between have, divided by the zone's ratio (Linux:
/// `setup_per_zone_lowmem_reserve`). A ratio of 0 keeps nothing.
#[must_use]
pub fn protection(managed: &ByZone, ratio: &[u32; ZoneKind::COUNT]) -> [ByZone; ZoneKind::COUNT] {
    let mut protection = [[0; ZoneKind::COUNT]; ZoneKind::COUNT];
    for (zone, kept) in protection.iter_mut().enumerate() {
        if managed[zone] == 0 {
            continue;
        }
        let mut above: u64 = 0;
        for upper in zone.saturating_add(1)..ZoneKind::COUNT {
            above = above.saturating_add(managed[upper]);
            kept[upper] = above.checked_div(u64::from(ratio[zone])).unwrap_or(0);
        }
    }
    protection
}

/// What a request may do beyond the `min` mark (Linux: `gfp_to_alloc_flags`,
/// `__gfp_pfmemalloc_flags`).
#[must_use]
pub const fn alloc_flags(gfp: Gfp) -> AllocFlags {
    let mut flags = AllocFlags::empty();
    if gfp.contains(Gfp::HIGH) {
        flags = flags.union(AllocFlags::HIGH);
        // Who cannot wait for reclaim is let further in.
        if !gfp.intersects(Gfp::DIRECT_RECLAIM.union(Gfp::NOMEMALLOC)) {
            flags = flags.union(AllocFlags::HARDER);
        }
    }
    if gfp.contains(Gfp::MOVABLE) {
        flags = flags.union(AllocFlags::CMA);
    }
    if gfp.contains(Gfp::MEMALLOC) && !gfp.contains(Gfp::NOMEMALLOC) {
        flags = flags.union(AllocFlags::NO_WATERMARKS);
    }
    flags
}

/// How far down a mark goes for a request with these flags (Linux: `__zone_watermark_ok`).
#[must_use]
pub const fn lowered(mark: u64, flags: AllocFlags) -> u64 {
    let mut mark = mark;
    if flags.contains(AllocFlags::HIGH) {
        mark = mark.saturating_sub(mark.div_euclid(2));
    }
    if flags.contains(AllocFlags::OOM) {
        mark = mark.saturating_sub(mark.div_euclid(2));
    } else if flags.contains(AllocFlags::HARDER) {
        mark = mark.saturating_sub(mark.div_euclid(4));
    }
    mark
}

/// By how much the marks of a zone may be raised when migrate types mix: `factor` ten-thousandths of
/// its `high` mark, and at least a pageblock; not at all in zones of less than four pageblocks, where
/// that would help nobody (Linux: `boost_watermark`).
#[must_use]
pub fn max_boost(high: u64, factor: u32, managed: u64) -> u64 {
    let share = Share {
        part: u64::from(factor),
        whole: 10_000,
    };
    let wanted = fraction(high, share);
    if wanted == 0 || managed < 4 * PAGEBLOCK_FRAMES {
        return 0;
    }
    wanted.max(PAGEBLOCK_FRAMES)
}

/// How much of a zone may be kept for large requests that cannot wait: a hundredth, or one
/// pageblock where that is more (Linux: `reserve_highatomic_pageblock`).
#[must_use]
pub const fn high_atomic_limit(managed: u64) -> u64 {
    let share = managed.div_euclid(100);
    if share > PAGEBLOCK_FRAMES {
        share
    } else {
        PAGEBLOCK_FRAMES
    }
}

fn to_kib(frames: u64) -> u64 {
    frames.saturating_mul(1 << (PAGE_SHIFT - 10))
}

/// `amount × part / whole`, without overflow on the way.
fn fraction(amount: u64, Share { part, whole }: Share) -> u64 {
    let product = u128::from(amount).saturating_mul(u128::from(part));
    let quotient = product.checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mib(mib: u64) -> u64 {
        mib << 8
    }

    #[test]
    fn min_free_grows_with_the_root_of_memory_between_its_limits() {
        // Linux's own table, Documentation and mm/page_alloc.c: 16 MiB → 512 k … 16 GiB → 16384 k.
        for (lowmem, kib) in [
            (mib(16), 512),
            (mib(32), 724),
            (mib(64), 1024),
            (mib(128), 1448),
            (mib(256), 2048),
            (mib(512), 2896),
            (mib(1024), 4096),
            (mib(2048), 5792),
            (mib(4096), 8192),
            (mib(8192), 11585),
            (mib(16384), 16384),
            (0, 128),
            (mib(1 << 22), 262_144),
            (u64::MAX, 262_144),
        ] {
            assert_eq!(min_free_kib(lowmem), kib, "{lowmem} frames");
        }
    }

    #[test]
    fn huge_pages_want_eleven_pageblocks_a_zone_and_get_a_twentieth_of_memory() {
        assert_eq!(huge_page_min_free_kib(2, mib(4096)), 2 * 11 * 2048);
        assert_eq!(huge_page_min_free_kib(3, mib(600)), 600 * 1024 / 20);
        assert_eq!(
            huge_page_min_free_kib(u64::MAX, u64::MAX),
            u64::MAX / 20 * 4
        );
    }

    #[test]
    fn marks_stand_a_quarter_of_min_or_a_share_of_the_zone_apart() {
        let zone = |part, whole| Share { part, whole };
        let cases = [
            // A quarter of min is more than a thousandth of the zone.
            (
                (8192, zone(mib(512), mib(1024)), 10),
                Marks {
                    min: 1024,
                    low: 1280,
                    high: 1536,
                },
            ),
            // A thousandth of the zone is more.
            (
                (4096, zone(mib(512), mib(1024)), 10),
                Marks {
                    min: 512,
                    low: 643,
                    high: 774,
                },
            ),
            // 30 % of the zone.
            (
                (4096, zone(mib(512), mib(1024)), 3000),
                Marks {
                    min: 512,
                    low: 512 + 39_321,
                    high: 512 + 2 * 39_321,
                },
            ),
            ((4096, zone(0, mib(1024)), 10), Marks::default()),
            ((4096, zone(0, 0), 10), Marks::default()),
            (
                (0, zone(mib(1024), mib(1024)), 10),
                Marks {
                    min: 0,
                    low: 262,
                    high: 524,
                },
            ),
        ];
        for ((kib, share, factor), expected) in cases {
            assert_eq!(marks(kib, share, factor), expected, "{kib} {share:?}");
        }
    }

    #[test]
    fn a_boost_is_a_share_of_the_high_mark_or_a_pageblock_and_nothing_in_tiny_zones() {
        for (high, factor, managed, boost) in [
            (10_000, 15_000, mib(1024), 15_000),
            (100, 15_000, mib(64), 512),
            (100, 15_000, 2047, 0),
            (100, 15_000, 2048, 512),
            (10_000, 0, mib(1024), 0),
            (0, 15_000, mib(1024), 0),
            (u64::MAX, u32::MAX, mib(1024), u64::MAX),
        ] {
            assert_eq!(max_boost(high, factor, managed), boost, "{high} {factor}");
        }
    }

    #[test]
    fn a_hundredth_or_a_pageblock_may_be_kept_for_large_requests() {
        for (managed, kept) in [(0, 512), (51_299, 512), (51_300, 513), (mib(4096), 10_485)] {
            assert_eq!(high_atomic_limit(managed), kept);
        }
    }

    /// Issue 3: zones of 8, 64 and 256 MiB with ratios 256 and 32.
    #[test]
    fn lower_zones_keep_a_part_of_what_is_above_them() {
        let managed = [mib(8), mib(64), mib(256), 0, 0];
        let mut ratio = RESERVE_RATIO;
        assert_eq!(
            protection(&managed, &ratio),
            [
                [0, 64, 320, 320, 320],
                [0, 0, 256, 256, 256],
                [0, 0, 0, 0, 0],
                [0; 5],
                [0; 5]
            ]
        );
        ratio[1] = 32;
        assert_eq!(protection(&managed, &ratio)[1], [0, 0, 2048, 2048, 2048]);
        ratio[0] = 0;
        assert_eq!(protection(&managed, &ratio)[0], [0; 5]);
        let empty = [0, mib(64), mib(256), 0, 0];
        assert_eq!(protection(&empty, &RESERVE_RATIO)[0], [0; 5]);
    }

    #[test]
    fn flags_lower_a_mark_as_linux_does() {
        let (high, harder, oom) = (AllocFlags::HIGH, AllocFlags::HARDER, AllocFlags::OOM);
        for (flags, left) in [
            (AllocFlags::empty(), 1001),
            (high, 501),
            (harder, 751),
            (high | harder, 376),
            (oom, 501),
            (high | oom, 251),
            (high | harder | oom, 251),
        ] {
            assert_eq!(lowered(1001, flags), left, "{flags:?}");
            assert_eq!(lowered(0, flags), 0);
        }
    }

    #[test]
    fn a_request_gets_the_rights_that_its_flags_name() {
        use AllocFlags as F;
        for (gfp, flags) in [
            (Gfp::KERNEL, F::empty()),
            (Gfp::HIGHUSER_MOVABLE, F::CMA),
            (Gfp::NOWAIT, F::empty()),
            (Gfp::ATOMIC, F::HIGH | F::HARDER),
            (Gfp::KERNEL | Gfp::HIGH, F::HIGH),
            (Gfp::ATOMIC | Gfp::NOMEMALLOC, F::HIGH),
            (Gfp::KERNEL | Gfp::MEMALLOC, F::NO_WATERMARKS),
            (Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOMEMALLOC, F::empty()),
            (
                Gfp::ATOMIC | Gfp::MEMALLOC,
                F::HIGH | F::HARDER | F::NO_WATERMARKS,
            ),
        ] {
            assert_eq!(alloc_flags(gfp), flags, "{gfp:?}");
        }
    }
}
