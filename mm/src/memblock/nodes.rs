//! What the firmware says about nodes, believed only as far as Linux believes it (`numa_add_memblk`,
//! `numa_cleanup_meminfo`, `numa_meminfo_cover_memory`).
//!
//! # Example
//!
//! A machine with two nodes; what does not differ from [one with a single node](crate) is left out.
//!
//! ```
//! # use core::ptr::NonNull;
//! # use mm::addr::{DirectMap, Order, PhysAddr, PhysRange, VirtAddr};
//! # use mm::buddy::Gfp;
//! # use mm::mem::RamClaim;
//! # use mm::memblock::Memblock;
//! # use mm::memblock::firmware::{FirmwareKind, FirmwareRegion};
//! # use mm::memblock::params::Params;
//! # use mm::memblock::setup::{LowMemory, SetupPolicy, add_firmware_map};
//! # use mm::platform::{CpuId, IrqState, NodeId, Platform};
//! # use mm::report::Corruption;
//! # use mm::system::{Memory, Options};
//! # use mm::zone::plan::{CoreWish, NodePlan, Plan};
//! use mm::memblock::nodes::NodeRange;
//! use mm::zone::distance::Distances;
//!
//! struct Machine(DirectMap);
//!
//! # // SAFETY: (1, 2) the map holds one leaked piece of memory, which only the library uses;
//! # // (3, 4, 8) there are no interrupts and one thread; (5, 6, 7) the defaults promise nothing;
//! # // (9) two CPUs, of which the first one runs.
//! unsafe impl Platform for Machine {
//!     fn cpus(&self) -> u32 {
//!         2
//!     }
//!     // From the firmware: on x86_64, the SRAT's processor entries.
//!     fn node_of(&self, cpu: CpuId) -> NodeId {
//!         match cpu {
//!             CpuId(0) => NodeId(0),
//!             _ => NodeId(1),
//!         }
//!     }
//!     // The rest is as on a machine with one node.
//! #     fn current_cpu(&self) -> CpuId {
//! #         CpuId(0)
//! #     }
//! #     fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
//! #         self.0.phys_to_virt(range)
//! #     }
//! #     fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
//! #         self.0.virt_to_phys(addr)
//! #     }
//! #     fn irq_save(&self) -> IrqState {
//! #         IrqState::new(0)
//! #     }
//! #     fn irq_restore(&self, _: IrqState) {}
//! #     fn corruption(&self, report: &Corruption) {
//! #         panic!("{report}");
//! #     }
//! }
//!
//! # static RAM: [PhysRange; 1] = [PhysRange::from_size(PhysAddr::new(1 << 20), 32 << 20)];
//! # let bytes = vec![0_u8; 34 << 20].leak();
//! # let first = bytes.as_mut_ptr().map_addr(|at| at.next_multiple_of(1 << 20));
//! # let base = VirtAddr::new(first.expose_provenance() as u64 - RAM[0].start().as_u64());
//! # let map = DirectMap::new(base, &RAM);
//! # let memory = Memory::new(Machine(map));
//! # let platform = memory.platform();
//! # // SAFETY: (1, 2) the map names the RAM above; (3) there is no other claim; (4) none of the three
//! # // is called; (5) there is one machine; (6) the memory was leaked.
//! # let mut memblock = Memblock::new(unsafe { RamClaim::new() });
//! # memblock.allow_growth();
//! # let policy = SetupPolicy {
//! #     phys_bits: 40,
//! #     low_memory: LowMemory::Reserve,
//! #     params: &Params::default(),
//! # };
//! # let firmware_map = [FirmwareRegion {
//! #     start: RAM[0].start().as_u64(),
//! #     size: RAM[0].size(),
//! #     kind: FirmwareKind::Usable.as_e820(),
//! # }];
//! // 1. All RAM first, …
//! add_firmware_map(&mut memblock, platform, &firmware_map, &policy, &mut |_| {})?;
//! // 2. … then whose it is (the SRAT's memory entries).
//! let half = |start: u64| PhysRange::from_size(PhysAddr::new(start), 16 << 20);
//! let ranges = [
//!     NodeRange { range: half(1 << 20), node: NodeId(0) },
//!     NodeRange { range: half(17 << 20), node: NodeId(1) },
//! ];
//! memblock.set_nodes(platform, &ranges)?;
//! // 3. A plan with room for both, and how far they are from each other (the SLIT).
//! let mut nodes = [NodePlan::EMPTY; 2];
//! let plan = Plan::compute(&memblock, CoreWish::from(policy.params), &mut nodes)?
//!     .with_distances(Distances::new(2, &[10, 20, 20, 10])?);
//! let summary = memory.bring_up(memblock, &plan, Options::for_profile(Machine::PROFILE))?;
//! assert_eq!(summary.misplaced_cpus, 0);
//!
//! // CPU 0 gets memory of node 0, unless it names another one.
//! let node = |pfn| memory.zone_of(pfn).unwrap().id().node;
//! let near = memory.alloc_block(Gfp::KERNEL, Order::ZERO)?;
//! let far = memory.alloc_block_node(NodeId(1), Gfp::KERNEL, Order::ZERO)?;
//! assert_eq!((node(near.pfn()), node(far.pfn())), (NodeId(0), NodeId(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

use core::fmt;

use super::{GrowError, Memblock, RegionFlags, TableKind};
use crate::addr::{PhysAddr, PhysRange};
use crate::config::PAGE_SIZE;
use crate::platform::{NodeId, Platform};

/// So much RAM without a node is too much.
const UNCOVERED_LIMIT: u64 = 1 << 20;

/// A range of addresses that belongs to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRange {
    /// The addresses, RAM or not.
    pub range: PhysRange,
    /// The node.
    pub node: NodeId,
}

