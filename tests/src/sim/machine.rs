//! Building, booting and ending a machine.

use std::ops::Deref;
use std::thread;

use mm::addr::{Order, PhysAddr, PhysRange, VirtAddr};
use mm::buddy::Gfp;
use mm::config::{PAGE_SIZE, SECTION_FRAMES};
use mm::mem::{EarlyRam, RamClaim};
use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::params::{CoreSize, Params};
use mm::memblock::setup::{self, LowMemory, SetupError, SetupPolicy};
use mm::memblock::{Direction, GrowError, Memblock};
use mm::platform::{CpuId, NodeId, Platform};
use mm::sync::shootdown::Lazy;
use mm::system::{BringUpError, FreeEarlyError, Memory, Options, Summary};
use mm::zone::Zone;
use mm::zone::distance::Distances;
use mm::zone::plan::{CoreWish, NodePlan, Plan, PlanError};

use super::mmu::{Access, Fault};
use super::{OnCpu, SimConfig, SimPlatform};
use crate::oracles::{self, Shape};
use crate::sim::Ram;
use crate::window::Window;

/// Why a machine did not boot.
#[derive(Debug)]
pub enum BootError {
    /// A table of memblock could not grow.
    Table(GrowError),
    /// The firmware's map is of no use.
    Setup(SetupError),
    /// There is no plan of nodes and zones.
    Plan(PlanError),
    /// The library could not be brought up.
    BringUp(BringUpError),
    /// The library does not take what was held back.
    FreeEarly(FreeEarlyError),
}

/// What a machine is made of, before it boots.
#[derive(Debug)]
pub struct Builder<C: SimConfig> {
    ram: Vec<(PhysRange, Option<NodeId>)>,
    firmware: Option<Firmware>,
    reserved: Vec<PhysRange>,
    homes: Vec<(PhysRange, NodeId)>,
    pluggable: Vec<NodeId>,
    wish: CoreWish,
    options: Options,
    cpus: u32,
    cpu_nodes: Vec<NodeId>,
    distances: Vec<u8>,
    direction: Direction,
    early_limit: PhysAddr,
    held_back: Vec<PhysRange>,
    panics: bool,
    protections: u64,
    config: core::marker::PhantomData<C>,
}

/// What firmware and boot loader say.
#[derive(Debug)]
struct Firmware {
    entries: Vec<FirmwareRegion>,
    low_memory: LowMemory,
    params: Params,
}

impl Firmware {
    /// Fills memblock's tables.
    fn add_to<P: Platform>(&self, memblock: &mut Memblock, platform: &P) -> Result<(), SetupError> {
        let policy = SetupPolicy {
            phys_bits: 52,
            low_memory: self.low_memory,
            params: &self.params,
        };
        setup::add_firmware_map(memblock, platform, &self.entries, &policy, &mut |_| {})
    }

