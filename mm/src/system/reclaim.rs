//! Getting memory back from those who can do with less: on behalf of a request that waits for it
//! (direct reclaim), or of a node that runs low (Linux: `kswapd`).
//!
//! Whoever reclaims is marked for as long as it does: what it allocates meanwhile may use all
//! reserves, and does not reclaim in turn (Linux: `PF_MEMALLOC`).
#![forbid(unsafe_code)]

use super::policy::Place;
use super::{Core, Memory};
use crate::addr::Order;
use crate::buddy::chain::Chain;
use crate::buddy::relief::{
    AlreadyRegistered, DEF_PRIORITY, OomNotifier, ShrinkControl, Shrinker, Tally,
};
use crate::buddy::{Gfp, Request};
use crate::numa::NodeMask;
use crate::platform::{NodeId, Platform};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::zone::{Node, Zone, ZoneKind};

/// Pages that direct reclaim is content with (Linux: `SWAP_CLUSTER_MAX`).
const CLUSTER: u64 = 32;
/// How urgent it is at most to reclaim what boosts ask for. (Linux stops at 10; what it reclaims by
/// then are mostly pages of files, and here objects of caches, of which a share has to be at least 128.)
const BOOST_PRIORITY: u8 = DEF_PRIORITY / 2;
/// So many runs without any success, and kswapd is not woken until somebody else succeeds
/// (Linux: `MAX_RECLAIM_RETRIES`).
const HOPELESS: u32 = 16;

/// Who is asked for memory.
#[derive(Debug)]
pub(super) struct Helpers {
    shrinkers: Chain<Shrinker>,
    notifiers: Chain<OomNotifier>,
    /// The mark of whoever reclaims, where the platform knows no tasks.
    reclaiming: AtomicBool,
}

impl Helpers {
    pub(super) const fn new() -> Self {
        Self {
            shrinkers: Chain::new(),
            notifiers: Chain::new(),
            reclaiming: AtomicBool::new(false),
        }
    }
}

/// What reclaim did since boot, by the names of `/proc/vmstat`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    allocstall: [AtomicU64; ZoneKind::COUNT],
    direct: Work,
    kswapd: Work,
    pageoutrun: AtomicU64,
}

#[derive(Debug, Default)]
struct Work {
    scanned: AtomicU64,
    pages: AtomicU64,
}

impl Work {
    fn add(&self, tally: Tally) {
        self.scanned.fetch_add(tally.scanned, Ordering::Relaxed);
        self.pages.fetch_add(tally.pages, Ordering::Relaxed);
    }
}

/// What reclaim did since boot. Objects of caches are what it scans, and pages what it steals;
/// Linux counts there what it does to user pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReclaimStats {
    /// How often a request reclaimed by itself, by the highest zone that could serve it.
    pub allocstall: [u64; ZoneKind::COUNT],
    /// Pages that requests brought back.
    pub pgsteal_direct: u64,
    /// Pages that [`Memory::balance_node`] brought back.
    pub pgsteal_kswapd: u64,
    /// Objects that requests looked at.
    pub pgscan_direct: u64,
    /// Objects that [`Memory::balance_node`] looked at.
    pub pgscan_kswapd: u64,
    /// Runs of [`Memory::balance_node`] that had something to do.
    pub pageoutrun: u64,
}

/// What a run of [`Memory::balance_node`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Balance {
    /// Whether every zone of the node is above its `high` mark now, boost aside.
    pub is_balanced: bool,
    /// Pages that came back.
    pub reclaimed: u64,
}

/// The caller reclaims, until this is dropped.
struct Reclaiming<'a, P: Platform>(&'a Memory<P>);

impl<P: Platform> Drop for Reclaiming<'_, P> {
    fn drop(&mut self) {
        self.0.swap_mark(false);
    }
}

impl<P: Platform> Memory<P> {
    /// Lets a cache be asked for memory from now on (Linux: `shrinker_register`). Context: any
    /// but NMI.
    ///
    /// # Errors
    /// [`AlreadyRegistered`], with this memory or another one, now or earlier.
    pub fn register_shrinker(&self, shrinker: &'static Shrinker) -> Result<(), AlreadyRegistered> {
        self.helpers.shrinkers.join(shrinker, &self.platform)
    }

    /// Stops asking a cache, for good (Linux: `shrinker_free`). Answers whether nobody asks it any
    /// more: `false` if a call lasted too long to wait for. Context: task, not from the shrinker.
    pub fn unregister_shrinker(&self, shrinker: &'static Shrinker) -> bool {
        Chain::leave(shrinker, &self.platform)
    }

