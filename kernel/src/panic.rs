//! The end of the kernel: reports of panics and of exceptions nobody expected.
//!
//! A page fault's report ends with what lies at the address: whose stack, object, area or page it is, and who allocated and
//! freed it.
//!
//! A report must come out whatever broke. So it allocates nothing, takes the terminal's lock by
//! force, and watches itself: a fault inside a report prints one line and ends the machine, and a
//! fault inside that ends it without a word. All other CPUs are stopped before the first line;
//! of CPUs that fail at the same time, one reports.

use crate::arch::exit::{self, Status};
use crate::arch::local::{self, CpuLocal};
use crate::arch::trap::{TrapFrame, VectorName, vector};
use crate::arch::{irq, registers, smp};
use crate::console::Console;
use crate::memory::{MEMORY, fault_story};
use crate::{backtrace, console, kprintln, logger, sched};
use core::fmt;
use core::panic::PanicInfo;
use mm::proc;

/// Reports a panic and ends the kernel. The binary's panic handler is one call of this.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    let _irq = irq::IrqGuard::new();
    let cpu = local::current();
    if begin(cpu, Status::Panic) == Nesting::InReport {
        // Not the message: what failed may well be a message.
        kprintln!();
        match info.location() {
            Some(place) => kprintln!("(a panic inside this report, at {place}: giving up)"),
            None => kprintln!("(a panic inside this report: giving up)"),
        }
        exit::exit(Status::Panic)
    }

    kprintln!();
    kprintln!("PANIC on CPU {}: {}", cpu.id(), info.message());
    if let Some(location) = info.location() {
        kprintln!("  at {location}");
    }
    print_thread();
    logger::remember(format_args!("PANIC: {}\n", info.message()));
    print_control_registers();
    backtrace::print(cpu, None, registers::frame_pointer());
    if is_shortage(info) {
        kprintln!("where memory went:");
        let _ = proc::shortage(&MEMORY, &mut Console);
    }
    exit::exit(Status::Panic)
}

/// Whether it is what `alloc` says when an allocation failed that may not: there is no other sign of it on stable Rust.
fn is_shortage(info: &PanicInfo<'_>) -> bool {
    struct Starts(&'static str);
    impl fmt::Write for Starts {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let common = self.0.len().min(text.len());
            let (Some(wanted), Some(found)) = (self.0.get(..common), text.get(..common)) else {
                return Err(fmt::Error);
            };
            self.0 = self.0.get(common..).unwrap_or_default();
            if wanted == found {
                Ok(())
            } else {
                Err(fmt::Error)
            }
        }
    }
    let mut message = Starts("memory allocation of ");
    fmt::Write::write_fmt(&mut message, format_args!("{}", info.message())).is_ok()
        && message.0.is_empty()
}

/// Tells of damage that the machine goes on after, or not, who came upon it: a backtrace behind what was found.
pub(crate) fn print_finder() {
    let _irq = irq::IrqGuard::new();
    backtrace::print(local::current(), None, registers::frame_pointer());
}

/// Ends the kernel for a reason that is no bug of its own: wrong CPU, unusable boot data.
pub fn fatal(status: Status, message: fmt::Arguments<'_>) -> ! {
    let _irq = irq::IrqGuard::new();
    if begin(local::current(), status) == Nesting::First {
        kprintln!();
        kprintln!("FATAL: {message}");
        if status == Status::Panic {
            print_finder();
        }
    }
    exit::exit(status)
}

/// Reports an exception that nobody expected and ends the kernel.
pub(crate) fn fault_report(frame: &TrapFrame, cpu: &CpuLocal) -> ! {
    let vector = crate::num::low_byte(frame.vector);
    if begin(cpu, Status::Exception) == Nesting::InReport {
        kprintln!();
        kprintln!(
            "({} inside this report, at {:#018x}, cr2 {:#018x}: giving up)",
            VectorName(vector),
            frame.rip,
            registers::fault_address()
        );
        exit::exit(Status::Exception)
    }

    kprintln!();
    kprintln!(
        "UNEXPECTED EXCEPTION on CPU {}: {} (vector {vector}, error code {:#x})",
        cpu.id(),
        VectorName(vector),
        frame.error_code
    );
    print_thread();
    let address = registers::fault_address();
    explain(frame, vector, cpu);
    logger::remember(format_args!(
        "UNEXPECTED EXCEPTION: {} at {:#018x}\n",
        VectorName(vector),
        frame.rip
    ));
    print_registers(frame);
    print_control_registers();
    backtrace::print(cpu, Some(frame), frame.rbp);
    // Last: what it looks at may be what is broken.
    tell_story(frame, vector, address);
    exit::exit(Status::Exception)
}

/// Says what lies at the address that the exception is about.
fn tell_story(frame: &TrapFrame, vector: u8, fault_address: u64) {
    let tell = |what: fmt::Arguments<'_>, at: u64| {
        kprintln!("what {what} is, {at:#018x}:");
        let _ = fault_story::tell(at, &mut Console);
    };
    match vector {
        vector::PAGE_FAULT => tell(format_args!("the address"), fault_address),
        vector::DOUBLE_FAULT => tell(format_args!("the stack pointer"), frame.rsp),
        vector::GENERAL_PROTECTION if frame.error_code == 0 => {
            for (name, value) in frame.wild_registers() {
                tell(format_args!("{name}"), value);
            }
        }
        _ => {}
    }
}

