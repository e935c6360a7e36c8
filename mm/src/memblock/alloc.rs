//! Early allocation: memory before there are frames.
//!
//! A [`Request`] says how much, where and on which node; what comes back is an
//! [`EarlyRam`] token, zeroed ([`Memblock::alloc`]) or untouched ([`Memblock::alloc_raw`]).
//! Fallbacks come in Linux's order: the preferred node, any node, then the same without the
//! preferred floor. Linux counterpart: `memblock_find_in_range_node`, `memblock_alloc_range_nid`,
//! `memblock_alloc_internal`, `memblock_free`.
#![forbid(unsafe_code)]

use core::fmt;

use super::grow::GrowError;
use super::iter::FreeRange;
use super::region::Region;
use super::{Direction, Memblock, TableKind};
use crate::addr::{PhysAddr, PhysRange, to_index};
use crate::config::PAGE_SIZE;
use crate::mem::{Array, CarveError, EarlyRam};
use crate::platform::{NodeId, Platform};

/// Alignment where none is asked for: a cache line.
pub const DEFAULT_ALIGN: u64 = 64;

/// What is wanted of early allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    size: u64,
    align: u64,
    floor: Floor,
    ceiling: PhysAddr,
    node: NodeChoice,
    direction: Option<Direction>,
}

/// The lowest address that will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Floor {
    /// Below it is better than nothing.
    Preferred(PhysAddr),
    /// Below it is of no use.
    Required(PhysAddr),
}

/// The node that will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeChoice {
    /// Any.
    Any,
    /// This one, or else any.
    Prefer(NodeId),
    /// This one only.
    Exactly(NodeId),
}

impl NodeChoice {
    const fn id(self) -> Option<NodeId> {
        match self {
            Self::Any => None,
            Self::Prefer(node) | Self::Exactly(node) => Some(node),
        }
    }
}

impl Request {
    /// `size` bytes, aligned to a cache line, anywhere below the current limit. Context: any.
    #[must_use]
    pub const fn bytes(size: u64) -> Self {
        Self {
            size,
            align: DEFAULT_ALIGN,
            floor: Floor::Preferred(PhysAddr::ZERO),
            ceiling: PhysAddr::MAX,
            node: NodeChoice::Any,
            direction: None,
        }
    }

    /// Aligned to `align` bytes, a power of two. Context: any.
    #[must_use]
    pub const fn align(self, align: u64) -> Self {
        Self { align, ..self }
    }

    /// Not below `floor`. Context: any.
    #[must_use]
    pub const fn floor(self, floor: Floor) -> Self {
        Self { floor, ..self }
    }

    /// Ending at or below `ceiling`. Context: any.
    #[must_use]
    pub const fn ceiling(self, ceiling: PhysAddr) -> Self {
        Self { ceiling, ..self }
    }

    /// On a node. Context: any.
    #[must_use]
    pub const fn node(self, node: NodeChoice) -> Self {
        Self { node, ..self }
    }

    /// From this end of memory, whatever memblock's own setting is. Context: any.
    #[must_use]
    pub const fn direction(self, direction: Direction) -> Self {
        Self {
            direction: Some(direction),
            ..self
        }
    }
}

/// Why early allocation gave nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// No bytes were asked for.
    Empty,
    /// The alignment is not a power of two.
    BadAlignment(u64),
    /// No free range fits.
    NoRoom(Request),
    /// The reserved table is full and could not grow.
    Table(GrowError),
    /// Zeroed memory was wanted, but the platform's direct map does not reach it.
    Unreachable(PhysRange),
}

/// A search for a free range, every choice made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub(super) size: u64,
    pub(super) align: u64,
    pub(super) min: PhysAddr,
    pub(super) max: PhysAddr,
    pub(super) node: Option<NodeId>,
    pub(super) direction: Direction,
    /// Whether memory that may be unplugged will do.
    pub(super) takes_hotplug: bool,
}

impl Search {
    /// The place in `free` that the search would take.
    fn place_in(&self, free: &FreeRange) -> Option<PhysRange> {
        if self.node.is_some() && self.node != free.node {
            return None;
        }
        let window = PhysRange::new(self.min, self.max)?;
        let free = free.range.intersect(window);
        let start = match self.direction {
            Direction::BottomUp => free.start().align_up(self.align)?,
            Direction::TopDown => free.end().checked_sub(self.size)?.align_down(self.align),
        };
        let place = PhysRange::new(start, start.checked_add(self.size)?)?;
        free.covers(place).then_some(place)
    }
}

