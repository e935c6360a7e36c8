//! What the library tells its platform: damage that detectors find, and requests that failed.
//!
//! There is one type for all damage. Tests match on its values, not on log text; a platform prints
//! them or panics.
#![forbid(unsafe_code)]

mod event;
mod free_page;
mod freed_by;
mod kfence;
mod mapping;
mod object;

pub use event::{Event, EventKind};
pub use free_page::FreePageAccess;
pub use freed_by::{CALLERS, FreedBy};
pub use kfence::{AccessKind, KfenceError, KfenceObject, KfenceReport};
pub use mapping::{Backing, DoubleMapping};
pub use object::{CacheName, ObjectDamage, ObjectOrigin, ObjectPart, ObjectRepair};

use core::fmt;

use crate::addr::{Order, Pfn};
use crate::numa::NodeMask;
use crate::platform::CpuId;

/// Damage: something that correct callers and correct code never produce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Corruption {
    /// A block on its way to a caller is not marked free: it was handed out already, or its record was overwritten.
    NotFree {
        /// First frame of the block.
        pfn: Pfn,
        /// The state word found.
        word: u64,
    },
    /// A frame's record is not what its place says.
    BadRecord {
        /// The frame.
        pfn: Pfn,
        /// The state word found.
        word: u64,
        /// What was being checked.
        check: Check,
    },
    /// A maintained number differs from a recount.
    Miscount {
        /// Which number.
        check: Check,
        /// What was maintained.
        recorded: u64,
        /// What a recount gives.
        counted: u64,
    },
    /// A free block and its free buddy were not merged.
    Unmerged {
        /// First frame of the lower block.
        pfn: Pfn,
        /// Their order.
        order: Order,
    },
    /// A byte of free memory was written to.
    Poison {
        /// The frame written to.
        pfn: Pfn,
        /// Where in the frame, in bytes.
        offset: u16,
        /// The pattern that free memory holds.
        expected: u8,
        /// What was found.
        found: u8,
    },
    /// A reference count reached its limit and stays there; the frame is never freed.
    RefcountSaturated {
        /// The frame.
        pfn: Pfn,
    },
    /// A lock was taken against the order.
    LockOrder {
        /// Name of the lock held.
        held: &'static str,
        /// Name of the lock wanted.
        wanted: &'static str,
    },
    /// A section could not be populated: its memory stays out of use.
    LostSection {
        /// Its first frame.
        pfn: Pfn,
    },
    /// A block could not be given back when its handle was dropped.
    LostBlock {
        /// First frame of the block.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// An object could not be given back when its handle was dropped.
    LostObject {
        /// The frame that it starts in.
        pfn: Pfn,
        /// Where in the frame, in bytes.
        offset: u16,
    },
    /// A free object of a slab was written to: it, and what hung on it, stays out of use.
    FreeObject {
        /// First frame of the slab.
        slab: Pfn,
        /// Number of the object in the slab.
        object: u16,
        /// Number of the cache.
        cache: u16,
    },
    /// An object of a cache that checks its objects, or what is around it, was written to.
    Object(ObjectDamage),
    /// An object of the sampling guard pool was used wrongly.
    Kfence(KfenceReport),
    /// A page was to be mapped where it may not be (`page_table_check=on`).
    DoubleMapping(DoubleMapping),
    /// A mapping ended that was counted nowhere (`page_table_check=on`).
    UncountedMapping {
        /// The frame.
        pfn: Pfn,
    },
    /// A block was freed, but a frame of it is mapped for user code still (`page_table_check=on`): it stays out of circulation.
    FreedWhileMapped {
        /// The frame.
        pfn: Pfn,
        /// What it is mapped as, …
        backing: Backing,
        /// … and how often.
        count: u32,
    },
    /// A free page was touched that is out of reach (`debug_pagealloc=on`).
    FreePage(FreePageAccess),
    /// A CPU maps areas of kernel addresses, and nobody waits for it when they are unmapped: it was started, or woke, without
    /// [`Memory::tlb_lazy_leave`](crate::system::Memory::tlb_lazy_leave) (`debug` profile).
    LazyCpu {
        /// The CPU.
        cpu: CpuId,
    },
}