    /// The RAM that comes of it, found on a machine that has none.
    fn ram(&self) -> Vec<PhysRange> {
        let mut nothing = Window::none();
        let mut memblock = nothing.memblock();
        match self.add_to(&mut memblock, &nothing) {
            Ok(()) => memblock
                .memory()
                .iter()
                .map(|region| region.range)
                .collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// A machine whose memory is up. It stands for its [`Memory`].
///
/// A test ends it with [`finish`](Self::finish), which needs it by value: so every handle is gone
/// by then. Dropping it without that fails the test.
#[derive(Debug)]
#[must_use = "end it with `finish`, which runs the oracles"]
pub struct Machine<C: SimConfig> {
    memory: Memory<SimPlatform<C>>,
    initial: Shape,
    /// Sections without records at boot.
    latent: Vec<u64>,
    summary: Summary,
    finished: bool,
}

impl<C: SimConfig> Machine<C> {
    /// An empty machine, to be filled.
    #[expect(clippy::new_ret_no_self, reason = "a machine is built, then booted")]
    #[must_use]
    pub fn new() -> Builder<C> {
        Builder {
            ram: Vec::new(),
            firmware: None,
            reserved: Vec::new(),
            homes: Vec::new(),
            pluggable: Vec::new(),
            wish: CoreWish::default(),
            options: Options {
                page_lists: C::LISTS,
                populate: C::POPULATE,
                ..Options::for_profile(C::PROFILE)
            },
            cpus: 1,
            cpu_nodes: Vec::new(),
            distances: Vec::new(),
            direction: Direction::TopDown,
            early_limit: PhysAddr::MAX,
            held_back: Vec::new(),
            panics: false,
            protections: u64::MAX,
            config: core::marker::PhantomData,
        }
    }

    /// A machine with one range of RAM from address 0.
    pub fn with_ram(bytes: u64) -> Self {
        Self::new().ram(0, bytes).boot()
    }

    /// The RAM and the CPUs, past the library's back.
    #[must_use]
    pub const fn hardware(&self) -> &SimPlatform<C> {
        self.memory.platform()
    }

    /// Puts this thread on a CPU that no other thread runs on; with the thread, the CPU is away, and
    /// others may take what it has on its page lists.
    pub fn cpu(&self, cpu: u32) -> Running<'_, C> {
        let token = self.hardware().cpu(cpu);
        self.memory.tlb_lazy_leave();
        self.memory.return_cpu();
        Running {
            memory: &self.memory,
            token,
        }
    }

    /// An access by this thread's CPU, after the interrupts that have come: where it comes to.
    ///
    /// # Errors
    /// The fault that it has.
    ///
    /// # Panics
    /// If the CPU goes by something that it should have flushed.
    pub fn touch(&self, addr: VirtAddr, access: Access) -> Result<PhysAddr, Fault> {
        self.serve_tlb();
        self.hardware().touch(addr, access)
    }

    /// Serves an interrupt that asks for a flush, if one has come.
    pub fn serve_tlb(&self) {
        if self.hardware().is_tlb_kicked() {
            self.memory.tlb_catch_up();
        }
    }

    /// Does something with this thread's CPU lazy: others do not wait for it.
    pub fn idle<R>(&self, lazy: Lazy, body: impl FnOnce() -> R) -> R {
        // SAFETY: a thread that touches simulated memory on this CPU leaves first, and `body` has another one for that.
        unsafe { self.memory.tlb_lazy_enter(lazy) };
        let result = body();
        self.memory.tlb_lazy_leave();
        result
    }

    /// The free blocks right after boot.
    #[must_use]
    pub const fn initial(&self) -> &Shape {
        &self.initial
    }

    /// What came up.
    #[must_use]
    pub const fn booted(&self) -> Summary {
        self.summary
    }

    /// Takes the present free blocks for those that must be there at the end: after a test
    /// gave early memory back, or damaged some.
    pub fn rebase(&mut self) {
        self.initial = Shape::of(&self.memory);
        self.latent = oracles::latent_sections(&self.memory);
    }

    /// Runs every oracle on a machine that may have live blocks.
    ///
    /// # Panics
    /// If one finds something.
    pub fn check(&self) {
        oracles::check(&self.memory);
    }

    /// Ends the machine: everything must have been given back, and every oracle must be content.
    ///
    /// # Panics
    /// If one finds something.
    pub fn finish(mut self) {
        self.finished = true;
        oracles::check(&self.memory);
        self.check_tlbs();
        self.memory.shrink_caches();
        self.give_up_reserves();
        assert!(self.memory.drain_all_pages(), "a CPU keeps its pages");
        oracles::check(&self.memory);
        oracles::check_quiet(&self.memory);
        // What was populated since was free before.
        let now = Shape::of(&self.memory);
        self.initial.assert_same(&now.outside(&self.latent));
        oracles::check_all_free(&self.memory, &self.latent);
    }

    /// O8: each CPU comes, catches up, and goes; nothing that it remembers then is old.
    fn check_tlbs(&self) {
        if !self.hardware().is_paging_on() {
            return;
        }
        let CpuId(here) = self.hardware().current_cpu();
        for cpu in (0..self.hardware().cpus()).filter(|cpu| *cpu != here) {
            drop(self.cpu(cpu));
        }
        self.memory.tlb_catch_up();
        if let Err(error) = self.hardware().check_tlbs() {
            panic!("O8: {error}");
        }
    }

    /// Has zones give up the pageblocks that they keep for large requests which cannot wait: a
    /// request that reclaims in vain gets them. They keep pageblocks from merging.
    fn give_up_reserves(&self) {
        let keeps = |zone: &Zone| zone.high_atomic().0 > 0;
        if !self.memory.zones().any(keeps) {
            return;
        }
        let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::RETRY_MAYFAIL | Gfp::NOWARN;
        let take = || self.memory.alloc_block(gfp, Order::MAX).ok();
        drop(std::iter::from_fn(take).collect::<Vec<_>>());
        assert!(!self.memory.zones().any(keeps), "a zone keeps pageblocks");
    }

    /// Ends a machine whose damage was the test's purpose, without oracles.
    pub fn abandon(mut self) {
        self.finished = true;
    }
}

impl<C: SimConfig> Deref for Machine<C> {
    type Target = Memory<SimPlatform<C>>;

    fn deref(&self) -> &Self::Target {
        &self.memory
    }
}

impl<C: SimConfig> Drop for Machine<C> {
    fn drop(&mut self) {
        if !self.finished && !thread::panicking() {
            panic!("a test dropped its machine without calling `finish`");
        }
    }
}

/// This thread runs on a CPU of a machine that is up, until the value is dropped.
#[derive(Debug)]
#[must_use = "the thread leaves the CPU when this is dropped"]
pub struct Running<'a, C: SimConfig> {
    memory: &'a Memory<SimPlatform<C>>,
    token: OnCpu<'a>,
}

impl<C: SimConfig> Running<'_, C> {
    /// Which CPU.
    #[must_use]
    pub const fn id(&self) -> CpuId {
        self.token.id()
    }
}

