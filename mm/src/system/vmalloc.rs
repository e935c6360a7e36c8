//! Memory that is contiguous in the kernel's addresses only (Linux: `vmalloc`).
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use super::{AllocError, Memory};
use crate::adapters::Store;
use crate::addr::{Order, Pfn, VirtAddr, VirtRange, to_count, to_index};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;
use crate::kspace::{
    Area, AreaInfo, AreaKind, InLargeBlocks, InPages, MOST_BLOCKS, NoArea, Patience, Pile, Space,
    Supply, Wanted,
};
use crate::pagetable::{Attributes, MapError, PageTable};
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;

/// Why there is no area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmallocError {
    /// Memory is not up, or there are no addresses for areas yet ([`Memory::vmalloc_init`]).
    NotUp,
    /// There are addresses for areas already.
    Known,
    /// Nothing was asked for.
    Empty,
    /// More pages were asked for than the machine has, or than an area can have: 2^24.
    TooLarge,
    /// The alignment is no power of two, or something does not start at a page.
    Misaligned,
    /// The kernel's layout has no region for areas.
    NoRegion,
    /// Nobody can have pages like that: code that can be written to, or what user code may use.
    Forbidden(Attributes),
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
            Self::Known => f.write_str("there are kernel addresses already"),
            Self::NoRegion => f.write_str("the layout has no region for areas"),
            Self::Forbidden(how) => write!(f, "no area is mapped {how:?}"),
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

