//! Areas for frames that are somebody else's, and for devices (Linux: `vmap`, `ioremap`).
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use super::{Memory, VmallocError};
use crate::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange, to_count};
use crate::collections::range_tree::Slot;
use crate::config::{MAX_PHYS_BITS, PAGE_SIZE};
use crate::kspace::{AreaKind, CacheMode, MOST_BLOCKS, MapAttributes, MapError, Wanted};
use crate::platform::Platform;

/// Frames that are mapped together.
const BATCH: usize = 64;

/// Why a device is not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoremapError {
    /// The range wraps around, or reaches beyond what the architecture can address.
    BadRange(PhysAddr),
    /// This is RAM, which the direct map reaches, cached.
    Ram(PhysAddr),
    /// Part of it is mapped with another cache mode.
    Conflict(CacheMode),
    /// There is no area.
    Area(VmallocError),
}

impl fmt::Display for IoremapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange(at) => write!(f, "no device can be at {at:?}"),
            Self::Ram(at) => write!(f, "{at:?} is RAM"),
            Self::Conflict(mode) => write!(f, "part of it is mapped {}", mode.name()),
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
        how: MapAttributes,
        (kind, place): (AreaKind, &'static Location<'static>),
    ) -> Result<Slot, VmallocError> {
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        let pages = frames.count();
        if pages == 0 {
            return Err(VmallocError::Empty);
        }
        if pages > MOST_BLOCKS {
            return Err(VmallocError::TooLarge);
        }
        let huge = frames.are_large() && space.mapping().has_huge_pages();
        let wanted = Wanted {
            asked: pages.saturating_mul(PAGE_SIZE),
            pages,
            align: if huge {
                Order::PAGEBLOCK.bytes()
            } else {
                PAGE_SIZE
            },
            kind,
            place,
        };
        let slot = space.take(&supply, &wanted)?;
        let mapped = self.map_frames(slot, frames, how, huge);
        mapped.map(|()| slot).map_err(|error| {
            let _ = space.retire(&self.platform, slot, true);
            let _ = space.purge(&supply);
            VmallocError::Map(error)
        })
    }

    fn map_frames(
        &self,
        slot: Slot,
        frames: Others<'_>,
        how: MapAttributes,
        huge: bool,
    ) -> Result<(), MapError> {
        let area = self
            .kspace()
            .and_then(|(space, _)| Some((space, space.area(slot)?)));
        let (space, area) = area.ok_or(MapError::Unsupported)?;
        let mut at = area.whole().start();
        let mut map = |batch: &[Pfn], order: Order| {
            space.mapping().map(at, batch, order, how)?;
            let bytes = to_count(batch.len()).saturating_mul(order.bytes());
            at = at.checked_add(bytes).ok_or(MapError::Unsupported)?;
            Ok(())
        };
        let (mut next, mut left) = match frames {
            Others::List(list) => {
                let mut batches = list.chunks(BATCH);
                return batches.try_for_each(|batch| map(batch, Order::ZERO));
            }
            Others::Row(first, count) => (first, count),
        };
        while left > 0 {
            let order = match huge && left >= Order::PAGEBLOCK.frames() {
                true => Order::PAGEBLOCK,
                false => Order::ZERO,
            };
            let mut batch = [Pfn::ZERO; BATCH];
            let mut full: usize = 0;
            for place in &mut batch {
                if left < order.frames() || order == Order::ZERO && left == 0 {
                    break;
                }
                *place = next;
                next = next.saturating_add(order.frames());
                left = left.saturating_sub(order.frames());
                full = full.saturating_add(1);
            }
            map(batch.get(..full).unwrap_or_default(), order)?;
        }
        Ok(())
    }

    /// An area for the registers of a device.
    pub(crate) fn map_device(
        &self,
        (at, size): (PhysAddr, u64),
        cache: CacheMode,
        place: &'static Location<'static>,
    ) -> Result<(Slot, u64), IoremapError> {
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
        let how = MapAttributes {
            cache,
            ..MapAttributes::default()
        };
        let slot = self.map_others(Others::Row(first, count), how, (AreaKind::Ioremap, place))?;
        let (space, supply) = self.kspace().ok_or(VmallocError::NotUp)?;
        // After it was mapped: nobody was told of the addresses yet.
        if let Err(other) = space.note_device(&self.platform, slot, first.addr(), cache) {
            let _ = space.retire(&self.platform, slot, true);
            let _ = space.purge(&supply);
            return Err(IoremapError::Conflict(other));
        }
        let offset = at.offset_from(first.addr()).unwrap_or_default();
        Ok((slot, offset))
    }
}
