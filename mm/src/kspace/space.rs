//! All areas of a kernel, and where there is room for more.
#![forbid(unsafe_code)]

use core::panic::Location;

use super::arena::Arena;
use super::hints::Hints;
use super::purge::Patience;
use super::raw::Link;
use super::shelf::{Gauges, Shelf};
use super::{Area, AreaKind, AreaState, Supply};

use crate::addr::{PhysAddr, PhysRange, Rows, VirtAddr, VirtRange};
use crate::collections::range_tree::{RangeTree, Slot, Span};
use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use crate::frame::FrameTable;
use crate::mem::{Array, CarveError, EarlyRam};
use crate::pagetable::{Cache, PageTable};
use crate::platform::Platform;
use crate::report::{Check, Corruption};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{OwnerCell, PerCpu, Pin, SpinLock, rank};

/// How often somebody looks for room who finds some, but not enough.
const TRIES: u32 = 8;

/// What an area is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Bytes that were asked for.
    pub(crate) asked: u64,
    /// Pages to be mapped: at least one.
    pub(crate) pages: u64,
    /// Where it may start: at multiples of this power of two, a page or more.
    pub(crate) align: u64,
    /// What it is for.
    pub(crate) kind: AreaKind,
    /// Who wants it.
    pub(crate) place: &'static Location<'static>,
}

/// Nodes whose pages are counted.
pub(crate) const NODES: usize = 64;

/// Somebody has the lock of the areas, and who asks waits for nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IsLocked;

/// What is known of an area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AreaInfo {
    /// The addresses, guard page included.
    pub(crate) range: VirtRange,
    pub(crate) kind: AreaKind,
    pub(crate) state: AreaState,
    pub(crate) place: Option<&'static Location<'static>>,
    /// Where the device is, if it is one.
    pub(crate) device: PhysAddr,
    /// Pages that are mapped.
    pub(crate) pages: u64,
    /// Pages of its own, by node.
    pub(crate) pages_by_node: [u64; NODES],
}

/// Why there is no area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoArea {
    /// No gap is large enough.
    NoSpace,
    /// There is no memory for its record, or as many areas as there can be.
    NoRecord,
}

/// What is done under the lock.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) tree: RangeTree,
    /// Records that were used before.
    unused: Option<&'static Area>,
    /// The first record that never was.
    fresh: u32,
    /// Areas of devices, the newest first.
    devices: Option<&'static Area>,
    /// What CPUs may still reach of devices whose areas wait for a purge.
    going: Going,
}

/// Devices whose areas nobody has any more.
#[derive(Debug)]
struct Going {
    areas: u64,
    /// From the first byte of all to the last.
    hull: PhysRange,
    /// How all of them were cached, if that is one way.
    cache: Option<Cache>,
}

impl Going {
    const NONE: Self = Self {
        areas: 0,
        hull: PhysRange::EMPTY,
        cache: None,
    };

    fn add(&mut self, range: PhysRange, cache: Cache) {
        *self = match self.areas {
            0 => Self {
                areas: 1,
                hull: range,
                cache: Some(cache),
            },
            areas => Self {
                areas: areas.saturating_add(1),
                hull: self.hull.hull(range),
                cache: self.cache.filter(|&before| before == cache),
            },
        };
    }

    fn take(&mut self, areas: u64) {
        self.areas = self.areas.saturating_sub(areas);
        if self.areas == 0 {
            *self = Self::NONE;
        }
    }
}

/// Why a device may not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotNoted {
    /// Part of it is mapped, and cached in another way.
    Conflict(Cache),
    /// Part of it may be, until a purge.
    Going,
}

/// Why an area could not be made under the lock.
enum Missing {
    Gap,
    Record(Slot),
}

