//! What the library asks of the machine it runs on.
//!
//! Three real implementations exist: the reference kernel's, the simulator's, and that of `boot/memory`
//! for kernels of one CPU. Everything else in the library is written against this trait only.
//!
//! Six functions of [`Platform`] are required; each of the others says what its default is, and a table
//! in `docs/porting.md` what one loses with it.

mod tlb;

pub use tlb::{TlbFeatures, TlbFlush, TlbStep};

use core::fmt;
use core::ptr::NonNull;

use crate::addr::{PfnRange, PhysAddr, PhysRange, VirtAddr};
use crate::numa::Policy;
use crate::report::{
    AllocFailure, Corruption, Event, ForcedFailure, ForcedObjectFailure, GraceStall, SleepInAtomic,
};

/// A logical CPU number, dense from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuId(pub u32);

/// A memory node number, dense from 0 (Linux: `nid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much checking is compiled in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Profile {
    /// Types and constant-time state checks only.
    Plain,
    /// The default: what a kernel should ship with. Pages and objects are zeroed when handed out.
    Hardened,
    /// Everything: free memory is poisoned and checked, blocks leave it by compare-exchange,
    /// lock order is tracked.
    Debug,
}

impl Profile {
    /// Whether this profile pays for hardening.
    #[must_use]
    pub const fn is_hardened(self) -> bool {
        matches!(self, Self::Hardened | Self::Debug)
    }

    /// Whether this profile pays for every check there is.
    #[must_use]
    pub const fn is_debug(self) -> bool {
        matches!(self, Self::Debug)
    }

    /// The name that the command line and the boot log use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Hardened => "hardened",
            Self::Debug => "debug",
        }
    }
}

/// How `pfn → frame record` is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryModel {
    /// A table of 128 MiB sections, each pointing at its records in the direct map. Needs no
    /// page tables of its own. The default.
    Sparse,
    /// One contiguous virtual array, records reached by one shift; its pages are mapped through
    /// [`Platform::map_frame_table`] where memory exists.
    Vmemmap,
    /// One array in the direct map from frame 0 to the last one: for a single small range.
    Flat,
}

/// What [`Platform::irq_save`] found, to be given back to [`Platform::irq_restore`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "interrupts stay off until the state is restored"]
pub struct IrqState(u64);

impl IrqState {
    /// Wraps what the platform wants to remember (on x86_64: RFLAGS).
    pub const fn new(flags: u64) -> Self {
        Self(flags)
    }

    /// What was remembered.
    #[must_use]
    pub const fn flags(self) -> u64 {
        self.0
    }
}

/// A kind of lock with its place in the order; see `sync::rank` for the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockClass {
    /// For reports.
    pub name: &'static str,
    /// A lock may be taken only while every held one has a smaller rank.
    pub rank: u8,
}

/// Why [`Platform::map_frame_table`] could not map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapFrameTableError {
    /// This platform maps nothing: choose another [`MemoryModel`].
    Unsupported,
    /// No memory for page tables.
    OutOfTables,
    /// Something else is mapped there already.
    Occupied(VirtAddr),
}

/// Whether a page of the direct map can be touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageAccess {
    /// Whoever does has a page fault.
    None,
    /// It can, as all RAM.
    ReadWrite,
}

/// Why [`Platform::protect_page`] could not do that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectPageError {
    /// This platform cannot change how single pages are mapped.
    Unsupported,
    /// No memory for page tables.
    OutOfTables,
}

impl fmt::Display for ProtectPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "single pages cannot be put out of reach here",
            Self::OutOfTables => "no page table left to put a page out of reach with",
        })
    }
}

impl core::error::Error for ProtectPageError {}

