//! `Memory<P>`: everything wired together.
//!
//! The value in a kernel's `static` is a small header; what depends on the machine is sized at
//! run time and carved from early memory when [`Memory::bring_up`] is called. A process may
//! have as many of them as it likes (tests do).
#![forbid(unsafe_code)]

mod adopt;
mod alloc;
mod batch;
mod block;
mod bring_up;
mod bulk;
mod cma;
mod cpus;
mod defer;
mod dma;
mod drain;
mod faults;
mod free;
mod grace;
mod held;
mod kfence;
mod kmem_cache;
mod ksize;
mod large;
mod mempool;
mod node_states;
mod nolock;
mod object_owners;
mod objects;
mod options;
mod origins;
mod page_tables;
mod pagealloc;
mod percpu;
mod policy;
mod populate;
mod purge;
mod reclaim;
mod retry;
mod run;
mod sections;
mod shared;
mod shrink;
mod slab_faults;
mod slow_path;
mod soil;
mod tlb;
mod traced;
mod tuning;
mod vmalloc;
mod vmap;

use core::fmt;
use core::ptr::NonNull;

pub use adopt::FreeEarlyError;
pub use alloc::AllocError;
pub use block::Block;
pub use bring_up::{BringUpError, Summary};
pub use cma::{CmaError, CmaStats};
pub use defer::DeferError;
pub(crate) use defer::named_area;
pub use dma::{DmaBuffer, DmaError, DmaRequest};
pub use faults::{BadFaultRule, FailPageAlloc, Times};
pub use grace::{GraceError, GracePeriods, QueueFull};
pub use kfence::NoKfence;
pub use mempool::{Elements, KmallocElements, Mempool, PageElements};
pub use object_owners::ObjectOwner;
pub use objects::{KmemCache, StillInUse};
pub use options::{
    DebugPagealloc, HugePages, Options, PageLists, PageOwner, PageTableCheck, Populate,
};
pub(crate) use page_tables::TablesFor;
pub use page_tables::{KernelSpace, KernelSpaceError};
pub use reclaim::{Balance, ReclaimStats};
pub use run::{ContigError, ExactError, PageRun};
pub use shared::{Destructor, SharedBlock, ToZone};
pub use slab_faults::{FailSlab, NoFailSlab};
pub use tlb::TlbOfCpu;
pub use tuning::{Tuning, TuningError};
pub(crate) use vmalloc::{Ask, Frames};
pub use vmalloc::{VmallocError, VmallocStats};
pub use vmap::IoremapError;

pub use crate::adapters::{
    CacheBox, DmaBytes, DmaPool, Home, KBytes, NoRoom, PerCpuBox, Pooled, TypedCache,
};
use crate::addr::Pfn;
use crate::buddy::{Census, Gfp, Request};
use crate::frame::{FrameTable, LastFrees, Origins, Page, ZoneId};
use crate::inspect::Sheet;
use crate::kspace::Space;
use crate::kspace::percpu::PerCpuMemory;
pub use crate::kspace::percpu::{BadPerCpuFree, PerCpuError, PerCpuStats};
use crate::mem::Array;
use crate::pagetable::MapCounts;
use crate::platform::{CpuId, NodeId, Platform};
use crate::report::Corruption;
use crate::slab::at_hand as objects_at_hand;
use crate::slab::{Caches, Kfence};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::grace::Grace;
use crate::sync::shootdown::Shootdown;
use crate::sync::{Once, Pin, Presence, SpinLock};
use crate::zone::{self, Node, Pages, Zone};
use cpus::Cpus;
use policy::Place;

/// What CPUs have at hand: pages, and objects beside them.
type AtHand = zone::AtHand<objects_at_hand::Ways>;
type Anchors = zone::Anchors<objects_at_hand::Ways>;
type Here<'a> = zone::Here<'a, objects_at_hand::Ways>;
type Ways = zone::Ways<objects_at_hand::Ways>;

/// The ways of a CPU before memory is up, and of none.
static NO_WAYS: Ways = Ways::new((FrameTable::EMPTY, objects_at_hand::Ways::new(())));

/// What a platform keeps for a CPU as long as there is nothing better ([`Platform::anchor`]): whoever finds that
/// goes the longer way. Context: any.
#[must_use]
pub const fn no_anchor() -> NonNull<()> {
    NO_WAYS.no_anchor()
}

/// The memory of one machine.
pub struct Memory<P: Platform> {
    platform: P,
    core: Once<Core>,
    anchors: Anchors,
    helpers: reclaim::Helpers,
    /// Kernel addresses, if the kernel said which and how they are mapped.
    kspace: Once<Space>,
    /// The same for what each CPU has a copy of.
    percpu: Once<Space>,
}

