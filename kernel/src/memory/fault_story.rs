//! What an address is: in reports of faults, `explain fault`, and `stacks`.

use super::{MEMORY, boot_memory};
use crate::arch::image::{self, Part};
use crate::arch::smp;
use crate::arch::stack::StackExtent;
use crate::boot_info;
use crate::num::to_u64;
use crate::sched::thread::{self, Thread};
use crate::shell::interrupt::Output;
use crate::shell::{self, CommandError, CommandResult, no_arguments};
use crate::{command, kprintln};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};
use mm::addr::{PhysAddr, VirtAddr};
use mm::proc;

command! { "stacks", "", "the stacks of CPUs and threads", stacks, "Each has an unmapped page below it. Exceptions and interrupts have stacks of
their own on each CPU; a CPU's main stack is that of the thread that it began
with. `explain fault ADDRESS` tells which stack an address is in." }

/// Whose a stack is.
enum Whose {
    /// One of a CPU's.
    Cpu(&'static str, u32),
    /// A thread's.
    Thread(Arc<Thread>),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(name, cpu) => write!(f, "the {name} stack of CPU {cpu}"),
            Self::Thread(thread) => {
                write!(f, "the stack of thread {} `{}`", thread.id(), thread.name())
            }
        }
    }
}

/// Who has a stack that an address is in, or in the guard page of. Waits for nobody.
fn owner_of(at: u64) -> Option<(Whose, StackExtent)> {
    let is_it = |stack: &StackExtent| stack.holds(at, 1) || stack.guards(at);
    // Main stacks of CPUs are threads', too, and these have names.
    if let Some(thread) = thread::find_at_once(|thread| is_it(&thread.stack())) {
        let stack = thread.stack();
        return Some((Whose::Thread(thread), stack));
    }
    smp::cpus().find_map(|cpu| {
        let (name, stack) = cpu.stacks().find(|(_, stack)| is_it(stack))?;
        Some((Whose::Cpu(name, cpu.id()), stack))
    })
}

/// `explain fault ADDRESS`: what an access there would meet.
pub(super) fn explain(arguments: &[String]) -> CommandResult {
    let [text] = arguments else {
        return Err(CommandError::usage("expected an address"));
    };
    let at = shell::number(text)?;
    let space = MEMORY.kernel_space();
    let space = space.ok_or_else(|| CommandError::failed("there are no page tables"))?;
    let virt = VirtAddr::new(at);
    proc::vtop(&MEMORY, space, virt, &mut Output)?;
    tell(at, &mut Output)?;
    let is_ram = space.layout.region_of(virt).map(|(name, _)| name) == Some("direct map");
    if let Some(phys) = MEMORY
        .walk(&space.tables, virt)
        .phys(virt)
        .filter(|_| is_ram)
    {
        proc::page(&MEMORY, phys.frame(), &mut Output)?;
    }
    Ok(())
}

/// Tells what an address is, in sentences: whose stack or the guard page of which, which object, page or area and who
/// allocated and freed it, which part of the kernel; or why it is nothing.
///
/// # Errors
/// Those of `out`.
///
/// # Context
/// Any, also the report of a fault: allocates nothing, and takes no lock that anybody has.
pub(crate) fn tell(at: u64, out: &mut dyn Write) -> fmt::Result {
    let Some(space) = MEMORY.kernel_space() else {
        return writeln!(out, "The kernel has no page tables of its own yet.");
    };
    let virt = VirtAddr::new(at);
    if !virt.is_canonical(space.tables.levels()) {
        write!(
            out,
            "It is no address: a pointer that something else was written over"
        )?;
        return match proc::pattern(at) {
            Some(pattern) => writeln!(out, ", by {pattern}."),
            None => writeln!(out, "."),
        };
    }
    if let Some((whose, stack)) = owner_of(at) {
        return match stack.guards(at) {
            true => writeln!(
                out,
                "It is the guard page below {whose}: an access there is an overflow of it."
            ),
            false => writeln!(
                out,
                "It is {whose}, {} bytes below its top.",
                stack.top.saturating_sub(at)
            ),
        };
    }
    if proc::story(&MEMORY, virt, out)? {
        return Ok(());
    }
    let phys = MEMORY.walk(&space.tables, virt).phys(virt);
    match (space.layout.region_of(virt), phys) {
        (Some(("direct map", _)), _) => {
            writeln!(out, "There is no RAM at that physical address.")
        }
        (Some(("kernel image", _)), phys) => explain_image(at, phys, out),
        (Some((name, _)), None) => writeln!(out, "Nothing of the {name} region is there."),
        (Some((name, _)), Some(_)) => writeln!(out, "It is in the {name} region."),
        (None, _) if !virt.is_canonical(4) => {
            writeln!(
                out,
                "It is between the halves of 48 bits: five levels reach there, and nothing lies there."
            )
        }
        (None, _) if at < 4096 => {
            writeln!(out, "It is next to null: a pointer that was never set.")
        }
        (None, _) if at >> 63 == 0 => {
            writeln!(out, "It is an address of user code, and there is none.")
        }
        (None, _) => writeln!(out, "No region of the kernel's half holds it."),
    }
}

