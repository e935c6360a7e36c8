//! What happens between a stub and the return from an interrupt.
//!
//! `dispatch` counts the vector and offers the frame to the code that expects this exception
//! ([`super::expect`]), then to the handler registered for the vector ([`set_handler`]). What
//! nobody takes is a breakpoint (logged), an interrupt (counted), or the end of the kernel, with
//! a report.

use super::{apic, expect, local, pic, smp};
use crate::panic::fault_report;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use mm::addr::VirtAddr;

/// The state of the interrupted code, as the stubs push it. Writing a field changes what the
/// interrupted code sees after the return.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct TrapFrame {
    /// The interrupted frame pointer; with `chain_rip` it looks like a call frame to backtraces.
    pub rbp: u64,
    /// A copy of `rip` for backtraces; not restored.
    pub chain_rip: u64,
    /// General registers.
    pub r15: u64,
    /// General register.
    pub r14: u64,
    /// General register.
    pub r13: u64,
    /// General register.
    pub r12: u64,
    /// General register.
    pub r11: u64,
    /// General register.
    pub r10: u64,
    /// General register.
    pub r9: u64,
    /// General register.
    pub r8: u64,
    /// General register.
    pub rdi: u64,
    /// General register.
    pub rsi: u64,
    /// General register.
    pub rbx: u64,
    /// General register.
    pub rdx: u64,
    /// General register.
    pub rcx: u64,
    /// General register.
    pub rax: u64,
    /// Which of the 256 vectors.
    pub vector: u64,
    /// The CPU's error code, or zero.
    pub error_code: u64,
    /// Where the interrupted code goes on.
    pub rip: u64,
    /// Its code segment.
    pub cs: u64,
    /// Its flags.
    pub rflags: u64,
    /// Its stack pointer.
    pub rsp: u64,
    /// Its stack segment.
    pub ss: u64,
}

impl TrapFrame {
    /// General registers that hold no address: what was used as one when a general protection fault has no selector.
    pub fn wild_registers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Five levels of page tables translate 57 bits, four 48.
        let has_five = super::registers::control().cr4 & CR4_LA57 != 0;
        let levels = if has_five { 5 } else { 4 };
        let registers = [
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("r8", self.r8),
            ("r9", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
        ];
        let is_wild = move |value: u64| !VirtAddr::new(value).is_canonical(levels);
        registers
            .into_iter()
            .filter(move |(_, value)| is_wild(*value))
    }
}

/// CR4: five levels of page tables (SDM vol. 3A, 2.5).
const CR4_LA57: u64 = 1 << 12;

/// Exception vectors by name.
pub mod vector {
    /// Divide error, #DE.
    pub const DIVIDE: u8 = 0;
    /// Debug exception, #DB.
    pub const DEBUG: u8 = 1;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 2;
    /// Breakpoint, #BP.
    pub const BREAKPOINT: u8 = 3;
    /// Invalid opcode, #UD.
    pub const INVALID_OPCODE: u8 = 6;
    /// Double fault, #DF.
    pub const DOUBLE_FAULT: u8 = 8;
    /// General protection, #GP.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// Page fault, #PF.
    pub const PAGE_FAULT: u8 = 14;
    /// Machine check, #MC.
    pub const MACHINE_CHECK: u8 = 18;
    /// The first vector that is not an exception.
    pub const FIRST_INTERRUPT: u8 = 32;
}

/// Whether a handler dealt with its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Return to the interrupted code.
    Yes,
    /// Treat it as if there were no handler.
    No,
}

/// A handler for one vector, called with interrupts off on the vector's interrupt stack.
pub type Handler = fn(&mut TrapFrame) -> Handled;

/// Registered handlers as addresses; zero is none.
static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Registers the handler of `vector` on all CPUs, in place of the one before.
///
/// # Safety
///
/// 1. The handler runs between any two instructions of any other code: it takes no lock that
///    code with interrupts on holds, and for NMI, #DB and #MC no lock at all except by trying.
/// 2. What it writes to the frame is a state the interrupted code may be continued in.
#[expect(
    clippy::transmutes_expressible_as_ptr_casts,
    reason = "`as` casts are denied everywhere"
)]
pub unsafe fn set_handler(vector: u8, handler: Option<Handler>) {
    let address = handler.map_or(0, |handler| {
        // SAFETY: a function pointer is as wide as an address and all its bits are initialised.
        unsafe { core::mem::transmute::<Handler, *const ()>(handler) }.expose_provenance()
    });
    if let Some(slot) = HANDLERS.get(usize::from(vector)) {
        slot.store(address, Ordering::Release);
    }
}