impl<C: SimConfig> Drop for Running<'_, C> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the CPU's token until the field is dropped, after this; the
        // next one to take it returns first, in `Machine::cpu`.
        unsafe { self.memory.leave_cpu() };
        // SAFETY: as above.
        unsafe { self.memory.tlb_lazy_enter(Lazy::Offline) };
    }
}

impl<C: SimConfig> Builder<C> {
    /// Adds RAM on node 0, whole pages.
    #[must_use]
    pub fn ram(self, start: u64, bytes: u64) -> Self {
        self.node(0, start, bytes)
    }

    /// Adds RAM on a node, whole pages.
    #[must_use]
    pub fn node(mut self, node: u16, start: u64, bytes: u64) -> Self {
        let range = PhysRange::from_size(PhysAddr::new(start), bytes);
        self.ram.push((range, Some(NodeId(node))));
        self
    }

    /// Adds what a firmware's map says, with the command line's changes to it.
    ///
    /// # Panics
    /// If the command line has a wrong parameter.
    #[must_use]
    pub fn firmware(
        mut self,
        entries: &[FirmwareRegion],
        low_memory: LowMemory,
        command_line: &str,
    ) -> Self {
        let params = Params::parse(command_line, |error| panic!("{error}"));
        self.wish = CoreWish::from(&params);
        self.firmware = Some(Firmware {
            entries: entries.to_vec(),
            low_memory,
            params,
        });
        self
    }

    /// Says which node a range of the firmware's memory belongs to.
    #[must_use]
    pub fn home(mut self, node: u16, range: PhysRange) -> Self {
        self.homes.push((range, NodeId(node)));
        self
    }

    /// Reserves a range before anything is allocated.
    #[must_use]
    pub fn reserve(mut self, start: u64, bytes: u64) -> Self {
        let range = PhysRange::from_size(PhysAddr::new(start), bytes);
        self.reserved.push(range);
        self
    }

    /// Keeps all but so many bytes for the Movable zone.
    #[must_use]
    pub fn kernelcore(mut self, bytes: u64) -> Self {
        self.wish.kernelcore = Some(CoreSize::Bytes(bytes));
        self
    }

    /// Says that some nodes may be unplugged, and are for movable pages only (`movable_node`).
    #[must_use]
    pub fn movable_nodes(mut self, nodes: &[u16]) -> Self {
        self.wish.movable_node = true;
        self.pluggable = nodes.iter().copied().map(NodeId).collect();
        self
    }

    /// Changes what is done to pages on their way.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Sets how many CPUs there are.
    #[must_use]
    pub const fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets how many CPUs there are, and on which node each is.
    #[must_use]
    pub fn cpus_on(mut self, nodes: &[u16]) -> Self {
        self.cpus = u32::try_from(nodes.len()).unwrap();
        self.cpu_nodes = nodes.iter().copied().map(NodeId).collect();
        self
    }

    /// Sets the distances between the nodes, row by row.
    #[must_use]
    pub fn distances(mut self, matrix: &[u8]) -> Self {
        self.distances = matrix.to_vec();
        self
    }

