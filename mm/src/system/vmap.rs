//! Areas for frames that are somebody else's, and for devices (Linux: `vmap`, `ioremap`).
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

use super::{Memory, VmallocError};
use crate::adapters::Store;
use crate::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange, VirtAddr, to_count};
use crate::buddy::Gfp;
use crate::config::{MAX_PHYS_BITS, PAGE_SHIFT, PAGE_SIZE};
use crate::kspace::{Area, AreaKind, MOST_BLOCKS, NotNoted, Patience, Space, Wanted};
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

/// Whether the architecture can address all frames of a list.
#[inline]
fn are_addressable(frames: &[Pfn]) -> bool {
    // The limit is a power of two, so one bit that is too high is enough.
    let all = frames.iter().fold(0, |all, pfn| all | pfn.as_u64());
    all < 1 << (MAX_PHYS_BITS - PAGE_SHIFT)
}

impl<P: Platform> Memory<P> {
    /// An area that leads to frames which are not its own.
    pub(crate) fn map_others(
        &self,
        frames: &[Pfn],
        how: Attributes,
        (kind, place): (AreaKind, &'static Location<'static>),
    ) -> Result<&'static Area, VmallocError> {
        let (space, supply) = self.kspace_to_map(Gfp::KERNEL).ok_or(VmallocError::NotUp)?;
        let pages = to_count(frames.len());
        if pages == 0 {
            return Err(VmallocError::Empty);
        }
        if pages > MOST_BLOCKS {
            return Err(VmallocError::TooLarge);
        }
        if how.is_write_execute() || how.protection.contains(Protection::USER) {
            return Err(VmallocError::Forbidden(how));
        }
        if !are_addressable(frames) {
            return Err(VmallocError::Map(MapError::Frames));
        }
        let wanted = Wanted {
            asked: pages.saturating_mul(PAGE_SIZE),
            pages,
            align: PAGE_SIZE,
            kind,
            place,
        };
        let area = self.take_area(space, &supply, &wanted)?;
        match space.map(&supply, area, &mut InAList(frames), how.in_kernel()) {
            Ok(()) => Ok(area),
            Err(error) => {
                space.abandon_unmapped(&supply, area);
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
        let (space, supply) = self.kspace_to_map(Gfp::KERNEL).ok_or(VmallocError::NotUp)?;
        let (first, pages) = (frames.first(), frames.frames());
        let large = Order::PAGEBLOCK;
        let is_large = pages >= large.frames() && first.is_aligned(large);
        let wanted = Wanted {
            asked: pages.saturating_mul(PAGE_SIZE),
            pages,
            align: if is_large { large.bytes() } else { PAGE_SIZE },
            kind: AreaKind::Ioremap,
            place,
        };
        let area = self
            .take_area(space, &supply, &wanted)
            .map_err(VmallocError::from)?;
        // Before anything is mapped: so nobody ever finds it cached in two ways.
        let noted = loop {
            match space.note_device(&self.platform, area, first.addr(), cache) {
                Ok(()) => break Ok(()),
                Err(NotNoted::Conflict(cache)) => break Err(IoremapError::Conflict(cache)),
                // Nobody has it any more, but CPUs may remember how it was cached.
                Err(NotNoted::Going) => {
                    let _ = space.purge_or_wait(&supply, Patience::Endless);
                }
            }
        };
        let mapped = noted.and_then(|()| {
            let how = Attributes::KERNEL.with_cache(cache);
            let mapped = map_row(space, &supply, area, (first, is_large), how);
            mapped.map_err(|error| VmallocError::Map(error).into())
        });
        if let Err(error) = mapped {
            space.abandon_unmapped(&supply, area);
            return Err(error);
        }
        let offset = at.offset_from(first.addr()).unwrap_or_default();
        Ok(area.start().checked_add(offset).unwrap_or_default())
    }
}

/// Maps frames in a row in an area.
fn map_row<P: Platform>(
    space: &Space,
    supply: &Store<'_, P>,
    area: &Area,
    (first, is_large): (Pfn, bool),
    how: Attributes,
) -> Result<(), MapError> {
    // Where a large page does not fit at the start, none in the middle has room made for it.
    let largest = match is_large {
        true => PageSize::Size2M,
        false => PageSize::Size4K,
    };
    let row = || InARow { first, largest };
    match is_large {
        true => space.map_large(supply, area.mapped(), row, how),
        false => space.map(supply, area, &mut row(), how),
    }
}
