//! A zone: counts that anyone may read, and free areas behind the zone lock.
#![forbid(unsafe_code)]

use super::numa_stats::NumaCounts;
use super::watermark::{self, AllocFlags, Limit, Watermarks, policy};
use super::{NumaEvent, NumaGauges, NumaStats, ZoneKind};
use crate::addr::{Order, Pfn, PfnRange, to_count};
use crate::buddy::pageset::limits::{Limits, SharedLimits};
use crate::buddy::pageset::{Gauges, PageSetStats};
use crate::buddy::{
    Census, FreeAreas, Keep, MigrateType, Mixing, PageSet, Request, Stats, Step, Told, Trace,
    tell_block,
};
use crate::config::{ORDERS, PAGEBLOCK_FRAMES};
use crate::frame::{FrameTable, Word, ZoneId};
use crate::mem::{Array, Exclusive};
use crate::platform::{CpuId, Platform};
use crate::report::{Check, Corruption, EventKind};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{PerCpu, SpinLock, rank};

/// One kind's memory on one node.
#[derive(Debug)]
pub struct Zone {
    pub(super) home: ZoneId,
    /// The state word of a block handed out here, but for what the request says.
    pub(super) unmarked: Word,
    kind: ZoneKind,
    pub(super) span: PfnRange,
    present: u64,
    /// Written while memory is handed over, read by anyone.
    pub(super) managed: AtomicU64,
    /// Mirror of the free areas' count: written under the zone lock, read by anyone.
    pub(super) free: AtomicU64,
    /// The word of the block that came back last, mirrored likewise.
    pub(super) latest: AtomicU64,
    /// Frames that will be free once their sections are populated.
    pub(super) latent: AtomicU64,
    /// The part of it in pageblocks kept for large requests that cannot wait; mirrored likewise, …
    pub(super) high_atomic_free: AtomicU64,
    /// … as are all frames of these pageblocks.
    pub(super) high_atomic: AtomicU64,
    /// The free frames of CMA, which only movable pages can have; mirrored likewise, …
    pub(super) cma_free: AtomicU64,
    /// … as are all frames of CMA.
    pub(super) cma: AtomicU64,
    pub(super) watermarks: Watermarks,
    /// Whether the marks were raised and kswapd does not know yet.
    pub(super) boosted: AtomicBool,
    pub(super) areas: SpinLock<FreeAreas>,
    /// What each CPU has at hand.
    pub(super) pagesets: PerCpu<PageSet, Gauges>,
    /// The second set of each CPU, with `percpu_pagelists=classic`.
    pub(super) cold: PerCpu<PageSet, Gauges>,
    pub(super) list_limits: SharedLimits,
    /// Frames whose freeing is put off.
    pub(super) deferred: AtomicU64,
    numa: NumaCounts,
}

/// What a zone is made of.
pub(crate) struct ZoneParts {
    pub(crate) home: ZoneId,
    pub(crate) kind: ZoneKind,
    pub(crate) span: PfnRange,
    pub(crate) present: u64,
    pub(crate) areas: FreeAreas,
}

/// Numbers of a zone, all taken at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZoneSnapshot {
    /// Free blocks by migrate type and order.
    pub blocks: [[u64; ORDERS]; MigrateType::COUNT],
    /// Pageblocks with memory, by migrate type.
    pub pageblocks: [u64; MigrateType::COUNT],
    /// Free frames outside isolated pageblocks, latent ones, which are in no block, included.
    pub free: u64,
    /// What the allocator did.
    pub stats: Stats,
}

impl Zone {
    pub(crate) fn new(parts: ZoneParts) -> Self {
        let ZoneParts {
            home,
            kind,
            span,
            present,
            areas,
        } = parts;
        Self {
            home,
            unmarked: Word::unique(home, Order::ZERO, 0),
            kind,
            span,
            present,
            managed: AtomicU64::new(0),
            free: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            latent: AtomicU64::new(0),
            high_atomic_free: AtomicU64::new(0),
            high_atomic: AtomicU64::new(0),
            cma_free: AtomicU64::new(0),
            cma: AtomicU64::new(0),
            watermarks: Watermarks::new(),
            boosted: AtomicBool::new(false),
            areas: SpinLock::new(rank::ZONE, areas),
            pagesets: PerCpu::empty(),
            cold: PerCpu::empty(),
            list_limits: SharedLimits::new(),
            deferred: AtomicU64::new(0),
            numa: NumaCounts::none(),
        }
    }