    /// Sets from which end early memory is taken.
    #[must_use]
    pub const fn early(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Sets where early memory ends.
    #[must_use]
    pub const fn early_limit(mut self, limit: u64) -> Self {
        self.early_limit = PhysAddr::new(limit);
        self
    }

    /// Keeps a range away from early allocation, and hands it over only after boot.
    pub(super) fn held_back(mut self, range: PhysRange) -> Self {
        self.held_back.push(range);
        self
    }

    /// Makes the machine panic on damage instead of collecting reports.
    #[must_use]
    pub const fn panic_on_damage(mut self) -> Self {
        self.panics = true;
        self
    }

    /// Makes the machine one that puts only so many pages out of reach.
    #[must_use]
    pub const fn protections(mut self, pages: u64) -> Self {
        self.protections = pages;
        self
    }

    /// Boots: memblock, plan, frames, zones.
    ///
    /// # Panics
    /// If that fails.
    pub fn boot(self) -> Machine<C> {
        self.try_boot().unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Boots, where that may fail.
    ///
    /// # Errors
    /// [`BootError`].
    pub fn try_boot(self) -> Result<Machine<C>, BootError> {
        let memory = Memory::new(self.platform());
        let mut memblock = self.memblock(memory.platform())?;
        let held_back = self.hold_back(&mut memblock, memory.platform());
        let count = memblock
            .frames(None)
            .map(|ram| ram.node.unwrap_or_default().0);
        let with_cpus = self.cpu_nodes.iter().map(|node| node.0);
        let count = usize::from(count.chain(with_cpus).max().unwrap_or(0)) + 1;
        let mut nodes = vec![NodePlan::EMPTY; count];
        let plan = Plan::compute(&memblock, self.wish, &mut nodes).map_err(BootError::Plan)?;
        let distances = match self.distances.len() {
            0 => Distances::UNKNOWN,
            known => Distances::new(known.isqrt(), &self.distances).unwrap(),
        };
        let plan = plan.with_distances(distances);
        let summary = memory
            .bring_up(memblock, &plan, self.options)
            .map_err(BootError::BringUp)?;
        // SAFETY: it is this memory's platform.
        unsafe { memory.platform().set_anchors(|cpu| memory.anchor(cpu)) };
        for ram in held_back {
            let start = ram.range().start();
            let home = self.ram.iter().find(|(range, _)| range.contains(start));
            let node = home.and_then(|(_, node)| *node).unwrap_or_default();
            memory
                .free_early(node, ram)
                .map_err(|(error, _)| BootError::FreeEarly(error))?;
        }
        let initial = Shape::of(&memory);
        let latent = oracles::latent_sections(&memory);
        Ok(Machine {
            memory,
            initial,
            latent,
            summary,
            finished: false,
        })
    }

    /// Whole frames of RAM in the firmware's map.
    #[must_use]
    pub fn ram_frames(&self) -> u64 {
        let ranges = self.firmware.iter().flat_map(Firmware::ram);
        ranges.map(|range| range.whole_frames().frames()).sum()
    }

    fn platform(&self) -> SimPlatform<C> {
        let firmware = self.firmware.iter().flat_map(Firmware::ram);
        let given = self.ram.iter().map(|(range, _)| *range);
        let ranges: Vec<_> = firmware.chain(given).collect();
        let last = ranges
            .iter()
            .map(|range| range.end().frame().as_u64())
            .max();
        let frames = last.unwrap_or(0).next_multiple_of(SECTION_FRAMES);
        let ram = Ram::new(&ranges, frames * 32);
        let platform = SimPlatform::new(ram, self.cpus, self.cpu_nodes.clone(), self.panics);
        platform.refuse_to_protect(self.protections);
        platform
    }

    /// Fills memblock's tables.
    fn memblock(&self, platform: &SimPlatform<C>) -> Result<Memblock, BootError> {
        // SAFETY: (1) exactly the ranges below are mapped as RAM; (2, 3) the platform was made
        // just now for this memblock alone; (4) nothing is freed by range.
        let mut memblock = Memblock::new(unsafe { RamClaim::new() });
        for range in &self.reserved {
            memblock
                .reserve(platform, *range)
                .map_err(BootError::Table)?;
        }
        memblock.allow_growth();
        memblock.set_direction(self.direction);
        memblock.set_current_limit(self.early_limit);
        for (range, node) in &self.ram {
            memblock.add(platform, *range).map_err(BootError::Table)?;
            if let Some(node) = *node {
                memblock
                    .set_node(platform, *range, node)
                    .map_err(BootError::Table)?;
            }
        }
        if let Some(firmware) = &self.firmware {
            firmware
                .add_to(&mut memblock, platform)
                .map_err(BootError::Setup)?;
        }
        for (range, node) in &self.homes {
            memblock
                .set_node(platform, *range, *node)
                .map_err(BootError::Table)?;
        }
        if self.wish.movable_node {
            let is_pluggable =
                |node: &Option<NodeId>| node.is_some_and(|node| self.pluggable.contains(&node));
            let ram = self.ram.iter().filter(|(_, node)| is_pluggable(node));
            let ranges: Vec<PhysRange> = ram.map(|(range, _)| *range).collect();
            memblock
                .spare_hotplug(platform, &ranges)
                .map_err(BootError::Table)?;
        }
        Ok(memblock)
    }

    /// Allocates the ranges that early allocation must not use.
    fn hold_back(&self, memblock: &mut Memblock, platform: &SimPlatform<C>) -> Vec<EarlyRam> {
        use mm::memblock::{Floor, NodeChoice, Request};
        let claim = |range: &PhysRange| {
            let request = Request::bytes(range.size())
                .align(PAGE_SIZE)
                .floor(Floor::Required(range.start()))
                .ceiling(range.end())
                .node(NodeChoice::Any);
            let ram = memblock.alloc_raw(platform, &request).expect("RAM");
            assert_eq!(ram.range(), *range, "held back whole");
            ram
        };
        self.held_back.iter().map(claim).collect()
    }
}