impl Memblock {
    /// Hands out memory filled with zeroes. Context: boot.
    ///
    /// # Errors
    /// [`AllocError`]; nothing is reserved then.
    pub fn alloc<P: Platform>(
        &mut self,
        platform: &P,
        request: &Request,
    ) -> Result<EarlyRam, AllocError> {
        let place = self.place(request)?;
        if platform.direct_map(place).is_none() {
            return Err(AllocError::Unreachable(place));
        }
        let ram = self.take(platform, place)?;
        match Array::<u8>::carve(platform, ram, to_index(place.size()), |_| 0) {
            Ok(zeroes) => Ok(zeroes.into_ram()),
            // The platform changed its mind since the line above; see `Platform`, point 1.
            Err(CarveError::Unreachable(_) | CarveError::Misfit { .. }) => {
                self.give_back(platform, place).map_err(AllocError::Table)?;
                Err(AllocError::Unreachable(place))
            }
        }
    }

    /// Hands out memory without touching it. Context: boot.
    ///
    /// # Errors
    /// [`AllocError`]; nothing is reserved then.
    pub fn alloc_raw<P: Platform>(
        &mut self,
        platform: &P,
        request: &Request,
    ) -> Result<EarlyRam, AllocError> {
        let place = self.place(request)?;
        self.take(platform, place)
    }

    /// Takes memory back. Context: boot.
    ///
    /// # Errors
    /// The table was full and could not grow: the memory comes back with the reason.
    pub fn free_ram<P: Platform>(
        &mut self,
        platform: &P,
        ram: EarlyRam,
    ) -> Result<(), (GrowError, EarlyRam)> {
        match self.give_back(platform, ram.range()) {
            Ok(()) => {
                // The range is free again, and this was the only token.
                let _: PhysRange = ram.leak();
                Ok(())
            }
            Err(error) => Err((error, ram)),
        }
    }

    fn give_back<P: Platform>(&mut self, platform: &P, range: PhysRange) -> Result<(), GrowError> {
        self.take_out(platform, TableKind::Reserved, range)
    }

    fn take<P: Platform>(
        &mut self,
        platform: &P,
        place: PhysRange,
    ) -> Result<EarlyRam, AllocError> {
        self.put_in(platform, TableKind::Reserved, &Region::plain(place))
            .map_err(AllocError::Table)?;
        Ok(self.claim.carve(place))
    }

    /// Where a request would be served, by the fallbacks' order.
    fn place(&self, request: &Request) -> Result<PhysRange, AllocError> {
        if request.size == 0 {
            return Err(AllocError::Empty);
        }
        if !request.align.is_power_of_two() {
            return Err(AllocError::BadAlignment(request.align));
        }
        let (floor, lower) = match request.floor {
            Floor::Required(floor) => (floor, None),
            Floor::Preferred(floor) => (floor, Some(PhysAddr::ZERO)),
        };
        let lower = lower.filter(|lower| *lower < floor);
        let other_nodes = matches!(request.node, NodeChoice::Prefer(_)).then_some(None);
        let attempt = |takes_hotplug: bool| {
            let floors = [Some(floor), lower].into_iter().flatten();
            let mut attempts = floors.flat_map(|min| {
                let nodes = [Some(request.node.id()), other_nodes];
                nodes.into_iter().flatten().map(move |node| (min, node))
            });
            attempts.find_map(|(min, node)| {
                self.find(&Search {
                    size: request.size,
                    align: request.align,
                    min,
                    max: request.ceiling.min(self.limit),
                    node,
                    direction: request.direction.unwrap_or(self.direction),
                    takes_hotplug,
                })
            })
        };
        // Memory that then cannot be unplugged is better than none.
        let found = attempt(!self.spares_hotplug).or_else(|| attempt(true));
        found.ok_or(AllocError::NoRoom(*request))
    }

    /// The first place that fits. Never in frame 0: real mode's, and what a null pointer reads.
    pub(super) fn find(&self, search: &Search) -> Option<PhysRange> {
        let search = Search {
            min: search.min.max(PhysAddr::new(PAGE_SIZE)),
            ..*search
        };
        let mut free = self.free_ranges();
        let place = |free: FreeRange| {
            let place = search.place_in(&free);
            place.filter(|place| search.takes_hotplug || !self.is_hot_pluggable(*place))
        };
        match search.direction {
            Direction::BottomUp => free.find_map(place),
            Direction::TopDown => free.rev().find_map(place),
        }
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("early allocation of nothing"),
            Self::BadAlignment(align) => write!(f, "alignment {align:#x} is not a power of two"),
            Self::NoRoom(request) => {
                let (size, align) = (request.size, request.align);
                write!(f, "no {size:#x} bytes aligned to {align:#x} are free")?;
                match request.ceiling {
                    PhysAddr::MAX => Ok(()),
                    ceiling => write!(f, " below {:#x}", ceiling.as_u64()),
                }
            }
            Self::Table(error) => error.fmt(f),
            Self::Unreachable(range) => write!(f, "{range} is outside the direct map"),
        }
    }
}

impl core::error::Error for AllocError {}
