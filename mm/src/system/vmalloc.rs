//! Memory that is contiguous in the kernel's addresses only (Linux: `vmalloc`).
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use super::{AllocError, Core, Memory};
use crate::adapters::Store;
use crate::addr::{Order, Pfn, VirtAddr, VirtRange, to_count};
use crate::buddy::Gfp;
use crate::collections::range_tree::Slot;
use crate::config::PAGE_SIZE;
use crate::kspace::{
    Area, AreaInfo, AreaKind, AreaState, MOST_BLOCKS, MapAttributes, MapError, Mapping, NoArea,
    Pile, Space, Supply, Wanted,
};
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;

/// Blocks that are mapped together.
const BATCH: usize = 64;

/// Why there is no area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmallocError {
    /// Nobody said which addresses there are, or memory is not up.
    NotUp,
    /// Nothing was asked for.
    Empty,
    /// More pages were asked for than the machine has, or than an area can have: 2^24.
    TooLarge,
    /// The alignment is no power of two, or something does not start at a page.
    Misaligned,
    /// The addresses are not canonical, wrap around, or are in no region for areas.
    BadRange(VirtRange),
    /// No gap between areas is large enough.
    NoSpace,
    /// There are no pages.
    Alloc(AllocError),
    /// They could not be mapped.
    Map(MapError),
}

impl fmt::Display for VmallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp => f.write_str("no kernel addresses yet"),
            Self::Empty => f.write_str("nothing was asked for"),
            Self::TooLarge => f.write_str("more than there is"),
            Self::Misaligned => f.write_str("not aligned"),
            Self::BadRange(range) => write!(f, "{range:?} is no range for areas"),
            Self::NoSpace => f.write_str("no room between areas"),
            Self::Alloc(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmallocError {}

impl From<NoArea> for VmallocError {
    fn from(error: NoArea) -> Self {
        match error {
            NoArea::NoSpace => Self::NoSpace,
            NoArea::NoRecord => Self::Alloc(AllocError::OutOfMemory),
        }
    }
}

/// Which frames are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames {
    pub(crate) gfp: Gfp,
    /// From where, if that matters.
    pub(crate) node: Option<NodeId>,
    pub(crate) count: u64,
    /// Blocks of 2 MiB are welcome.
    pub(crate) huge: bool,
}

/// An area of memory of its own that somebody wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) gfp: Gfp,
    pub(crate) node: Option<NodeId>,
    pub(crate) huge: bool,
    pub(crate) kind: AreaKind,
    pub(crate) place: &'static Location<'static>,
}

/// Areas in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VmallocStats {
    /// Areas with addresses of their own, those that wait for a purge or lie ready included.
    pub areas: u32,
    /// Areas that lie ready for a CPU that wants one: nobody has them, and no CPU remembers them.
    pub ready: u32,
    /// Pages of areas that nobody has any more, but CPUs may remember.
    pub lazy_pages: u64,
    /// How many there may be before somebody purges.
    pub lazy_max_pages: u64,
    /// Purges that were done, …
    pub purges: u64,
    /// … and areas that went with them.
    pub purged_areas: u64,
    /// Areas that lay ready for the CPU that wanted one.
    pub hits: u64,
}

impl<P: Platform> Memory<P> {
    /// Page tables, addresses for areas: see [`Self::vmalloc_init`].
    pub(crate) fn install_kspace(
        &self,
        range: VirtRange,
        mapping: Mapping,
    ) -> Result<(), VmallocError> {
        let last = range.end().checked_sub(1).unwrap_or_default();
        let same_half = range.start().as_u64() >> 63 == last.as_u64() >> 63;
        let canonical = range.start().is_canonical(5) && last.is_canonical(5);
        if range.is_empty() || !range.is_page_aligned() || !same_half || !canonical {
            return Err(VmallocError::BadRange(range));
        }
        let core = self.core().ok_or(VmallocError::NotUp)?;
        let supply = Store::new(self, core);
        let cpus = usize::try_from(self.platform.cpus()).unwrap_or(usize::MAX);
        let bytes = Space::shelf_bytes(cpus).unwrap_or(u64::MAX);
        let none = VmallocError::Alloc(AllocError::OutOfMemory);
        let room = supply.alloc_room(bytes).ok_or(none)?;
        let space = Space::new(&self.platform, range, mapping, room);
        let set = self.kspace.set(space.map_err(|_| none)?);
        set.map(drop).map_err(|_| VmallocError::BadRange(range))
    }

    /// Areas, and what they stand on.
    pub(crate) fn kspace(&self) -> Option<(&Space, Store<'_, P>)> {
        let core = self.core()?;
        let space = self.kspace.get()?;
        Some((space, Store::new(self, core)))
    }