/// What areas make nothing of: their pages are never moved, lie anywhere, and are blocks of one page.
const NOT_FOR_AREAS: Gfp = Gfp::ACCOUNT
    .union(Gfp::MOVABLE)
    .union(Gfp::HIGHMEM)
    .union(Gfp::COMP);

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
    /// Areas are to be had from now on, in the region of the [kernel's layout](Self::adopt_kernel_space). Where that has a
    /// [region for memory of each CPU](crate::config::Layout::percpu), such memory lies there from now on. The way here, and
    /// what works on a host whose CPU does not go by these tables: [`kspace`](crate::kspace#in-your-own-kernel). Context:
    /// task, once.
    ///
    /// # Errors
    /// [`VmallocError`].
    pub fn vmalloc_init(&self) -> Result<(), VmallocError> {
        let core = self.core().ok_or(VmallocError::NotUp)?;
        let kernel = core.kernel_space.get().ok_or(VmallocError::NotUp)?;
        let range = kernel.layout.vmalloc;
        if range.is_empty() {
            return Err(VmallocError::NoRegion);
        }
        let supply = Store::new(self, core, Gfp::KERNEL);
        let space = self.new_space(&supply, range, kernel.tables);
        let set = self.kspace.set(space?);
        set.map_err(|_| VmallocError::Known)?;
        let range = kernel.layout.percpu;
        if !range.is_empty() {
            let space = self.new_space(&supply, range, kernel.tables);
            let set = self.percpu.set(space?);
            set.map_err(|_| VmallocError::Known)?;
        }
        Ok(())
    }

    /// A region without areas.
    fn new_space(
        &self,
        supply: &Store<'_, P>,
        range: VirtRange,
        tables: PageTable,
    ) -> Result<Space, VmallocError> {
        let cpus = usize::try_from(self.platform.cpus()).unwrap_or(usize::MAX);
        let bytes = Space::shelf_bytes(cpus).unwrap_or(u64::MAX);
        let none = VmallocError::Alloc(AllocError::OutOfMemory);
        let room = supply.alloc_room(bytes).ok_or(none)?;
        let hints = Space::hint_bytes().and_then(|bytes| supply.alloc_room(bytes));
        let rooms = (room, hints.ok_or(none)?);
        Space::new(&self.platform, range, tables, rooms).map_err(|_| none)
    }

    /// Areas, and what they stand on.
    pub(crate) fn kspace(&self) -> Option<(&Space, Store<'_, P>)> {
        self.kspace_for(Gfp::KERNEL)
    }

    /// The same for a request with flags: they go for its page tables, too.
    #[inline(always)]
    fn kspace_for(&self, gfp: Gfp) -> Option<(&Space, Store<'_, P>)> {
        let core = self.core()?;
        let space = self.kspace.get()?;
        Some((space, Store::new(self, core, gfp)))
    }

    /// The same for a request that maps something: nobody must forget to wait for this CPU when that is unmapped.
    #[inline(always)]
    pub(super) fn kspace_to_map(&self, gfp: Gfp) -> Option<(&Space, Store<'_, P>)> {
        self.note_lazy_use();
        self.kspace_for(gfp)
    }

    /// An area with memory of its own, mapped.
    #[inline]
    pub(crate) fn alloc_area(&self, ask: &Ask) -> Result<&'static Area, VmallocError> {
        let is_a_page = ask.size.wrapping_sub(1) < to_index(PAGE_SIZE);
        if is_a_page && ask.align == to_index(PAGE_SIZE) && ask.node.is_none() {
            return self.alloc_page_area(ask);
        }
        self.alloc_large_area(ask)
    }

    /// The same for one page, from anywhere.
    #[inline(never)]
    fn alloc_page_area(&self, ask: &Ask) -> Result<&'static Area, VmallocError> {
        let gfp = ask.gfp.difference(NOT_FOR_AREAS);
        let (space, supply) = self.kspace_to_map(gfp).ok_or(VmallocError::NotUp)?;
        let pile = match supply.page(gfp) {
            Ok(pile) => pile,
            Err(error) => after_purge(space, &supply, error, |supply| supply.page(gfp))?,
        };
        let wanted = Wanted {
            asked: to_count(ask.size),
            pages: 1,
            align: PAGE_SIZE,
            kind: ask.kind,
            place: ask.place,
        };
        let Some(area) = space.take_ready(&supply, &wanted) else {
            return mapped_area(space, &supply, &wanted, pile);
        };
        let how = Attributes::KERNEL;
        let frame = pile.single();
        if frame.is_some_and(|frame| space.map_page(&supply, area, frame, how)) {
            area.keep(pile);
            return Ok(area);
        }
        map_or_abandon(space, &supply, (area, PAGE_SIZE), pile)
    }

    /// The same for any size.
    #[inline(never)]
    fn alloc_large_area(&self, ask: &Ask) -> Result<&'static Area, VmallocError> {
        let (space, supply) = self.kspace_to_map(ask.gfp).ok_or(VmallocError::NotUp)?;
        let pages = to_count(ask.size).div_ceil(PAGE_SIZE);
        if pages == 0 {
            return Err(VmallocError::Empty);
        }
        if !ask.align.is_power_of_two() {
            return Err(VmallocError::Misaligned);
        }
        // What is small is there, or is missed when pages are asked for.
        let huge_pages = Order::PAGEBLOCK.frames();
        if pages > huge_pages && (pages > MOST_BLOCKS || pages > self.managed_frames()) {
            return Err(VmallocError::TooLarge);
        }
        let huge = ask.huge && pages >= huge_pages;
        let frames = Frames {
            gfp: ask.gfp.difference(NOT_FOR_AREAS),
            node: ask.node,
            count: pages,
            huge,
        };
        let pile = match supply.pile(frames) {
            Ok(pile) => pile,
            Err(error) => after_purge(space, &supply, error, |supply| supply.pile(frames))?,
        };
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
        mapped_area(space, &supply, &wanted, pile)
    }

    /// The area that starts at an address, if somebody has it.
    pub(crate) fn area_at(&self, at: VirtAddr) -> Option<&'static Area> {
        let (space, _) = self.kspace()?;
        space.starting_at(&self.platform, at)
    }

    /// Ends the area that starts at an address: unmapped now, forgotten by all CPUs later. `false` if nobody has one of this
    /// kind there.
    #[inline(always)]
    pub(crate) fn end_at(&self, at: VirtAddr, kind: AreaKind) -> bool {
        let Some((space, supply)) = self.kspace() else {
            return false;
        };
        match space.ended_at(&self.platform, at, kind) {
            Some(area) => self.retire(space, &supply, (area, kind)),
            None => false,
        }
    }

    /// The same for an area that is at hand.
    pub(crate) fn end(&self, area: &'static Area, kind: AreaKind) -> bool {
        let Some((space, supply)) = self.kspace() else {
            return false;
        };
        area.end(kind) && self.retire(space, &supply, (area, kind))
    }

    #[inline]
    fn retire(
        &self,
        space: &Space,
        supply: &Store<'_, P>,
        (area, kind): (&'static Area, AreaKind),
    ) -> bool {
        if space.retire(supply, area, kind) {
            self.purge_soon(space, supply);
        }
        true
    }

    /// Both regions with areas.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = (&Space, Store<'_, P>)> {
        let both = [self.kspace(), self.percpu_space(Gfp::KERNEL)];
        both.into_iter().flatten()
    }

    /// Sets how many pages may wait before a `vfree` purges (Linux: `lazy_max_pages`). Context: any.
    pub fn set_vmalloc_lazy_max(&self, pages: u64) {
        if let Some((space, _)) = self.kspace() {
            space.set_lazy_most(pages);
        }
    }

    /// Has records for so many areas ready, and as many for memory of each CPU: none of these needs memory for its own.
    /// Context: task.
    ///
    /// # Errors
    /// [`VmallocError`].
    pub fn vmalloc_reserve(&self, areas: u32) -> Result<(), VmallocError> {
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        space.reserve(&supply, areas)?;
        match self.percpu_space(Gfp::KERNEL) {
            Some((space, supply)) => Ok(space.reserve(&supply, areas)?),
            None => Ok(()),
        }
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

    /// Whether areas are to be had.
    pub(crate) fn has_areas(&self) -> bool {
        self.kspace.get().is_some()
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
        let (space, supply) = self.kspace()?;
        let inside = space.range().contains(at);
        let phys = space.translate(&supply, at).filter(|_| inside)?;
        Some(phys.frame())
    }

    /// Shows every area, lowest first.
    pub(crate) fn for_each_area(&self, mut each: impl FnMut(&AreaInfo)) {
        for (space, supply) in self.spaces() {
            let mut at = VirtAddr::default();
            while let Some(info) = space.next_from(&supply, at) {
                at = info.range.end();
                each(&info);
            }
        }
    }

    /// Recounts areas. Context: task; nobody takes or gives any meanwhile.
    ///
    /// # Errors
    /// The first [`Corruption`].
    pub fn validate_vmalloc(&self) -> Result<(), Corruption> {
        self.spaces()
            .try_for_each(|(space, _)| space.validate(&self.platform))
    }
}