/// What a validation was looking at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Check {
    /// Free blocks of an order on the lists of a migrate type.
    FreeBlocks,
    /// Free frames of a zone.
    FreeFrames,
    /// Frames a zone manages: free, isolated and live ones together.
    ManagedFrames,
    /// Free frames in sections that are not populated yet.
    LatentFrames,
    /// Live frames of a zone.
    LiveFrames,
    /// Frames in pageblocks kept for large requests that cannot wait.
    HighAtomic,
    /// Frames in pageblocks of CMA.
    Cma,
    /// Blocks in use by state.
    State,
    /// Alignment of a block to its order.
    Alignment,
    /// Node and zone in a frame's record.
    Home,
    /// Neighbour links of a free list.
    Links,
    /// The per-pageblock index of free orders.
    Index,
    /// Sum of sizes in a memblock table.
    TableTotal,
    /// Order and separation of memblock regions.
    TableOrder,
    /// Grace periods that a CPU has seen or that are over, against those that have begun.
    GracePeriods,
    /// Frames whose freeing was put off.
    DeferredFrames,
    /// Slabs of a cache on a node.
    Slabs,
    /// Objects of slabs: taken, and on lists of free ones.
    SlabObjects,
    /// Chunks that each CPU has a unit of, and what is taken of them.
    PerCpu,
    /// Areas of kernel addresses: their order, the gaps between them, and those that wait.
    Areas,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFree { pfn, word } => {
                write!(
                    f,
                    "frame {pfn} is on a free list but not free (state {word:#018x})"
                )
            }
            Self::BadRecord { pfn, word, check } => {
                write!(
                    f,
                    "frame {pfn}: bad record (state {word:#018x}) while checking {check:?}"
                )
            }
            Self::Miscount {
                check,
                recorded,
                counted,
            } => {
                write!(f, "{check:?}: {recorded} recorded, {counted} counted")
            }
            Self::Unmerged { pfn, order } => {
                write!(
                    f,
                    "free buddies at frame {pfn}, order {order}, were not merged"
                )
            }
            Self::Poison {
                pfn,
                offset,
                expected,
                found,
            } => write!(
                f,
                "frame {pfn} was written to while free: byte {offset:#x} is {found:#04x}, not {expected:#04x}"
            ),
            Self::LockOrder { held, wanted } => {
                write!(f, "lock `{wanted}` taken while `{held}` is held")
            }
            Self::LostSection { pfn } => {
                write!(f, "the section at frame {pfn} could not be populated")
            }
            Self::LostBlock { pfn, order } => {
                write!(
                    f,
                    "block at frame {pfn}, order {order}, could not be given back"
                )
            }
            Self::FreeObject { .. } | Self::LostObject { .. } => write_object(f, *self),
            Self::Object(damage) => damage.fmt(f),
            Self::Kfence(report) => report.fmt(f),
            Self::RefcountSaturated { .. }
            | Self::FreePage(_)
            | Self::DoubleMapping(_)
            | Self::UncountedMapping { .. }
            | Self::FreedWhileMapped { .. }
            | Self::LazyCpu { .. } => write_use(f, *self),
        }
    }
}

/// The words for what is wrong with the use of a page.
fn write_use(f: &mut fmt::Formatter<'_>, report: Corruption) -> fmt::Result {
    match report {
        Corruption::RefcountSaturated { pfn } => {
            write!(
                f,
                "reference count of frame {pfn} saturated; the frame leaks"
            )
        }
        Corruption::FreePage(access) => fmt::Display::fmt(&access, f),
        Corruption::DoubleMapping(mapping) => fmt::Display::fmt(&mapping, f),
        Corruption::UncountedMapping { pfn } => {
            write!(f, "a mapping of frame {pfn} ended that was counted nowhere")
        }
        Corruption::FreedWhileMapped {
            pfn,
            backing,
            count,
        } => write!(
            f,
            "frame {pfn} was freed, and is mapped {count} times as {backing}: it stays out of use"
        ),
        Corruption::LazyCpu { cpu } => write!(
            f,
            "CPU {} maps areas, but nobody waits for it when they are unmapped: it has not called `tlb_lazy_leave`",
            cpu.0
        ),
        _ => Ok(()),
    }
}