/// All areas.
///
/// # Invariants
/// An area's addresses are in the tree from when it is taken until a purge is done with it, and no two areas' overlap.
#[derive(Debug)]
pub(crate) struct Space {
    range: VirtRange,
    pub(super) arena: Arena,
    pub(super) index: SpinLock<Index>,
    pub(super) shelves: PerCpu<Shelf, Gauges>,
    hints: Hints,
    pub(super) tables: PageTable,
    /// The newest of those that wait for a purge; and how many pages they have.
    pub(super) lazy: Link,
    pub(super) lazy_pages: AtomicU64,
    /// How many there may be before somebody purges.
    pub(super) lazy_most: AtomicU64,
    pub(super) is_purging: AtomicBool,
    /// Something waits that should go soon, and was left by who may not sleep.
    pub(super) is_purge_wanted: AtomicBool,
    /// Somebody makes records.
    is_growing: AtomicBool,
    /// Purges that were done, and areas that went with them.
    pub(super) purges: AtomicU64,
    pub(super) purged: AtomicU64,
}

impl Space {
    /// Bytes that [`Self::new`] needs for each CPU's shelf.
    pub(crate) fn shelf_bytes(cpus: usize) -> Option<u64> {
        Array::<OwnerCell<Shelf, Gauges>>::bytes_for(cpus)
    }

    /// Bytes that [`Self::new`] needs for guesses.
    pub(crate) fn hint_bytes() -> Option<u64> {
        Hints::bytes()
    }

    /// Without areas. Linux's limit for what waits is 32 MiB, times the number of binary digits of the number of CPUs
    /// (`lazy_max_pages`).
    pub(crate) fn new<P: Platform>(
        platform: &P,
        range: VirtRange,
        tables: PageTable,
        (shelves, hints): (EarlyRam, EarlyRam),
    ) -> Result<Self, CarveError> {
        let cpus = usize::try_from(platform.cpus()).unwrap_or(usize::MAX);
        let cell = |_| OwnerCell::new(Shelf::new(), Gauges::default());
        let bounds = Span {
            start: range.start().as_u64(),
            end: range.end().as_u64(),
        };
        let digits = u32::BITS.saturating_sub(platform.cpus().leading_zeros());
        let most = u64::from(digits).saturating_mul((32 << 20) >> PAGE_SHIFT);
        Ok(Self {
            range,
            arena: Arena::new(),
            index: SpinLock::new(
                rank::VMALLOC,
                Index {
                    tree: RangeTree::new(bounds, PAGE_SIZE),
                    unused: None,
                    fresh: 0,
                    devices: None,
                    going: Going::NONE,
                },
            ),
            shelves: PerCpu::new(Array::carve(platform, shelves, cpus, cell)?),
            hints: Hints::new(platform, hints)?,
            tables,
            lazy: Link::default(),
            lazy_pages: AtomicU64::new(0),
            lazy_most: AtomicU64::new(most),
            is_purging: AtomicBool::new(false),
            is_purge_wanted: AtomicBool::new(false),
            is_growing: AtomicBool::new(false),
            purges: AtomicU64::new(0),
            purged: AtomicU64::new(0),
        })
    }

    /// Where the records are.
    pub(crate) fn records(&self) -> impl Iterator<Item = Rows> {
        self.arena.rows()
    }

