//! Operations that make room first, and how tables grow: into memory that memblock hands out.
//!
//! A table that is full doubles. The new array is searched outside the range that the caller is
//! about to reserve or remove, above it first, then below; it is reserved before anything else
//! can take it, and the old array is given back. Linux counterpart: `memblock_double_array`,
//! `memblock_allow_resize`.
//!
//! A call that fails because a table cannot grow leaves the regions as they were. (Where two
//! tables had to grow and only the second could not, the first keeps its larger array.)
#![forbid(unsafe_code)]

use core::fmt;

use super::alloc::Search;
use super::region::Region;
use super::table::{Table, TableFull};
use super::{Memblock, TableKind};
use crate::addr::{PhysAddr, PhysRange};
use crate::config::PAGE_SIZE;
use crate::mem::{Array, EarlyRam};
use crate::platform::Platform;

/// Whether tables may outgrow their 128 slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// Not yet: what must not be overwritten is not reserved yet, or memory is not known yet.
    Forbidden,
    /// Yes: everything in use is reserved.
    Allowed,
}

/// Why a table that is full could not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowError {
    /// Growing is still [`Growth::Forbidden`].
    Forbidden(TableKind),
    /// No free range of so many bytes below the current limit.
    NoRoom {
        /// The table.
        table: TableKind,
        /// Bytes wanted.
        bytes: u64,
    },
    /// The platform's direct map does not reach the only place found.
    Unreachable(PhysRange),
}

impl Memblock {
    /// Adds a region to a table, which grows first where it must.
    pub(super) fn put_in<P: Platform>(
        &mut self,
        platform: &P,
        kind: TableKind,
        region: &Region,
    ) -> Result<(), GrowError> {
        // A new array must not land on what is about to be reserved.
        let avoid = match kind {
            TableKind::Memory => PhysRange::EMPTY,
            TableKind::Reserved => region.range,
        };
        self.make_room(platform, kind, avoid, |table| table.slots_to_add(region))?;
        let added = self.table_mut(kind).add(region);
        added.map_err(|TableFull| GrowError::Forbidden(kind))
    }

    /// Removes a range from a table, which grows first where it must.
    pub(super) fn take_out<P: Platform>(
        &mut self,
        platform: &P,
        kind: TableKind,
        range: PhysRange,
    ) -> Result<(), GrowError> {
        // Nor in memory that is about to go.
        let avoid = match kind {
            TableKind::Memory => range,
            TableKind::Reserved => PhysRange::EMPTY,
        };
        self.make_room(platform, kind, avoid, |table| table.slots_to_remove(range))?;
        let removed = self.table_mut(kind).remove(range);
        removed.map_err(|TableFull| GrowError::Forbidden(kind))
    }

    /// Changes node or flags of the RAM inside `range`; the table grows first where it must.
    pub(super) fn modify<P: Platform>(
        &mut self,
        platform: &P,
        range: PhysRange,
        avoid: PhysRange,
        change: impl FnMut(&mut Region),
    ) -> Result<(), GrowError> {
        let kind = TableKind::Memory;
        self.make_room(platform, kind, avoid, |table| table.slots_to_modify(range))?;
        let modified = self.table_mut(kind).modify(range, change);
        modified.map_err(|TableFull| GrowError::Forbidden(kind))
    }

    /// Grows a table until it has as many spare slots as `needed` says.
    fn make_room<P: Platform>(
        &mut self,
        platform: &P,
        kind: TableKind,
        avoid: PhysRange,
        needed: impl Fn(&Table) -> usize,
    ) -> Result<(), GrowError> {
        while self.table(kind).spare() < needed(self.table(kind)) {
            self.grow(platform, kind, avoid)?;
        }
        Ok(())
    }

    fn grow<P: Platform>(
        &mut self,
        platform: &P,
        kind: TableKind,
        avoid: PhysRange,
    ) -> Result<(), GrowError> {
        if kind == TableKind::Memory {
            // Reserving the new array and giving back the old one take a slot each.
            while self.reserved.spare() < 2 {
                self.double(platform, TableKind::Reserved, avoid)?;
            }
        }
        self.double(platform, kind, avoid)
    }

    fn double<P: Platform>(
        &mut self,
        platform: &P,
        kind: TableKind,
        avoid: PhysRange,
    ) -> Result<(), GrowError> {
        if self.growth == Growth::Forbidden {
            return Err(GrowError::Forbidden(kind));
        }
        let slots = self.table(kind).capacity().saturating_mul(2);
        let bytes = Array::<Region>::bytes_for(slots).unwrap_or(u64::MAX);
        let bytes = bytes.checked_next_multiple_of(PAGE_SIZE).unwrap_or(bytes);
        let no_room = GrowError::NoRoom { table: kind, bytes };
        let range = self.find_apart(bytes, avoid).ok_or(no_room)?;
        if platform.direct_map(range).is_none() {
            return Err(GrowError::Unreachable(range));
        }

        let array = Array::carve(platform, self.claim.carve(range), slots, |_| {
            Region::default()
        });
        // It fits and is reachable, as was seen above.
        let array = array.map_err(|_| GrowError::Unreachable(range))?;
        let old = self.table_mut(kind).move_into(array);

        // Twice the slots (reserved), or two slots found above (memory): neither can fail.
        let full = |TableFull| no_room;
        self.reserved.add(&Region::plain(range)).map_err(full)?;
        let old = old.map(Array::into_ram).map(EarlyRam::leak);
        old.map_or(Ok(()), |old| self.reserved.remove(old))
            .map_err(full)
    }

    /// A page-aligned place for `bytes` that shares no byte with `avoid`.
    fn find_apart(&self, bytes: u64, avoid: PhysRange) -> Option<PhysRange> {
        let search = Search {
            size: bytes,
            align: PAGE_SIZE,
            min: avoid.end(),
            max: self.limit,
            node: None,
            direction: self.direction,
            takes_hotplug: true,
        };
        let below = Search {
            min: PhysAddr::ZERO,
            max: avoid.start().min(self.limit),
            ..search
        };
        self.find(&search).or_else(|| self.find(&below))
    }
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(table) => {
                write!(f, "memblock.{table} is full and may not grow yet")
            }
            Self::NoRoom { table, bytes } => {
                write!(f, "memblock.{table} is full: no {bytes} bytes to grow into")
            }
            Self::Unreachable(range) => {
                write!(f, "memblock cannot reach {range} through the direct map")
            }
        }
    }
}

impl core::error::Error for GrowError {}
