//! The contiguous memory allocator (Linux: `mm/cma.c`): memory that devices can have in one piece
//! at any time, and that is lent to movable pages until then.
//!
//! The area is taken from memblock at boot, inside one zone; its pageblocks have a type of their
//! own. A bitmap says which frames were given out in one piece. Whoever wants some looks for clear
//! bits, sets them, and takes the frames back from the zone. There is no migration yet: pages that
//! movable requests have there are in the way, unless a cache gives them back.
#![forbid(unsafe_code)]

use core::fmt;

use super::drain::Ask;
use super::retry::FRUITLESS;
use super::run::{ContigError, Origin, PageRun};
use super::{AllocError, Core, Memory};
use crate::addr::{Order, Pfn, PfnRange, PhysRange};
use crate::buddy::{Gfp, MigrateType, RangeError, Request};
use crate::collections::{Bit, Bitmap};
use crate::config::PAGE_SIZE;
use crate::frame::ZoneId;
use crate::mem::{CarveError, EarlyRam, Exclusive};
use crate::memblock::{self, Floor, Memblock, NodeChoice};
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;
use crate::sync::SpinLock;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::rank;
use crate::zone::plan::Plan;
use crate::zone::{Pause, Zone, ZoneKind};

/// What an area's ends are multiples of: pageblocks stay whole, and so do pairs of them.
const ALIGN: u64 = Order::MAX.frames() * PAGE_SIZE;

/// Why [`Memory::cma_alloc`] failed. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CmaError {
    /// Memory is not up yet.
    NotUp,
    /// There is no area: none was asked for, or there was no room for it.
    NoArea,
    /// Nothing was asked for.
    Empty,
    /// No run of that length and alignment is left in the area.
    NoRoom,
    /// There are such runs, but each has a page in use that cannot be moved.
    Busy {
        /// First frame of what was in the way of the first run.
        pfn: Pfn,
    },
    /// A run was free, but written to; it was reported and stays out of circulation.
    Damaged(Corruption),
}

impl fmt::Display for CmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::NoArea => f.write_str("there is no CMA area"),
            Self::Empty => f.write_str("nothing was asked for"),
            Self::NoRoom => f.write_str("no run of that length is left in the CMA area"),
            Self::Busy { pfn } => write!(f, "frame {pfn} is in use and cannot be moved"),
            Self::Damaged(corruption) => corruption.fmt(f),
        }
    }
}

impl core::error::Error for CmaError {}

/// What the area has, and how often it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CmaStats {
    /// Which frames; none if there is no area.
    pub frames: PfnRange,
    /// Frames given out in one piece.
    pub taken: u64,
    /// Requests that were served (`/proc/vmstat`: `cma_alloc_success`).
    pub success: u64,
    /// Requests that were not (`cma_alloc_fail`).
    pub fail: u64,
}

/// The area.
#[derive(Debug)]
pub(crate) struct CmaArea {
    frames: PfnRange,
    home: ZoneId,
    /// By frame, from the first on: given out in one piece.
    taken: SpinLock<Bitmap>,
    success: AtomicU64,
    fail: AtomicU64,
}

/// Takes room for an area from memblock: `bytes`, rounded up, inside one zone, the higher ones first.
/// Nothing if there is none, or if less than a quarter of what is free would be left to others.
pub(super) fn reserve<P: Platform>(
    memblock: &mut Memblock,
    platform: &P,
    plan: &Plan<'_>,
    bytes: u64,
) -> Option<(ZoneId, EarlyRam)> {
    let size = bytes
        .checked_next_multiple_of(ALIGN)
        .filter(|size| *size > 0)?;
    let free = memblock.free_ranges().map(|free| free.range.size());
    let free = free.fold(0, u64::saturating_add);
    if size > free.saturating_sub(free.div_euclid(4)) {
        return None;
    }
    let mut ids = [ZoneKind::Normal, ZoneKind::Dma32, ZoneKind::Dma]
        .into_iter()
        .flat_map(|kind| {
            (0..)
                .map(NodeId)
                .zip(plan.nodes())
                .map(move |node| (kind, node))
        });
    ids.find_map(|(kind, (node, plan))| {
        let span: PhysRange = plan.zone(kind).frames.addrs();
        let request = memblock::Request::bytes(size)
            .align(ALIGN)
            .floor(Floor::Required(span.start()))
            .ceiling(span.end())
            .node(NodeChoice::Exactly(node));
        let zone = u8::try_from(kind.index()).unwrap_or_default();
        let ram = memblock.alloc_raw(platform, &request).ok()?;
        Some((ZoneId { node, zone }, ram))
    })
}

impl CmaArea {
    /// Bytes of the bitmap for an area.
    pub(super) fn table_bytes(area: PhysRange) -> u64 {
        Bitmap::bytes_for(area.whole_frames().frames())
    }

    pub(super) fn new<P: Platform>(
        platform: &P,
        home: ZoneId,
        area: PhysRange,
        table: EarlyRam,
    ) -> Result<Self, CarveError> {
        let frames = area.whole_frames();
        let bitmap = Bitmap::carve(platform, table, frames.frames())?;
        Ok(Self {
            frames,
            home,
            taken: SpinLock::new(rank::CMA, bitmap),
            success: AtomicU64::new(0),
            fail: AtomicU64::new(0),
        })
    }

