//! What the memory core asks of this machine.
#![expect(
    unsafe_code,
    reason = "`mm::platform::Platform` is an unsafe trait: this is its implementation"
)]

use super::{
    address_space, events, frame_table, grace, kfence, kswapd, nodes, object_damage, populate,
};
use crate::arch::{anchor, irq, local, pin, registers, running, smp, time};
use crate::rate_limit::RateLimit;
use crate::sched::thread::Thread;
use crate::sched::{self, Atomic};
use crate::{acpi, arch};
use crate::{backtrace, panic};
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use mm::addr::{DirectMap, PfnRange, PhysAddr, PhysRange, VirtAddr};
use mm::numa::Policy;
use mm::pagetable::ProtectError;
use mm::platform::{
    CpuId, IrqState, MapFrameTableError, MemoryModel, NodeId, PageAccess, Platform, Profile,
    ProtectPageError, TlbFeatures, TlbFlush,
};
use mm::report::{
    AllocFailure, Corruption, Event, ForcedFailure, ForcedObjectFailure, GraceStall, SleepInAtomic,
};
use spin::Once;

/// The profile that this kernel was built with.
const PROFILE: Profile = match option_env!("MM_PROFILE") {
    Some(name) if equal(name, "plain") => Profile::Plain,
    Some(name) if equal(name, "debug") => Profile::Debug,
    _ => Profile::Hardened,
};

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0_usize;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index = index.wrapping_add(1);
    }
    true
}

/// Who damages memory may do so without end: of reports with their backtraces, so many are printed in so long, as in Linux.
const REPORTS: u64 = 10;
const REPORTS_INTERVAL_NS: u64 = 5_000_000_000;

/// Failed allocations come in floods; Linux too reports one in ten seconds.
const FAILURE_INTERVAL_NS: u64 = 10_000_000_000;

/// How long one round of waiting for another CPU takes.
const RELAX_NS: u64 = 1_000;
/// … and how many there are.
const RELAX_ROUNDS: u32 = 1_000_000;

/// Rounds of waiting for a CPU to flush after which that is told: some seconds.
const TLB_PATIENCE: u32 = 1 << 28;

/// This machine.
#[derive(Debug)]
pub struct KernelPlatform {
    map: Once<DirectMap>,
    /// Where it starts: what frees an object needs nothing else.
    base: AtomicU64,
    /// Failed allocations.
    failures: RateLimit,
    /// Reports of damage.
    reports: RateLimit,
}

impl KernelPlatform {
    pub(super) const fn new() -> Self {
        Self {
            map: Once::new(),
            base: AtomicU64::new(0),
            failures: RateLimit::new(1, FAILURE_INTERVAL_NS),
            reports: RateLimit::new(REPORTS, REPORTS_INTERVAL_NS),
        }
    }

    /// Logs what may come in floods: one of it in a while.
    fn warn_now_and_then(&self, failure: &impl core::fmt::Display) {
        if self.failures.allows(time::now_ns()).is_some() {
            log::warn!("{failure}");
        }
    }

    /// Says where RAM is mapped: `ram` at `offset`. To be called once, before memory comes up.
    pub(super) fn set_direct_map(&self, offset: u64, mut ram: Vec<PhysRange>) {
        // Most questions are about the largest.
        ram.sort_unstable_by_key(|range| core::cmp::Reverse(range.size()));
        self.base.store(offset, Relaxed);
        self.map
            .call_once(|| DirectMap::new(VirtAddr::new(offset), ram.leak()));
    }

    /// RAM that is mapped at the offset.
    pub(super) fn mapped(&self) -> &'static [PhysRange] {
        self.map.get().map_or(&[], DirectMap::ram)
    }

    /// Virtual address of physical address 0, once it is known.
    pub(super) fn physical_offset(&self) -> Option<u64> {
        Some(self.map.get()?.base().as_u64())
    }
}