    /// The record with a number.
    #[inline]
    fn area(&self, slot: Slot) -> Option<&'static Area> {
        self.arena.area(slot)
    }

    /// Takes an area: one that lies ready, or the lowest addresses that are free. If there are none, a purge may find
    /// some. Context: task, no lock held.
    #[inline]
    pub(crate) fn take<S: Supply>(
        &self,
        supply: &S,
        wanted: &Wanted,
    ) -> Result<&'static Area, NoArea> {
        match self.take_ready(supply, wanted) {
            Some(taken) => Ok(taken),
            None => self.take_gap(supply, wanted),
        }
    }

    #[inline(never)]
    fn take_gap<S: Supply>(&self, supply: &S, wanted: &Wanted) -> Result<&'static Area, NoArea> {
        let mut tries = TRIES;
        loop {
            match self.carve(supply, wanted) {
                Ok(taken) => return Ok(taken),
                Err(Missing::Record(slot)) => self.grow(supply, slot)?,
                Err(Missing::Gap) if tries > 0 => {
                    let is_larger = self.make_room(supply);
                    tries = if is_larger { tries.wrapping_sub(1) } else { 0 };
                }
                Err(Missing::Gap) => return Err(NoArea::NoSpace),
            }
        }
    }

    /// Takes the lowest addresses that are free.
    fn carve<S: Supply>(&self, supply: &S, wanted: &Wanted) -> Result<&'static Area, Missing> {
        // One more, which is never mapped: whoever runs off the end has a page fault.
        let pages = wanted.pages.checked_add(1).ok_or(Missing::Gap)?;
        let size = pages.checked_mul(PAGE_SIZE).ok_or(Missing::Gap)?;
        let mut index = self.index.lock(supply.platform());
        let fresh = Slot::new(index.fresh).ok_or(Missing::Gap)?;
        let slot = index.unused.map_or(fresh, Area::slot);
        let area = self.area(slot).ok_or(Missing::Record(slot))?;
        let gap = index.tree.find_gap(&self.arena, size, wanted.align);
        let start = gap.ok_or(Missing::Gap)?;
        let end = start.saturating_add(size);
        let next = area.next.get();
        let placed = index.tree.insert(&self.arena, slot, Span { start, end });
        placed.map_err(|_| Missing::Gap)?;
        match index.unused {
            Some(_) => index.unused = next,
            None => index.fresh = index.fresh.saturating_add(1),
        }
        area.set_table(None);
        self.begin(area, wanted);
        Ok(area)
    }

    /// An area has an owner from now on.
    #[inline]
    pub(super) fn begin(&self, area: &'static Area, wanted: &Wanted) {
        area.begin(wanted.asked, wanted.kind, wanted.place);
        self.hints.note(area.start(), area);
    }

    /// The area that starts at an address, if somebody has it. Context: any but NMI.
    pub(crate) fn starting_at<P: Platform>(
        &self,
        platform: &P,
        at: VirtAddr,
    ) -> Option<&'static Area> {
        let is_it = |area: &&'static Area| area.state() == AreaState::Busy && area.start() == at;
        let guess = self.hints.guess(at).filter(is_it);
        guess.or_else(|| self.containing(platform, at).filter(is_it))
    }

    /// The area that starts at an address, which was somebody's until now. `None` if nobody has one of this kind there.
    /// Context: any but NMI.
    #[inline]
    pub(crate) fn ended_at<P: Platform>(
        &self,
        platform: &P,
        at: VirtAddr,
        kind: AreaKind,
    ) -> Option<&'static Area> {
        let guess = self.hints.guess(at);
        match guess.filter(|area| area.start() == at && area.end(kind)) {
            None => self.ended_unguessed(platform, at, kind),
            found => found,
        }
    }

    /// The same without a guess.
    #[cold]
    #[inline(never)]
    fn ended_unguessed<P: Platform>(
        &self,
        platform: &P,
        at: VirtAddr,
        kind: AreaKind,
    ) -> Option<&'static Area> {
        let found = self.containing(platform, at);
        found.filter(|area| area.start() == at && area.end(kind))
    }

    /// Makes more records, so that there is one with this number.
    fn grow<S: Supply>(&self, supply: &S, slot: Slot) -> Result<(), NoArea> {
        if !Arena::can_hold(slot) {
            return Err(NoArea::NoRecord);
        }
        let mut rounds: u32 = 0;
        while self.is_growing.swap(true, Ordering::Acquire) {
            // Somebody else is at it: perhaps it is what this one wants.
            if !supply.platform().relax(rounds) {
                return Err(NoArea::NoRecord);
            }
            supply.platform().reschedule();
            rounds = rounds.saturating_add(1);
        }
        let grown = match self.arena.missing(slot) {
            None => true,
            Some(bytes) => supply
                .alloc_room(bytes)
                .is_some_and(|ram| self.arena.grow(supply.platform(), slot, ram)),
        };
        self.is_growing.store(false, Ordering::Release);
        match grown {
            true => {
                supply.records_grown();
                Ok(())
            }
            false => Err(NoArea::NoRecord),
        }
    }

    /// Has records for `count` areas ready, so that none of these needs memory for its own.
    pub(crate) fn reserve<S: Supply>(&self, supply: &S, count: u32) -> Result<(), NoArea> {
        let step = usize::try_from(count).unwrap_or(usize::MAX);
        for number in (0..count).step_by(32.min(step.max(1))) {
            if let Some(slot) = Slot::new(number).filter(|&slot| self.area(slot).is_none()) {
                self.grow(supply, slot)?;
            }
        }
        Ok(())
    }

    /// Gives addresses back that nobody remembers, and their records.
    pub(super) fn forget<S: Supply>(&self, supply: &S, mut areas: Option<&'static Area>) {
        let mut index = self.index.lock(supply.platform());
        while let Some(area) = areas {
            areas = area.next.get();
            if index.tree.remove(&self.arena, area.slot()) {
                area.set_state(AreaState::Unused);
                area.next.set(index.unused.replace(area));
            }
        }
    }

    /// Looks for addresses that nobody needs: those that wait, and those that lie ready for this CPU. `false` if there are
    /// none.
    fn make_room<S: Supply>(&self, supply: &S) -> bool {
        let is_purged = self.purge_or_wait(supply, Patience::AsThePlatform) > 0;
        let pin = Pin::new(supply.platform());
        let before = self.ready(Gauges::count);
        self.empty_shelf_here(supply, &pin);
        is_purged || self.ready(Gauges::count) < before
    }

    /// Notes what device an area reaches.
    ///
    /// # Errors
    /// Part of it is cached elsewhere in another way, or may be.
    pub(crate) fn note_device<P: Platform>(
        &self,
        platform: &P,
        new: &'static Area,
        page: PhysAddr,
        cache: Cache,
    ) -> Result<(), NotNoted> {
        let mut index = self.index.lock(platform);
        let range = PhysRange::from_size(page, new.mapped().size());
        if index.going.cache != Some(cache) && index.going.hull.overlaps(range) {
            return Err(NotNoted::Going);
        }
        let mut next = index.devices;
        while let Some(area) = next {
            let (first, other) = area.device();
            let its = PhysRange::from_size(first, area.mapped().size());
            if other != cache && its.overlaps(range) {
                return Err(NotNoted::Conflict(other));
            }
            next = area.next.get();
        }
        new.set_device(page, cache);
        new.next.set(index.devices.replace(new));
        Ok(())
    }

    /// Takes the area of a device, which is to wait for a purge, off the list of devices. Until then CPUs may reach it.
    pub(super) fn let_device_go<P: Platform>(&self, platform: &P, area: &'static Area) {
        let mut index = self.index.lock(platform);
        let (page, cache) = area.device();
        let range = PhysRange::from_size(page, area.mapped().size());
        index.going.add(range, cache);
        let is_it = |other: &'static Area| other.slot() == area.slot();
        let after = area.next.get();
        if index.devices.is_some_and(is_it) {
            index.devices = after;
            return;
        }
        let mut next = index.devices;
        while let Some(before) = next {
            next = before.next.get();
            if next.is_some_and(is_it) {
                before.next.set(after);
                return;
            }
        }
    }

    /// So many of them no CPU reaches any more.
    pub(super) fn devices_gone<P: Platform>(&self, platform: &P, areas: u64) {
        if areas > 0 {
            self.index.lock(platform).going.take(areas);
        }
    }

    /// The area that an address is in, guard pages included.
    pub(crate) fn containing<P: Platform>(
        &self,
        platform: &P,
        at: VirtAddr,
    ) -> Option<&'static Area> {
        let index = self.index.lock(platform);
        let slot = index.tree.containing(&self.arena, at.as_u64())?;
        self.area(slot)
    }

    /// What is known of the lowest area that ends above an address.
    pub(crate) fn next_from<S: Supply>(&self, supply: &S, at: VirtAddr) -> Option<AreaInfo> {
        let (area, mut info) = self.first_from(supply.platform(), at)?;
        // The lock is not held for as long as that takes: frames of an area that ends may go meanwhile.
        if info.state == AreaState::Busy {
            let counted = pages_by_node(supply.frames(), area);
            if area.state() == AreaState::Busy && area.whole() == info.range {
                info.pages_by_node = counted;
            }
        }
        Some(info)
    }

    /// The lowest area that ends above an address, and what its record says.
    fn first_from<P: Platform>(
        &self,
        platform: &P,
        at: VirtAddr,
    ) -> Option<(&'static Area, AreaInfo)> {
        let index = self.index.lock(platform);
        self.first_in(&index, at)
    }

    /// The same for who waits for nobody. Context: any.
    ///
    /// # Errors
    /// Somebody has the lock.
    pub(crate) fn first_at_once<P: Platform>(
        &self,
        platform: &P,
        at: VirtAddr,
    ) -> Result<Option<AreaInfo>, IsLocked> {
        let index = self.index.try_lock(platform).ok_or(IsLocked)?;
        Ok(self.first_in(&index, at).map(|(_, info)| info))
    }

    fn first_in(&self, index: &Index, at: VirtAddr) -> Option<(&'static Area, AreaInfo)> {
        let slot = index.tree.first_from(&self.arena, at.as_u64())?;
        let area = self.area(slot)?;
        let info = AreaInfo {
            range: area.whole(),
            kind: area.kind(),
            state: area.state(),
            place: area.place(),
            device: area.device().0,
            pages: area.pages(),
            pages_by_node: [0; NODES],
        };
        Some((area, info))
    }

    /// Pages of areas that somebody has, with memory of their own. The lock is taken for one area at a time.
    pub(crate) fn used_pages<P: Platform>(&self, platform: &P) -> u64 {
        let (mut pages, mut at) = (0_u64, 0_u64);
        loop {
            let index = self.index.lock(platform);
            let slot = index.tree.first_from(&self.arena, at);
            let Some(area) = slot.and_then(|slot| self.area(slot)) else {
                return pages;
            };
            if area.state() == AreaState::Busy && area.kind() == AreaKind::Vmalloc {
                pages = pages.saturating_add(area.pages());
            }
            at = area.whole().end().as_u64();
        }
    }

    /// Areas with addresses, those that wait or lie ready included.
    pub(crate) fn count<P: Platform>(&self, platform: &P) -> u32 {
        self.index.lock(platform).tree.count()
    }

    /// The addresses that areas may have.
    pub(crate) const fn range(&self) -> VirtRange {
        self.range
    }

    /// Recounts the tree, areas by state, and what waits. Context: nothing else runs.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub(crate) fn validate<P: Platform>(&self, platform: &P) -> Result<(), Corruption> {
        let miscount = |recorded, counted| Corruption::Miscount {
            check: Check::Areas,
            recorded,
            counted,
        };
        let index = self.index.lock(platform);
        let tree = index.tree.validate(&self.arena);
        tree.map_err(|bad| miscount(bad.recorded, bad.counted))?;
        let (mut lazy_pages, mut ready, mut at) = (0_u64, 0_u64, 0);
        while let Some(slot) = index.tree.first_from(&self.arena, at) {
            let area = self.area(slot).ok_or(miscount(1, 0))?;
            at = area.whole().end().as_u64();
            match area.state() {
                AreaState::Unused => return Err(miscount(1, 0)),
                AreaState::Lazy => lazy_pages = lazy_pages.saturating_add(area.pages()),
                AreaState::Cached => ready = ready.saturating_add(1),
                AreaState::Busy => {}
            }
        }
        let recorded = self.lazy_pages.load(Ordering::Relaxed);
        if recorded != lazy_pages {
            return Err(miscount(recorded, lazy_pages));
        }
        let recorded = u64::from(self.ready(Gauges::count));
        match recorded == ready {
            true => Ok(()),
            false => Err(miscount(recorded, ready)),
        }
    }
}

/// How many of an area's frames are in each node: anything, if it ends meanwhile.
fn pages_by_node(frames: &FrameTable, area: &Area) -> [u64; NODES] {
    let mut pages = [0_u64; NODES];
    for (pfn, order) in area.frames.look(frames) {
        let node = frames.frame(pfn).map(|frame| frame.word().zone_id().node);
        let count = node.and_then(|node| pages.get_mut(usize::from(node.0)));
        if let Some(count) = count {
            *count = order.frames().saturating_add(*count);
        }
    }
    pages
}
