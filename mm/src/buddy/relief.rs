//! Whom the page allocator asks for memory: caches that can do with less.
//!
//! A cache implements [`Relief`] and registers a [`Shrinker`] for it, a static that it provides;
//! nothing is allocated. When memory is short, each is asked for a share of what it has: a 4096th
//! at first, and with every round that does not find enough twice as much. What a share leaves
//! over because it is too little for a call is kept for the next time. This is Linux's
//! `do_shrink_slab`, by its behaviour. When all that was not enough, those that registered an
//! [`OomNotifier`] are told.
#![forbid(unsafe_code)]

use core::fmt;

use super::Gfp;
pub use super::chain::AlreadyRegistered;
use super::chain::{Link, Linked};
use crate::addr::Order;
use crate::numa::NodeMask;
use crate::platform::{NodeId, Platform};
use crate::sync::atomic::{AtomicU64, Ordering};

/// The urgency to begin with: a share of `1 / 2^12` (Linux: `DEF_PRIORITY`).
pub const DEF_PRIORITY: u8 = 12;
/// Objects that a shrinker is asked for at once (Linux: `SHRINK_BATCH`).
pub const SHRINK_BATCH: u64 = 128;
/// What an object costs to make again, in disk accesses; two is usual (Linux: `DEFAULT_SEEKS`).
pub const DEFAULT_SEEKS: u32 = 2;

/// For whom memory is looked for (Linux: `struct shrink_control`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShrinkControl {
    /// What the request may do: without [`Gfp::FS`], for instance, no file system is called.
    pub gfp: Gfp,
    /// The node that is short of memory. Always node 0 for a cache that does not keep its objects by node
    /// ([`Shrinker::numa_aware`]).
    pub node: NodeId,
}

/// What was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Freed {
    /// Objects.
    pub objects: u64,
    /// Pages that went back to the page allocator with them.
    pub pages: u64,
}

/// A cache that can give memory back (Linux: the two functions of a `struct shrinker`).
///
/// Both are called in task context, without locks of this library. They may allocate: such a
/// request may use all reserves and does not reclaim in turn.
pub trait Relief: Sync {
    /// How many objects could go now: of a cache that is [NUMA aware](Shrinker::numa_aware), on
    /// [`ShrinkControl::node`]; of any other, all.
    fn count_objects(&self, control: &ShrinkControl) -> u64;

    /// Looks at `objects` of them and lets go what can go. `None` if that is not possible now,
    /// without a deadlock for instance (Linux: `SHRINK_STOP`).
    fn scan_objects(&self, control: &ShrinkControl, objects: u64) -> Option<Freed>;
}

/// A cache's entry in the list of those that are asked (Linux: `struct shrinker`).
pub struct Shrinker {
    name: &'static str,
    relief: &'static dyn Relief,
    seeks: u32,
    numa_aware: bool,
    /// Objects that are still to be looked at.
    deferred: AtomicU64,
    link: Link<Self>,
}

/// What a call to shrinkers came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Objects looked at.
    pub(crate) scanned: u64,
    /// Pages that came back.
    pub(crate) pages: u64,
}

impl Shrinker {
    /// An entry for a cache, to be registered
    /// ([`Memory::register_shrinker`](crate::system::Memory::register_shrinker)).
    #[must_use]
    pub const fn new(name: &'static str, relief: &'static dyn Relief) -> Self {
        Self {
            name,
            relief,
            seeks: DEFAULT_SEEKS,
            numa_aware: false,
            deferred: AtomicU64::new(0),
            link: Link::new(),
        }
    }

    /// Sets what an object costs to make again: the more, the less the cache is asked for; with 0
    /// it gives half of what it has, whatever the urgency.
    #[must_use]
    pub const fn seeks(mut self, seeks: u32) -> Self {
        self.seeks = seeks;
        self
    }

