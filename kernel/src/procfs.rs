//! `/proc` files: a path and a function that prints the file, registered where it is written.
//!
//! Files of `/sys` of which there is one for each node, and the like, have a number in their path.

use crate::arch::{apic, local, smp, time, trap};
use crate::params;
use crate::registry::{registry, sorted};
use crate::sched::tick;
use crate::shell::{CommandError, CommandResult};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// A file of `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct ProcFile {
    /// The path, with `/proc/` before it.
    pub path: &'static str,
    /// Prints the content. An error means that `out` failed.
    pub print: fn(&mut dyn Write) -> fmt::Result,
}

registry! {
    /// Every registered file, in no order.
    pub fn files() -> [ProcFile]; start "__start_proc_files", stop "__stop_proc_files"
}

/// Registers a `/proc` file: `proc_file!("/proc/meminfo", print_meminfo);`.
#[macro_export]
macro_rules! proc_file {
    ($path:literal, $print:expr) => {
        $crate::__register!(
            "proc_files",
            $crate::procfs::ProcFile,
            $crate::procfs::ProcFile {
                path: $path,
                print: $print,
            }
        );
    };
}

/// Files of one kind, `0` up to a count, with their number in the path.
#[derive(Clone, Copy, Debug)]
pub struct NumberedFile {
    /// What stands before the number, from `/sys/` on.
    pub before: &'static str,
    /// What stands behind it.
    pub after: &'static str,
    /// How many there are.
    pub count: fn() -> u16,
    /// Prints the content of one. An error means that `out` failed.
    pub print: fn(u16, &mut dyn Write) -> fmt::Result,
    /// Takes what is written to one, where that makes sense.
    pub write: Option<fn(u16, &str) -> CommandResult>,
}

registry! {
    /// Every registered kind of numbered files, in no order.
    pub fn numbered_files() -> [NumberedFile]; start "__start_numbered_files", stop "__stop_numbered_files"
}

/// Registers files with a number in their path: a [`NumberedFile`].
#[macro_export]
macro_rules! numbered_file {
    ($file:expr) => {
        $crate::__register!("numbered_files", $crate::procfs::NumberedFile, $file);
    };
}

/// Finds a numbered file by its path.
#[must_use]
pub fn find_numbered(path: &str) -> Option<(&'static NumberedFile, u16)> {
    let matching = |file: &&'static NumberedFile| {
        let number = path.strip_prefix(file.before)?.strip_suffix(file.after)?;
        let number = number
            .parse()
            .ok()
            .filter(|number| *number < (file.count)())?;
        Some((*file, number))
    };
    numbered_files().iter().find_map(matching)
}

/// The paths of all numbered files.
pub fn numbered_paths() -> impl Iterator<Item = String> {
    let kinds = sorted(numbered_files(), |file| file.after);
    kinds.into_iter().flat_map(|file| {
        let numbers = 0..(file.count)();
        numbers.map(|number| alloc::format!("{}{number}{}", file.before, file.after))
    })
}

/// Writes to a file.
///
/// # Errors
/// There is no such file, it cannot be written to, or it refuses the text.
pub fn write(path: &str, text: &str) -> CommandResult {
    let failed = |what| CommandError::failed(format_args!("{what}: {path}"));
    match (find(path), find_numbered(path)) {
        (None, None) => Err(failed("no such file")),
        (
            None,
            Some((
                NumberedFile {
                    write: Some(write), ..
                },
                number,
            )),
        ) => write(number, text),
        _ => Err(failed("cannot be written to")),
    }
}

/// Finds a file by its path, or by its name under `/proc`.
#[must_use]
pub fn find(path: &str) -> Option<&'static ProcFile> {
    let has_name = |file: &ProcFile| file.path.strip_prefix("/proc/") == Some(path);
    let mut files = files().iter().copied();
    files.find(|file| file.path == path || has_name(file))
}

/// All files by path.
#[must_use]
pub fn list() -> Vec<&'static ProcFile> {
    sorted(files(), |file| file.path)
}

proc_file!("/proc/cmdline", |out| writeln!(out, "{}", params::line()));
proc_file!("/proc/version", |out| writeln!(
    out,
    "mm version {}",
    env!("CARGO_PKG_VERSION")
));
proc_file!("/proc/uptime", uptime);
proc_file!("/proc/interrupts", interrupts);

/// Seconds since boot, and seconds that all CPUs together were idle.
fn uptime(out: &mut dyn Write) -> fmt::Result {
    let [(up, up_rest), (idle, idle_rest)] = [time::now_ns(), tick::idle_ns()].map(|ns| {
        let centiseconds = ns.checked_div(10_000_000).unwrap_or(0);
        let seconds = centiseconds.checked_div(100).unwrap_or(0);
        (seconds, centiseconds.checked_rem(100).unwrap_or(0))
    });
    writeln!(out, "{up}.{up_rest:02} {idle}.{idle_rest:02}")
}

/// Interrupts taken, for the architecture's own kinds; there are no device interrupts yet.
fn interrupts(out: &mut dyn Write) -> fmt::Result {
    type Count = fn(&local::CpuLocal) -> u64;
    let rows: [(&str, Count, &str); 7] = [
        (
            "NMI",
            |cpu| cpu.count(trap::vector::NMI),
            "Non-maskable interrupts",
        ),
        (
            "LOC",
            |cpu| cpu.count(apic::vector::TIMER),
            "Local timer interrupts",
        ),
        (
            "SPU",
            |cpu| trap::stray_interrupts(cpu).0,
            "Spurious interrupts",
        ),
        (
            "RES",
            |cpu| cpu.count(apic::vector::RESCHEDULE),
            "Rescheduling interrupts",
        ),
        (
            "CAL",
            |cpu| cpu.count(apic::vector::CALL),
            "Function call interrupts",
        ),
        ("TLB", |cpu| cpu.count(apic::vector::TLB), "TLB shootdowns"),
        (
            "MCE",
            |cpu| cpu.count(trap::vector::MACHINE_CHECK),
            "Machine check exceptions",
        ),
    ];
    write!(out, "           ")?;
    for cpu in smp::cpus() {
        write!(out, "CPU{:<8}", cpu.id())?;
    }
    writeln!(out)?;
    for (name, count, what) in rows {
        write!(out, "{name}:")?;
        for cpu in smp::cpus() {
            write!(out, " {:>10}", count(cpu))?;
        }
        writeln!(out, "   {what}")?;
    }
    let errors = smp::cpus().map(|cpu| {
        let (_, strays) = trap::stray_interrupts(cpu);
        strays.saturating_add(cpu.count(apic::vector::ERROR))
    });
    writeln!(out, "ERR: {:>10}", errors.fold(0, u64::saturating_add))
}
