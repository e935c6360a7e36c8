//! Memory before there are frames: which RAM exists, what of it is taken, early allocation.
//!
//! [`Memblock`] keeps two tables of regions. *Memory* is the RAM that the firmware reports, with
//! node and flags; *reserved* is what is in use: the kernel image, boot structures, and
//! everything that [`Memblock::alloc`] handed out. Their difference is free.
//!
//! | file | what |
//! |---|---|
//! | `firmware` | what the firmware says: raw entries and kinds |
//! | `sanitize` | any firmware map → sorted, disjoint ranges |
//! | `params` | `mem=`, `memmap=`, `kernelcore=`, `movablecore=`, `movable_node` |
//! | `setup` | the boot steps from a firmware map to the memory table |
//! | `region`, `table` | one entry; a sorted table of them |
//! | `grow` | tables that are full move into memory of their own |
//! | `alloc` | early allocation |
//! | `nodes` | which node RAM belongs to, and what may be unplugged |
//! | `bounds` | trimming and limiting what RAM there is |
//! | `iter` | free ranges, frames |
//!
//! # Protocol
//!
//! 1. [`Memblock::reserve`] what must not be overwritten: image, boot structures, ramdisk.
//! 2. [`setup::add_firmware_map`] fills the memory table; [`Memblock::allow_growth`] may come
//!    before it (a map with more than 128 usable ranges needs it) or after.
//! 3. [`Memblock::set_node`] where the firmware says so (all on node 0 where it does not), then
//!    allocate. Requests for a node do not find RAM that has none yet.
//! 4. [`Memblock::hand_over`] ends it: what is free goes to the page allocator.
//!
//! Numbers of any size are accepted everywhere: ranges end at the end of the address space.
//! Context: boot, one CPU. Linux counterpart: `mm/memblock.c`, `arch/x86/kernel/e820.c`.
//!
//! Where it differs from Linux: an empty table has no regions (Linux: one of size 0); a table
//! that must grow is grown before anything changes, so that a failure changes nothing.
#![forbid(unsafe_code)]

mod alloc;
mod bounds;
pub mod firmware;
mod grow;
mod iter;
pub mod nodes;
pub mod params;
mod region;
pub mod sanitize;
pub mod setup;
mod table;

use core::fmt;

pub use alloc::{AllocError, DEFAULT_ALIGN, Floor, NodeChoice, Request};
pub use grow::{GrowError, Growth};
pub use iter::{FreeRange, FreeRanges, FreeRangesDown, NodeFrames};
pub use region::{Region, RegionFlags};
pub use table::INLINE_REGIONS;

use crate::addr::{PfnRange, PhysAddr, PhysRange};
use crate::mem::{EarlyRam, RamClaim};
use crate::platform::{NodeId, Platform};
use crate::report::{Check, Corruption};
use table::Table;

/// The early memory manager: see the [module](self).
#[derive(Debug)]
pub struct Memblock {
    memory: Table,
    reserved: Table,
    claim: RamClaim,
    direction: Direction,
    /// Allocation ends here.
    limit: PhysAddr,
    growth: Growth,
    /// Whether what may be unplugged is not allocated from.
    spares_hotplug: bool,
}

/// From which end of memory early allocation takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The highest place that fits: low memory stays free for those who need it.
    TopDown,
    /// The lowest place that fits.
    BottomUp,
}

/// One of the two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableKind {
    /// RAM that exists.
    Memory,
    /// RAM, or any other range, that is taken.
    Reserved,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Reserved => "reserved",
        })
    }
}

/// Why a range could not be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeError {
    /// The range holds one of memblock's own tables.
    OwnTable(PhysRange),
    /// The table was full and could not grow.
    Table(GrowError),
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnTable(range) => write!(f, "{range} holds a table of memblock"),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FreeError {}

impl Memblock {
    /// Empty tables, no limit, top down, growth forbidden. Context: any.
    #[must_use]
    pub const fn new(claim: RamClaim) -> Self {
        Self {
            memory: Table::new(),
            reserved: Table::new(),
            claim,
            direction: Direction::TopDown,
            limit: PhysAddr::MAX,
            growth: Growth::Forbidden,
            spares_hotplug: false,
        }
    }

