//! From early memory to a page allocator: the frame table, nodes and zones are built in memory
//! that memblock gives, and everything that is left goes to the zones.
#![forbid(unsafe_code)]

mod by_frame;
mod caches;
mod kfence;
mod latent;
mod percpu;
mod tlb;
mod ways;

use core::fmt;

use super::cma::{self, CmaArea};
use super::cpus::{Cpus, Near};
use super::defer::{Backlog, Backlogs, Waiting};
use super::faults::Faults;
use super::node_states::Numa;
use super::slab_faults::SlabFaults;
use super::{Core, Memory, Options, PageLists, Populate, Tuning};
use crate::addr::{PfnRange, to_count, to_index};
use crate::buddy::pageset::Gauges;
use crate::buddy::pageset::classic::Temperature;
use crate::buddy::{Area, AreaSlots, FreeAreas, MigrateType, PageSet};
use crate::collections::SetBank;
use crate::config::{PAGE_SIZE, SECTION_FRAMES};
use crate::frame::{AddSectionError, FrameTable, ZoneId};
use crate::inspect::Sheet;
use crate::mem::{Array, CarveError, EarlyRam};
use crate::memblock::{AllocError, Memblock, NodeChoice, NodeFrames, Request};
use crate::numa::MAX_NODES;
use crate::platform::{CpuId, MemoryModel, NodeId, Platform, ProtectPageError};
use crate::report::Corruption;
use crate::sync::atomic::{AtomicU8, AtomicU64};
use crate::sync::grace::{Grace, Seat};
use crate::sync::{OwnerCell, PerCpu, Presence, PresenceState, SpinLock, rank};
use crate::zone::distance::{REMOTE, sort_by_nearness};
use crate::zone::plan::{NodePlan, Plan};
use crate::zone::{Node, NumaGauges, Zone, ZoneKind, ZoneParts};

/// Why memory could not be brought up.
#[derive(Debug)]
pub enum BringUpError {
    /// It is up already.
    AlreadyUp,
    /// Early memory ran out.
    NoEarlyMemory(AllocError),
    /// The platform does not reach memory that it said it did.
    Unreachable,
    /// A section's records could not be added.
    Section(AddSectionError),
    /// A record was not what it should be.
    Corrupt(Corruption),
    /// More nodes than a frame's record can name.
    TooManyNodes(usize),
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyUp => f.write_str("memory is up already"),
            Self::NoEarlyMemory(error) => write!(f, "no memory for the frame table: {error}"),
            Self::Unreachable => f.write_str("the direct map does not reach early memory"),
            Self::Section(error) => write!(f, "frame table: {error:?}"),
            Self::Corrupt(corruption) => corruption.fmt(f),
            Self::TooManyNodes(nodes) => write!(f, "{nodes} nodes: at most {MAX_NODES} are known"),
        }
    }
}

impl core::error::Error for BringUpError {}

impl From<AllocError> for BringUpError {
    fn from(error: AllocError) -> Self {
        Self::NoEarlyMemory(error)
    }
}

impl From<CarveError> for BringUpError {
    fn from(_: CarveError) -> Self {
        Self::Unreachable
    }
}

impl From<AddSectionError> for BringUpError {
    fn from(error: AddSectionError) -> Self {
        Self::Section(error)
    }
}

impl From<Corruption> for BringUpError {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}

/// What came up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Frames of RAM.
    pub present: u64,
    /// Frames that have records or get them when they are populated: those of all present sections.
    pub recorded: u64,
    /// Frames handed to the allocator.
    pub managed: u64,
    /// Bytes of frame records.
    pub record_bytes: u64,
    /// Bytes of tables beside them: sections, areas, indices, zones; also of areas to come.
    pub side_bytes: u64,
    /// Bytes of the caches of `kmalloc` and of what CPUs have for them, which grow with CPUs, not with memory.
    pub cache_bytes: u64,
    /// Frames of CMA, rounded up from what was asked for; none if there was no room.
    pub cma: u64,
    /// CPUs that [`Platform::node_of`] puts on a node that does not exist. They count as node 0's; the
    /// firmware, or who reads it, is wrong about them, and a kernel should say so.
    pub misplaced_cpus: u32,
    /// Why there is no sampling guard pool, though it was asked for.
    pub no_kfence: Option<ProtectPageError>,
}

/// Building in progress.
struct Builder<'a, P: Platform> {
    platform: &'a P,
    memblock: Memblock,
    summary: Summary,
}

