//! What an allocation did, step by step.
//!
//! The allocator is generic over [`Trace`]; where nobody traces, the platform is [`Told`], which compiles to nothing if it
//! does not want to know.
#![forbid(unsafe_code)]

use super::MigrateType;
use crate::addr::{Order, Pfn};
use crate::frame::ZoneId;
use crate::mem::Exclusive;
use crate::platform::{NodeId, Platform};
use crate::report::{Event, EventKind};

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A zone was asked.
    Zone {
        /// Which one.
        home: ZoneId,
    },
    /// A zone has too few free frames.
    Short {
        /// Which one.
        home: ZoneId,
        /// How many are free.
        free: u64,
        /// How many of them are kept for others.
        floor: u64,
    },
    /// A free block was found.
    Found {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
        /// The type of its pageblock.
        kind: MigrateType,
    },
    /// The block that came back last was taken, which had not been merged yet.
    Latest {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// A block became the one that came back last: it is merged when anything else happens.
    Unmerged {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// A block was halved; the upper half stays free.
    Split {
        /// First frame of the upper half.
        upper: Pfn,
        /// Order of each half.
        order: Order,
    },
    /// A pageblock of another type was taken over.
    Claim {
        /// First frame of the pageblock.
        pfn: Pfn,
        /// The type it had.
        from: MigrateType,
        /// The type it has now.
        to: MigrateType,
    },
    /// A block was taken out of a pageblock of another type, which keeps its type.
    Steal {
        /// The pageblock's type.
        from: MigrateType,
    },
    /// A free block met its free buddy.
    Merge {
        /// First frame of the block of twice the size.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// A block came from this CPU's own list.
    Listed {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// A block came to the free areas; the merges after this one follow from it.
    Given {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// This CPU's own list was empty and was filled from the zone; the steps before this one did it.
    Refilled {
        /// How many blocks came.
        blocks: u32,
        /// Their order.
        order: Order,
    },
    /// A block went to this CPU's own list.
    Kept {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
    },
    /// This CPU had too many and gave some back; the steps before this one did it.
    Drained {
        /// How many frames went.
        frames: u32,
    },
    /// A section of the zone was populated: its memory could not be handed out before.
    Populated {
        /// The zone.
        home: ZoneId,
        /// First frame of the section.
        pfn: Pfn,
    },
    /// The zone had nothing.
    Exhausted {
        /// Which one.
        home: ZoneId,
    },
    /// An object came from those that this CPU has at hand.
    ObjectAtHand {
        /// The page that it starts in, …
        pfn: Pfn,
        /// … and where.
        offset: u16,
    },
    /// This CPU had no object at hand and was given some by slabs of its node.
    ObjectsRefilled {
        /// How many came.
        objects: u32,
    },
    /// No slab of a node has a free object.
    NoSlab {
        /// The node.
        node: NodeId,
    },
    /// An object came straight from a slab.
    ObjectFromSlab {
        /// The page that it starts in, …
        pfn: Pfn,
        /// … and where.
        offset: u16,
    },
    /// A block became a slab; the steps before this one found it.
    SlabMade {
        /// Its first frame.
        pfn: Pfn,
        /// Its order.
        order: Order,
        /// Objects in it.
        objects: u16,
    },
}

/// Takes note of steps.
pub trait Trace {
    /// Notes one step.
    fn step(&mut self, step: Step);
}

/// Tells the platform of steps that leave a frame in another place than before, if it wants to know of
/// [events](Platform::EVENTS); otherwise notes nothing, which compiles to nothing.
pub(crate) struct Told<'a, P>(pub(crate) &'a P);

impl<P: Platform> Trace for Told<'_, P> {
    #[inline(always)]
    fn step(&mut self, step: Step) {
        if !P::EVENTS {
            return;
        }
        if let Step::Unmerged { pfn, order } = step {
            // Straight from its owner.
            self.0.event(Event::block(EventKind::Free, pfn, order));
        }
        if let Some(event) = event_of(step) {
            self.0.event(event);
        }
    }
}

/// Tells the platform, if it wants to know.
#[inline(always)]
pub(crate) fn tell<P: Platform>(platform: &P, event: impl FnOnce() -> Event) {
    if P::EVENTS {
        platform.event(event());
    }
}

/// Tells it of a block that comes or goes.
#[inline(always)]
pub(crate) fn tell_block<P: Platform>(platform: &P, kind: EventKind, block: &Exclusive) {
    tell(platform, || {
        Event::block(kind, block.frames().first(), block.order())
    });
}

#[inline(always)]
fn event_of(step: Step) -> Option<Event> {
    use EventKind::{Alloc, Drain, Free, Give, Merge, Populate, Refill, Split, Steal, Take};
    Some(match step {
        Step::Found { pfn, order, kind } => Event::block(Take, pfn, order).with_detail(kind.bits()),
        Step::Latest { pfn, order } => Event::block(Take, pfn, order),
        Step::Unmerged { pfn, order } | Step::Given { pfn, order } => {
            Event::block(Give, pfn, order)
        }
        Step::Split { upper, order } => Event::block(Split, upper, order),
        Step::Merge { pfn, order } => Event::block(Merge, pfn, order),
        Step::Claim { pfn, from, .. } => {
            Event::block(Steal, pfn, Order::PAGEBLOCK).with_detail(from.bits())
        }
        Step::Steal { from } => Event::count(Steal, 0, Order::ZERO).with_detail(from.bits()),
        Step::Listed { pfn, order } => Event::block(Alloc, pfn, order),
        Step::Kept { pfn, order } => Event::block(Free, pfn, order),
        Step::Refilled { blocks, order } => Event::count(Refill, blocks.into(), order),
        Step::Drained { frames } => Event::count(Drain, frames.into(), Order::ZERO),
        Step::Populated { pfn, .. } => Event::block(Populate, pfn, Order::ZERO),
        _ => return None,
    })
}

/// Notes nothing.
impl Trace for () {
    #[inline(always)]
    fn step(&mut self, _: Step) {}
}

impl<F: FnMut(Step)> Trace for F {
    fn step(&mut self, step: Step) {
        self(step);
    }
}
