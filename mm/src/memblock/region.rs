//! One entry of a memblock table.
#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::{PhysAddr, PhysRange};
use crate::platform::NodeId;

/// A range of physical memory with its node and flags: Linux's `struct memblock_region`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Region {
    /// Which bytes.
    pub range: PhysRange,
    /// The node they belong to, once that is known.
    pub node: Option<NodeId>,
    /// What is special about them.
    pub flags: RegionFlags,
}

bitflags::bitflags! {
    /// What is special about a region: Linux's `enum memblock_flags`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RegionFlags: u8 {
        /// May be unplugged while the machine runs.
        const HOTPLUG = 1 << 0;
        /// Kept twice by the hardware.
        const MIRROR = 1 << 1;
        /// Has no place in the direct map: never allocated, never handed over.
        const NOMAP = 1 << 2;
        /// Memory, but a driver's own: never allocated, never handed over.
        const DRIVER_MANAGED = 1 << 3;
    }
}

impl Region {
    /// A region without node or flags. Context: any.
    #[must_use]
    pub const fn plain(range: PhysRange) -> Self {
        Self {
            range,
            node: None,
            flags: RegionFlags::empty(),
        }
    }

    /// The first address. Context: any.
    #[must_use]
    pub const fn base(&self) -> PhysAddr {
        self.range.start()
    }

    /// The first address behind the region. Context: any.
    #[must_use]
    pub const fn end(&self) -> PhysAddr {
        self.range.end()
    }

    /// Whether early allocation and the hand-over to the page allocator stay away. Context: any.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        let withheld = RegionFlags::NOMAP.union(RegionFlags::DRIVER_MANAGED);
        self.flags.intersects(withheld)
    }

    /// The same attributes for other bytes.
    #[must_use]
    pub(super) const fn over(self, range: PhysRange) -> Self {
        Self { range, ..self }
    }

    /// Whether node and flags are the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.node == other.node && self.flags == other.flags
    }

    /// Whether `above` goes on exactly where this region ends, and is like it.
    pub(super) fn joins(&self, above: &Self) -> bool {
        self.end() == above.base() && self.is_like(above)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:#x} bytes", self.range, self.range.size())?;
        if let Some(node) = self.node {
            write!(f, " on node {node}")?;
        }
        write!(f, " flags: {:#x}", self.flags.bits())
    }
}