impl<P: Platform> Memory<P> {
    /// Builds the frame table, nodes and zones, and hands what is free to the allocator; then
    /// sets the watermarks. What is reserved stays so. Context: boot, one CPU.
    ///
    /// # Errors
    /// [`BringUpError`]; memory stays down then.
    pub fn bring_up(
        &self,
        memblock: Memblock,
        plan: &Plan<'_>,
        options: Options,
    ) -> Result<Summary, BringUpError> {
        let mut builder = self.builder(memblock, plan)?;
        let populate = options.populate_on::<P>();
        let frames = builder.frame_table(plan, populate)?;
        let mut nodes = builder.nodes(plan)?;
        for (node, plan) in nodes.iter_mut().zip(plan.nodes()) {
            builder.areas(node, plan, &frames, populate)?;
        }
        builder.fallback_orders(&mut nodes, plan)?;
        let numa = builder.numa(&nodes, plan)?;
        let cpus = builder.cpus(&mut nodes, &frames)?;
        let (grace, backlogs) = (builder.grace()?, builder.backlogs()?);
        let percpu = builder.percpu()?;
        let tlb = builder.tlb()?;
        builder.page_lists(&mut nodes, options.page_lists)?;
        let caches = builder.caches(nodes.len(), &cpus, &options)?;
        let kfence = builder.kfence(&options)?;
        let (origins, last_frees) = builder.owners(&frames, options.page_owner)?;
        let map_counts = builder.map_counts(&frames, options.page_table_check)?;
        let (cma, lent) = builder.cma(plan, options.cma_bytes)?.unzip();
        let room = builder.room_for_map(&frames, &nodes, populate)?;
        let mut core = Core {
            frames,
            nodes,
            numa,
            options,
            treats_new_pages: options.touch_new_pages(),
            treats_free_pages: options.touch_free_pages(),
            cpus,
            grace,
            backlogs,
            tlb,
            origins,
            last_frees,
            map_counts,
            caches,
            percpu,
            cma,
            latent: None,
            faults: options.fail_page_alloc.map(Faults::new),
            slab_faults: SlabFaults::new(options.failslab),
            kfence,
            tuning: SpinLock::new(rank::SETTINGS, Tuning::INITIAL),
            reclaim: super::reclaim::Counters::default(),
            table_frames: AtomicU64::new(0),
            kernel_space: crate::sync::Once::new(),
            quarantined: AtomicU64::new(0),
            summary: builder.summary,
            sheet: Sheet::new(),
        };
        let (memblock, mut summary) = (builder.memblock, builder.summary);
        match room {
            Some(room) => core.keep_map(&self.platform, memblock, room)?,
            None => core.take_all(&self.platform, memblock)?,
        }
        if let Some((area, ram)) = core.cma.as_ref().zip(lent) {
            core.lend_cma(&self.platform, area, ram)?;
        }
        core.first_numbers(&mut summary);
        self.core.set(core).map_err(|_| BringUpError::AlreadyUp)?;
        Ok(summary)
    }

    fn builder(&self, memblock: Memblock, plan: &Plan<'_>) -> Result<Builder<'_, P>, BringUpError> {
        if self.is_up() {
            return Err(BringUpError::AlreadyUp);
        }
        if plan.nodes().len() > MAX_NODES {
            return Err(BringUpError::TooManyNodes(plan.nodes().len()));
        }
        let summary = Summary {
            present: plan.present(),
            ..Summary::default()
        };
        Ok(Builder {
            platform: &self.platform,
            memblock,
            summary,
        })
    }

    /// What came up; nothing before that. Context: any.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.core()
            .map_or_else(Summary::default, |core| core.summary)
    }
}

impl Core {
    /// Computes what follows from how much memory each zone manages.
    fn first_numbers(&mut self, summary: &mut Summary) {
        let zones = self.nodes.iter().flat_map(Node::zones);
        summary.managed = zones.map(Zone::managed).fold(0, u64::saturating_add);
        self.summary = *summary;
        self.find_ways();
        self.first_watermarks();
    }

    /// Hands everything that is free to the zones.
    fn take_all<P: Platform>(&self, platform: &P, memblock: Memblock) -> Result<(), BringUpError> {
        let mut outcome = Ok(());
        memblock.hand_over(&mut |free, ram| {
            if outcome.is_ok() {
                let adopted = self.adopt(platform, node_of(&free), ram);
                outcome = adopted.map_err(|(corruption, _)| corruption);
            }
        });
        Ok(outcome?)
    }
}

