//! Whom the page allocator asks for memory: caches that can do with less.
//!
//! A cache implements [`Relief`] and registers a [`Shrinker`] for it, a static that it provides;
//! nothing is allocated. When memory is short, each is asked for a share of what it has: a 4096th
//! at first, and with every round that does not find enough twice as much. What a share leaves
//! over because it is too little for a call is kept for the next time. This is Linux's
//! `do_shrink_slab`, by its behaviour. When all that was not enough, those that registered an
//! [`OomNotifier`] are told.
//!
//! # Example
//!
//! A cache that gives pages back, and a thread that asks for them before requests have to:
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
//! use mm::buddy::relief::{
//!     Freed, OomNotifier, OutOfMemory, Relief, ShrinkControl, Shrinker,
//! };
//! use mm::sync::Bell;
//! use mm::system::Block;
//! use std::sync::{Mutex, OnceLock};
//!
//! # struct Machine(DirectMap);
//! # static CPU: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
//! # std::thread_local!(static HERE: u32 = CPU.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
//! # // SAFETY: (1, 2) the map holds one leaked piece of memory, which only the library uses;
//! # // (3, 4, 8) each thread is a CPU of its own, without interrupts; (5, 6, 7) the defaults promise
//! # // nothing; (9) there are no more threads than CPUs.
//! # unsafe impl Platform for Machine {
//! #     fn cpus(&self) -> u32 {
//! #         2
//! #     }
//! #     fn current_cpu(&self) -> CpuId {
//! #         CpuId(HERE.with(|here| *here))
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
//! #     fn wake_kswapd(&self, _: NodeId) -> bool {
//! #         wake_kswapd()
//! #     }
//! # }
//! static MEMORY: OnceLock<Memory<Machine>> = OnceLock::new();
//!
//! /// A cache of pages that nobody needs at the moment.
//! struct Cache(Mutex<Vec<Block<&'static Memory<Machine>>>>);
//!
//! impl Cache {
//!     fn give(&self, most: u64) -> u64 {
//!         let mut pages = self.0.lock().unwrap();
//!         let left = pages.len().saturating_sub(most as usize);
//!         pages.split_off(left).len() as u64 // they are freed here
//!     }
//! }
//!
//! impl Relief for Cache {
//!     fn count_objects(&self, _: &ShrinkControl) -> u64 {
//!         self.0.lock().unwrap().len() as u64
//!     }
//!     fn scan_objects(&self, _: &ShrinkControl, objects: u64) -> Option<Freed> {
//!         let pages = self.give(objects);
//!         Some(Freed { objects: pages, pages })
//!     }
//! }
//!
//! impl OutOfMemory for Cache {
//!     fn out_of_memory(&self, _: Order) -> u64 {
//!         self.give(u64::MAX)
//!     }
//! }
//!
//! // Statics: registering them needs no memory, also when there is none.
//! static CACHE: Cache = Cache(Mutex::new(Vec::new()));
//! static SHRINKER: Shrinker = Shrinker::new("cache", &CACHE);
//! static NOTIFIER: OomNotifier = OomNotifier::new(&CACHE);
//!
//! // A thread for the node, and what `Platform::wake_kswapd` does.
//! static BELL: Bell = Bell::new();
//! static KSWAPD: OnceLock<std::thread::Thread> = OnceLock::new();
//! fn kswapd() {
//!     loop {
//!         BELL.answer(); // before it looks for work
//!         let _ = MEMORY.get().unwrap().balance_node(NodeId(0));
//!         while !BELL.is_rung() {
//!             std::thread::park();
//!         }
//!     }
//! }
//! fn wake_kswapd() -> bool {
//!     let thread = KSWAPD.get();
//!     if let Some(thread) = thread.filter(|_| BELL.ring()) {
//!         thread.unpark();
//!     }
//!     thread.is_some() // without one, the request does the work itself
//! }
//!
//! # static RAM: [PhysRange; 1] = [PhysRange::from_size(PhysAddr::new(1 << 20), 32 << 20)];
//! # let bytes = vec![0_u8; 34 << 20].leak();
//! # let first = bytes.as_mut_ptr().map_addr(|at| at.next_multiple_of(1 << 20));
//! # let base = VirtAddr::new(first.expose_provenance() as u64 - RAM[0].start().as_u64());
//! # let map = DirectMap::new(base, &RAM);
//! # let memory = MEMORY.get_or_init(|| Memory::new(Machine(map)));
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
//! # add_firmware_map(&mut memblock, platform, &firmware_map, &policy, &mut |_| {})?;
//! # let mut nodes = [NodePlan::EMPTY; 1];
//! # let plan = Plan::compute(&memblock, CoreWish::from(policy.params), &mut nodes)?;
//! # memory.bring_up(memblock, &plan, Options::for_profile(Machine::PROFILE))?;
//! memory.register_shrinker(&SHRINKER)?;
//! memory.register_oom_notifier(&NOTIFIER)?;
//! let thread = std::thread::spawn(kswapd);
//! let _ = KSWAPD.set(thread.thread().clone());
//!
//! // The cache takes all there is; requests get what they need of it.
//! while let Ok(page) = memory.alloc_block(Gfp::NOWAIT, Order::ZERO) {
//!     CACHE.0.lock().unwrap().push(page);
//! }
//! let pages = (0..1000).map(|_| memory.alloc_block(Gfp::KERNEL, Order::ZERO));
//! assert!(pages.collect::<Result<Vec<_>, _>>().is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