/// The words for what is wrong with an object.
fn write_object(f: &mut fmt::Formatter<'_>, report: Corruption) -> fmt::Result {
    match report {
        Corruption::FreeObject {
            slab,
            object,
            cache,
        } => write!(
            f,
            "object {object} of the slab at frame {slab} (cache {cache}) was written to while free"
        ),
        Corruption::LostObject { pfn, offset } => write!(
            f,
            "the object at frame {pfn}, byte {offset:#x}, could not be given back"
        ),
        _ => Ok(()),
    }
}

impl core::error::Error for Corruption {}

/// A request that may sleep, by its flags, from a caller that may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepInAtomic {
    /// log2 of the pages asked for.
    pub order: Order,
    /// The request's flags, as Linux numbers them.
    pub mode: u32,
}

impl fmt::Display for SleepInAtomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, mode } = self;
        write!(
            f,
            "page allocation that may sleep in atomic context: order:{order}, mode:{mode:#x}"
        )
    }
}

/// A CPU that grace periods have waited for for long (Linux: `rcu_sched self-detected stall`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GraceStall {
    /// The CPU.
    pub cpu: CpuId,
    /// So often it was looked at.
    pub polls: u32,
    /// Whether it was inside of a reader at the last look.
    pub is_reading: bool,
}

impl fmt::Display for GraceStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, polls, .. } = self;
        let place = match self.is_reading {
            true => "inside of a reader",
            false => "outside of readers",
        };
        write!(
            f,
            "grace period stalled: CPU {} has not passed a quiescent state in {polls} looks, {place}",
            cpu.0
        )
    }
}

/// A request for pages that found none. What it prints is Linux's `page allocation failure`, and
/// the state of the zones that were asked, from the moment of printing.
pub struct AllocFailure<'a> {
    /// log2 of the pages asked for.
    pub order: Order,
    /// The request's flags, as Linux numbers them.
    pub mode: u32,
    /// The same by name.
    pub(crate) flags: &'a dyn fmt::Display,
    /// The nodes that a policy binds it to.
    pub(crate) nodes: Option<&'a NodeMask>,
    /// A paragraph for each zone, every line with its line break before it.
    pub(crate) zones: &'a dyn fmt::Display,
}

impl fmt::Display for AllocFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            order,
            mode,
            flags,
            nodes,
            zones,
        } = self;
        write!(
            f,
            "page allocation failure: order:{order}, mode:{mode:#x}({flags}), nodemask="
        )?;
        match nodes {
            None => write!(f, "(null){zones}"),
            Some(nodes) => write!(f, "{}{zones}", nodes.list()),
        }
    }
}

/// A request that fails on purpose ([`FailPageAlloc`](crate::system::FailPageAlloc)), in the words of Linux's
/// fault injection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForcedFailure {
    /// log2 of the pages asked for.
    pub order: Order,
    /// The request's flags, as Linux numbers them.
    pub mode: u32,
}

impl fmt::Display for ForcedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, mode } = self;
        write!(
            f,
            "FAULT_INJECTION: forcing a failure.\nname fail_page_alloc, order:{order}, mode:{mode:#x}"
        )
    }
}

/// A request for an object that fails on purpose ([`FailSlab`](crate::system::FailSlab)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForcedObjectFailure {
    /// The cache that was asked.
    pub cache: CacheName,
    /// Bytes asked for.
    pub size: usize,
    /// The request's flags, as Linux numbers them.
    pub mode: u32,
}

impl fmt::Display for ForcedObjectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, size, mode } = self;
        write!(
            f,
            "FAULT_INJECTION: forcing a failure.\nname failslab, cache:{cache}, size:{size}, mode:{mode:#x}"
        )
    }
}

impl fmt::Debug for AllocFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocFailure")
            .field("order", &self.order)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