/// The machine under the library.
///
/// # Safety
///
/// Every safe call of the library rests on the implementor's word that
///
/// 1. [`direct_map`](Self::direct_map) answers `Some(p)` only if all bytes of the range are
///    mapped RAM, readable and writable at `p` for as long as the platform lives, but for pages
///    that [`protect_page`](Self::protect_page) or [`protect_free_pages`](Self::protect_free_pages) put out of reach,
///    and nothing
///    outside the library uses those bytes while the library owns them; the same range always
///    gives the same pointer;
/// 2. [`virt_to_phys`](Self::virt_to_phys) is its inverse, and so is the distance to
///    [`direct_map_base`](Self::direct_map_base) where that answers, for all RAM;
/// 3. between [`irq_save`](Self::irq_save) and the matching [`irq_restore`](Self::irq_restore) no
///    interrupt handler of this CPU runs (NMI and machine check excepted) and the task does not
///    move to another CPU;
/// 4. [`current_cpu`](Self::current_cpu) is stable while interrupts are off and differs
///    between CPUs that run at the same time;
/// 5. [`map_frame_table`](Self::map_frame_table), where supported, makes the virtual range an
///    exclusive alias of the physical one before it answers `Ok`, and leaves it so;
/// 6. [`frame_table_base`](Self::frame_table_base) always gives the same answer; where it gives
///    one, it is page-aligned and starts a virtual range that holds a 32-byte record for each
///    frame up to the CPU's physical width and that nobody else maps; as much of it as
///    [`frame_table_readable`](Self::frame_table_readable) says can always be read, as zeros where nothing is mapped;
/// 7. [`is_zeroed`](Self::is_zeroed) answers `true` only if all bytes of the range are zero;
/// 8. between [`pin`](Self::pin) and the matching [`unpin`](Self::unpin) the task does not move to
///    another CPU and no other task runs on its own: only interrupt, NMI and exception handlers do,
///    which come to their end before the task goes on;
/// 9. [`cpus`](Self::cpus) always gives the same answer, and `current_cpu` one below it;
/// 10. [`anchor`](Self::anchor) and [`request_anchor`](Self::request_anchor) answer nothing,
///     [`no_anchor`](crate::system::no_anchor), or what [`Memory::anchor`](crate::system::Memory::anchor) of
///     the memory that this platform is part of said for the CPU that runs the caller;
/// 11. when [`flush_tlb_here`](Self::flush_tlb_here) returns, the CPU uses no translation any more that it had of
///     those addresses, global or not, in no address space, and remembers nothing of the page tables above them; but where
///     [`tlb_features`](Self::tlb_features) says that there are PCIDs, what it remembers of tables of other address
///     spaces goes with [`TlbFlush::All`] only. The library's word for other CPUs
///     ([`flush_tlb`](crate::system::Memory::flush_tlb)) rests on it;
/// 12. every CPU but the one that brings memory up begins *lazy*: nobody waits for it when something is unmapped. Once it is
///     started it calls [`tlb_lazy_leave`](crate::system::Memory::tlb_lazy_leave), before it uses an address
///     that somebody may unmap or map elsewhere: an area of `vmalloc`, a stack in one, a copy in the region for them. And where
///     [`kick_tlb`](Self::kick_tlb) answers yes, that CPU calls
///     [`tlb_catch_up`](crate::system::Memory::tlb_catch_up) soon.
pub unsafe trait Platform: Sync + 'static {
    /// How much checking to compile in.
    const PROFILE: Profile = Profile::Hardened;
    /// How frame records are found.
    const MODEL: MemoryModel = MemoryModel::Sparse;

    /// Whether `ram`, which the library owns and has not written to, is known to hold zeroes: as
    /// a hypervisor's fresh memory does. Its frame records are not cleared again then, so that
    /// the host need not back the records of frames that stay parts of large blocks. Without an
    /// answer they are.
    ///
    /// Context: boot.
    fn is_zeroed(&self, ram: PhysRange) -> bool {
        let _ = ram;
        false
    }

    /// Where the library reaches the bytes of `range`, or `None` if it cannot. Where RAM is mapped
    /// at one offset, a [`DirectMap`](crate::addr::DirectMap) answers this and
    /// [`virt_to_phys`](Self::virt_to_phys).
    ///
    /// Context: any.
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>>;

    /// The physical address behind a direct-map address, or `None` for other addresses.
    ///
    /// Context: any.
    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr>;

    /// Where physical address 0 is, or would be, if all RAM is mapped at one offset: this is what
    /// [`direct_map`](Self::direct_map) adds to an address of RAM, and [`virt_to_phys`](Self::virt_to_phys) takes away.
    /// Objects that come back, and page tables, are found by it in fewer instructions; addresses that are none are told by
    /// frame records then. Default: those two are asked.
    ///
    /// Context: any.
    #[inline]
    fn direct_map_base(&self) -> Option<VirtAddr> {
        None
    }

    /// The CPU that runs the caller. Context: interrupts off, or otherwise pinned.
    fn current_cpu(&self) -> CpuId;

    /// Whether CPUs keep anchors. Default: no; what is a CPU's own is found by its number then, which
    /// takes a few instructions more.
    const HAS_ANCHORS: bool = false;

    /// What [`Memory::anchor`](crate::system::Memory::anchor) said for the CPU that runs the caller, if
    /// that was asked: in a kernel one word of what each CPU has of its own. Where it answers nothing, or
    /// does so for some time, requests and blocks go the longer way. A kernel that keeps
    /// [`no_anchor`](crate::system::no_anchor) until it has something better need not look whether it has. Context:
    /// pinned.
    #[inline]
    fn anchor(&self) -> Option<NonNull<()>> {
        None
    }

    /// As [`anchor`](Self::anchor), but nothing where [`has_policy`](Self::has_policy) says yes: a kernel
    /// that keeps a second word, changed with the running task, has one question answered by the other.
    /// Default: asks both. Context: pinned, any but NMI.
    #[inline]
    fn request_anchor(&self) -> Option<NonNull<()>> {
        self.anchor().filter(|_| !self.has_policy())
    }

    /// Masks interrupts on this CPU and says how it was before. Context: any.
    fn irq_save(&self) -> IrqState;

    /// Puts back what [`irq_save`](Self::irq_save) found. Context: the CPU that saved.
    fn irq_restore(&self, state: IrqState);

    /// Keeps the task on its CPU and others off it until [`unpin`](Self::unpin); nests. Default:
    /// nothing, for platforms without preemption. Context: any.
    #[inline]
    fn pin(&self) {}

    /// Ends what [`pin`](Self::pin) began. Context: the task that pinned itself.
    #[inline]
    fn unpin(&self) {}

    /// How many CPUs there can ever be. Default: 1. Context: any.
    fn cpus(&self) -> u32 {
        1
    }

    /// Which node a CPU belongs to: its requests ask that one first. A node that there is no memory on
    /// has a nearest one that has. A node that does not exist counts as node 0
    /// ([`Summary::misplaced_cpus`](crate::system::Summary::misplaced_cpus)). Default: node 0. Context: boot.
    fn node_of(&self, cpu: CpuId) -> NodeId {
        let _ = cpu;
        NodeId(0)
    }

    /// Whether the running task may have a memory policy of its own (Linux: `current->mempolicy`).
    /// Asked by every request that names no node, unless there are [anchors](Self::request_anchor): to be as
    /// cheap as reading a flag. Default: no. Context: any but NMI.
    #[inline]
    fn has_policy(&self) -> bool {
        false
    }

    /// Shows the running task's policy to `apply`, which does not allocate, and may change whose turn
    /// is next. Default: there is none. Where there is none after all, as in the handler of an
    /// interrupt, `apply` is not called. Context: any but NMI.
    fn with_policy(&self, apply: &mut dyn FnMut(&mut Policy)) {
        let _ = apply;
    }

    /// Has a CPU call [`Memory::drain_wanted`](crate::system::Memory::drain_wanted) soon, in an
    /// interrupt for instance; answers whether it will. Default: no; what other CPUs hold in their
    /// lists is then out of reach until they allocate or free the next time. Context: any, with
    /// interrupts on, without locks held.
    fn kick(&self, cpu: CpuId) -> bool {
        let _ = cpu;
        false
    }

    /// Waits a moment for another CPU, about a microsecond; answers whether it makes sense to go on
    /// waiting after `rounds` such moments. Default: one `pause` each, which is less than that on most
    /// CPUs, and up to 10,000 of them; a platform with a clock does better. Context: task, with interrupts
    /// on, without locks held.
    fn relax(&self, rounds: u32) -> bool {
        core::hint::spin_loop();
        rounds < 10_000
    }

    /// A number that an attacker cannot guess: free objects are encoded with what follows from it, and lie in an
    /// order that does. Asked once, when memory comes up. Default: 0, with which both can be predicted (and replayed).
    /// Context: boot.
    fn random_seed(&self) -> u64 {
        0
    }

    /// Whether the caller may sleep: it runs in a task, with interrupts on, and is not pinned. Who may, waits for locks of
    /// page tables, which a task holds with interrupts on: a platform whose interrupt handlers free areas of addresses says
    /// no there, or such a handler waits for the task that it interrupted. Default: yes, for platforms whose handlers do
    /// not. Context: any.
    fn may_sleep(&self) -> bool {
        true
    }

    /// Lets other tasks run, if any are ready (Linux: `cond_resched`). Called between rounds of
    /// reclaim. Default: nothing, for platforms without tasks. Context: task that may sleep.
    fn reschedule(&self) {}

    /// Wakes the thread that calls [`Memory::balance_node`](crate::system::Memory::balance_node)
    /// for a node (Linux: `wakeup_kswapd`); answers whether there is one. Default: no; the work is
    /// then done by the request that needs it, if that may wait. Context: that of the request,
    /// without locks of the library held; must not allocate pages.
    fn wake_kswapd(&self, node: NodeId) -> bool {
        let _ = node;
        false
    }

    /// Wakes the thread that calls
    /// [`Memory::populate_ahead`](crate::system::Memory::populate_ahead) for a node (Linux:
    /// `pgdatinit`, which runs once); answers whether there is one. Default: no; requests populate
    /// memory for themselves then. Context: that of the request, without locks of the library held;
    /// must not allocate pages.
    fn wake_populate(&self, node: NodeId) -> bool {
        let _ = node;
        false
    }

    /// Marks the running task as one that reclaims memory, or takes the mark off; answers whether
    /// it was marked (Linux: `PF_MEMALLOC`). Default: `None`, there are no tasks; the library keeps
    /// one mark for all callers then, and they reclaim one at a time. Context: task.
    fn set_reclaiming(&self, on: bool) -> Option<bool> {
        let _ = on;
        None
    }

    /// Whether the caller is a task with that mark, and not in the handler of an interrupt that
    /// came meanwhile. Default: `None`, as [`set_reclaiming`](Self::set_reclaiming). Context: any
    /// but NMI.
    fn is_reclaiming(&self) -> Option<bool> {
        None
    }

    /// Has a CPU pass a quiescent state soon ([`GracePeriods::quiescent`]), by an interrupt for
    /// instance; does not wait for it. Default: nothing; grace periods take until the CPU does so
    /// by itself. Context: any but NMI, without locks of the library held.
    ///
    /// [`GracePeriods::quiescent`]: crate::system::GracePeriods::quiescent
    fn resched_cpu(&self, cpu: CpuId) {
        let _ = cpu;
    }

    /// Wakes the thread that calls [`GracePeriods::tend`] for as long as there is something to do;
    /// answers whether there is one. Default: no; somebody has to call it now and then.
    /// Context: any but NMI, without locks of the library held; must not allocate pages.
    ///
    /// [`GracePeriods::tend`]: crate::system::GracePeriods::tend
    fn wake_grace(&self) -> bool {
        false
    }

    /// Takes notice of a CPU that grace periods have waited for for long. Default: ignored.
    /// Context: that of [`GracePeriods::tend`], without locks of the library held.
    ///
    /// [`GracePeriods::tend`]: crate::system::GracePeriods::tend
    fn grace_stalled(&self, stall: &GraceStall) {
        let _ = stall;
    }

    /// Takes notice of a request that may sleep by its flags, found where its caller may not, by
    /// [`may_sleep`](Self::may_sleep). It is served without sleeping. Only requests that find
    /// memory short are looked at. Default: ignored. Context: that of the request, without locks
    /// held; must not allocate pages.
    fn sleep_in_atomic(&self, report: &SleepInAtomic) {
        let _ = report;
    }

    /// Takes notice of damage that a detector found where no error could be returned. The policy
    /// (log and go on, or panic) is the platform's; the library goes on with the damaged thing
    /// left out of circulation.
    ///
    /// Context: any, possibly with locks held: must not call back into the library.
    fn corruption(&self, report: &Corruption);

    /// Whether [`event`](Self::event) is told what happens. Default: no, and nothing is left of it in the code.
    const EVENTS: bool = false;

    /// Takes note of something that happened to a frame or an address: of everything that does, so it is to be quick. An
    /// [`EventRing`](crate::inspect::EventRing) for each CPU, which viewers find, is made for it. Default: ignored. Context:
    /// any, NMI included, possibly with locks held: must not call back into the library.
    #[inline(always)]
    fn event(&self, event: Event) {
        let _ = event;
    }

    /// Takes notice of a request for pages that found none and did not say
    /// [`NOWARN`](crate::buddy::Gfp::NOWARN). Default: ignored. A platform that prints it does
    /// well to limit how often.
    ///
    /// Context: that of the request, without locks held; must not allocate pages.
    fn allocation_failed(&self, failure: &AllocFailure<'_>) {
        let _ = failure;
    }

    /// Takes notice of a request that fails because that is asked for, and does not say `NOWARN`. Default:
    /// ignored. Context: as [`allocation_failed`](Self::allocation_failed).
    fn failure_forced(&self, failure: &ForcedFailure) {
        let _ = failure;
    }

    /// The same of a request for an object. Default: ignored. Context: that of the request, without locks
    /// held; must not allocate objects.
    fn object_failure_forced(&self, failure: &ForcedObjectFailure) {
        let _ = failure;
    }

    /// Where [`MemoryModel::Vmemmap`] keeps its array. Default: nowhere.
    fn frame_table_base(&self) -> Option<VirtAddr> {
        None
    }

    /// How many bytes of that array can be read at any time, before anything is mapped there: one page of zeros, to be read
    /// only, may stand in all places. A CPU may go on reading zeros for some time after records were mapped; nobody
    /// need make it forget. Records are found by one shift then, elsewhere by their section. Default: 0. Context: boot.
    fn frame_table_readable(&self) -> u64 {
        0
    }

    /// Pages that [`map_frame_table`](Self::map_frame_table) is given with the records of each section.
    const FRAME_TABLE_PAGES: u64 = 0;

    /// Maps the records of a section, which lie in `ram`, at `at`. The platform also gets `tables`,
    /// [`FRAME_TABLE_PAGES`](Self::FRAME_TABLE_PAGES) pages of RAM for page tables, which hold anything:
    /// they are its own from then on, whether it needs them or not. Default: unsupported. Context: that
    /// of an allocation that may wait; interrupts are masked and locks of the library held, so it must
    /// neither allocate pages nor sleep. One call at a time.
    ///
    /// # Errors
    /// See [`MapFrameTableError`].
    fn map_frame_table(
        &self,
        at: VirtAddr,
        ram: PhysRange,
        tables: PhysRange,
    ) -> Result<(), MapFrameTableError> {
        let _ = (at, ram, tables);
        Err(MapFrameTableError::Unsupported)
    }

    /// Has free pages be out of reach in the direct map, or pages that are free no more within reach again, for
    /// `debug_pagealloc=on` (Linux: `__kernel_map_pages`). Asked for pages that may be so already. It neither waits nor
    /// takes memory: where the direct map has 4 KiB pages,
    /// [`Memory::set_direct_map`](crate::system::Memory::set_direct_map) does it. On CPUs other than this one it may come
    /// later that they are out of reach, but not that they are within. Default: nothing. Context: any.
    fn protect_free_pages(&self, frames: PfnRange, access: PageAccess) {
        let _ = (frames, access);
    }

    /// Has a page of RAM that the library owns be out of reach in the direct map, or within reach again (Linux:
    /// `kfence_protect_page`). It holds on this CPU when the answer comes; another CPU that touched the page
    /// before may do so for some time, and whoever waits for others here waits for ever: locks are held. The first
    /// call for a page of a 2 MiB range may need page tables, others of the range do not. Default: unsupported.
    /// Context: any but NMI, interrupts masked; also from [`kfence_page_fault`], which is called in any.
    ///
    /// # Errors
    /// [`ProtectPageError`]; nothing is changed then.
    ///
    /// [`kfence_page_fault`]: crate::system::Memory::kfence_page_fault
    fn protect_page(&self, page: PhysAddr, access: PageAccess) -> Result<(), ProtectPageError> {
        let _ = (page, access);
        Err(ProtectPageError::Unsupported)
    }

    /// What CPUs have, and use, for forgetting translations; the same on all, but for moments in which a flush is under
    /// way. Default: no PCIDs. Context: any.
    fn tlb_features(&self) -> TlbFeatures {
        TlbFeatures::default()
    }

    /// Whether [`flush_tlb_here`](Self::flush_tlb_here) has the CPU forget. Without that the library takes over no
    /// address space ([`KernelSpaceError::NoFlush`](crate::system::KernelSpaceError::NoFlush)), and there are no areas.
    /// Default: no.
    const FLUSHES_TLB: bool = false;

    /// Has this CPU forget translations: [`TlbFeatures::steps`] says how. Default: nothing, for a platform whose mappings
    /// nobody changes; who writes it sets [`FLUSHES_TLB`](Self::FLUSHES_TLB). Context: any, pinned; must not wait.
    fn flush_tlb_here(&self, what: TlbFlush) {
        let _ = what;
    }

    /// Has another CPU call [`Memory::tlb_catch_up`](crate::system::Memory::tlb_catch_up) soon, in an interrupt for
    /// instance; answers whether it will. Default: no; with more than one CPU, all but one are to be lazy then
    /// where translations are flushed, or serve that by themselves. Context: any but NMI, without locks of the
    /// library held; must not wait for the CPU.
    fn kick_tlb(&self, cpu: CpuId) -> bool {
        let _ = cpu;
        false
    }

    /// Waits a moment for a CPU that is to flush, after `rounds` such moments. What CPUs want of each other with
    /// interrupts off, a platform serves here. Default: one `pause`. Context: as [`kick_tlb`](Self::kick_tlb).
    fn wait_tlb(&self, cpu: CpuId, rounds: u32) {
        let _ = (cpu, rounds);
        core::hint::spin_loop();
    }

    /// Tells who is running, for reports that say who gave a page back (`page_owner=on`): fills `callers` with return addresses,
    /// the latest call first, and leaves those behind them as they are, 0. Answers the number of the task, from 1 on, or 0. Default:
    /// nobody is known. Context: any; must not allocate or wait.
    fn who_calls(&self, callers: &mut [VirtAddr]) -> u64 {
        let _ = callers;
        0
    }

    /// Pages go back to the allocator (`debug` profile only, where free pages are poisoned; Linux: `arch_free_page`): for
    /// tests that look whether somebody has a way to them. Default: not tracked. Context: any but NMI.
    fn pages_freed(&self, frames: PfnRange) {
        let _ = frames;
    }

    /// Frames of a CPU's copies were mapped in the [region for them](crate::config::Layout::percpu), where nothing of the
    /// library's was before: for a simulator, whose host does not walk the library's page tables. Default: nothing. Context:
    /// task.
    fn percpu_mapped(&self, at: VirtAddr, frames: PfnRange) {
        let _ = (at, frames);
    }

    /// A lock was taken (`debug` profile only). Default: not tracked.
    fn lock_acquired(&self, class: LockClass) {
        let _ = class;
    }

    /// A lock was taken by trying (`debug` profile only): whoever tries does not wait, so the order does
    /// not matter. Default: as [`lock_acquired`](Self::lock_acquired).
    fn lock_tried(&self, class: LockClass) {
        self.lock_acquired(class);
    }

    /// A lock was let go (`debug` profile only). Default: not tracked.
    fn lock_released(&self, class: LockClass) {
        let _ = class;
    }
}