    /// Node and index, as frame records name it. Context: any.
    #[must_use]
    pub const fn id(&self) -> ZoneId {
        self.home
    }

    /// The kind. Context: any.
    #[must_use]
    pub const fn kind(&self) -> ZoneKind {
        self.kind
    }

    /// From the first to behind the last frame, holes included. Context: any.
    #[must_use]
    pub const fn span(&self) -> PfnRange {
        self.span
    }

    /// Frames in the span. Context: any.
    #[must_use]
    pub const fn spanned(&self) -> u64 {
        self.span.frames()
    }

    /// Frames of RAM. Context: any.
    #[must_use]
    pub const fn present(&self) -> u64 {
        self.present
    }

    /// Frames handed to the allocator, latent ones included. Context: any.
    #[inline]
    #[must_use]
    pub fn managed(&self) -> u64 {
        self.managed.load(Ordering::Relaxed)
    }

    /// Frames free right now, latent ones included (Linux: `NR_FREE_PAGES`). Context: any; stale
    /// when it arrives.
    #[inline]
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        loop {
            let latent = self.latent_frames();
            let free = self.populated_free().saturating_add(latent);
            // Frames do not count twice because they go from one count to the other meanwhile.
            if latent == self.latent_frames() {
                return free;
            }
        }
    }

    /// Whether the allocator has anything here at all (Linux: `managed_zone`). Context: any.
    #[inline]
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.managed() != 0
    }

    /// Whether there is RAM here (Linux: `populated_zone`). Context: any.
    #[must_use]
    pub const fn is_populated(&self) -> bool {
        self.present != 0
    }

    /// What the zone keeps back. Context: any.
    #[inline]
    #[must_use]
    pub const fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// Whether a block can go and leave `floor` populated frames free, by the count alone. Context:
    /// any; stale when it arrives.
    #[inline]
    #[must_use]
    pub fn spares(&self, order: Order, floor: u64) -> bool {
        watermark::spares(self.populated_free(), order, floor)
    }

    /// What a zone must have more of so that a page of it can go the usual way, counted against
    /// all its free frames. Context: any; stale when it arrives.
    #[inline]
    #[must_use]
    pub fn low_floor(&self, request: &Request) -> u64 {
        let flags = match request.migrate() {
            MigrateType::Movable => AllocFlags::CMA,
            _ => AllocFlags::empty(),
        };
        let kept = self.out_of_reach(flags);
        self.watermarks
            .low_floor(request.highest())
            .wrapping_add(kept)
    }

    /// As [`Self::low_floor`], for any mark and rights. Context: any.
    #[must_use]
    pub fn floor(&self, limit: Limit) -> u64 {
        let kept = self.out_of_reach(limit.flags);
        self.watermarks.floor(limit).saturating_add(kept)
    }

    /// Free frames that a request with these rights does not get, whatever the marks say (Linux:
    /// `__zone_watermark_unusable_free`).
    #[inline]
    fn out_of_reach(&self, flags: AllocFlags) -> u64 {
        let mut frames: u64 = 0;
        if !flags.intersects(AllocFlags::HIGH_ATOMIC) {
            frames = self.high_atomic_free.load(Ordering::Relaxed);
        }
        if !flags.contains(AllocFlags::CMA) {
            frames = frames.wrapping_add(self.cma_free.load(Ordering::Relaxed));
        }
        frames
    }

    /// Free frames that are of use to every request.
    pub(crate) fn usable_frames(&self) -> u64 {
        let kept = self.out_of_reach(AllocFlags::empty());
        self.free_frames().saturating_sub(kept)
    }

    /// Frames of CMA, and how many of them are free (Linux: `cma_pages`, `NR_FREE_CMA_PAGES`).
    /// Context: any; stale when it arrives.
    #[must_use]
    pub fn cma(&self) -> (u64, u64) {
        let frames = self.cma.load(Ordering::Relaxed);
        (frames, self.cma_free.load(Ordering::Relaxed))
    }

    /// Makes the pageblocks of a range, which nothing is in yet, ones of CMA. Context: boot.
    pub(crate) fn lend_to_movable<P: Platform>(&self, platform: &P, range: PfnRange) {
        let mut areas = self.lock(platform);
        areas.lend_to_movable(range);
        self.unlock(areas);
    }

    /// Whether the marks were raised since [`Self::take_boosted`] was asked last.
    #[inline]
    pub(crate) fn is_boosted(&self) -> bool {
        self.boosted.load(Ordering::Relaxed)
    }

    /// As [`Self::is_boosted`], to one of those who ask.
    pub(crate) fn take_boosted(&self) -> bool {
        self.boosted.swap(false, Ordering::Relaxed)
    }

    /// Frames in pageblocks kept for large requests that cannot wait, and how many of them are free
    /// (Linux: `reserved_highatomic`, `free_highatomic`). Context: any; stale when it arrives.
    #[must_use]
    pub fn high_atomic(&self) -> (u64, u64) {
        let frames = self.high_atomic.load(Ordering::Relaxed);
        (frames, self.high_atomic_free.load(Ordering::Relaxed))
    }

    /// Keeps the pageblock of a block that a large request was given which cannot wait, within
    /// limits. Context: as [`Self::alloc`].
    #[cold]
    pub(crate) fn keep_high_atomic<P: Platform>(&self, platform: &P, pfn: Pfn) {
        let most = policy::high_atomic_limit(self.managed());
        let kept = self.high_atomic.load(Ordering::Relaxed);
        if kept.saturating_add(PAGEBLOCK_FRAMES) > most {
            return;
        }
        let mut areas = self.lock(platform);
        areas.keep_high_atomic(pfn, most);
        self.unlock(areas);
    }

    /// Gives a pageblock that is kept for others to requests of a type. Answers whether there was
    /// one. Context: as [`Self::alloc`].
    pub(crate) fn give_up_high_atomic<P: Platform>(
        &self,
        platform: &P,
        wanted: MigrateType,
        keep: Keep,
    ) -> bool {
        if self.high_atomic.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut areas = self.lock(platform);
        let found = areas.give_up_high_atomic(wanted, keep);
        self.unlock(areas);
        found
    }

    /// Takes a block for a request (Linux: `rmqueue_buddy`). Context: task, atomic or irq; not NMI.
    #[inline]
    pub(crate) fn alloc<P: Platform>(
        &self,
        platform: &P,
        (request, mixing): (&Request, Mixing),
        flags: AllocFlags,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let mut areas = self.areas.lock(platform);
        let wanted = (request, flags, mixing);
        let block = Self::take(&mut areas, platform, wanted, self.home, trace);
        if let Some(block) = &block {
            self.note_numa(platform.current_cpu(), NumaEvent::Unlisted, 1);
            tell_block(platform, EventKind::Alloc, block);
        }
        self.unlock(areas);
        if block.is_none() {
            trace.step(Step::Exhausted { home: self.home });
        }
        block
    }

    /// Takes up to `count` blocks under one hold of the lock; each goes to `sink`. Answers how
    /// many there were. Context: as [`Self::alloc`].
    pub(crate) fn alloc_bulk<P: Platform>(
        &self,
        platform: &P,
        (request, mixing): (&Request, Mixing),
        count: usize,
        mut sink: impl FnMut(Exclusive),
    ) -> usize {
        let mut areas = self.lock(platform);
        let mut taken: usize = 0;
        while taken < count {
            let wanted = (request, AllocFlags::empty(), mixing);
            let block = Self::take(&mut areas, platform, wanted, self.home, &mut Told(platform));
            let Some(block) = block else { break };
            tell_block(platform, EventKind::Alloc, &block);
            sink(block);
            taken = taken.wrapping_add(1);
        }
        let cpu = platform.current_cpu();
        self.note_numa(cpu, NumaEvent::Unlisted, to_count(taken));
        self.unlock(areas);
        taken
    }

    #[inline]
    pub(super) fn take<P: Platform>(
        areas: &mut FreeAreas,
        platform: &P,
        (request, flags, mixing): (&Request, AllocFlags, Mixing),
        home: ZoneId,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let (order, kind) = (request.order(), request.migrate());
        let word = |kind: MigrateType| {
            let word = Word::unique(home, order, kind.bits());
            if request.is_compound() {
                word.compound()
            } else {
                word
            }
        };
        // What came back last, as the short way has it; whether that was open must make no difference.
        let latest = areas.take_latest(order, word(kind), platform, trace);
        if latest.is_some() {
            areas.note_alloc(order);
            return latest;
        }
        areas.settle(trace);
        // Marked as what it comes from, a block goes back there past the lists of CPUs.
        let kept = MigrateType::HighAtomic;
        let mut block = None;
        if flags.contains(AllocFlags::HARDER) && order > Order::ZERO {
            block = areas.take(order, kept, word(kept), platform, trace);
        }
        if block.is_none() {
            block = areas.take_for((order, kind, mixing), word(kind), platform, trace);
        }
        // To fail now is worse than that a large request fails later.
        if block.is_none() && flags.intersects(AllocFlags::HIGH_ATOMIC) {
            block = areas.take(order, kept, word(kept), platform, trace);
        }
        if block.is_some() {
            areas.note_alloc(order);
        }
        block
    }

    /// Gives a block back (Linux: `free_one_page`). Context: task, atomic or irq; not NMI.
    ///
    /// # Errors
    /// The block, if it is not of this zone.
    #[inline]
    pub(crate) fn free<P: Platform>(
        &self,
        platform: &P,
        block: Exclusive,
        trace: &mut impl Trace,
    ) -> Result<(), Exclusive> {
        let mut areas = self.lock_traced(platform, trace);
        let order = block.order();
        tell_block(platform, EventKind::Free, &block);
        let given = areas.give(block, order, trace);
        if given.is_ok() {
            areas.note_free(order.frames());
        }
        self.unlock(areas);
        given
    }

    /// Gives single pages back under one hold of the lock (Linux: `free_pcppages_bulk`), up to
    /// the first that is of another zone or that nobody owns any more: it came a second time.
    /// Answers how many places were dealt with, empty ones included. Context: as [`Self::free`].
    pub(crate) fn free_bulk<P: Platform>(
        &self,
        platform: &P,
        pages: &mut [Option<Exclusive>],
    ) -> usize {
        let mut areas = self.lock(platform);
        let (mut given, mut dealt): (u64, usize) = (0, 0);
        for place in pages {
            if let Some(page) = place.take() {
                tell_block(platform, EventKind::Free, &page);
                if let Err(page) = areas.give_page(page, &mut Told(platform)) {
                    *place = Some(page);
                    break;
                }
                given = given.wrapping_add(1);
            }
            dealt = dealt.wrapping_add(1);
        }
        areas.note_free(given);
        self.unlock(areas);
        dealt
    }

    /// Hands memory to the allocator that it did not have before. Context: boot or task.
    ///
    /// # Errors
    /// The block, if it is not of this zone.
    pub(crate) fn adopt<P: Platform>(
        &self,
        platform: &P,
        block: Exclusive,
    ) -> Result<(), Exclusive> {
        let order = block.order();
        let mut areas = self.lock(platform);
        areas.give(block, order, &mut Told(platform))?;
        self.managed.fetch_add(order.frames(), Ordering::Relaxed);
        self.unlock(areas);
        Ok(())
    }

    /// The migrate type of the pageblock around a frame, if the zone has memory there.
    /// Context: any but NMI.
    #[must_use]
    pub fn pageblock_type<P: Platform>(&self, platform: &P, pfn: Pfn) -> Option<MigrateType> {
        self.lock(platform).kind_at(pfn)
    }

    /// All numbers at one moment. Context: task.
    #[must_use]
    pub fn snapshot<P: Platform>(&self, platform: &P) -> ZoneSnapshot {
        let areas = self.lock(platform);
        let mut blocks = [[0; ORDERS]; MigrateType::COUNT];
        for (counts, kind) in blocks.iter_mut().zip(MigrateType::ALL) {
            for (count, order) in counts.iter_mut().zip(Order::all()) {
                *count = areas.free_blocks(kind, order);
            }
        }
        ZoneSnapshot {
            blocks,
            pageblocks: areas.pageblocks(self.span),
            free: areas.free_frames().saturating_add(self.latent_frames()),
            stats: self.pagesets().chain(self.cold_pagesets()).fold(
                *areas.stats(),
                |stats, set| Stats {
                    allocated: stats.allocated.wrapping_add(set.allocated),
                    freed: stats.freed.wrapping_add(set.freed),
                    ..stats
                },
            ),
        }
    }

    /// Recounts everything and compares (oracles O1, O3, O4). Context: task; takes time in
    /// proportion to the zone, with the zone lock held.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn validate<P: Platform>(&self, platform: &P) -> Result<Census, Corruption> {
        let areas = self.lock(platform);
        let mut census = areas.validate()?;
        census.latent = self.latent_frames();
        let (recorded, counted) = (self.managed(), census.managed());
        if recorded != counted {
            return Err(Corruption::Miscount {
                check: Check::ManagedFrames,
                recorded,
                counted,
            });
        }
        let (recorded, counted) = (self.populated_free(), census.free);
        if recorded != counted {
            return Err(Corruption::Miscount {
                check: Check::FreeFrames,
                recorded,
                counted,
            });
        }
        Ok(census)
    }

    /// What each CPU has at hand, by CPU (`/proc/zoneinfo`: `pagesets`). Context: any.
    pub fn pagesets(&self) -> impl Iterator<Item = PageSetStats> {
        self.pagesets.shared().map(Gauges::read)
    }

    /// As [`Self::pagesets`], with the cold lists where there are such. Context: any.
    pub fn pagesets_with_cold(&self) -> impl Iterator<Item = (PageSetStats, Option<PageSetStats>)> {
        let cold = self.cold_pagesets().map(Some);
        self.pagesets().zip(cold.chain(core::iter::repeat(None)))
    }

    /// As [`Self::pagesets`], of the cold lists that there are with `percpu_pagelists=classic`.
    pub fn cold_pagesets(&self) -> impl Iterator<Item = PageSetStats> {
        self.cold.shared().map(Gauges::read)
    }

    /// What each CPU may have at hand. Context: any.
    #[must_use]
    pub fn list_limits(&self) -> Limits {
        self.list_limits.get()
    }

    /// Sets what each CPU may have at hand; it takes note when it fetches or gives back the next
    /// time. The caller holds the settings lock.
    pub(crate) fn set_list_limits(&self, limits: Limits) {
        self.list_limits.set(limits);
    }

    /// Which nodes' CPUs got blocks of this zone, and which nodes' blocks they wanted. Context: any.
    #[must_use]
    pub fn numa_stats(&self) -> NumaStats {
        let blocks = |(hot, cold): (PageSetStats, Option<PageSetStats>)| {
            hot.blocks.wrapping_add(cold.unwrap_or_default().blocks)
        };
        self.numa.read(self.pagesets_with_cold().map(blocks))
    }

    /// Counts blocks for [`Self::numa_stats`] that are not a hit from a CPU's own list.
    pub(crate) fn note_numa(&self, cpu: CpuId, event: NumaEvent, blocks: u64) {
        self.numa.count(cpu, event, blocks);
    }

    /// Gives the CPUs their counters.
    pub(crate) fn install_numa_gauges(&mut self, gauges: Array<NumaGauges>) {
        self.numa = NumaCounts::new(gauges);
    }

    /// Gives the CPUs their lists.
    pub(crate) fn install_pagesets(&mut self, pagesets: PerCpu<PageSet, Gauges>) {
        self.pagesets = pagesets;
    }

    /// Gives the CPUs cold lists beside those.
    pub(crate) fn install_cold(&mut self, cold: PerCpu<PageSet, Gauges>) {
        self.cold = cold;
    }

    /// Prepares the zone for the frames of a section.
    pub(crate) fn areas_mut(&mut self) -> &mut FreeAreas {
        self.areas.get_mut()
    }

    /// Whether a frame's record says that it belongs here. Context: any.
    #[must_use]
    pub fn owns(&self, frames: &FrameTable, pfn: Pfn) -> bool {
        frames
            .head(pfn)
            .is_some_and(|head| head.frame().word().belongs_to(self.home))
    }
}
