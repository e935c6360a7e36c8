//! The library's view of a simulated machine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use mm::addr::{Pfn, PfnRange, PhysAddr, PhysRange, VirtAddr, VirtRange};
use mm::config::PAGE_SIZE;
use mm::mem::{EarlyRam, RamClaim};
use mm::memblock::{Floor, Memblock, Request};
use mm::numa::Policy;
use mm::platform::{
    CpuId, IrqState, LockClass, MapFrameTableError, MemoryModel, NodeId, PageAccess, Platform,
    Profile, ProtectPageError, TlbFeatures, TlbFlush,
};
use mm::report::{
    AllocFailure, Corruption, Event, ForcedFailure, ForcedObjectFailure, GraceStall, SleepInAtomic,
};
use mm::system::Populate;

use super::cpus::Cpus;
use super::gaps::Stops;
use super::mmu::{Access, Fault, Registers};
use super::paging::Paging;
use super::recorder::Recorder;
use super::tlb::Tlb;
use super::{Gaps, OnCpu, Ram, SimConfig, Trouble, nmi, patience, pins};

/// Who gives pages back, as far as anybody is told.
pub const CALLED_FROM: [u64; 2] = [0xffff_ffff_8020_1234, 0xffff_ffff_8020_5678];

thread_local! {
    /// A host thread is a task: whether it reclaims memory, …
    static RECLAIMS: Cell<bool> = const { Cell::new(false) };
    /// … and whether it is in a part that may not sleep.
    static ATOMIC: Cell<bool> = const { Cell::new(false) };
    /// The memory policy that it has, if any.
    static POLICY: Cell<Option<Policy>> = const { Cell::new(None) };
    /// How often it let others run.
    static RESCHEDULES: Cell<u64> = const { Cell::new(0) };
}

/// What the library said for a CPU: nothing but an address, for whoever holds it.
#[derive(Clone, Copy, Debug)]
struct Anchor(Option<NonNull<()>>);

// SAFETY: nobody but the library looks behind it.
unsafe impl Send for Anchor {}
// SAFETY: as above.
unsafe impl Sync for Anchor {}

/// A platform over simulated hardware. `C` picks profile and memory model.
#[derive(Debug)]
pub struct SimPlatform<C: SimConfig> {
    pub(super) ram: Ram,
    pub(super) cpus: Cpus,
    paging: Paging,
    /// By CPU; node 0 for those that are not named.
    cpu_nodes: Vec<NodeId>,
    reports: Mutex<Vec<Corruption>>,
    recorder: Recorder,
    /// What failed last, and how often anything did.
    failures: Mutex<(u64, String)>,
    forced: Mutex<Vec<ForcedFailure>>,
    forced_objects: Mutex<Vec<ForcedObjectFailure>>,
    /// Requests that may sleep, from callers that may not.
    sleeps: Mutex<Vec<SleepInAtomic>>,
    reschedules: AtomicU64,
    /// Which nodes' kswapd was woken, if there is a thread to wake.
    kswapd: Mutex<Option<Vec<NodeId>>>,
    /// Which nodes' threads that populate memory were woken, if there are any.
    populators: Mutex<Option<Vec<NodeId>>>,
    /// How many times from now on records are not mapped.
    refusals: AtomicU64,
    /// CPUs that grace periods waited for for long, …
    stalls: Mutex<Vec<GraceStall>>,
    /// … and those that were asked to pass a quiescent state.
    rescheduled: Mutex<Vec<CpuId>>,
    /// CPUs that answer calls, and whether there is one that they have not answered yet.
    calls: Mutex<BTreeMap<CpuId, bool>>,
    stops: Stops,
    /// What the library has for each CPU, once it is up.
    anchors: OnceLock<Vec<Anchor>>,
    /// What the platform does about damage: goes on, or panics.
    panics: bool,
    /// How many pages it puts out of reach from now on.
    protections: AtomicU64,
    config: PhantomData<C>,
}

impl<C: SimConfig> SimPlatform<C> {
    pub(super) fn new(ram: Ram, cpus: u32, cpu_nodes: Vec<NodeId>, panics: bool) -> Self {
        let end = ram.ranges().last().map_or(0, |last| last.end().as_u64());
        Self {
            ram,
            cpus: Cpus::new(cpus),
            paging: Paging::new(cpus, end.div_ceil(PAGE_SIZE)),
            cpu_nodes,
            reports: Mutex::default(),
            recorder: Recorder::default(),
            failures: Mutex::default(),
            forced: Mutex::default(),
            forced_objects: Mutex::default(),
            sleeps: Mutex::default(),
            reschedules: AtomicU64::new(0),
            kswapd: Mutex::default(),
            populators: Mutex::default(),
            refusals: AtomicU64::new(0),
            stalls: Mutex::default(),
            rescheduled: Mutex::default(),
            calls: Mutex::default(),
            stops: Stops::new(),
            anchors: OnceLock::new(),
            panics,
            protections: AtomicU64::new(u64::MAX),
            config: PhantomData,
        }
    }

