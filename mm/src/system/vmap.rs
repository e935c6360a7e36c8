//! Areas for frames that are somebody else's, and for devices (Linux: `vmap`, `ioremap`).
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

use super::{Memory, VmallocError};
use crate::adapters::Store;
use crate::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange, VirtAddr, to_count};
use crate::config::{MAX_PHYS_BITS, PAGE_SIZE};
use crate::kspace::{Area, AreaKind, MOST_BLOCKS, Space, Wanted};
use crate::pagetable::{Attributes, Cache, InAList, InARow, MapError, PageSize, Protection};
use crate::platform::Platform;

/// Why a device is not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoremapError {
    /// The range wraps around, or reaches beyond what the architecture can address.
    BadRange(PhysAddr),
    /// This is RAM, which the direct map reaches, cached.
    Ram(PhysAddr),
    /// Part of it is mapped already, and cached otherwise.
    Conflict(Cache),
    /// There is no area.
    Area(VmallocError),
}

impl fmt::Display for IoremapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange(at) => write!(f, "no device can be at {at:?}"),
            Self::Ram(at) => write!(f, "{at:?} is RAM"),
            Self::Conflict(cache) => write!(f, "part of it is mapped {cache} already"),
            Self::Area(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IoremapError {}

impl From<VmallocError> for IoremapError {
    fn from(error: VmallocError) -> Self {
        Self::Area(error)
    }
}

/// Frames of somebody else's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Others<'a> {
    /// One by one.
    List(&'a [Pfn]),
    /// In a row.
    Row(Pfn, u64),
}

impl Others<'_> {
    fn count(self) -> u64 {
        match self {
            Self::List(list) => to_count(list.len()),
            Self::Row(_, count) => count,
        }
    }

    /// Whether 2 MiB of them can be mapped as a whole.
    fn are_large(self) -> bool {
        let huge = Order::PAGEBLOCK;
        matches!(self, Self::Row(first, count) if count >= huge.frames() && first.is_aligned(huge))
    }
}

impl<P: Platform> Memory<P> {
    /// An area that leads to frames which are not its own.
    pub(crate) fn map_others(
        &self,
        frames: Others<'_>,
        how: Attributes,
        (kind, place): (AreaKind, &'static Location<'static>),
    ) -> Result<&'static Area, VmallocError> {
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        let pages = frames.count();
        if pages == 0 {
            return Err(VmallocError::Empty);
        }
        if pages > MOST_BLOCKS {
            return Err(VmallocError::TooLarge);
        }
        if how.is_write_execute() || how.protection.contains(Protection::USER) {
            return Err(VmallocError::Forbidden(how));
        }
        let wanted = Wanted {
            asked: pages.saturating_mul(PAGE_SIZE),
            pages,
            align: if frames.are_large() {
                Order::PAGEBLOCK.bytes()
            } else {
                PAGE_SIZE
            },
            kind,
            place,
        };
        let area = self.take_area(space, &supply, &wanted)?;
        match map_frames(space, &supply, area, frames, how) {
            Ok(()) => Ok(area),
            Err(error) => {
                space.abandon(&supply, area);
                Err(VmallocError::Map(error))
            }
        }
    }

    /// Where the direct map reaches a frame of RAM (Linux: `kmap`, `kmap_local_page`, `page_address`). With 64 bits all RAM is
    /// mapped: so nothing is mapped for it, nothing has to be undone (`kunmap`, `kunmap_local`), and it is as good on
    /// another CPU or after a sleep. `None` for what is no RAM of a zone. Context: any.
    #[must_use]
    pub fn kmap_local(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        let _zone = self.zone_of(pfn)?;
        let page = PhysRange::from_size(pfn.addr(), PAGE_SIZE);
        self.platform.direct_map(page)
    }

    /// An area for the registers of a device.
    pub(crate) fn map_device(
        &self,
        (at, size): (PhysAddr, u64),
        cache: Cache,
        place: &'static Location<'static>,
    ) -> Result<VirtAddr, IoremapError> {
        if size == 0 {
            return Err(VmallocError::Empty.into());
        }
        let bad = IoremapError::BadRange(at);
        let end = at.checked_add(size).ok_or(bad)?;
        if end.as_u64() > 1 << MAX_PHYS_BITS {
            return Err(bad);
        }
        let range = PhysRange::from_size(at, size);
        let frames = range.touched_frames();
        if frames.frames() > MOST_BLOCKS {
            return Err(VmallocError::TooLarge.into());
        }
        // Frames above all RAM have no records: there may be many of them.
        let core = self.core().ok_or(VmallocError::NotUp)?;
        let known = PfnRange::from_numbers(0, core.frames.limit().as_u64());
        let mut below = frames.intersect(known).iter();
        let mut ram = below.by_ref().filter(|&pfn| self.zone_of(pfn).is_some());
        if let Some(pfn) = ram.next() {
            return Err(IoremapError::Ram(pfn.addr()));
        }
        let (first, count) = (frames.first(), frames.frames());
        let how = Attributes::KERNEL.with_cache(cache);
        let row = Others::Row(first, count);
        let area = self.map_others(row, how, (AreaKind::Ioremap, place))?;
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        // After it was mapped: nobody was told of the addresses yet.
        if let Err(other) = space.note_device(&self.platform, area, first.addr(), cache) {
            space.abandon(&supply, area);
            return Err(IoremapError::Conflict(other));
        }
        let offset = at.offset_from(first.addr()).unwrap_or_default();
        Ok(area.start().checked_add(offset).unwrap_or_default())
    }
}

/// Maps frames of somebody else's in an area.
#[inline]
fn map_frames<P: Platform>(
    space: &Space,
    supply: &Store<'_, P>,
    area: &Area,
    frames: Others<'_>,
    how: Attributes,
) -> Result<(), MapError> {
    let largest = PageSize::Size2M;
    match frames {
        Others::List(list) => space.map(supply, area, &mut InAList(list), how),
        Others::Row(first, _) if frames.are_large() => {
            let row = || InARow { first, largest };
            space.map_large(supply, area.mapped(), row, how)
        }
        Others::Row(first, _) => space.map(supply, area, &mut InARow { first, largest }, how),
    }
}
