//! The machine's CPUs: bringing the others up, and the commands about them.

use crate::arch::local::CpuLocal;
use crate::arch::smp::{self, State};
use crate::sched::{hotplug, worker};
use crate::shell::{self, CommandError, CommandResult, no_arguments, parse};
use crate::{acpi, boot_info, command, kernel_param, kprintln, params};
use alloc::string::String;

kernel_param!("maxcpus", "NUMBER", "use at most so many CPUs");
kernel_param!("nosmp", "use the boot CPU only");
kernel_param!(
    "deaf",
    "NUMBER",
    "do not start the CPU with this APIC number, as if it did not answer (a test)"
);

command! { "cpus", "", "list the CPUs that the firmware names, and what became of them", list }
command! { "acpi", "", "what the firmware's ACPI tables say about CPUs and nodes", show_acpi }
command! { "on", "CPU COMMAND [ARG]...", "run a command on another CPU", on }

/// Starts all CPUs that the firmware names and the command line allows, and logs how that went.
pub(crate) fn bring_up() {
    let offset = boot_info().and_then(|info| info.physical_memory_offset.as_ref().copied());
    let Some(offset) = offset else { return };
    let most = if params::is_set("nosmp") {
        1
    } else {
        number("maxcpus").unwrap_or(u32::MAX)
    };
    let firmware = smp::Firmware {
        offset,
        cpus: &acpi::get().cpus,
        most,
        deaf: number("deaf"),
    };
    if let Err(error) = smp::bring_up(&firmware) {
        log::warn!("smp: one CPU only: {error}");
    }
    let named = smp::records().len();
    log::info!("smp: {} of {named} CPUs online", smp::count());
    worker::start_all();
}

/// The value of a parameter, as far as numbers of CPUs go.
fn number(name: &str) -> Option<u32> {
    let number = parse::number(params::get(name)?)?;
    Some(u32::try_from(number).unwrap_or(u32::MAX))
}

fn list(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("cpu  apic  state");
    for record in smp::records() {
        match record.state {
            State::Online(id) => {
                let doing = smp::cpu(id).map_or("", doing);
                kprintln!("{id:>3}  {:>4}  {}{doing}", record.apic_id, record.state);
            }
            state => kprintln!("  -  {:>4}  {state}", record.apic_id),
        }
    }
    let online = smp::cpus().filter(|cpu| hotplug::is_online(cpu)).count();
    kprintln!("{online} CPUs online");
    Ok(())
}

/// What a CPU that takes part does at the moment.
fn doing(cpu: &CpuLocal) -> &'static str {
    if !hotplug::is_online(cpu) {
        ", now offline"
    } else if cpu.presence.is_running() {
        ", busy"
    } else {
        ", idle"
    }
}

fn show_acpi(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let acpi = acpi::get();
    kprintln!(
        "numbers are the firmware's; `cpus` and `numactl -H` have the kernel's, without gaps"
    );
    for (name, at) in &acpi.tables {
        kprintln!("table  {name} at {at:#x}");
    }
    for cpu in &acpi.cpus {
        let state = match (cpu.is_enabled, cpu.is_online_capable) {
            (true, _) => "enabled",
            (false, true) => "may come",
            (false, false) => "disabled",
        };
        kprintln!(
            "cpu    APIC id {}, ACPI id {}, {state}",
            cpu.apic_id,
            cpu.acpi_id
        );
    }
    for cpu in &acpi.cpu_nodes {
        kprintln!("cpu    APIC id {}, domain {}", cpu.apic_id, cpu.domain);
    }
    for memory in &acpi.memory_nodes {
        let hot = if memory.is_hot_pluggable {
            ", hot-pluggable"
        } else {
            ""
        };
        let kept = if memory.is_non_volatile {
            ", non-volatile"
        } else {
            ""
        };
        kprintln!(
            "memory {:#x}, {:#x} bytes, domain {}{hot}{kept}",
            memory.base,
            memory.length,
            memory.domain
        );
    }
    for (from, row) in acpi.distances.iter().enumerate() {
        kprintln!("domain {from}: distances {row:?}");
    }
    Ok(())
}

fn on(arguments: &[String]) -> CommandResult {
    let [id, name, rest @ ..] = arguments else {
        return Err(CommandError::usage("expected a CPU and a command"));
    };
    let id = id
        .parse()
        .map_err(|_| CommandError::usage(format_args!("`{id}` is not a number")))?;
    smp::run_on(id, || shell::run(name, rest)).map_err(CommandError::failed)?
}