    /// An area with memory of its own, mapped.
    pub(crate) fn alloc_area(&self, ask: &Ask) -> Result<Slot, VmallocError> {
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        let pages = to_count(ask.size).div_ceil(PAGE_SIZE);
        if pages == 0 {
            return Err(VmallocError::Empty);
        }
        if !ask.align.is_power_of_two() {
            return Err(VmallocError::Misaligned);
        }
        if pages > MOST_BLOCKS || pages > self.managed_frames() {
            return Err(VmallocError::TooLarge);
        }
        let huge_pages = Order::PAGEBLOCK.frames();
        let huge = ask.huge && pages >= huge_pages && space.mapping().has_huge_pages();
        let frames = Frames {
            gfp: ask
                .gfp
                .difference(Gfp::ACCOUNT | Gfp::MOVABLE | Gfp::HIGHMEM | Gfp::COMP),
            node: ask.node,
            count: pages,
            huge,
        };
        let pile = match supply.pile(frames) {
            // What waits for a purge is memory, too.
            Err(AllocError::OutOfMemory) if space.lazy_pages().0 > 0 => {
                let _ = space.purge(&supply);
                supply.pile(frames)
            }
            found => found,
        };
        let pile = pile.map_err(VmallocError::Alloc)?;
        let own = if huge {
            Order::PAGEBLOCK.bytes()
        } else {
            PAGE_SIZE
        };
        let wanted = Wanted {
            asked: to_count(ask.size),
            pages,
            align: to_count(ask.align).max(own),
            kind: ask.kind,
            place: ask.place,
        };
        self.mapped_area(space, &supply, &wanted, pile)
    }

    /// An area for frames, which are mapped there and its own.
    fn mapped_area(
        &self,
        space: &Space,
        supply: &Store<'_, P>,
        wanted: &Wanted,
        pile: Pile,
    ) -> Result<Slot, VmallocError> {
        let slot = match space.take(supply, wanted) {
            Ok(slot) => slot,
            Err(error) => {
                pile.release(supply);
                return Err(error.into());
            }
        };
        let Some((area, core)) = space.area(slot).zip(self.core()) else {
            pile.release(supply);
            return Err(VmallocError::NotUp);
        };
        // Whoever has the address only finds the area by its first frame.
        if let Some(first) = pile.first().and_then(|first| core.frames.frame(first)) {
            first.set_private(slot.number().into());
        }
        let mapped = map_pile(core, space, (area.whole().start(), wanted.align), &pile);
        area.keep(pile);
        match mapped {
            Ok(()) => Ok(slot),
            Err(error) => {
                // Nobody was told of the addresses; but some were in the page tables, and CPUs may have looked.
                let _ = space.retire(&self.platform, slot, true);
                let _ = space.purge(supply);
                Err(VmallocError::Map(error))
            }
        }
    }

    /// The area that starts at an address, if somebody has it.
    pub(crate) fn area_at(&self, at: VirtAddr) -> Option<(Slot, &Area)> {
        let (space, _) = self.kspace()?;
        let core = self.core()?;
        let starts = |slot: &Slot| {
            let area = space.area(*slot);
            area.is_some_and(|area| area.state() == AreaState::Busy && area.whole().start() == at)
        };
        // Its first frame says which it is, if it has frames of its own.
        let first = space.mapping().translate(at)?;
        let hint = core
            .frames
            .frame(first.frame())
            .map(|frame| frame.private());
        let hint = hint.and_then(|hint| Slot::new(u32::try_from(hint).ok()?));
        let slot = hint.filter(starts);
        let slot = slot.or_else(|| space.find(&self.platform, at).filter(starts))?;
        Some((slot, space.area(slot)?))
    }

    /// Ends an area: unmapped now, forgotten by all CPUs later. `false` if nobody has it.
    pub(crate) fn end_area(&self, slot: Slot) -> bool {
        let Some((space, supply)) = self.kspace() else {
            return false;
        };
        // Page tables may be locked by the code that was interrupted.
        let may_sleep = self.platform.may_sleep();
        let Some(is_much) = space.retire(&self.platform, slot, may_sleep) else {
            return false;
        };
        if is_much && may_sleep {
            let _ = space.purge(&supply);
        }
        true
    }

    /// Has all CPUs forget addresses that areas had, and gives frames and addresses back that wait for that (Linux:
    /// `vm_unmap_aliases`). Answers how many areas went; `None` if somebody else is at it. Context: task.
    pub fn vmalloc_purge(&self) -> Option<u64> {
        let (space, supply) = self.kspace()?;
        space.purge(&supply)
    }