// SAFETY: (1) `ram` are ranges that the firmware calls usable and the boot loader mapped at
// `offset` for good, and (2) both directions use the same offset; (3) interrupts are switched off
// by `cli`, and nothing but an interrupt could move a task; (4) every CPU has its own GS base;
// (5, 6) `frame_table` maps fresh pages into a range of the address space that nobody else uses;
// (8) a pinned thread is neither preempted nor moved; (9) ACPI tables are read once, before memory
// comes up, and a CPU beyond them has no page lists; (11) `arch::tlb` does what the CPU's manual says; (12) a CPU calls
// `cpu_starts` first of all, and its handler of the interrupt catches up; (10) there is one platform, `MEMORY`'s, and what
// that says for a CPU is kept in the CPU's own area.
unsafe impl Platform for KernelPlatform {
    const PROFILE: Profile = PROFILE;
    const MODEL: MemoryModel = MemoryModel::Vmemmap;

    #[inline]
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        self.map.get()?.phys_to_virt(range)
    }

    #[inline]
    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.map.get()?.virt_to_phys(addr)
    }

    #[inline]
    fn direct_map_base(&self) -> Option<VirtAddr> {
        Some(VirtAddr::new(self.base.load(Relaxed)))
    }

    #[inline]
    fn current_cpu(&self) -> CpuId {
        CpuId(local::current_id())
    }

    const EVENTS: bool = events::ARE_ON;

    #[inline(always)]
    fn event(&self, event: Event) {
        events::record(event);
    }

    const HAS_ANCHORS: bool = true;

    #[inline]
    fn anchor(&self) -> Option<NonNull<()>> {
        anchor::current()
    }

    #[inline]
    fn request_anchor(&self) -> Option<NonNull<()>> {
        anchor::for_request()
    }

    #[inline]
    fn pin(&self) {
        pin::enter();
    }

    #[inline]
    fn unpin(&self) {
        pin::leave();
    }

    /// As many as the firmware names: they are started after memory is up.
    fn cpus(&self) -> u32 {
        let named = acpi::get().cpus.len().max(1);
        u32::try_from(named).unwrap_or(u32::MAX)
    }

    fn node_of(&self, cpu: CpuId) -> NodeId {
        nodes::node_of(cpu)
    }

    #[inline]
    /// The clock since the machine was switched on, which nobody outside reads to the tick; the word `icount` on
    /// the command line makes it the same each time.
    fn random_seed(&self) -> u64 {
        time::tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn has_policy(&self) -> bool {
        running::has_policy()
    }

    fn with_policy(&self, apply: &mut dyn FnMut(&mut Policy)) {
        sched::policy::with_current(apply);
    }

    /// Interrupts the CPU, and waits until it took notice.
    fn kick(&self, cpu: CpuId) -> bool {
        smp::call_on(cpu.0, || super::MEMORY.drain_wanted()).is_ok()
    }

    /// A microsecond by the clock, and up to a second of them: where CPUs are emulated, the
    /// one that is waited for may not even run at the moment.
    fn relax(&self, rounds: u32) -> bool {
        time::wait_ns(RELAX_NS);
        rounds < RELAX_ROUNDS
    }

    fn may_sleep(&self) -> bool {
        sched::may_sleep().is_ok()
    }

    fn reschedule(&self) {
        if sched::may_sleep().is_ok() {
            let _ = sched::yield_now();
        }
    }

    fn wake_kswapd(&self, node: NodeId) -> bool {
        kswapd::wake(node)
    }

    fn wake_populate(&self, node: NodeId) -> bool {
        populate::wake(node)
    }

    fn wake_grace(&self) -> bool {
        grace::wake()
    }

    fn resched_cpu(&self, cpu: CpuId) {
        grace::hurry(cpu);
    }

    fn grace_stalled(&self, stall: &GraceStall) {
        grace::report(stall);
    }

    /// Before there are threads nobody is marked, and nobody may reclaim.
    fn set_reclaiming(&self, on: bool) -> Option<bool> {
        sched::with_running(|thread| thread.set_reclaiming(on)).or(Some(true))
    }

    fn is_reclaiming(&self) -> Option<bool> {
        let in_interrupt = sched::may_sleep() == Err(Atomic::InInterrupt);
        let marked = sched::with_running(Thread::is_reclaiming).unwrap_or(false);
        Some(marked && !in_interrupt)
    }

    fn sleep_in_atomic(&self, report: &SleepInAtomic) {
        log::error!("{report}");
    }

    #[inline]
    fn irq_save(&self) -> IrqState {
        IrqState::new(u64::from(irq::save().were_enabled()))
    }

    #[inline]
    fn irq_restore(&self, state: IrqState) {
        if state.flags() != 0 {
            x86_64::instructions::interrupts::enable();
        }
    }

    /// Reported, and the machine goes on unless it runs with the `debug` profile.
    fn corruption(&self, report: &Corruption) {
        let is_on_purpose = object_damage::is_on_purpose(report) || kfence::is_on_purpose(report);
        if PROFILE.is_debug() && !is_on_purpose {
            panic::fatal(
                arch::exit::Status::Panic,
                // With frame numbers, which others need not know.
                format_args!("memory corruption: {report:#}"),
            );
        }
        if is_on_purpose {
            log::error!("memory corruption: {report}");
            return;
        }
        let Some(left_out) = self.reports.allows(time::now_ns()) else {
            return;
        };
        if left_out > 0 {
            log::error!("memory corruption: {left_out} reports were left out");
        }
        log::error!("memory corruption: {report}");
        panic::print_finder();
    }

    /// Reported, at most once in ten seconds.
    fn allocation_failed(&self, failure: &AllocFailure<'_>) {
        self.warn_now_and_then(failure);
    }

    fn failure_forced(&self, failure: &ForcedFailure) {
        self.warn_now_and_then(failure);
    }

    fn object_failure_forced(&self, failure: &ForcedObjectFailure) {
        self.warn_now_and_then(failure);
    }

    /// Other CPUs are not interrupted: whoever frees an object may hold any lock (so it is in Linux).
    fn protect_page(&self, page: PhysAddr, access: PageAccess) -> Result<(), ProtectPageError> {
        let offset = self
            .physical_offset()
            .ok_or(ProtectPageError::Unsupported)?;
        let is_present = access == PageAccess::ReadWrite;
        if let Some(space) = super::MEMORY.kernel_space() {
            let done = address_space::protect(&space.tables, page, is_present);
            return done.map_err(|_| ProtectPageError::OutOfTables);
        }
        // SAFETY: (1) what asks is the library, for pages that nobody but their wrong users touches; (2) it has one
        // pool of 2 MiB, which it makes when memory comes up.
        let done = unsafe { arch::set_page_present(offset, page, is_present) };
        done.map_err(|_| ProtectPageError::OutOfTables)
    }

    /// As long as the boot loader's tables are in use, free pages stay where they are.
    fn protect_free_pages(&self, frames: PfnRange, access: PageAccess) {
        // SAFETY: (1) free pages are nobody's: who touches one is told what it is (`pagealloc`); (2) the library changes the
        // map of pages that have an owner only, and these have none, or none yet.
        let done = unsafe { super::MEMORY.set_direct_map(frames, access) };
        debug_assert!(matches!(done, Ok(()) | Err(ProtectError::NoKernelSpace)));
    }

    fn tlb_features(&self) -> TlbFeatures {
        arch::tlb::features()
    }

    /// The thread, and its backtrace.
    fn who_calls(&self, callers: &mut [VirtAddr]) -> u64 {
        let _irq = irq::IrqGuard::new();
        let frames = backtrace::Frames {
            cpu: local::current(),
            rbp: registers::frame_pointer(),
        };
        for (place, address) in callers.iter_mut().zip(frames) {
            *place = VirtAddr::new(address);
        }
        sched::with_running(|thread| thread.id()).map_or(0, u64::from)
    }

    const FLUSHES_TLB: bool = true;

    fn flush_tlb_here(&self, what: TlbFlush) {
        arch::tlb::flush(what);
    }

    fn kick_tlb(&self, cpu: CpuId) -> bool {
        arch::tlb::kick(cpu)
    }

    /// The CPU may be waiting for a call, with interrupts off.
    fn wait_tlb(&self, cpu: CpuId, rounds: u32) {
        smp::call::serve();
        core::hint::spin_loop();
        if rounds == TLB_PATIENCE {
            log::warn!("tlb: CPU {} has not flushed for long", cpu.0);
        }
    }

    fn frame_table_base(&self) -> Option<VirtAddr> {
        Some(frame_table::BASE)
    }

    fn frame_table_readable(&self) -> u64 {
        frame_table::readable()
    }

    const FRAME_TABLE_PAGES: u64 = frame_table::TABLE_PAGES;

    fn map_frame_table(
        &self,
        at: VirtAddr,
        ram: PhysRange,
        tables: PhysRange,
    ) -> Result<(), MapFrameTableError> {
        frame_table::map(self, at, ram, tables)
    }
}