impl<P: Platform> Builder<'_, P> {
    fn take(&mut self, bytes: u64, align: u64, node: NodeChoice) -> Result<EarlyRam, BringUpError> {
        let request = Request::bytes(bytes.max(1)).align(align).node(node);
        Ok(self.memblock.alloc_raw(self.platform, &request)?)
    }

    fn take_table(&mut self, bytes: u64, node: NodeId) -> Result<EarlyRam, BringUpError> {
        self.summary.side_bytes = self.summary.side_bytes.saturating_add(bytes);
        self.take(bytes, 64, NodeChoice::Prefer(node))
    }

    /// The frame table, with the records of every section that has RAM if all are populated now.
    fn frame_table(
        &mut self,
        plan: &Plan<'_>,
        populate: Populate,
    ) -> Result<FrameTable, BringUpError> {
        let ram = self.take_table(FrameTable::bytes_for(plan.end()), NodeId(0))?;
        let mut frames = FrameTable::carve(self.platform, ram, plan.end())?;
        if P::MODEL == MemoryModel::Flat {
            self.add_flat(&frames)?;
            frames.see_as_one();
            return Ok(frames);
        }
        let mut next: u64 = 0;
        while populate == Populate::AtBoot
            && let Some((section, node)) = self.section_from(next)
        {
            let ram = self.take(
                FrameTable::SECTION_BYTES,
                FrameTable::SECTION_BYTES,
                NodeChoice::Prefer(node),
            )?;
            self.add_section(&frames, section, ram)?;
            next = section.saturating_add(1);
        }
        Ok(frames)
    }

    /// One array for all sections from 0 to the last, those without RAM included.
    fn add_flat(&mut self, frames: &FrameTable) -> Result<(), BringUpError> {
        let sections = frames.limit().section();
        let bytes = sections.saturating_mul(FrameTable::SECTION_BYTES);
        let mut rest = self.take(bytes, FrameTable::SECTION_BYTES, NodeChoice::Any)?;
        for section in 0..sections {
            let (ram, above) = rest.split_at(FrameTable::SECTION_BYTES);
            rest = above;
            self.add_section(frames, section, ram)?;
        }
        Ok(())
    }

    fn add_section(
        &mut self,
        frames: &FrameTable,
        section: u64,
        ram: EarlyRam,
    ) -> Result<(), BringUpError> {
        let tables = match P::FRAME_TABLE_PAGES.saturating_mul(PAGE_SIZE) {
            0 => EarlyRam::none(),
            bytes => self.take(bytes, PAGE_SIZE, NodeChoice::Any)?,
        };
        frames.add_section(self.platform, section, ram, tables)?;
        let Summary {
            recorded,
            record_bytes,
            ..
        } = &mut self.summary;
        *recorded = recorded.saturating_add(SECTION_FRAMES);
        *record_bytes = record_bytes.saturating_add(FrameTable::SECTION_BYTES);
        Ok(())
    }

    /// The first section from `section` on that has RAM, and the node of its first frame of RAM.
    fn section_from(&self, section: u64) -> Option<(u64, NodeId)> {
        let from = section.saturating_mul(SECTION_FRAMES);
        let ahead = PfnRange::from_numbers(from, u64::MAX);
        self.memblock.frames(None).find_map(|ram| {
            let rest = ram.frames.intersect(ahead);
            (!rest.is_empty()).then(|| (rest.first().section(), node_of(&ram)))
        })
    }

    /// The nodes, their zones without areas yet.
    fn nodes(&mut self, plan: &Plan<'_>) -> Result<Array<Node>, BringUpError> {
        let count = plan.nodes().len();
        let bytes = Array::<Node>::bytes_for(count).unwrap_or(u64::MAX);
        let ram = self.take_table(bytes, NodeId(0))?;
        let plans = plan.nodes();
        let node = |index: usize| {
            let id = NodeId(u16::try_from(index).unwrap_or(u16::MAX));
            let plan = &plans[index];
            let zones = ZoneKind::ALL.map(|kind| empty_zone(id, kind, plan));
            Node::new(id, plan.frames, plan.present, zones)
        };
        Ok(Array::carve(self.platform, ram, count, node)?)
    }

    /// Room for the free blocks of every zone of a node, section by section.
    fn areas(
        &mut self,
        node: &mut Node,
        plan: &NodePlan,
        frames: &FrameTable,
        populate: Populate,
    ) -> Result<(), BringUpError> {
        let id = node.id();
        for kind in ZoneKind::ALL {
            let zone_plan = plan.zone(kind);
            if zone_plan.present == 0 {
                continue;
            }
            let span = zone_plan.frames;
            let first = span.first().section();
            let slots = span
                .end()
                .as_u64()
                .div_ceil(SECTION_FRAMES)
                .saturating_sub(first);
            let bytes = AreaSlots::bytes_for(to_index(slots)).unwrap_or(u64::MAX);
            let ram = self.take_table(bytes, id)?;
            let areas = AreaSlots::carve(self.platform, ram, to_index(slots), |_| None)?;
            let bytes = SetBank::bytes_for(FreeAreas::INDEX_SETS, slots).unwrap_or(u64::MAX);
            let ram = self.take_table(bytes, id)?;
            let bank = SetBank::carve(self.platform, ram, FreeAreas::INDEX_SETS, slots)?;
            let latent = match populate {
                Populate::OnDemand => Some(self.latent_set(id, slots)?),
                Populate::AtBoot => None,
            };
            let zone = node.zone_mut(kind).areas_mut();
            zone.install(first, areas, bank);
            if let Some(latent) = latent {
                zone.install_latent(latent);
                continue;
            }
            for section in first..first.saturating_add(slots) {
                let Some(records) = frames.section(section) else {
                    continue;
                };
                let start = section.saturating_mul(SECTION_FRAMES);
                let whole = PfnRange::from_numbers(start, start.saturating_add(SECTION_FRAMES));
                if !self.has_ram(id, whole.intersect(span)) {
                    continue;
                }
                let ram = self.take_table(to_count(size_of::<Area>()), id)?;
                zone.add_area(self.platform, records, ram, MigrateType::Movable)?;
            }
        }
        Ok(())
    }

    /// An array with an element for each CPU.
    fn by_cpu<T>(
        &mut self,
        node: NodeId,
        element: impl FnMut(usize) -> T,
    ) -> Result<Array<T>, BringUpError> {
        let cpus = usize::try_from(self.platform.cpus()).unwrap_or(usize::MAX);
        let bytes = Array::<T>::bytes_for(cpus).unwrap_or(u64::MAX);
        let ram = self.take_table(bytes, node)?;
        Ok(Array::carve(self.platform, ram, cpus, element)?)
    }

    /// Whom each node asks when it has nothing itself.
    fn fallback_orders(&mut self, nodes: &mut [Node], plan: &Plan<'_>) -> Result<(), BringUpError> {
        let bytes = Array::<u32>::bytes_for(nodes.len()).unwrap_or(u64::MAX);
        let ram = self.take_table(bytes, NodeId(0))?;
        let mut load = Array::carve(self.platform, ram, nodes.len(), |_| 0)?;
        for node in nodes {
            let from = node.id();
            let others = || {
                let with_memory = plan.with_memory().map(|(id, _)| id);
                with_memory.filter(move |id| *id != from)
            };
            let count = others().count();
            let bytes = Array::<NodeId>::bytes_for(count).unwrap_or(u64::MAX);
            let ram = self.take_table(bytes, from)?;
            let mut given = others();
            let next = |_| given.next().unwrap_or_default();
            let mut order = Array::carve(self.platform, ram, count, next)?;
            sort_by_nearness(from, plan.distances(), &mut load, &mut order);
            node.install_others(order);
        }
        Ok(())
    }

    /// What is known of the nodes: the distances between all of them, to be asked for later, row by
    /// row; and their weights.
    fn numa(&mut self, nodes: &[Node], plan: &Plan<'_>) -> Result<Numa, BringUpError> {
        let ids = || nodes.iter().map(Node::id);
        let count = nodes.len().saturating_mul(nodes.len());
        let ram = self.take_table(to_count(count), NodeId(0))?;
        let mut pairs = ids().flat_map(|from| ids().map(move |to| (from, to)));
        let next = |_| {
            let pair = pairs.next();
            pair.map_or(REMOTE, |(from, to)| plan.distances().between(from, to))
        };
        let distances = Array::carve(self.platform, ram, count, next)?;
        let ram = self.take_table(to_count(nodes.len()), NodeId(0))?;
        let weights = Array::carve(self.platform, ram, nodes.len(), |_| AtomicU8::new(1))?;
        Ok(Numa::new(nodes, distances, weights))
    }

    /// What is known of each CPU, and its own counters for each zone.
    fn cpus(&mut self, nodes: &mut [Node], frames: &FrameTable) -> Result<Cpus, BringUpError> {
        let states = self.by_cpu(NodeId(0), |_| PresenceState::present())?;
        let ways = self.ways(frames)?;
        let platform = self.platform;
        let mut misplaced: u32 = 0;
        let node_of = |cpu: usize| {
            let node = platform.node_of(CpuId(u32::try_from(cpu).unwrap_or(u32::MAX)));
            if usize::from(node.0) < nodes.len() {
                return Near::new(node);
            }
            misplaced = misplaced.saturating_add(1);
            Near::new(NodeId(0))
        };
        let near = self.by_cpu(NodeId(0), node_of)?;
        self.summary.misplaced_cpus = misplaced;
        let cpus = Cpus::new(Presence::new(states), near, super::AtHand::new(ways));
        let zones = nodes.iter_mut().flat_map(Node::zones_mut);
        for zone in zones.filter(|zone| zone.is_populated()) {
            let home = zone.id().node;
            let gauges = |cpu: usize| {
                let cpu = CpuId(u32::try_from(cpu).unwrap_or(u32::MAX));
                NumaGauges::new(cpus.node(cpu) == home)
            };
            zone.install_numa_gauges(self.by_cpu(home, gauges)?);
        }
        Ok(cpus)
    }

    /// Each CPU's part in grace periods.
    fn grace(&mut self) -> Result<Grace, BringUpError> {
        Ok(Grace::new(self.by_cpu(NodeId(0), |_| Seat::new())?))
    }

    /// What each CPU puts off.
    fn backlogs(&mut self) -> Result<Backlogs, BringUpError> {
        let cell = |_| OwnerCell::new(Waiting::new(), Backlog::default());
        let cells = PerCpu::new(self.by_cpu(NodeId(0), cell)?);
        Ok(Backlogs::new(cells))
    }

    /// Room for contiguous memory, if there is any; last, so that all tables have theirs.
    fn cma(
        &mut self,
        plan: &Plan<'_>,
        bytes: u64,
    ) -> Result<Option<(CmaArea, EarlyRam)>, BringUpError> {
        let reserved = cma::reserve(&mut self.memblock, self.platform, plan, bytes);
        let Some((home, ram)) = reserved else {
            return Ok(None);
        };
        self.summary.cma = ram.range().whole_frames().frames();
        let table = self.take_table(CmaArea::table_bytes(ram.range()), home.node)?;
        let area = CmaArea::new(self.platform, home, ram.range(), table)?;
        Ok(Some((area, ram)))
    }

    /// Each CPU's own page lists for each zone.
    fn page_lists(&mut self, nodes: &mut [Node], lists: PageLists) -> Result<(), BringUpError> {
        if lists == PageLists::Off {
            return Ok(());
        }
        let zones = nodes.iter_mut().flat_map(Node::zones_mut);
        for zone in zones.filter(|zone| zone.is_populated()) {
            let home = zone.id();
            let (first, second) = match lists {
                PageLists::Classic => (Some(Temperature::Hot), Some(Temperature::Cold)),
                PageLists::Off | PageLists::Tuned => (None, None),
            };
            zone.install_pagesets(self.page_sets(home, first)?);
            if second.is_some() {
                zone.install_cold(self.page_sets(home, second)?);
            }
        }
        Ok(())
    }

    /// Each CPU's lists of a zone.
    fn page_sets(
        &mut self,
        home: ZoneId,
        classic: Option<Temperature>,
    ) -> Result<PerCpu<PageSet, Gauges>, BringUpError> {
        let set = |_| OwnerCell::new(PageSet::new(home, classic), Gauges::default());
        Ok(PerCpu::new(self.by_cpu(home.node, set)?))
    }

    fn has_ram(&self, node: NodeId, range: PfnRange) -> bool {
        self.memblock
            .frames(None)
            .any(|ram| node_of(&ram) == node && !ram.frames.intersect(range).is_empty())
    }

    /// Writes down which present frames stay out of the allocator.
    fn mark_reserved(&self, frames: &FrameTable, nodes: &[Node]) -> Result<(), BringUpError> {
        for region in self.memblock.reserved() {
            let taken = region.range.touched_frames();
            for ram in self.memblock.frames(None) {
                let Some(node) = nodes.get(usize::from(node_of(&ram).0)) else {
                    continue;
                };
                for zone in node.zones() {
                    let here = taken.intersect(ram.frames).intersect(zone.span());
                    for pfn in here.iter() {
                        frames.reserve_once(pfn, zone.id())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// RAM of which the firmware names no node counts as node 0's.
fn node_of(ram: &NodeFrames) -> NodeId {
    ram.node.unwrap_or_default()
}

fn empty_zone(node: NodeId, kind: ZoneKind, plan: &NodePlan) -> Zone {
    let zone = u8::try_from(kind.index()).unwrap_or_default();
    let home = ZoneId { node, zone };
    let planned = plan.zone(kind);
    Zone::new(ZoneParts {
        home,
        kind,
        span: planned.frames,
        present: planned.present,
        areas: FreeAreas::empty(home),
    })
}