    /// Marks the first run of frames that nobody was given and that starts at or behind `from`.
    fn claim<P: Platform>(
        &self,
        platform: &P,
        (count, align): (u64, Order),
        from: Pfn,
    ) -> Option<PfnRange> {
        let base = self.frames.first();
        let from = from.offset_from(base).unwrap_or(0);
        let mut taken = self.taken.lock(platform);
        let at = taken.find_clear(from, count, (align.frames(), base.as_u64()))?;
        taken.put(at, count, Bit::Set);
        PfnRange::from_count(base.saturating_add(at), count)
    }

    /// Takes the marks off again.
    pub(super) fn disclaim<P: Platform>(&self, platform: &P, range: PfnRange) {
        let at = range.first().offset_from(self.frames.first());
        let mut taken = self.taken.lock(platform);
        taken.put(at.unwrap_or(u64::MAX), range.frames(), Bit::Clear);
    }
}

impl Core {
    /// Lends the area to movable pages. For a machine that comes up.
    pub(super) fn lend_cma<P: Platform>(
        &self,
        platform: &P,
        area: &CmaArea,
        ram: EarlyRam,
    ) -> Result<(), Corruption> {
        self.populate_all(platform, area.frames);
        if let Some(zone) = self.zone(area.home) {
            zone.lend_to_movable(platform, area.frames);
        }
        let adopted = self.adopt(platform, area.home.node, ram);
        adopted.map_err(|(corruption, _)| corruption)
    }
}

impl<P: Platform> Memory<P> {
    /// Takes `count` contiguous frames of the CMA area, the first a multiple of `2^align` (Linux:
    /// `cma_alloc`); dropping the run gives them back. Free pages and those on CPUs' lists make way;
    /// then caches are asked for theirs, as often as that brings anything, at most 16 times.
    /// Context: task.
    ///
    /// # Errors
    /// [`CmaError`].
    #[track_caller]
    pub fn cma_alloc(&self, count: u64, align: Order) -> Result<PageRun<&Self>, CmaError> {
        let core = self.core().ok_or(CmaError::NotUp)?;
        let area = core.cma.as_ref().ok_or(CmaError::NoArea)?;
        let outcome = match count {
            0 => Err(CmaError::Empty),
            _ => self.cma_run(core, area, (count, align)),
        };
        let counter = if outcome.is_ok() {
            &area.success
        } else {
            &area.fail
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// Gives a run back: the same as dropping it (Linux: `cma_release`). Context: any but NMI.
    pub fn cma_release(&self, run: PageRun<&Self>) {
        drop(run);
    }

    /// The area and what was done with it. Context: any but NMI.
    #[must_use]
    pub fn cma_stats(&self) -> CmaStats {
        let Some(area) = self.core().and_then(|core| core.cma.as_ref()) else {
            return CmaStats::default();
        };
        CmaStats {
            frames: area.frames,
            taken: area.taken.lock(&self.platform).count(),
            success: area.success.load(Ordering::Relaxed),
            fail: area.fail.load(Ordering::Relaxed),
        }
    }

    #[track_caller]
    fn cma_run(
        &self,
        core: &Core,
        area: &CmaArea,
        wanted: (u64, Order),
    ) -> Result<PageRun<&Self>, CmaError> {
        let gfp = Gfp::KERNEL.union(Gfp::MOVABLE);
        let Some((zone, request)) = core
            .zone(area.home)
            .zip(Request::new(gfp, Order::ZERO).ok())
        else {
            return Err(CmaError::NoArea);
        };
        let mut rounds: u32 = 0;
        loop {
            let error = match self.cma_pass(core, area, zone, wanted) {
                Ok(frames) => {
                    let run = self.prepared_run(core, &request, frames, Origin::Cma);
                    return run.map_err(|error| self.cma_failure(area, &error));
                }
                Err(error) => error,
            };
            let may_help = matches!(error, CmaError::Busy { .. }) && rounds < FRUITLESS;
            let node = core.node(area.home.node).filter(|_| may_help);
            if node.is_none_or(|node| self.direct_reclaim(core, node.into(), &request) == 0) {
                return Err(error);
            }
            rounds = rounds.saturating_add(1);
            self.platform.reschedule();
        }
    }

    /// Looks at each run that nobody was given, until one can be taken.
    fn cma_pass(
        &self,
        core: &Core,
        area: &CmaArea,
        zone: &Zone,
        wanted: (u64, Order),
    ) -> Result<Exclusive, CmaError> {
        let _pause = Pause::new(zone);
        let _ = self.drain_zones(core, || core::iter::once(zone), Ask::Everybody);
        let mut from = area.frames.first();
        let mut busy = None;
        while let Some(range) = area.claim(&self.platform, wanted, from) {
            let error = match self.take_range_of(zone, range, MigrateType::Cma) {
                Ok(frames) => return Ok(frames),
                Err(error) => error,
            };
            area.disclaim(&self.platform, range);
            let pfn = match error {
                // Somebody else is at work in the same pageblock.
                RangeError::Busy { pfn } | RangeError::Isolated { pfn } => pfn,
                // A frame of the area is out of circulation.
                _ => range.first(),
            };
            let _ = busy.get_or_insert(pfn);
            from = pfn.max(range.first()).saturating_add(1);
        }
        Err(busy.map_or(CmaError::NoRoom, |pfn| CmaError::Busy { pfn }))
    }

    /// The frames of a damaged run stay marked: they are out of circulation.
    fn cma_failure(&self, area: &CmaArea, error: &ContigError) -> CmaError {
        match error {
            ContigError::Damaged(corruption) => CmaError::Damaged(*corruption),
            ContigError::Alloc(AllocError::NotUp) => CmaError::NotUp,
            _ => CmaError::Busy {
                pfn: area.frames.first(),
            },
        }
    }
}