/// What exists once memory is up.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) frames: FrameTable,
    pub(crate) nodes: Array<Node>,
    numa: node_states::Numa,
    pub(crate) options: Options,
    /// Whether pages are touched on their way out, …
    treats_new_pages: bool,
    /// … or on their way in.
    treats_free_pages: bool,
    pub(crate) cpus: Cpus,
    grace: Grace,
    backlogs: defer::Backlogs,
    /// What CPUs are to forget of their translations.
    pub(crate) tlb: Shootdown,
    pub(crate) origins: Origins,
    /// Who gave frames back, where that is kept.
    pub(crate) last_frees: LastFrees,
    pub(crate) map_counts: MapCounts,
    pub(crate) caches: Caches,
    pub(crate) percpu: PerCpuMemory,
    /// What was not populated at boot, if anything can be left.
    latent: Option<populate::Latent>,
    pub(crate) cma: Option<cma::CmaArea>,
    faults: Option<faults::Faults>,
    slab_faults: slab_faults::SlabFaults,
    pub(crate) kfence: Option<Kfence>,
    tuning: SpinLock<Tuning>,
    reclaim: reclaim::Counters,
    pub(crate) kernel_space: Once<KernelSpace>,
    /// Frames that are page tables.
    pub(crate) table_frames: AtomicU64,
    /// Frames left out of circulation because they were found damaged.
    pub(crate) quarantined: AtomicU64,
    pub(crate) summary: Summary,
    /// What viewers on the host go by.
    pub(crate) sheet: Sheet,
}

impl<P: Platform> Memory<P> {
    /// A machine whose memory is not up yet. Context: any.
    pub const fn new(platform: P) -> Self {
        Self {
            platform,
            core: Once::new(),
            anchors: Anchors::new(),
            helpers: reclaim::Helpers::new(),
            kspace: Once::new(),
            percpu: Once::new(),
        }
    }

    /// The platform. Context: any.
    #[inline]
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    #[inline]
    pub(crate) fn core(&self) -> Option<&Core> {
        self.core.get()
    }

    /// What this CPU has at hand, if memory is up.
    #[inline(always)]
    pub(crate) fn here<'a>(&'a self, pin: &'a Pin<'_, P>) -> Option<Here<'a>> {
        if P::HAS_ANCHORS {
            return self.anchors.here(pin).map(Here::new);
        }
        self.core()?.cpus.at_hand.here(pin)
    }

    /// The same for a request, unless the running task may have a policy about it.
    #[inline(always)]
    fn here_for_request<'a>(&'a self, pin: &'a Pin<'_, P>) -> Option<Here<'a>> {
        if P::HAS_ANCHORS {
            return self.anchors.here_for_request(pin).map(Here::new);
        }
        let core = self.core().filter(|_| !self.platform.has_policy())?;
        core.cpus.at_hand.here(pin)
    }

    /// What the platform may keep for a CPU, to be asked for by [`Platform::anchor`]: always the same, and
    /// nothing before memory is up. Context: any.
    #[must_use]
    pub fn anchor(&self, cpu: CpuId) -> Option<NonNull<()>> {
        self.core()?.cpus.at_hand.anchor(cpu)
    }

    /// How CPUs keep pages at hand. Context: any.
    #[must_use]
    pub fn page_lists(&self) -> PageLists {
        self.core()
            .map_or(PageLists::Off, |core| core.options.page_lists)
    }

    /// Whether pages can be allocated. Context: any.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.core().is_some()
    }

    /// The nodes by number, those without memory included; none before memory is up. Context: any.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        self.core().map_or(&[], |core| &*core.nodes)
    }

    /// The node that a CPU belongs to (Linux: `cpu_to_node`). Context: any.
    #[must_use]
    pub fn node_of(&self, cpu: CpuId) -> NodeId {
        self.core()
            .map_or_else(NodeId::default, |core| core.cpus.node(cpu))
    }

    /// Which CPUs are there, and who acts for those that are not; nothing before memory is up.
    /// Context: any.
    #[must_use]
    pub fn presence(&self) -> Option<&Presence> {
        self.core().map(|core| &core.cpus.presence)
    }

    /// Every zone of every node, empty ones included. Context: any.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.nodes().iter().flat_map(Node::zones)
    }

    /// The zone that a frame's record names, or will name once there is one. Context: any.
    #[must_use]
    pub fn zone_of(&self, pfn: Pfn) -> Option<&Zone> {
        let core = self.core()?;
        match core.frames.head(pfn) {
            Some(head) => core.zone(head.frame().word().zone_id()),
            None => core.latent_zone(pfn),
        }
    }

    /// A frame and its record, if the library knows it (Linux: `pfn_to_page`). Context: any.
    #[must_use]
    pub fn page(&self, pfn: Pfn) -> Option<Page<'_>> {
        self.core()?.frames.page(pfn)
    }

    /// The frame table, once memory is up. Context: any.
    #[must_use]
    pub fn frames(&self) -> Option<&FrameTable> {
        self.core().map(|core| &core.frames)
    }

    /// The options in force, once memory is up. Context: any.
    #[must_use]
    pub fn options(&self) -> Option<&Options> {
        self.core().map(|core| &core.options)
    }

    /// Frames handed to the allocator so far (Linux: `totalram_pages`). Context: any.
    #[must_use]
    pub fn managed_frames(&self) -> u64 {
        self.zones().map(Zone::managed).fold(0, u64::saturating_add)
    }

    /// Free frames right now (Linux: `nr_free_pages`). Context: any.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.zones()
            .map(Zone::free_frames)
            .fold(0, u64::saturating_add)
    }

    /// Frames left out of circulation because they were found damaged. Context: any.
    #[must_use]
    pub fn quarantined_frames(&self) -> u64 {
        self.core()
            .map_or(0, |core| core.quarantined.load(Ordering::Relaxed))
    }

    /// Recounts every zone and compares (oracles O1, O3, O4). Context: task; slow. Blocks that are
    /// being cut up or adopted right now, which happens without the zone's lock, look damaged.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn validate(&self) -> Result<Census, Corruption> {
        let mut total = Census::default();
        let _populated = self.stop_populating();
        for zone in self.zones() {
            let census = zone.validate(&self.platform)?;
            total.free = total.free.saturating_add(census.free);
            total.isolated = total.isolated.saturating_add(census.isolated);
            total.live = total.live.saturating_add(census.live);
            total.cached = total.cached.saturating_add(census.cached);
            total.reserved = total.reserved.saturating_add(census.reserved);
            total.latent = total.latent.saturating_add(census.latent);
        }
        if let Some(core) = self.core() {
            self.validate_latent(core)?;
        }
        self.validate_caches()?;
        self.validate_percpu()?;
        Ok(total)
    }
}

