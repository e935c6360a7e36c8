//! TLB shootdown in this kernel: when CPUs are lazy, what NMI handlers do about it, and `tlb`, which tells.
//!
//! Idle CPUs are lazy ([`super::cpu_leaves`]). Who is asked gets an interrupt of its own vector; who waits makes the
//! calls that come to its CPU meanwhile, and who waits for a call flushes, so that neither waits for the other.
#![expect(
    unsafe_code,
    reason = "what a lazy CPU does until it is back is the caller's word"
)]

use super::MEMORY;
use crate::arch::{self, smp};
use crate::sched::hotplug;
use crate::shell::{CommandResult, no_arguments};
use crate::{command, kprintln};
use alloc::string::String;
use mm::platform::CpuId;
use mm::sync::shootdown::{CEILING, Lazy};
use mm::system::TlbOfCpu;

command! { "tlb", "", "flushes of translations that were asked for, and what each CPU did about them", tlb, "  behind        requests since boot that the CPU has not served yet
  others asked  requests of this CPU for which it interrupted others; idle ones
                need none
  for others    times that it forgot something because another CPU asked
  whole         times that it forgot everything, for whomever
  pages         pages that it forgot one by one
A CPU runs, is lazy (idle: nobody waits for it, it catches up when it wakes), or
is offline." }

/// Serves who waits for this CPU to flush.
///
/// # Context
/// Any.
pub(crate) fn catch_up() {
    MEMORY.tlb_catch_up();
}

/// This CPU has been started: others wait for it from now on.
///
/// # Context
/// The CPU itself, before it uses anything that may be unmapped.
pub(crate) fn cpu_starts() {
    MEMORY.tlb_lazy_leave();
}

/// An NMI or machine check begins: what its handler uses is looked up anew. The CPU may be lazy, or in the midst of
/// coming back.
pub(crate) fn nmi_begins() -> Option<Lazy> {
    let was = MEMORY.tlb_lazy_leave();
    MEMORY.tlb_catch_up();
    was
}

/// It ends: the CPU is what it was.
pub(crate) fn nmi_ends(was: Option<Lazy>) {
    if let Some(lazy) = was {
        // SAFETY: the code that was interrupted was lazy, and leaves that before it uses anything.
        unsafe { MEMORY.tlb_lazy_enter(lazy) };
    }
}

fn tlb(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!(
        "{} requests to forget translations",
        MEMORY.tlb_generation()
    );
    kprintln!(
        "a range of more than {CEILING} pages is flushed as a whole, by {}",
        arch::tlb::name(arch::tlb::features().whole())
    );
    kprintln!("cpu  state    behind  others asked  for others  whole  pages");
    for cpu in smp::cpus() {
        if let Some(of_cpu) = MEMORY.tlb_of(CpuId(cpu.id())) {
            print(cpu.id(), &of_cpu);
        }
    }
    Ok(())
}

fn print(cpu: u32, of_cpu: &TlbOfCpu) {
    let is_online = smp::cpu(cpu).is_some_and(hotplug::is_online);
    let state = match (is_online, of_cpu.is_lazy) {
        (false, _) => "offline",
        (true, true) => "lazy",
        (true, false) => "runs",
    };
    let stats = &of_cpu.stats;
    kprintln!(
        "{cpu:>3}  {state:<7} {:>7} {:>13} {:>11} {:>6} {:>6}",
        of_cpu.behind,
        stats.remote_flush,
        stats.remote_flush_received,
        stats.local_flush_all,
        stats.local_flush_one
    );
}