/// Where a report stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nesting {
    /// It is the first of this CPU.
    First,
    /// The report before it failed.
    InReport,
}

/// Begins a report. A third one on the same CPU, after two failed, ends the machine at once.
fn begin(cpu: &CpuLocal, status: Status) -> Nesting {
    // First: another CPU that is in the middle of a report of its own stops here.
    smp::stop::stop_others();
    exit::decide(status);
    console::enter_last_words();
    match cpu.begin_report() {
        0 => Nesting::First,
        1 => Nesting::InReport,
        _ => exit::exit(status),
    }
}

fn print_thread() {
    sched::with_running(|thread| {
        kprintln!("  in thread {} `{}`", thread.id(), thread.name());
    });
}

/// Says in words what the error code and CR2 mean.
fn explain(frame: &TrapFrame, vector: u8, cpu: &CpuLocal) {
    match vector {
        vector::PAGE_FAULT => {
            let address = registers::fault_address();
            kprintln!("  {} at {address:#018x}", PageFaultWords(frame.error_code));
            explain_stack(address, cpu);
        }
        vector::DOUBLE_FAULT => {
            kprintln!("  an exception came while the CPU was entering the handler of another");
            explain_stack(frame.rsp, cpu);
        }
        10..=13 if frame.error_code != 0 => {
            kprintln!("  {}", SelectorWords(frame.error_code));
        }
        vector::GENERAL_PROTECTION => {
            kprintln!(
                "  no selector: a non-canonical address, a reserved bit, or a privileged act"
            );
        }
        _ => {}
    }
}

fn explain_stack(address: u64, cpu: &CpuLocal) {
    for (name, stack) in cpu.stacks() {
        if stack.guards(address) {
            kprintln!("  KERNEL STACK OVERFLOW: that is the guard page of the {name} stack");
            return;
        }
    }
    if sched::running_stack().guards(address) {
        let id = sched::with_running(|thread| thread.id()).unwrap_or_default();
        kprintln!("  KERNEL STACK OVERFLOW: that is the guard page of the thread's stack");
        sched::with_running(|thread| kprintln!("  thread {id}: {}", thread.name()));
    }
}

/// A page fault's error code in words (SDM vol. 3A, "Page-Fault Error Code").
pub(crate) struct PageFaultWords(pub(crate) u64);

impl fmt::Display for PageFaultWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = |n: u32| self.0 & (1_u64 << n) != 0;
        let act = if bit(4) {
            "instruction fetch"
        } else if bit(1) {
            "write"
        } else {
            "read"
        };
        let mode = if bit(2) { "user" } else { "kernel" };
        let why = if bit(3) {
            "reserved bit set in a page-table entry"
        } else if bit(5) {
            "protection key forbids it"
        } else if bit(0) {
            "the page's rights forbid it"
        } else {
            "page not present"
        };
        write!(f, "{mode} {act}: {why},")
    }
}

/// A selector error code in words (SDM vol. 3A, "Error Code").
struct SelectorWords(u64);

impl fmt::Display for SelectorWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match (self.0 >> 1) & 3 {
            0 => "GDT",
            2 => "LDT",
            _ => "IDT",
        };
        let source = if self.0 & 1 != 0 {
            ", while delivering another event"
        } else {
            ""
        };
        write!(f, "entry {} of the {table}{source}", (self.0 >> 3) & 0x1fff)
    }
}

fn print_registers(frame: &TrapFrame) {
    let f = frame;
    kprintln!("registers:");
    kprintln!(
        "  rip {:016x}  cs {:04x}  rflags {:08x}",
        f.rip,
        f.cs,
        f.rflags
    );
    kprintln!("  rsp {:016x}  ss {:04x}  rbp {:016x}", f.rsp, f.ss, f.rbp);
    kprintln!(
        "  rax {:016x}  rbx {:016x}  rcx {:016x}",
        f.rax,
        f.rbx,
        f.rcx
    );
    kprintln!(
        "  rdx {:016x}  rsi {:016x}  rdi {:016x}",
        f.rdx,
        f.rsi,
        f.rdi
    );
    kprintln!("  r8  {:016x}  r9  {:016x}  r10 {:016x}", f.r8, f.r9, f.r10);
    kprintln!(
        "  r11 {:016x}  r12 {:016x}  r13 {:016x}",
        f.r11,
        f.r12,
        f.r13
    );
    kprintln!("  r14 {:016x}  r15 {:016x}", f.r14, f.r15);
}

fn print_control_registers() {
    let c = registers::control();
    kprintln!(
        "  cr0 {:016x}  cr2 {:016x}  cr3 {:016x}",
        c.cr0,
        c.cr2,
        c.cr3
    );
    kprintln!("  cr4 {:016x}  efer {:016x}", c.cr4, c.efer);
}