    /// Says that the cache keeps its objects by node, and gives back those of the node that it is asked
    /// for (Linux: `SHRINKER_NUMA_AWARE`). Any other is asked for node 0 whichever node is short, so also for a
    /// request that is bound to another one: its objects may lie anywhere.
    #[must_use]
    pub const fn numa_aware(mut self) -> Self {
        self.numa_aware = true;
        self
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Asks the cache for its share at this urgency.
    pub(crate) fn shrink<P: Platform>(
        &self,
        control: &ShrinkControl,
        priority: u8,
        platform: &P,
    ) -> Tally {
        let mut tally = Tally::default();
        let node = match self.numa_aware {
            true => control.node,
            false => NodeId(0),
        };
        let control = &ShrinkControl { node, ..*control };
        let freeable = self.relief.count_objects(control);
        if freeable == 0 {
            return tally;
        }
        let most = freeable.saturating_mul(2);
        let share = share(freeable, priority, self.seeks);
        let deferred = self.deferred.swap(0, Ordering::Relaxed);
        let mut rest = (deferred >> priority).saturating_add(share).min(most);
        while rest >= SHRINK_BATCH || rest >= freeable {
            let objects = rest.min(SHRINK_BATCH);
            let Some(freed) = self.relief.scan_objects(control, objects) else {
                break;
            };
            tally.pages = tally.pages.saturating_add(freed.pages);
            tally.scanned = tally.scanned.saturating_add(objects);
            rest = rest.saturating_sub(objects);
            platform.reschedule();
        }
        let left = deferred.saturating_add(share).saturating_sub(tally.scanned);
        let left = left.min(most);
        self.deferred.fetch_add(left, Ordering::Relaxed);
        tally
    }
}

impl Linked for Shrinker {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

impl fmt::Debug for Shrinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shrinker")
            .field("name", &self.name)
            .field("seeks", &self.seeks)
            .field("numa_aware", &self.numa_aware)
            .field("deferred", &self.deferred)
            .finish_non_exhaustive()
    }
}

/// Objects that a cache of `freeable` is to look at.
fn share(freeable: u64, priority: u8, seeks: u32) -> u64 {
    let urgent = (freeable >> priority).saturating_mul(4);
    urgent
        .checked_div(u64::from(seeks))
        .unwrap_or(freeable.div_euclid(2))
}

/// Somebody who wants to know when there is no memory left, and may have some (Linux:
/// `register_oom_notifier`).
pub trait OutOfMemory: Sync {
    /// Frees what it can; answers how many pages that were. Context: as [`Relief`].
    fn out_of_memory(&self, order: Order) -> u64;

    /// The same where there is none on some nodes, and memory elsewhere would not help: a policy
    /// binds the request (Linux: `CONSTRAINT_MEMORY_POLICY`). Default: the same.
    fn out_of_memory_on(&self, order: Order, nodes: &NodeMask) -> u64 {
        let _ = nodes;
        self.out_of_memory(order)
    }
}

/// An entry in the list of those that are told.
pub struct OomNotifier {
    told: &'static dyn OutOfMemory,
    link: Link<Self>,
}

impl OomNotifier {
    /// An entry, to be registered
    /// ([`Memory::register_oom_notifier`](crate::system::Memory::register_oom_notifier)).
    #[must_use]
    pub const fn new(told: &'static dyn OutOfMemory) -> Self {
        Self {
            told,
            link: Link::new(),
        }
    }

    pub(crate) fn tell(&self, order: Order, nodes: Option<&NodeMask>) -> u64 {
        match nodes {
            None => self.told.out_of_memory(order),
            Some(nodes) => self.told.out_of_memory_on(order, nodes),
        }
    }
}

impl Linked for OomNotifier {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

impl fmt::Debug for OomNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OomNotifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_doubles_with_urgency_and_falls_with_the_price() {
        assert_eq!(share(1 << 20, DEF_PRIORITY, 2), 512);
        assert_eq!(share(1 << 20, 11, 2), 1024);
        assert_eq!(share(1 << 20, DEF_PRIORITY, 4), 256);
        assert_eq!(share(1000, 0, 2), 2000);
        assert_eq!(share(1000, DEF_PRIORITY, 2), 0);
        assert_eq!(share(1000, DEF_PRIORITY, 0), 500);
    }
}
