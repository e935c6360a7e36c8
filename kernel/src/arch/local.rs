//! What each CPU has of its own, found through the GS base.
//!
//! One [`CpuLocal`] exists per CPU. The boot CPU's is a static; another CPU's lies in a page of its
//! own ([`super::smp`]), is complete before the CPU starts, and is adopted there first of all.

use super::anchor;
use super::expect::Expectation;
use super::gdt::{Ist, Segments};
use super::percpu::{self, Variable as _};
use super::presence::Presence;
use super::recorder;
use super::smp::call::Inbox;
use super::stack::{GuardedStack, StackExtent};
use crate::num::to_u64;
use crate::sched;
use crate::sched::thread::Thread;
use core::arch::asm;
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

/// In [`CpuLocal::pins`]: the running thread may stay. It is the other way round so that "no pin, and
/// a switch is due" is zero, which the instruction that lets a pin go finds out by itself (Linux:
/// `PREEMPT_NEED_RESCHED`).
pub(super) const NOT_DUE: u32 = 1 << 31;

/// Bytes of the boot CPU's main stack: without optimisation the page lists of a CPU, which are large,
/// are moved from frame to frame when memory comes up.
const MAIN_STACK_BYTES: usize = 320 * 1024;
/// Bytes of each interrupt stack: a report in an unoptimised kernel needs about half.
pub(super) const IST_STACK_BYTES: usize = 32 * 1024;

/// The linker script leaves room for its variables behind it.
#[unsafe(link_section = ".percpu_boot")]
static BOOT_CPU: CpuLocal = CpuLocal::new(0);

crate::percpu! {
    /// Interrupts and exceptions taken, by vector.
    pub(super) counters Interrupts[256];
}

static BOOT_MAIN_STACK: GuardedStack<MAIN_STACK_BYTES> = GuardedStack::new();
/// The boot CPU came up on the shell's stack, so its idle thread needs another.
static BOOT_IDLE_STACK: GuardedStack<IST_STACK_BYTES> = GuardedStack::new();
static BOOT_INTERRUPT_STACKS: [GuardedStack<IST_STACK_BYTES>; 7] =
    [const { GuardedStack::new() }; 7];

/// The stacks of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stacks {
    /// What the CPU came up on.
    pub(super) main: StackExtent,
    /// What interrupts and exceptions are handled on, in the order of [`Ist::ALL`].
    pub(super) interrupt: [StackExtent; 7],
}

/// The state of one CPU. Behind it are its [variables](super::percpu).
#[derive(Debug)]
#[repr(align(64))]
pub struct CpuLocal {
    /// The address of this very struct, for [`current`]: `gs:` can be read through, but its base
    /// is only to be had from a slow model-specific register.
    this: AtomicU64,
    id: u32,
    /// Pins held here ([`super::pin`]), plus [`NOT_DUE`] unless another thread is to run here as soon
    /// as that may be. Zero means that it is time for it.
    pub(super) pins: AtomicU32,
    /// The running thread has a memory policy.
    pub(super) has_policy: AtomicBool,
    /// What the memory core finds what it has for this CPU by, once there is any ([`super::anchor`]), …
    pub(super) anchor: AtomicPtr<()>,
    /// … and the same for requests: none while the running thread has a memory policy.
    pub(super) request_anchor: AtomicPtr<()>,
    /// Where it records events, if it does.
    pub(super) recorder: recorder::Word,
    /// The running thread ([`super::running`]).
    pub(super) thread: AtomicPtr<Thread>,
    /// Handlers of interrupts and exceptions that are at work here.
    interrupts: AtomicU32,
    /// Whether others may act for this CPU.
    pub presence: Presence,
    /// The scheduler's.
    pub(crate) sched: sched::queue::CpuQueue,
    /// The number that interrupts to this CPU are addressed with.
    apic_id: AtomicU32,
    /// Takes part: its tables are loaded and it answers calls.
    online: AtomicBool,
    /// Segments and task state.
    pub(super) segments: Segments,
    /// The exception that the running code wants to happen.
    pub(super) expectation: Expectation,
    /// Calls to be served by the next interrupt, …
    pub(super) calls: Inbox,
    /// … and work to be done outside of interrupts.
    pub(super) work: Inbox,
    /// Fatal reports begun: a fault inside a report must not start another full one.
    reports: AtomicU32,
    /// How far what this CPU has of an object is from what CPU 0 has of it ([`super::percpu::add`]).
    pub(super) percpu_offset: AtomicU64,
    stacks: Once<Stacks>,
}