    /// Lets somebody know when there is no memory left (Linux: `register_oom_notifier`). Context:
    /// any but NMI.
    ///
    /// # Errors
    /// As [`Self::register_shrinker`].
    pub fn register_oom_notifier(
        &self,
        notifier: &'static OomNotifier,
    ) -> Result<(), AlreadyRegistered> {
        self.helpers.notifiers.join(notifier, &self.platform)
    }

    /// The opposite of [`Self::register_oom_notifier`], as [`Self::unregister_shrinker`].
    /// Context: task, not from the notifier.
    pub fn unregister_oom_notifier(&self, notifier: &'static OomNotifier) -> bool {
        Chain::leave(notifier, &self.platform)
    }

    /// What reclaim did since boot. Context: any.
    #[must_use]
    pub fn reclaim_stats(&self) -> ReclaimStats {
        let Some(core) = self.core() else {
            return ReclaimStats::default();
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &core.reclaim;
        ReclaimStats {
            allocstall: ZoneKind::ALL.map(|kind| load(&counters.allocstall[kind.index()])),
            pgsteal_direct: load(&counters.direct.pages),
            pgsteal_kswapd: load(&counters.kswapd.pages),
            pgscan_direct: load(&counters.direct.scanned),
            pgscan_kswapd: load(&counters.kswapd.scanned),
            pageoutrun: load(&counters.pageoutrun),
        }
    }

    /// Reclaims until every zone of a node is above its `high` mark, or nobody gives what would
    /// help; also what boosts ask for, and takes those back: one run of `kswapd` (Linux: `balance_pgdat`). To be called by a thread that
    /// [`Platform::wake_kswapd`] wakes. Does nothing if the caller reclaims already. Context: task.
    pub fn balance_node(&self, node: NodeId) -> Balance {
        let node = self.core().and_then(|core| Some((core, core.node(node)?)));
        node.map_or_else(Balance::default, |(core, node)| {
            self.balance(node, (&core.reclaim.kswapd, &core.reclaim.pageoutrun))
        })
    }

    /// As [`Self::balance_node`]: booked as `work`, and a run that has something to do as one of `runs`.
    fn balance(&self, node: &Node, (work, runs): (&Work, &AtomicU64)) -> Balance {
        let mut balance = Balance::default();
        let Some(mark) = self.begin_reclaim() else {
            return balance;
        };
        let control = ShrinkControl {
            gfp: Gfp::KERNEL,
            node: node.id(),
        };
        let mut missing = node.missing();
        let boosts = node.boosts();
        let boost = boosts.into_iter().fold(0, u64::saturating_add);
        if missing > 0 || boost > 0 {
            runs.fetch_add(1, Ordering::Relaxed);
        }
        if missing > 0 {
            // Nothing is as cheap to get back.
            balance.reclaimed = self.purge_for_pages();
            self.drain_local_pages();
            missing = node.missing();
        }
        let mut priority = DEF_PRIORITY;
        // What is missing is worth every effort; what boosts ask for on top, a little.
        while (missing > 0 && priority > 0)
            || (balance.reclaimed < boost && priority >= BOOST_PRIORITY)
        {
            let tally = self.shrink_all(&control, priority);
            work.add(tally);
            balance.reclaimed = balance.reclaimed.saturating_add(tally.pages);
            // What came back may still be on this CPU's lists.
            self.drain_local_pages();
            let before = core::mem::replace(&mut missing, node.missing());
            let only_boost = before == 0;
            // Pages of zones that have enough are no success. Nor is it one to live on the largest
            // cache alone, which a low urgency does.
            if only_boost || missing >= before || tally.scanned < node.high() {
                priority = priority.saturating_sub(1);
            }
            self.platform.reschedule();
        }
        drop(mark);
        for (zone, boost) in node.zones().iter().zip(boosts) {
            zone.watermarks().lower(boost);
        }
        balance.is_balanced = missing == 0;
        if balance.reclaimed > 0 || balance.is_balanced {
            node.kswapd_failures.store(0, Ordering::Relaxed);
        } else {
            node.kswapd_failures.fetch_add(1, Ordering::Relaxed);
        }
        balance
    }

    /// Wakes kswapd of every node that a request may use and that is below a `high` mark. Where
    /// nobody is there to be woken and the request may wait, its work is done here and now, and counts as
    /// direct reclaim.
    pub(super) fn wake_kswapds(
        &self,
        core: &Core,
        place: Place<'_>,
        request: &Request,
        may_reclaim: bool,
    ) {
        for node in core.nodes_for(place, request) {
            let is_hopeless = node.kswapd_failures.load(Ordering::Relaxed) >= HOPELESS;
            let has_enough = node.missing() == 0 && node.boosts() == [0; ZoneKind::COUNT];
            if has_enough || (!is_hopeless && self.platform.wake_kswapd(node.id())) {
                continue;
            }
            if !is_hopeless && may_reclaim {
                // The request reclaims, whoever's work it does.
                let stalls = &core.reclaim.allocstall[request.highest().index()];
                let _ = self.balance(node, (&core.reclaim.direct, stalls));
            }
            // Nobody else lowers marks that a request raised which wakes nobody.
            for zone in node.zones() {
                zone.watermarks().lower(u64::MAX);
            }
        }
    }

    /// Has kswapd make room where marks were raised because migrate types were mixed. Where there is
    /// nobody to do it, and so nobody to lower them again, they are not raised.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_of_boost(&self, zone: &Zone, request: &Request) {
        // A request that wakes nobody leaves it to the next one.
        if !request.gfp().contains(Gfp::KSWAPD_RECLAIM) || !zone.take_boosted() {
            return;
        }
        let id = zone.id().node;
        let node = self.core().and_then(|core| core.node(id));
        let failures = node.map_or(0, |node| node.kswapd_failures.load(Ordering::Relaxed));
        if failures >= HOPELESS || !self.platform.wake_kswapd(id) {
            zone.watermarks().lower(u64::MAX);
        }
    }