    /// Gives pages back that wait for a purge, for who needs some. Answers how many those were, at least.
    pub(super) fn purge_for_pages(&self) -> u64 {
        let Some((space, supply)) = self.kspace() else {
            return 0;
        };
        let (before, _) = space.lazy_pages();
        if before == 0 || space.purge(&supply).is_none() {
            return 0;
        }
        before.saturating_sub(space.lazy_pages().0)
    }

    /// Sets how many pages may wait before a `vfree` purges (Linux: `lazy_max_pages`). Context: any.
    pub fn set_vmalloc_lazy_max(&self, pages: u64) {
        if let Some((space, _)) = self.kspace() {
            space.set_lazy_most(pages);
        }
    }

    /// Has records for so many areas ready: none of these needs memory for its own. Context: task.
    ///
    /// # Errors
    /// [`VmallocError`].
    pub fn vmalloc_reserve(&self, areas: u32) -> Result<(), VmallocError> {
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        Ok(space.reserve(&supply, areas)?)
    }

    /// Areas in numbers. Context: any but NMI.
    #[must_use]
    pub fn vmalloc_stats(&self) -> VmallocStats {
        let Some((space, _)) = self.kspace() else {
            return VmallocStats::default();
        };
        let (lazy_pages, lazy_max_pages) = space.lazy_pages();
        let (purges, purged_areas) = space.purges();
        VmallocStats {
            areas: space.count(&self.platform),
            ready: space.ready_areas(),
            lazy_pages,
            lazy_max_pages,
            purges,
            purged_areas,
            hits: space.hits(),
        }
    }

    /// Whether an address is in the region for areas (Linux: `is_vmalloc_addr`). Context: any but NMI.
    #[must_use]
    pub fn is_vmalloc_addr(&self, at: VirtAddr) -> bool {
        let range = self.kspace.get().map(Space::range);
        range.is_some_and(|range| range.contains(at))
    }

    /// The frame behind an address of an area (Linux: `vmalloc_to_pfn`). Context: any but NMI.
    #[must_use]
    pub fn vmalloc_to_pfn(&self, at: VirtAddr) -> Option<Pfn> {
        let (space, _) = self.kspace()?;
        let inside = space.range().contains(at);
        let phys = space.mapping().translate(at).filter(|_| inside)?;
        Some(phys.frame())
    }

    /// Shows every area, lowest first.
    pub(crate) fn for_each_area(&self, mut each: impl FnMut(&AreaInfo)) {
        let Some((space, supply)) = self.kspace() else {
            return;
        };
        let mut at = VirtAddr::default();
        while let Some(info) = space.next_from(&supply, at) {
            at = info.range.end();
            each(&info);
        }
    }

    /// Recounts areas. Context: task; nobody takes or gives any meanwhile.
    ///
    /// # Errors
    /// The first [`Corruption`].
    pub fn validate_vmalloc(&self) -> Result<(), Corruption> {
        match self.kspace() {
            Some((space, _)) => space.validate(&self.platform),
            None => Ok(()),
        }
    }
}

/// Maps the blocks of a pile, one behind the other: those of 2 MiB as such where addresses are aligned to them, others page by
/// page.
fn map_pile(
    core: &Core,
    space: &Space,
    (at, align): (VirtAddr, u64),
    pile: &Pile,
) -> Result<(), MapError> {
    let huge = Some(Order::PAGEBLOCK).filter(|huge| align >= huge.bytes());
    let mut batch = [Pfn::ZERO; BATCH];
    let (mut full, mut order, mut next) = (0_usize, Order::ZERO, at);
    let how = MapAttributes::default();
    let mut map = |batch: &[Pfn], order: Order| {
        if batch.is_empty() {
            return Ok(());
        }
        space.mapping().map(next, batch, order, how)?;
        let bytes = to_count(batch.len()).saturating_mul(order.bytes());
        next = next.checked_add(bytes).ok_or(MapError::Unsupported)?;
        Ok(())
    };
    for (pfn, its) in pile.iter(&core.frames) {
        let as_one = huge == Some(its);
        let (its, count) = if as_one {
            (its, 1)
        } else {
            (Order::ZERO, its.frames())
        };
        for page in 0..count {
            if full == BATCH || its != order {
                map(batch.get(..full).unwrap_or_default(), order)?;
                full = 0;
            }
            order = its;
            batch[full % BATCH] = pfn.saturating_add(page);
            full = full.wrapping_add(1);
        }
    }
    map(batch.get(..full).unwrap_or_default(), order)
}
