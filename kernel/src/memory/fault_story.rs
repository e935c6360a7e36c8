//! What an address is: `explain fault`, and `stacks`.

use super::MEMORY;
use crate::arch::smp;
use crate::arch::stack::StackExtent;
use crate::num::to_u64;
use crate::sched::thread;
use crate::shell::interrupt::Output;
use crate::shell::{self, CommandError, CommandResult, no_arguments};
use crate::{command, kprintln};
use alloc::format;
use alloc::string::String;
use mm::addr::VirtAddr;
use mm::proc;

command! { "stacks", "", "the stacks of CPUs and threads", stacks }

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

fn line(name: &str, stack: &StackExtent) {
    let size = stack.top.saturating_sub(stack.bottom);
    kprintln!(
        "{:#018x}-{:#018x}  {:>4}K  {name}",
        stack.bottom,
        stack.top,
        size >> 10
    );
}

fn stacks(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("addresses                               size  whose");
    let mut count: u64 = 0;
    for cpu in smp::cpus() {
        for (name, stack) in cpu.stacks() {
            line(&format!("CPU {}, {name}", cpu.id()), &stack);
            count = count.saturating_add(1);
        }
    }
    let threads = thread::all();
    for thread in &threads {
        line(
            &format!("thread {}, {}", thread.id(), thread.name()),
            &thread.stack(),
        );
    }
    let count = count.saturating_add(to_u64(threads.len()));
    kprintln!("{count} stacks, each above a page that is not mapped");
    Ok(())
}