    /// The machine's RAM, past the library's back.
    #[must_use]
    pub const fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Keeps what the library says for each CPU.
    ///
    /// # Safety
    /// `anchor` is [`Memory::anchor`](mm::system::Memory::anchor) of the memory that this is part of.
    pub(super) unsafe fn set_anchors(&self, anchor: impl Fn(CpuId) -> Option<NonNull<()>>) {
        let cpus = (0..self.cpus.count()).map(CpuId);
        let anchors = cpus.map(|cpu| Anchor(anchor(cpu))).collect();
        self.anchors.set(anchors).unwrap();
    }

    /// Puts this thread on a CPU that no other thread runs on.
    pub fn cpu(&self, cpu: u32) -> OnCpu<'_> {
        self.cpus.enter(cpu)
    }

    /// Stops a CPU whenever it has unmasked its interrupts, for a visit by another one.
    #[must_use]
    pub fn gaps(&self, cpu: u32) -> Gaps {
        self.stops.stop(cpu, false)
    }

    /// As [`gaps`](Self::gaps); it stops also whenever it is about to mask its interrupts.
    #[must_use]
    pub fn both_ends_of_gaps(&self, cpu: u32) -> Gaps {
        self.stops.stop(cpu, true)
    }

    /// Ends what [`gaps`](Self::gaps) began.
    pub fn no_more_gaps(&self) {
        self.stops.let_go();
    }

    /// How many locks were taken so far, on all CPUs. Only the debug profile tells the platform.
    #[must_use]
    pub fn taken_locks(&self) -> u64 {
        self.cpus.taken_locks()
    }

    /// A token for a range of RAM, past the library's back.
    ///
    /// # Safety
    ///
    /// The range is RAM, reserved on the machine, and nobody has a token for it; or nothing is read or
    /// written through the token, and what counts is that the library refuses it.
    pub unsafe fn early_ram(&self, range: PhysRange) -> EarlyRam {
        // SAFETY: (1, 2, 3) the caller's word; (4) nothing is freed by range; (5, 6) the token is
        // the caller's, who has one machine.
        let mut memblock = Memblock::new(unsafe { RamClaim::new() });
        memblock.add(self, range).unwrap();
        let request = Request::bytes(range.size()).floor(Floor::Required(range.start()));
        memblock.alloc_raw(self, &request).unwrap()
    }

    /// What happened, if that [is recorded](SimConfig::EVENTS).
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Takes the damage reports that came in so far, oldest first.
    #[must_use]
    pub fn take_reports(&self) -> Vec<Corruption> {
        std::mem::take(&mut *self.reports.lock().unwrap())
    }

    /// Takes the requests that failed on purpose so far.
    #[must_use]
    pub fn take_forced(&self) -> Vec<ForcedFailure> {
        std::mem::take(&mut *self.forced.lock().unwrap())
    }

    /// The same of requests for objects.
    #[must_use]
    pub fn take_forced_objects(&self) -> Vec<ForcedObjectFailure> {
        std::mem::take(&mut *self.forced_objects.lock().unwrap())
    }

    /// Takes how many allocations were reported to have failed so far, and the last report.
    #[must_use]
    pub fn take_failures(&self) -> (u64, String) {
        std::mem::take(&mut *self.failures.lock().unwrap())
    }

    /// Runs `body` where this thread may not sleep.
    pub fn in_atomic<R>(&self, body: impl FnOnce() -> R) -> R {
        let before = ATOMIC.replace(true);
        let result = body();
        ATOMIC.set(before);
        result
    }

    /// Gives this thread a memory policy, or none; answers the one before.
    pub fn set_policy(&self, policy: Option<Policy>) -> Option<Policy> {
        POLICY.replace(policy)
    }

    /// Takes the requests that wanted to sleep where they may not, oldest first.
    #[must_use]
    pub fn take_sleeps(&self) -> Vec<SleepInAtomic> {
        std::mem::take(&mut *self.sleeps.lock().unwrap())
    }

    /// How often a task let others run so far.
    #[must_use]
    pub fn reschedules(&self) -> u64 {
        self.reschedules.load(Ordering::Relaxed)
    }

    /// How often this thread let others run so far, on any machine.
    #[must_use]
    pub fn reschedules_here(&self) -> u64 {
        RESCHEDULES.get()
    }

    /// From now on somebody calls [`woken`](Self::woken) and does kswapd's work.
    pub fn has_kswapd(&self) {
        *self.kswapd.lock().unwrap() = Some(Vec::new());
    }

    /// Takes the nodes whose kswapd was woken so far.
    #[must_use]
    pub fn woken(&self) -> Vec<NodeId> {
        let mut kswapd = self.kswapd.lock().unwrap();
        kswapd.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// From now on somebody calls [`woken_to_populate`](Self::woken_to_populate) and does that work.
    pub fn has_populators(&self) {
        *self.populators.lock().unwrap() = Some(Vec::new());
    }

    /// Takes the nodes whose threads were woken to populate memory so far.
    #[must_use]
    pub fn woken_to_populate(&self) -> Vec<NodeId> {
        let mut populators = self.populators.lock().unwrap();
        populators.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Does not map the records of the next so many sections.
    pub fn refuse_to_map(&self, sections: u64) {
        self.refusals.store(sections, Ordering::Relaxed);
    }

    /// Puts only so many pages more out of reach.
    pub fn refuse_to_protect(&self, after: u64) {
        self.protections.store(after, Ordering::Relaxed);
    }

    /// Takes the CPUs that grace periods waited for for long, oldest report first.
    #[must_use]
    pub fn take_stalls(&self) -> Vec<GraceStall> {
        std::mem::take(&mut *self.stalls.lock().unwrap())
    }

    /// Takes the CPUs that were asked to pass a quiescent state.
    #[must_use]
    pub fn take_rescheduled(&self) -> Vec<CpuId> {
        std::mem::take(&mut *self.rescheduled.lock().unwrap())
    }

    /// Whether this thread's CPU takes interrupts.
    #[must_use]
    pub fn irqs_are_on(&self) -> bool {
        self.cpus.irqs_are_on()
    }

    /// From now on this thread calls [`is_called`](Self::is_called) on `cpu` whenever it has unmasked
    /// interrupts, and answers; or it does so no more.
    pub fn answers(&self, cpu: u32, answers: bool) {
        let mut calls = self.calls.lock().unwrap();
        match answers {
            true => calls.insert(CpuId(cpu), false),
            false => calls.remove(&CpuId(cpu)),
        };
    }

    /// Whether another CPU has called `cpu` since the last time.
    #[must_use]
    pub fn is_called(&self, cpu: u32) -> bool {
        let mut calls = self.calls.lock().unwrap();
        calls.get_mut(&CpuId(cpu)).is_some_and(std::mem::take)
    }

    /// Switches paging on, on all CPUs. Frames behind `permanent` stay mapped whoever has them, as in a direct map.
    pub fn switch_paging_on(&self, registers: Registers, permanent: VirtRange) {
        self.paging.switch_on(registers, permanent);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_paging_on(&self) -> bool {
        self.paging.is_on()
    }

    /// An access by this thread's CPU: where it comes to. Nobody is served; [`Machine::touch`](super::Machine::touch) does.
    ///
    /// # Errors
    /// The fault that it has; a panic if the CPU goes by something that it should have flushed.
    pub fn touch(&self, addr: VirtAddr, access: Access) -> Result<PhysAddr, Fault> {
        self.paging
            .touch(&self.ram, self.cpus.current(), addr, access)
    }

    /// Shows registers and TLB of this thread's CPU.
    pub fn with_tlb<R>(&self, body: impl FnOnce(&mut Registers, &mut Tlb) -> R) -> R {
        self.paging.with(self.cpus.current(), body)
    }

    /// Whether this thread's CPU was asked for a flush since the last time.
    #[must_use]
    pub fn is_tlb_kicked(&self) -> bool {
        self.cpus.irqs_are_on() && self.paging.is_kicked(self.cpus.current())
    }

    /// How many such interrupts were sent so far.
    #[must_use]
    pub fn tlb_kicks(&self) -> u64 {
        self.paging.kicks()
    }

    /// How often a frame was freed so far. Only the debug profile tells.
    #[must_use]
    pub fn times_freed(&self, pfn: Pfn) -> u64 {
        self.paging.generations.of(pfn.addr())
    }

    /// O8: no CPU remembers what is not in the page tables.
    ///
    /// # Errors
    /// What one remembers.
    pub fn check_tlbs(&self) -> Result<(), String> {
        self.paging.check(&self.ram)
    }

    /// What was found wrong with interrupts and locks so far, and what a machine at rest must not show.
    #[must_use]
    pub fn take_troubles(&self) -> Vec<Trouble> {
        self.cpus.troubles()
    }
}

// SAFETY: (1, 2) `Ram` maps exactly the ranges that are RAM, for its lifetime, and nothing but the
// library uses them except tests that damage free memory on purpose; (3) nothing interrupts a
// host thread in this process; (4) a CPU token is held by one thread at a time; (5, 6) the window
// is reserved for the frame table alone, as large as the machine's last frame needs, and `alias`
// maps each place of it once; (7) bytes of a memory file that were never written are zero; (8) a thread keeps
// its CPU token; (9) tokens are numbered from 0; (10) `set_anchors` got nothing else, for each CPU; (11) the simulated
// TLBs do what the CPU's manual says of the instructions, and nothing of the host's is mapped by these tables.
unsafe impl<C: SimConfig> Platform for SimPlatform<C> {
    const PROFILE: Profile = C::PROFILE;
    const MODEL: MemoryModel = C::MODEL;

    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        nmi::point();
        self.ram.at(range)
    }

    fn is_zeroed(&self, ram: PhysRange) -> bool {
        self.ram.is_untouched(ram)
    }

    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.ram.phys(addr)
    }

    const EVENTS: bool = C::EVENTS;

    fn event(&self, event: Event) {
        self.recorder.record(event);
    }

    const HAS_ANCHORS: bool = C::HAS_ANCHORS;

    fn anchor(&self) -> Option<NonNull<()>> {
        nmi::point();
        let CpuId(cpu) = self.cpus.current();
        self.anchors.get()?.get(cpu as usize)?.0
    }

    fn pin(&self) {
        nmi::point();
        pins::pin(self.cpus.current());
    }

    fn unpin(&self) {
        pins::unpin(self.cpus.current());
        nmi::point();
    }

    fn current_cpu(&self) -> CpuId {
        nmi::point();
        self.cpus.current()
    }

    fn cpus(&self) -> u32 {
        self.cpus.count()
    }

    fn node_of(&self, cpu: CpuId) -> NodeId {
        let index = usize::try_from(cpu.0).unwrap();
        self.cpu_nodes.get(index).copied().unwrap_or_default()
    }

    fn has_policy(&self) -> bool {
        POLICY.get().is_some()
    }

    fn with_policy(&self, apply: &mut dyn FnMut(&mut Policy)) {
        if let Some(mut policy) = POLICY.get() {
            apply(&mut policy);
            POLICY.set(Some(policy));
        }
    }

    /// The other thread gets the host's CPU; a machine that waits for a CPU which does nothing
    /// soon gives up, unless there are threads on others: the host may let those wait for long.
    fn relax(&self, rounds: u32) -> bool {
        nmi::point();
        std::thread::yield_now();
        rounds < patience::rounds(self.cpus.has_others())
    }

    fn kick(&self, cpu: CpuId) -> bool {
        let mut calls = self.calls.lock().unwrap();
        calls.get_mut(&cpu).map(|called| *called = true).is_some()
    }

    fn irq_save(&self) -> IrqState {
        if self.cpus.irqs_are_on() {
            self.stops.gap_ends(self.cpus.current().0);
        }
        let state = self.cpus.irq_save();
        nmi::point();
        state
    }

    fn irq_restore(&self, state: IrqState) {
        if self.cpus.irq_restore(state) {
            self.stops.gap(self.cpus.current().0);
        }
    }

    fn corruption(&self, report: &Corruption) {
        if self.panics {
            panic!("corruption: {report}");
        }
        self.reports.lock().unwrap().push(*report);
    }

    fn allocation_failed(&self, failure: &AllocFailure<'_>) {
        let (count, last) = &mut *self.failures.lock().unwrap();
        *count += 1;
        *last = failure.to_string();
    }

    fn failure_forced(&self, failure: &ForcedFailure) {
        self.forced.lock().unwrap().push(*failure);
    }

    fn object_failure_forced(&self, failure: &ForcedObjectFailure) {
        self.forced_objects.lock().unwrap().push(*failure);
    }

    fn may_sleep(&self) -> bool {
        !ATOMIC.get() && !pins::is_pinned(self.cpus.current())
    }

    fn reschedule(&self) {
        self.reschedules.fetch_add(1, Ordering::Relaxed);
        RESCHEDULES.set(RESCHEDULES.get() + 1);
        std::thread::yield_now();
    }

    fn wake_kswapd(&self, node: NodeId) -> bool {
        let mut kswapd = self.kswapd.lock().unwrap();
        kswapd.as_mut().map(|woken| woken.push(node)).is_some()
    }

    fn set_reclaiming(&self, on: bool) -> Option<bool> {
        Some(RECLAIMS.replace(on))
    }

    fn is_reclaiming(&self) -> Option<bool> {
        Some(RECLAIMS.get())
    }

    fn resched_cpu(&self, cpu: CpuId) {
        self.rescheduled.lock().unwrap().push(cpu);
    }

    fn grace_stalled(&self, stall: &GraceStall) {
        self.stalls.lock().unwrap().push(*stall);
    }

    fn sleep_in_atomic(&self, report: &SleepInAtomic) {
        self.sleeps.lock().unwrap().push(*report);
    }

    fn frame_table_base(&self) -> Option<VirtAddr> {
        self.ram.window_base()
    }

    fn frame_table_readable(&self) -> u64 {
        self.ram.window_bytes()
    }

    fn wake_populate(&self, node: NodeId) -> bool {
        let mut populators = self.populators.lock().unwrap();
        populators.as_mut().map(|woken| woken.push(node)).is_some()
    }

    /// Page tables are not needed here, but belong to the platform, which writes to them.
    const FRAME_TABLE_PAGES: u64 = match C::POPULATE {
        Populate::OnDemand => 1,
        Populate::AtBoot => 0,
    };

    fn map_frame_table(
        &self,
        at: VirtAddr,
        ram: PhysRange,
        tables: PhysRange,
    ) -> Result<(), MapFrameTableError> {
        assert_eq!(tables.size(), Self::FRAME_TABLE_PAGES * PAGE_SIZE);
        if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.fetch_sub(1, Ordering::Relaxed);
            return Err(MapFrameTableError::OutOfTables);
        }
        for at in (0..tables.size()).step_by(64) {
            self.ram
                .scribble(tables.start().checked_add(at).unwrap(), 0xa5);
        }
        match C::IS_WINDOW_OLD {
            true => Ok(()),
            false => self.ram.alias(at, ram),
        }
    }

    fn protect_page(&self, page: PhysAddr, access: PageAccess) -> Result<(), ProtectPageError> {
        if access == PageAccess::None {
            let take = |left: u64| left.checked_sub(1);
            let left = &self.protections;
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .map_err(|_| ProtectPageError::Unsupported)?;
        }
        let page = PhysRange::from_size(page, PAGE_SIZE);
        self.ram.protect(page, access);
        Ok(())
    }

    fn protect_free_pages(&self, frames: PfnRange, access: PageAccess) {
        self.ram.protect(frames.addrs(), access);
    }

    fn tlb_features(&self) -> TlbFeatures {
        self.paging.features(self.cpus.current())
    }

    const FLUSHES_TLB: bool = true;

    fn flush_tlb_here(&self, what: TlbFlush) {
        nmi::point();
        self.paging.flush(self.cpus.current(), what);
        nmi::point();
    }

    fn kick_tlb(&self, cpu: CpuId) -> bool {
        nmi::point();
        self.paging.kick(cpu);
        true
    }

    /// The other thread gets the host's CPU.
    fn wait_tlb(&self, _: CpuId, _: u32) {
        nmi::point();
        std::thread::yield_now();
    }

    fn percpu_mapped(&self, at: VirtAddr, frames: PfnRange) {
        self.ram.alias_percpu(at, frames.addrs());
    }

    /// Tasks are as many as CPUs, and two functions call each other.
    fn who_calls(&self, callers: &mut [VirtAddr]) -> u64 {
        for (place, at) in callers.iter_mut().zip(CALLED_FROM) {
            *place = VirtAddr::new(at);
        }
        u64::from(self.current_cpu().0) + 1
    }

    fn pages_freed(&self, frames: PfnRange) {
        self.paging.generations.freed(frames);
    }

    fn lock_acquired(&self, class: LockClass) {
        self.cpus.lock_acquired(class);
        nmi::point();
    }

    fn lock_tried(&self, class: LockClass) {
        self.cpus.lock_tried(class);
        nmi::point();
    }

    fn lock_released(&self, class: LockClass) {
        self.cpus.lock_released(class);
    }
}