    /// Reclaims on behalf of a request (Linux: `try_to_free_pages`). Answers how many pages came
    /// back.
    pub(super) fn direct_reclaim(&self, core: &Core, place: Place<'_>, request: &Request) -> u64 {
        let Some(_mark) = self.begin_reclaim() else {
            return 0;
        };
        core.reclaim.allocstall[request.highest().index()].fetch_add(1, Ordering::Relaxed);
        let mut pages = self.shrink_caches_here(core);
        pages = pages.saturating_add(self.shrink_percpu_here(core));
        pages = pages.saturating_add(self.purge_for_pages());
        for priority in (0..=DEF_PRIORITY).rev() {
            for node in core.nodes_for(place, request) {
                let control = ShrinkControl {
                    gfp: request.gfp(),
                    node: node.id(),
                };
                let tally = self.shrink_all(&control, priority);
                core.reclaim.direct.add(tally);
                pages = pages.saturating_add(tally.pages);
                if tally.pages > 0 {
                    node.kswapd_failures.store(0, Ordering::Relaxed);
                }
            }
            if pages >= CLUSTER {
                break;
            }
        }
        pages
    }

    fn shrink_all(&self, control: &ShrinkControl, priority: u8) -> Tally {
        let mut all = Tally::default();
        self.helpers.shrinkers.visit(|shrinker| {
            let tally = shrinker.shrink(control, priority, &self.platform);
            all.scanned = all.scanned.saturating_add(tally.scanned);
            all.pages = all.pages.saturating_add(tally.pages);
        });
        all
    }

    /// Tells everybody who wants to know that there is no memory left (Linux: the chain that
    /// `out_of_memory` calls first), on some nodes if there is a set. Answers how many pages that
    /// brought.
    pub(super) fn notify_out_of_memory(&self, order: Order, nodes: Option<&NodeMask>) -> u64 {
        let Some(_mark) = self.begin_reclaim() else {
            return 0;
        };
        let mut pages: u64 = 0;
        self.helpers
            .notifiers
            .visit(|notifier| pages = pages.saturating_add(notifier.tell(order, nodes)));
        pages
    }

    /// Whether the caller reclaims already.
    pub(super) fn is_reclaiming(&self) -> bool {
        self.platform
            .is_reclaiming()
            .unwrap_or_else(|| self.helpers.reclaiming.load(Ordering::Relaxed))
    }

    fn begin_reclaim(&self) -> Option<Reclaiming<'_, P>> {
        (!self.swap_mark(true)).then(|| Reclaiming(self))
    }

    /// Sets the caller's mark; answers what it was.
    fn swap_mark(&self, on: bool) -> bool {
        self.platform
            .set_reclaiming(on)
            .unwrap_or_else(|| self.helpers.reclaiming.swap(on, Ordering::Acquire))
    }
}

impl Node {
    /// All its `high` marks.
    fn high(&self) -> u64 {
        let marks = self
            .zones()
            .iter()
            .map(|zone| zone.watermarks().unboosted());
        marks.map(|marks| marks.high).fold(0, u64::saturating_add)
    }

    /// By how much the marks of its zones are raised.
    fn boosts(&self) -> [u64; ZoneKind::COUNT] {
        ZoneKind::ALL.map(|kind| self.zone(kind).watermarks().boost())
    }

    /// Frames that its zones are short of to be above their `high` marks, boost aside.
    fn missing(&self) -> u64 {
        let managed = self.zones().iter().filter(|zone| zone.is_managed());
        let short = |zone: &Zone| {
            let wanted = zone.watermarks().unboosted().high.saturating_add(1);
            wanted.saturating_sub(zone.usable_frames())
        };
        managed.map(short).fold(0, u64::saturating_add)
    }
}