/// Which part of the image an address is in, and what may be done there.
fn explain_image(at: u64, phys: Option<PhysAddr>, out: &mut dyn Write) -> fmt::Result {
    let Some(info) = boot_info() else {
        return Ok(());
    };
    let parts = image::parts(info);
    let image = image::physical(info);
    let start = image::virtual_address(image.start(), info);
    let place = image.start().saturating_add(at.saturating_sub(start));
    // Parts end anywhere; what is left of their last page has the same rights.
    let holds = |part: &&Part| part.range.touched_frames().contains(place.frame());
    let part = parts.iter().find(holds).filter(|_| at >= start);
    let Some(part) = part.filter(|_| phys.is_some()) else {
        writeln!(
            out,
            "Nothing is mapped there: the image is at {start:#018x}, {image}."
        )?;
        let given = boot_memory::given();
        if at >= start && given.iter().any(|given| given.contains(place)) {
            writeln!(
                out,
                "Only the boot needed that part; its memory went to the page allocator."
            )?;
        }
        return Ok(());
    };
    let may = match part.name {
        "Kernel code" => "it is read and executed, and whoever writes to it has a page fault",
        "Kernel rodata" => "constants; whoever writes to them or executes them has a page fault",
        _ => "variables; whoever executes them has a page fault",
    };
    writeln!(out, "It is in the image, {}: {may}.", part.name)?;
    match part.name {
        // The host puts the function's name behind such a line, as in a backtrace.
        "Kernel code" => writeln!(out, "  #0 {at:#018x}"),
        _ => Ok(()),
    }
}

fn line(name: &str, stack: &StackExtent) {
    let size = stack.top.saturating_sub(stack.bottom);
    kprintln!(
        "{:#018x}-{:#018x}  {:>4}K  {name}",
        stack.bottom,
        stack.top,
        size >> 10
    );
}

fn of_thread(thread: &Thread) -> String {
    format!("thread {}, {}", thread.id(), thread.name())
}

fn stacks(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("addresses                               size  whose");
    // A CPU's main stack is that of a thread: the shell's on the boot CPU, the idle thread's on others.
    let mut threads = thread::all();
    let mut count = to_u64(threads.len());
    for cpu in smp::cpus() {
        for (name, stack) in cpu.stacks() {
            let mut whose = format!("CPU {}, {name}", cpu.id());
            let same = threads
                .iter()
                .position(|thread| thread.stack().bottom == stack.bottom);
            match same.map(|same| threads.swap_remove(same)) {
                Some(thread) => whose.push_str(&format!(": {}", of_thread(&thread))),
                None => count = count.saturating_add(1),
            }
            line(&whose, &stack);
        }
    }
    threads.sort_unstable_by_key(|thread| thread.id());
    for thread in &threads {
        line(&of_thread(thread), &thread.stack());
    }
    kprintln!("{count} stacks, each above a page that is not mapped");
    Ok(())
}
