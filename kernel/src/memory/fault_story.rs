//! What an address is: `explain fault`, and `stacks`.

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
use mm::addr::{PhysAddr, VirtAddr};
use mm::proc;

command! { "stacks", "", "the stacks of CPUs and threads", stacks, "Each has an unmapped page below it. Exceptions and interrupts have stacks of
their own on each CPU; a CPU's main stack is that of the thread that it began
with. `explain fault ADDRESS` tells which stack an address is in." }

/// Who has a stack that an address is in, or in the guard page of.
fn owner_of(at: u64) -> Option<(String, StackExtent)> {
    let is_it = |stack: &StackExtent| stack.holds(at, 1) || stack.guards(at);
    for cpu in smp::cpus() {
        let mut found = cpu.stacks().filter(|(_, stack)| is_it(stack));
        if let Some((name, stack)) = found.next() {
            return Some((format!("the {name} stack of CPU {}", cpu.id()), stack));
        }
    }
    let mut threads = thread::all().into_iter();
    let thread = threads.find(|thread| is_it(&thread.stack()))?;
    let name = format!("the stack of thread {} `{}`", thread.id(), thread.name());
    Some((name, thread.stack()))
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
    if !virt.is_canonical(space.tables.levels()) {
        kprintln!("It is no address: a pointer that something else was written over.");
        return Ok(());
    }
    if let Some((name, stack)) = owner_of(at) {
        match stack.guards(at) {
            true => kprintln!(
                "It is the guard page below {name}: an access there is an overflow of it."
            ),
            false => kprintln!(
                "It is {name}, {} bytes below its top.",
                stack.top.saturating_sub(at)
            ),
        }
        return Ok(());
    }
    if proc::area_of(&MEMORY, virt, &mut Output)? {
        return Ok(());
    }
    let phys = MEMORY.walk(&space.tables, virt).phys(virt);
    match (space.layout.region_of(virt), phys) {
        (Some(("direct map", _)), Some(phys)) => {
            proc::page(&MEMORY, phys.frame(), &mut Output)?;
        }
        (Some(("direct map", _)), None) => kprintln!("There is no RAM at that physical address."),
        (Some(("kernel image", _)), phys) => explain_image(at, phys),
        (Some((name, _)), None) => kprintln!("Nothing of the {name} region is there."),
        (Some((name, _)), Some(_)) => kprintln!("It is in the {name} region."),
        (None, _) if !virt.is_canonical(4) => {
            kprintln!(
                "It is between the halves of 48 bits: five levels reach there, and nothing lies there."
            );
        }
        (None, _) if at < 4096 => kprintln!("It is next to null: a pointer that was never set."),
        (None, _) if at >> 63 == 0 => {
            kprintln!("It is an address of user code, and there is none.")
        }
        (None, _) => kprintln!("No region of the kernel's half holds it."),
    }
    Ok(())
}

/// Which part of the image an address is in, and what may be done there.
fn explain_image(at: u64, phys: Option<PhysAddr>) {
    let Some(info) = boot_info() else {
        return;
    };
    let parts = image::parts(info);
    let image = image::physical(info);
    let start = image::virtual_address(image.start(), info);
    let place = image.start().saturating_add(at.saturating_sub(start));
    // Parts end anywhere; what is left of their last page has the same rights.
    let holds = |part: &&Part| part.range.touched_frames().contains(place.frame());
    let part = parts.iter().find(holds).filter(|_| at >= start);
    let Some(part) = part.filter(|_| phys.is_some()) else {
        kprintln!("Nothing is mapped there: the image is at {start:#018x}, {image}.");
        let is_given = boot_memory::given()
            .iter()
            .any(|given| given.contains(place));
        if at >= start && is_given {
            kprintln!("Only the boot needed that part; its memory went to the page allocator.");
        }
        return;
    };
    let may = match part.name {
        "Kernel code" => "it is read and executed, and whoever writes to it has a page fault",
        "Kernel rodata" => "constants; whoever writes to them or executes them has a page fault",
        _ => "variables; whoever executes them has a page fault",
    };
    kprintln!("It is in the image, {}: {may}.", part.name);
    if part.name == "Kernel code" {
        // The host puts the function's name behind such a line, as in a backtrace.
        kprintln!("  #0 {at:#018x}");
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