    /// The RAM there is, lowest first. Context: boot.
    #[must_use]
    pub fn memory(&self) -> &[Region] {
        self.memory.regions()
    }

    /// What is taken, lowest first. Context: boot.
    #[must_use]
    pub fn reserved(&self) -> &[Region] {
        self.reserved.regions()
    }

    /// Bytes of RAM. Context: boot.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.total()
    }

    /// Bytes taken. Context: boot.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved.total()
    }

    /// From the first byte of RAM to the last, holes included; empty without RAM. Context: boot.
    #[must_use]
    pub fn span(&self) -> PhysRange {
        let (Some(first), Some(last)) = (self.memory().first(), self.memory().last()) else {
            return PhysRange::EMPTY;
        };
        PhysRange::new(first.base(), last.end()).unwrap_or(PhysRange::EMPTY)
    }

    /// The RAM of one node (`None`: of all), as whole frames, lowest first. Context: boot.
    pub fn frames(&self, node: Option<NodeId>) -> impl Iterator<Item = NodeFrames> {
        self.memory()
            .iter()
            .filter(move |region| node.is_none() || region.node == node)
            .filter_map(iter::region_frames)
    }

    /// What is memory, neither reserved nor withheld, lowest first. Context: boot.
    #[must_use]
    pub fn free_ranges(&self) -> FreeRanges<'_> {
        FreeRanges::new(self.memory(), self.reserved())
    }

    /// Whether `range` shares a byte with a region of the table. Context: boot.
    #[must_use]
    pub fn overlaps(&self, kind: TableKind, range: PhysRange) -> bool {
        !range.is_empty() && !self.table(kind).overlapping(range).is_empty()
    }

    /// The region of RAM that holds `addr`. Context: boot.
    #[must_use]
    pub fn memory_at(&self, addr: PhysAddr) -> Option<&Region> {
        let at = self.memory().partition_point(|r| r.end() <= addr);
        self.memory().get(at).filter(|r| r.range.contains(addr))
    }

    /// From which end allocation takes. Context: boot.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// Sets from which end allocation takes. Context: boot.
    pub const fn set_direction(&mut self, direction: Direction) {
        self.direction = direction;
    }

    /// Where allocation ends (Linux: `current_limit`). Context: boot.
    #[must_use]
    pub const fn current_limit(&self) -> PhysAddr {
        self.limit
    }

    /// Sets where allocation ends: what the direct map reaches so far. Context: boot.
    pub const fn set_current_limit(&mut self, limit: PhysAddr) {
        self.limit = limit;
    }

    /// Allows tables to outgrow their [`INLINE_REGIONS`] slots, into free RAM of this memblock.
    /// Growing writes to that RAM, so by now everything in use must be reserved, and the
    /// platform's direct map must answer. Without this call a change that needs one region more
    /// is a [`GrowError::Forbidden`]: few machines have so many, so call it as soon as both hold.
    /// Context: boot.
    pub const fn allow_growth(&mut self) {
        self.growth = Growth::Allowed;
    }

    /// Adds RAM; parts that are known already stay what they are. Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn add<P: Platform>(&mut self, platform: &P, range: PhysRange) -> Result<(), GrowError> {
        self.put_in(platform, TableKind::Memory, &Region::plain(range))
    }

    /// Adds RAM with its node and flags; parts that are known already stay what they are.
    /// Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn add_region<P: Platform>(
        &mut self,
        platform: &P,
        region: &Region,
    ) -> Result<(), GrowError> {
        self.put_in(platform, TableKind::Memory, region)
    }

    /// Marks a range, RAM or not, as taken. Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn reserve<P: Platform>(
        &mut self,
        platform: &P,
        range: PhysRange,
    ) -> Result<(), GrowError> {
        self.put_in(platform, TableKind::Reserved, &Region::plain(range))
    }

    /// Takes RAM out of the memory table: it does not exist any more. Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn remove<P: Platform>(&mut self, platform: &P, range: PhysRange) -> Result<(), GrowError> {
        self.take_out(platform, TableKind::Memory, range)
    }

    /// Takes a range out of the reserved table: it may be handed out from now on. For ranges
    /// that [`reserve`](Self::reserve) took; what an [`EarlyRam`] covers
    /// goes back by [`free_ram`](Self::free_ram) (see [`RamClaim`], Safety 4). Context: boot.
    ///
    /// # Errors
    /// [`FreeError`]: nothing changed.
    pub fn free<P: Platform>(&mut self, platform: &P, range: PhysRange) -> Result<(), FreeError> {
        let tables = [self.memory.array_range(), self.reserved.array_range()];
        if let Some(own) = tables.into_iter().flatten().find(|t| t.overlaps(range)) {
            return Err(FreeError::OwnTable(own));
        }
        self.take_out(platform, TableKind::Reserved, range)
            .map_err(FreeError::Table)
    }

    /// Says on which node the RAM inside `range` lies. Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn set_node<P: Platform>(
        &mut self,
        platform: &P,
        range: PhysRange,
        node: NodeId,
    ) -> Result<(), GrowError> {
        let avoid = PhysRange::EMPTY;
        self.modify(platform, range, avoid, |region| {
            region.node = Some(node);
        })
    }

    /// Sets flags on the RAM inside `range`. Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn mark<P: Platform>(
        &mut self,
        platform: &P,
        range: PhysRange,
        flags: RegionFlags,
    ) -> Result<(), GrowError> {
        // A new array must not land in memory that may be about to lose its direct map.
        self.modify(platform, range, range, |region| region.flags.insert(flags))
    }

    /// Clears flags on the RAM inside `range`. Context: boot.
    ///
    /// # Errors
    /// The table is full and cannot grow: nothing changed.
    pub fn clear<P: Platform>(
        &mut self,
        platform: &P,
        range: PhysRange,
        flags: RegionFlags,
    ) -> Result<(), GrowError> {
        let avoid = PhysRange::EMPTY;
        self.modify(platform, range, avoid, |region| {
            region.flags.remove(flags);
        })
    }

    /// Ends early memory: every free range of whole frames goes to `take`, lowest first, then
    /// the frames that the tables themselves had grown into; each with the token that makes it
    /// the receiver's. Context: boot.
    pub fn hand_over(self, take: &mut dyn FnMut(NodeFrames, EarlyRam)) {
        let mut give = |free: NodeFrames| take(free, self.hand_out(free.frames));
        self.free_frames().for_each(&mut give);
        let own = |table: &Table| {
            let range = table.array_range()?;
            let node = self.memory_at(range.start())?.node;
            FreeRange { range, node }.whole_frames()
        };
        let own = [own(&self.memory), own(&self.reserved)];
        // From here on nobody looks at the tables.
        own.into_iter().flatten().for_each(give);
    }

    /// What is free, as whole frames, lowest first.
    pub(crate) fn free_frames(&self) -> impl Iterator<Item = NodeFrames> {
        self.free_ranges().filter_map(|free| free.whole_frames())
    }

    /// The token for frames that are handed over: free ones, each once. Nothing is allocated early
    /// any more by then.
    pub(crate) fn hand_out(&self, frames: PfnRange) -> EarlyRam {
        self.claim.carve(frames.addrs())
    }

    fn table(&self, kind: TableKind) -> &Table {
        match kind {
            TableKind::Memory => &self.memory,
            TableKind::Reserved => &self.reserved,
        }
    }

    fn table_mut(&mut self, kind: TableKind) -> &mut Table {
        match kind {
            TableKind::Memory => &mut self.memory,
            TableKind::Reserved => &mut self.reserved,
        }
    }

    /// Recounts both tables. Context: boot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), Corruption> {
        self.memory.validate()?;
        self.reserved.validate()?;
        // A table's own array must be taken.
        let arrays = [self.memory.array_range(), self.reserved.array_range()];
        let lost = arrays.into_iter().flatten().find(|array| {
            let holder = self.reserved().iter().find(|r| r.range.covers(*array));
            holder.is_none()
        });
        lost.map_or(Ok(()), |array| {
            Err(Corruption::Miscount {
                check: Check::TableOrder,
                recorded: array.start().as_u64(),
                counted: 0,
            })
        })
    }
}