fn handler(vector: u8) -> Option<Handler> {
    let address = HANDLERS.get(usize::from(vector))?.load(Ordering::Acquire);
    if address == 0 {
        return None;
    }
    let code = core::ptr::with_exposed_provenance::<()>(address);
    // SAFETY: `set_handler` stored the address of a function of this type.
    Some(unsafe { core::mem::transmute::<*const (), Handler>(code) })
}

/// Decides what an interrupt or exception means. The stubs call it with all registers saved.
pub(super) extern "sysv64" fn dispatch(frame: &mut TrapFrame) {
    let vector = crate::num::low_byte(frame.vector);
    let cpu = local::current();
    local::Interrupts::inc(vector);

    if vector == vector::NMI && smp::stop::is_wanted(cpu) {
        smp::stop::stop_here();
    }
    // An idle CPU that has to do something is not idle. What cannot be masked must not wait, and
    // does without what the CPU has of its own.
    if matches!(vector, vector::NMI | vector::MACHINE_CHECK) {
        return dispatch_unmaskable(frame, vector, cpu);
    }
    cpu.sched.idle_time.end();
    cpu.presence.leave();
    cpu.enter_interrupt();
    handle(frame, vector, cpu);
    if vector >= vector::FIRST_INTERRUPT {
        // Still in the handler: what is done here is not the interrupted thread's.
        crate::memory::quiescent();
    }
    cpu.leave_interrupt();
    if vector >= vector::FIRST_INTERRUPT && cpu.is_switch_due() {
        crate::sched::switch::preempt(frame, cpu);
    }
}

/// The CPU stays idle; but for what it remembers of page tables, which the handler goes by.
fn dispatch_unmaskable(frame: &mut TrapFrame, vector: u8, cpu: &local::CpuLocal) {
    let lazy = crate::memory::tlb::nmi_begins();
    cpu.enter_interrupt();
    handle(frame, vector, cpu);
    cpu.leave_interrupt();
    crate::memory::tlb::nmi_ends(lazy);
}

fn handle(frame: &mut TrapFrame, vector: u8, cpu: &local::CpuLocal) {
    if cpu.expectation.take(frame) {
        return;
    }
    if let Some(handler) = handler(vector)
        && handler(frame) == Handled::Yes
    {
        return;
    }

    match vector {
        vector::BREAKPOINT => log::info!("breakpoint at {:#018x}", frame.rip),
        0..vector::FIRST_INTERRUPT => fault_report(frame, cpu),
        // Spurious, or a stray: counted above, shown in /proc/interrupts.
        _ => {}
    }
}

/// Interrupts that no handler was registered for, on one CPU: (spurious ones of the PICs and of
/// the APIC, all others).
#[must_use]
pub fn stray_interrupts(cpu: &local::CpuLocal) -> (u64, u64) {
    let spurious = pic::SPURIOUS
        .into_iter()
        .chain([apic::vector::SPURIOUS])
        .map(|vector| cpu.count(vector))
        .fold(0, u64::saturating_add);
    let others = (vector::FIRST_INTERRUPT..=u8::MAX)
        .filter(|vector| !pic::SPURIOUS.contains(vector) && handler(*vector).is_none())
        .map(|vector| cpu.count(vector))
        .fold(0, u64::saturating_add);
    (spurious, others)
}

pub use expect::{ExpectError, Fault, expect_fault};

/// An exception's short and long name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorName(pub u8);

impl fmt::Display for VectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "#DE divide error",
            1 => "#DB debug exception",
            2 => "NMI non-maskable interrupt",
            3 => "#BP breakpoint",
            4 => "#OF overflow",
            5 => "#BR bound range exceeded",
            6 => "#UD invalid opcode",
            7 => "#NM device not available",
            8 => "#DF double fault",
            10 => "#TS invalid TSS",
            11 => "#NP segment not present",
            12 => "#SS stack-segment fault",
            13 => "#GP general protection fault",
            14 => "#PF page fault",
            16 => "#MF x87 floating-point exception",
            17 => "#AC alignment check",
            18 => "#MC machine check",
            19 => "#XM SIMD floating-point exception",
            20 => "#VE virtualization exception",
            21 => "#CP control protection exception",
            28 => "#HV hypervisor injection exception",
            29 => "#VC VMM communication exception",
            30 => "#SX security exception",
            9 | 15 | 22..=27 | 31 => "reserved exception",
            32.. => "interrupt",
        })
    }
}