impl Core {
    /// Whether requests may go straight to a CPU's lists: the shortest ways know nothing of fixed marks,
    /// and of requests that fail on purpose.
    fn has_ways(&self) -> bool {
        self.options.page_lists == PageLists::Tuned && self.faults.is_none()
    }

    /// Makes the CPUs' ways to zones and to their lists.
    fn find_ways(&mut self) {
        self.cpus.find_zones(&self.nodes);
        if !self.has_ways() {
            return;
        }
        let pages = |treated| match treated {
            true => Pages::Treated,
            false => Pages::AsTheyAre,
        };
        let (new, free) = (self.treats_new_pages, self.treats_free_pages);
        self.cpus.find_ways(&self.nodes, pages(new), pages(free));
    }

    #[inline]
    pub(crate) fn zone(&self, id: ZoneId) -> Option<&Zone> {
        self.node(id.node)?.zones().get(usize::from(id.zone))
    }

    /// The zones that may serve a request, best first: those of the place's own node, then of others.
    #[inline]
    fn zones_for<'a>(
        &'a self,
        place: Place<'a>,
        request: &Request,
    ) -> impl Iterator<Item = &'a Zone> {
        let highest = request.highest();
        let nodes = self.nodes_for(place, request);
        nodes.flat_map(move |node| node.zonelist(highest))
    }

    /// The nodes that may serve a request, best first: the place's own one, and others unless the
    /// request keeps to its node.
    pub(crate) fn nodes_for<'a>(
        &'a self,
        place: Place<'a>,
        request: &Request,
    ) -> impl Iterator<Item = &'a Node> {
        let stays = request.gfp().contains(Gfp::THISNODE);
        let others = if stays { &[] } else { place.near.others() };
        let others = others.iter().filter_map(move |id| {
            let node = self.node(*id);
            node.filter(|node| place.allows(node))
        });
        let near = Some(place.near).filter(|near| place.allows(near));
        near.into_iter().chain(others)
    }

    /// The node whose memory this CPU's requests ask for first.
    fn near_node<P: Platform>(&self, platform: &P) -> Option<&Node> {
        let pin = Pin::new(platform);
        self.node(self.cpus.node(pin.cpu()))
    }

    #[inline]
    pub(crate) fn node(&self, id: NodeId) -> Option<&Node> {
        // Nodes are stored by number; those without memory are missing at the end only.
        self.nodes.get(usize::from(id.0))
    }
}

impl<P: Platform> fmt::Debug for Memory<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}