/// Why all RAM is node 0's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodesError {
    /// Two nodes claim the same addresses.
    Overlap(NodeRange, NodeRange),
    /// So many bytes of RAM belong to no node.
    Uncovered(u64),
    /// There is no RAM yet: what is added later would be node 0's. Nodes come after
    /// [`add_firmware_map`](super::setup::add_firmware_map).
    NoRam,
    /// The table of RAM cannot grow.
    Table(GrowError),
}

impl From<GrowError> for NodesError {
    fn from(error: GrowError) -> Self {
        Self::Table(error)
    }
}

impl Memblock {
    /// Says which nodes RAM belongs to, once all RAM is known. What lies between two ranges of a node
    /// and is claimed by no other is that node's too. Less than 1 MiB that belongs to no node counts
    /// as node 0's. Context: boot.
    ///
    /// # Errors
    /// [`NodesError`]: the ranges contradict each other or leave too much out. All RAM is on node 0
    /// then, as on a machine without nodes.
    pub fn set_nodes<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[NodeRange],
    ) -> Result<(), NodesError> {
        if self.span().is_empty() && !ranges.is_empty() {
            return Err(NodesError::NoRam);
        }
        let outcome = self.try_set_nodes(platform, ranges);
        if outcome.is_err() {
            // One node for all takes fewer regions, so this cannot fail for want of room.
            self.set_node(platform, self.span(), NodeId(0))?;
        }
        outcome
    }

    /// Keeps memory that may be unplugged for the page allocator's movable pages (`movable_node`):
    /// marks `ranges` as [`RegionFlags::HOTPLUG`] and spares them in early allocation, as long as
    /// there is anything else. A node with anything reserved on it cannot go, and is not marked
    /// (Linux: `numa_clear_kernel_node_hotplug`). To be called once nodes are known. Context: boot.
    ///
    /// # Errors
    /// The table of RAM cannot grow: nothing is marked, and nothing spared.
    pub fn spare_hotplug<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[PhysRange],
    ) -> Result<(), GrowError> {
        let marked = self.mark_hotplug(platform, ranges);
        match marked {
            Ok(()) => self.spares_hotplug = true,
            // It takes fewer regions, so this cannot fail for want of room.
            Err(_) => self.clear(platform, self.span(), RegionFlags::HOTPLUG)?,
        }
        marked
    }

    fn mark_hotplug<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[PhysRange],
    ) -> Result<(), GrowError> {
        for range in ranges {
            self.mark(platform, *range, RegionFlags::HOTPLUG)?;
        }
        while let Some(range) = self.marked_in_use() {
            self.clear(platform, range, RegionFlags::HOTPLUG)?;
        }
        Ok(())
    }

    /// A marked range of a node that something is reserved on.
    fn marked_in_use(&self) -> Option<PhysRange> {
        let is_in_use = |node: Option<NodeId>| {
            let mut ours = self.memory().iter().filter(|region| region.node == node);
            ours.any(|region| self.overlaps(TableKind::Reserved, region.range))
        };
        let marked = |flags: RegionFlags| flags.contains(RegionFlags::HOTPLUG);
        let mut regions = self.memory().iter();
        let found = regions.find(|region| marked(region.flags) && is_in_use(region.node));
        found.map(|region| region.range)
    }

    /// Whether a place in RAM may be unplugged.
    pub(super) fn is_hot_pluggable(&self, place: PhysRange) -> bool {
        let region = self.memory_at(place.start());
        region.is_some_and(|region| region.flags.contains(RegionFlags::HOTPLUG))
    }

    fn try_set_nodes<P: Platform>(
        &mut self,
        platform: &P,
        ranges: &[NodeRange],
    ) -> Result<(), NodesError> {
        // What is claimed beside all RAM does not matter.
        let bound = PhysRange::new(PhysAddr::ZERO, self.span().end()).unwrap_or(PhysRange::EMPTY);
        let clipped = |claim: &NodeRange| NodeRange {
            range: claim.range.intersect(bound),
            ..*claim
        };
        let claims = || {
            ranges
                .iter()
                .map(clipped)
                .filter(|claim| !claim.range.is_empty())
        };
        for (index, claim) in claims().enumerate() {
            let mut rest = claims().skip(index);
            let collides =
                |other: &NodeRange| other.node != claim.node && other.range.overlaps(claim.range);
            if let Some(other) = rest.find(collides) {
                return Err(NodesError::Overlap(claim, other));
            }
        }
        for claim in claims() {
            for other in claims().filter(|other| other.node == claim.node) {
                let start = claim.range.start().min(other.range.start());
                let end = claim.range.end().max(other.range.end());
                let both = PhysRange::new(start, end).unwrap_or(claim.range);
                let mut others = claims().filter(|other| other.node != claim.node);
                if !others.any(|other| other.range.overlaps(both)) {
                    self.set_node(platform, both, claim.node)?;
                }
            }
            self.set_node(platform, claim.range, claim.node)?;
        }
        let uncovered = self.frames(None).filter(|ram| ram.node.is_none());
        let uncovered = uncovered.map(|ram| ram.frames.frames());
        let bytes = uncovered
            .fold(0, u64::saturating_add)
            .saturating_mul(PAGE_SIZE);
        match bytes >= UNCOVERED_LIMIT {
            true => Err(NodesError::Uncovered(bytes)),
            false => Ok(()),
        }
    }
}

impl fmt::Display for NodesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(one, other) => write!(
                f,
                "node {} at {} overlaps with node {} at {}",
                one.node, one.range, other.node, other.range
            ),
            Self::Uncovered(bytes) => write!(f, "{bytes} bytes of RAM belong to no node"),
            Self::NoRam => f.write_str("there is no RAM yet that could belong to nodes"),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for NodesError {}
