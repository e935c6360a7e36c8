//! `ps`, `cpu`.

use super::hotplug;
use super::thread::{self, Affinity, Status};
use crate::shell::{CommandError, CommandResult, no_arguments};
use crate::{command, kprintln};
use alloc::string::String;
use core::fmt;

command! { "ps", "", "list the threads", list }
command! { "threads", "", "list the threads, as `ps` does", list }
command! { "cpu", "CPU online|offline", "take a CPU offline, or bring it back", plug }

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Ended => "ended",
        })
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("any"),
            Self::Cpu(id) => f.pad(&alloc::format!("{id}")),
        }
    }
}

fn list(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("  id  cpu  may  state     switches  preempted  migrated  name");
    for thread in thread::all() {
        kprintln!(
            "{:>4}  {:>3}  {:>3}  {:<8}  {:>8}  {:>9}  {:>8}  {}",
            thread.id(),
            thread.cpu(),
            thread.affinity(),
            thread.status(),
            thread.switches(),
            thread.preemptions(),
            thread.migrations(),
            thread.name()
        );
    }
    Ok(())
}

fn plug(arguments: &[String]) -> CommandResult {
    let [id, way] = arguments else {
        return Err(CommandError::usage("expected a CPU, and online or offline"));
    };
    let id = id
        .parse()
        .map_err(|_| CommandError::usage(format_args!("`{id}` is not a number")))?;
    let outcome = match way.as_str() {
        "online" => hotplug::online(id),
        "offline" => hotplug::offline(id),
        _ => {
            return Err(CommandError::usage(format_args!(
                "`{way}` is neither online nor offline"
            )));
        }
    };
    outcome.map_err(|error| CommandError::failed(format_args!("CPU {id}: {error}")))
}