impl CpuLocal {
    /// The state of the CPU with number `id`, before it is used.
    #[must_use]
    pub(super) const fn new(id: u32) -> Self {
        Self {
            this: AtomicU64::new(0),
            id,
            pins: AtomicU32::new(NOT_DUE),
            has_policy: AtomicBool::new(false),
            anchor: AtomicPtr::new(anchor::NO_ANCHOR),
            request_anchor: AtomicPtr::new(anchor::NO_ANCHOR),
            recorder: recorder::Word::new(),
            thread: AtomicPtr::new(null_mut()),
            interrupts: AtomicU32::new(0),
            presence: Presence::new(id),
            sched: sched::queue::CpuQueue::new(),
            apic_id: AtomicU32::new(0),
            online: AtomicBool::new(false),
            segments: Segments::new(),
            expectation: Expectation::new(),
            calls: Inbox::new(),
            work: Inbox::new(),
            reports: AtomicU32::new(0),
            percpu_offset: AtomicU64::new(0),
            stacks: Once::new(),
        }
    }

    /// The kernel's number of this CPU: 0 is the boot CPU, others follow without gaps.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The number that interrupts to this CPU are addressed with.
    #[must_use]
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    pub(super) fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
    }

    /// Whether it takes part.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    pub(super) fn set_online(&self) {
        self.online.store(true, Ordering::Release);
    }

    pub(super) fn set_stacks(&self, stacks: Stacks) {
        self.stacks.call_once(|| stacks);
    }

    /// Whether somebody has left work for this CPU.
    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// The stack that this CPU came up on: the shell's on the boot CPU, the idle thread's elsewhere.
    #[must_use]
    pub fn main_stack(&self) -> StackExtent {
        self.stacks
            .get()
            .map_or(StackExtent::NONE, |stacks| stacks.main)
    }

    /// The stacks of this CPU that last, with a name for reports. The running thread may have
    /// another (`sched::running_stack`).
    pub fn stacks(&self) -> impl Iterator<Item = (&'static str, StackExtent)> + '_ {
        let stacks = self.stacks.get();
        let interrupt = stacks.map(|stacks| Ist::ALL.into_iter().zip(stacks.interrupt));
        let named = interrupt.into_iter().flatten().map(|(ist, stack)| {
            let name = match ist {
                Ist::Nmi => "NMI",
                Ist::DoubleFault => "double fault",
                Ist::MachineCheck => "machine check",
                Ist::PageFault => "page fault",
                Ist::Debug => "debug",
                Ist::Interrupt => "interrupt",
                Ist::Exception => "exception",
            };
            (name, stack)
        });
        stacks
            .map(|stacks| ("main", stacks.main))
            .into_iter()
            .chain(named)
    }

    /// How often `vector` was taken.
    #[must_use]
    pub fn count(&self, vector: u8) -> u64 {
        Interrupts::of(self)
            .get(usize::from(vector))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Asks for another thread to run here, as soon as that may be. For the CPU itself.
    pub(crate) fn ask_for_switch(&self) {
        self.pins.fetch_and(!NOT_DUE, Ordering::Relaxed);
    }

    /// Whether somebody asked, since the last switch.
    pub(crate) fn is_switch_due(&self) -> bool {
        self.pins.load(Ordering::Relaxed) & NOT_DUE == 0
    }

    pub(crate) fn note_switch(&self) {
        self.pins.fetch_or(NOT_DUE, Ordering::Relaxed);
    }

    /// Pins held here.
    pub(crate) fn pin_count(&self) -> u32 {
        self.pins.load(Ordering::Relaxed) & !NOT_DUE
    }

    /// Puts the pins back to an earlier count: for code whose end was cut off.
    pub(crate) fn reset_pins(&self, count: u32) {
        // Only this CPU changes the word, and what interrupts this code leaves the count as it was.
        let others = self.pin_count().wrapping_sub(count);
        self.pins.fetch_sub(others, Ordering::Relaxed);
    }

    pub(super) fn enter_interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave_interrupt(&self) {
        self.interrupts.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a handler of an interrupt or exception is at work here.
    #[must_use]
    pub fn is_in_interrupt(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 0
    }

    /// Counts a fatal report and returns how many began before it.
    pub(crate) fn begin_report(&self) -> u32 {
        self.reports.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes the current CPU this one: GS base, segments, interrupt stacks.
    ///
    /// The stacks must be set.
    pub(super) fn adopt(&'static self) {
        anchor::expose_none();
        let address = core::ptr::from_ref(self).expose_provenance();
        self.this.store(to_u64(address), Ordering::Relaxed);
        GsBase::write(VirtAddr::from_ptr(self));
        if let Some(stacks) = self.stacks.get() {
            self.segments.load(&stacks.interrupt);
        }
    }
}

/// Gives the boot CPU its stacks and makes this CPU it.
pub(super) fn adopt_boot_cpu() {
    // SAFETY: the linker script leaves room behind it; this comes before everything else.
    unsafe { percpu::init(&BOOT_CPU) };
    BOOT_CPU.set_stacks(Stacks {
        main: BOOT_MAIN_STACK.extent(),
        interrupt: BOOT_INTERRUPT_STACKS.each_ref().map(GuardedStack::extent),
    });
    BOOT_CPU.adopt();
}

/// The stack of the boot CPU's idle thread.
pub(crate) fn boot_idle_stack() -> StackExtent {
    BOOT_IDLE_STACK.extent()
}

/// The state of the boot CPU.
pub(crate) fn boot_cpu() -> &'static CpuLocal {
    &BOOT_CPU
}

/// The address in this CPU's state at an offset: one instruction, which no move to another CPU comes in the midst of.
///
/// # Context
/// Any; see [`current`].
#[inline(always)]
pub(super) fn address<const OFFSET: usize>() -> usize {
    const { assert!(OFFSET + size_of::<usize>() <= size_of::<CpuLocal>()) };
    let address: usize;
    // SAFETY: the GS base is this CPU's `CpuLocal` (see `current`), and the word is part of it.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) address, const OFFSET,
            options(nostack, preserves_flags, readonly));
    }
    address
}

/// The state of the CPU this runs on.
///
/// Every CPU adopts its state before it runs any other code of the kernel, so there always is
/// one: `kmain` begins with it.
///
/// # Context
/// Any. The answer stays true while interrupts are off, under a [`Pin`](super::pin::Pin), and in
/// a thread that is bound to its CPU; any other thread may be elsewhere when it gets it.
#[inline]
#[must_use]
pub fn current() -> &'static CpuLocal {
    let this = address::<{ offset_of!(CpuLocal, this) }>();
    let local = core::ptr::with_exposed_provenance::<CpuLocal>(this);
    // SAFETY: `adopt` stored the address of a `&'static CpuLocal`, and nobody else writes it.
    unsafe { &*local }
}

/// The number of the CPU this runs on: one instruction.
///
/// # Context
/// Any; see [`current`].
#[inline]
#[must_use]
pub fn current_id() -> u32 {
    let id: u32;
    // SAFETY: as in `current`; the number never changes.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) id, const offset_of!(CpuLocal, id),
            options(nostack, preserves_flags, readonly));
    }
    id
}
