//! Commands of the shell itself: `help`, `echo`, `dmesg`, `cat`, `time`, `sleep`, `poweroff`,
//! `reboot`.

use super::interrupt::{self, Output};
use super::{Command, CommandError, CommandResult, Synopsis};
use super::{commands, no_arguments, run_inner, session_status};
use crate::arch::exit;
use crate::arch::time;
use crate::logger::{self, Stamp};
use crate::registry::sorted;
use crate::{command, kprint, kprintln, procfs, sched};
use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write};

command! { "help", "[COMMAND]", "list the commands, or describe one", help, "Commands of which there is more to say than their line, as with `help vtop`:
explain, numactl, percpu, ptdump, stacks, tlb, vmallocinfo, vtop." }
command! { "echo", "[WORD]... [> FILE]", "print the words, or write them to a file of /sys", echo }
command! { "sleep", "SECONDS", "wait", sleep }
command! { "dmesg", "", "print the kernel log", dmesg }
command! { "cat", "[FILE]...", "print files of /proc and /sys, e.g. `cat meminfo`; without a name, list them", cat }
command! { "time", "[COMMAND [ARG]...]", "show the time since boot, or how long a command takes", time }
command! { "poweroff", "", "end the machine; the host is told whether a command failed", poweroff }
command! { "reboot", "", "restart the machine; one that `cargo run` started ends instead", reboot }

fn help(arguments: &[String]) -> CommandResult {
    let list = sorted(commands(), |command| command.name);
    if let Some(name) = arguments.first() {
        no_arguments(arguments.get(1..).unwrap_or_default())?;
        let command = super::find(name).ok_or_else(|| CommandError::Unknown(name.clone()))?;
        describe(command);
        if !command.details.is_empty() {
            kprintln!("{}", command.details);
        }
        return Ok(());
    }
    for command in list {
        describe(command);
    }
    Ok(())
}

/// Columns of a terminal, …
const COLUMNS: usize = 80;
/// … and where descriptions begin.
const INDENT: usize = 26;

/// A command's synopsis, and what it does beside it, or below where the synopsis is long.
fn describe(command: &Command) {
    let synopsis = Wrapped::new(format!("{}", Synopsis(command)), 4);
    let help = Wrapped::new(String::from(command.help), INDENT);
    if synopsis.text.len() < INDENT {
        kprintln!("{:INDENT$}{help}", synopsis.text);
    } else {
        kprintln!("{synopsis}\n{:INDENT$}{help}", "");
    }
}

/// Words in lines of at most [`COLUMNS`], all but the first indented.
struct Wrapped {
    text: String,
    indent: usize,
}

impl Wrapped {
    const fn new(text: String, indent: usize) -> Self {
        Self { text, indent }
    }
}

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, indent } = self;
        // The first line begins where the others do, or before.
        let mut column = *indent;
        for (number, word) in text.split(' ').enumerate() {
            let width = word.chars().count();
            let is_full = column.saturating_add(width).saturating_add(1) > COLUMNS;
            match (number, is_full) {
                (0, _) => {}
                (_, false) => {
                    f.write_char(' ')?;
                    column = column.saturating_add(1);
                }
                (_, true) => {
                    write!(f, "\n{:indent$}", "")?;
                    column = *indent;
                }
            }
            f.write_str(word)?;
            column = column.saturating_add(width);
        }
        Ok(())
    }
}

fn echo(arguments: &[String]) -> CommandResult {
    let sign = arguments.iter().position(|word| word.starts_with('>'));
    match sign.and_then(|sign| Some((arguments.get(..sign)?, arguments.get(sign..)?))) {
        None => {}
        Some((words, [sign, path])) if sign == ">" && !path.starts_with('>') => {
            return procfs::write(path, &words.join(" "));
        }
        Some((_, [sign, ..])) if sign != ">" => {
            return Err(CommandError::usage(format_args!(
                "`{sign}`: files of /sys are written with `>`, not added to"
            )));
        }
        Some(_) => return Err(CommandError::usage("expected one file after `>`")),
    }
    let mut separator = "";
    for word in arguments {
        kprint!("{separator}{word}");
        separator = " ";
    }
    kprintln!();
    Ok(())
}

fn sleep(arguments: &[String]) -> CommandResult {
    let seconds = match arguments {
        [seconds] => seconds.parse::<u32>().ok(),
        _ => None,
    };
    let seconds = seconds.ok_or(CommandError::usage("expected a number of seconds"))?;
    let end = time::now_ns().saturating_add(u64::from(seconds).saturating_mul(1_000_000_000));
    while time::now_ns() < end {
        interrupt::check()?;
        sched::sleep_ms(20).map_err(CommandError::failed)?;
    }
    Ok(())
}

fn dmesg(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    Ok(logger::dump(&mut Output)?)
}

fn cat(arguments: &[String]) -> CommandResult {
    if arguments.is_empty() {
        for file in procfs::list() {
            kprintln!("{}", file.path);
        }
        procfs::numbered_paths().for_each(|path| kprintln!("{path}"));
    }
    for path in arguments {
        match (procfs::find(path), procfs::find_numbered(path)) {
            (Some(file), _) => (file.print)(&mut Output)?,
            (None, Some((file, number))) => (file.print)(number, &mut Output)?,
            (None, None) => {
                return Err(CommandError::failed(format_args!("no such file: {path}")));
            }
        }
    }
    Ok(())
}

fn time(arguments: &[String]) -> CommandResult {
    let start = time::now_ns();
    let Some(name) = arguments.first() else {
        let rate = time::rate().unwrap_or(0);
        kprintln!(
            "{} since boot; the TSC runs at {rate} Hz",
            Stamp { ns: start }
        );
        return Ok(());
    };
    let result = run_inner(arguments);
    let took = time::now_ns().saturating_sub(start);
    kprintln!("{} {name}", Stamp { ns: took });
    result
}

fn poweroff(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("Powering off.");
    exit::exit(session_status())
}

fn reboot(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("Restarting.");
    exit::reboot()
}