/// Tries once more to get frames, of which there were none: what waits for a purge is memory, too.
#[cold]
#[inline(never)]
fn after_purge<'m, P: Platform>(
    space: &Space,
    supply: &Store<'m, P>,
    error: AllocError,
    again: impl FnOnce(&Store<'m, P>) -> Result<Pile, AllocError>,
) -> Result<Pile, VmallocError> {
    if error != AllocError::OutOfMemory || space.lazy_pages().0 == 0 {
        return Err(VmallocError::Alloc(error));
    }
    let _ = space.purge_or_wait(supply, Patience::AsThePlatform);
    again(supply).map_err(VmallocError::Alloc)
}

/// An area for frames, which are mapped there and its own.
#[inline(never)]
pub(super) fn mapped_area<P: Platform>(
    space: &Space,
    supply: &Store<'_, P>,
    wanted: &Wanted,
    pile: Pile,
) -> Result<&'static Area, VmallocError> {
    let memory = supply.machine();
    match memory.take_area(space, supply, wanted) {
        Ok(area) => map_or_abandon(space, supply, (area, wanted.align), pile),
        Err(error) => {
            pile.release(supply);
            Err(error.into())
        }
    }
}

/// Maps frames in an area, which are its own from now on. The area is ended if that fails.
#[inline(never)]
fn map_or_abandon<P: Platform>(
    space: &Space,
    supply: &Store<'_, P>,
    (area, align): (&'static Area, u64),
    pile: Pile,
) -> Result<&'static Area, VmallocError> {
    let mapped = map_pile(space, supply, (area, align), &pile);
    area.keep(pile);
    match mapped {
        Ok(()) => Ok(area),
        Err(error) => {
            space.abandon_unmapped(supply, area);
            Err(VmallocError::Map(error))
        }
    }
}

/// Maps the blocks of a pile, one behind the other: those of 2 MiB at the front as such, if the area is aligned to them, the
/// others page by page. An error leaves nothing of it.
fn map_pile<P: Platform>(
    space: &Space,
    supply: &Store<'_, P>,
    (area, align): (&Area, u64),
    pile: &Pile,
) -> Result<(), MapError> {
    let frames = supply.frames();
    let huge = Order::PAGEBLOCK;
    let large = match align >= huge.bytes() {
        true => pile.in_front(frames, huge),
        false => 0,
    };
    let blocks = || pile.iter(frames);
    if large == 0 {
        return space.map(
            supply,
            area,
            &mut InPages::new(blocks()),
            Attributes::KERNEL,
        );
    }
    let all = area.mapped();
    let border = all.start().checked_add(large.saturating_mul(huge.bytes()));
    let border = border.unwrap_or(all.end()).min(all.end());
    let front = VirtRange::new(all.start(), border).unwrap_or_default();
    let in_front = || InLargeBlocks(blocks());
    space.map_large(supply, front, in_front, Attributes::KERNEL)?;
    let rest = VirtRange::new(border, all.end()).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    let behind = || InPages::new(blocks().skip(to_index(large)));
    let mapped = space.map_large(supply, rest, behind, Attributes::KERNEL);
    if mapped.is_err() {
        space.unmap(supply, front);
    }
    mapped
}
