//! The shell: reads lines from the terminal (or from `exec=`) and runs commands.
//!
//! A command is registered where it is written, with [`command!`](crate::command); it gets its
//! arguments, prints with `kprintln!`, and returns a [`CommandResult`]. What it returns becomes a
//! message and, under `exec=`, the exit status of the machine.

mod commands;
mod crash;
pub mod editor;
mod info;
pub mod parse;

use crate::arch::exit::{self, Status};
use crate::arch::time;
use crate::registry::registry;
use crate::{console, kprint, kprintln, sched};
use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use editor::{Event, LineEditor};

/// What the shell prints when it is ready for a line.
const PROMPT: &str = "mm> ";

/// A shell command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The word that runs it.
    pub name: &'static str,
    /// Its arguments, as `help` shows them; empty for none.
    pub usage: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// Runs it.
    pub run: fn(&[String]) -> CommandResult,
}

/// The outcome of a command.
pub type CommandResult = Result<(), CommandError>;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No command has this name.
    Unknown(String),
    /// The arguments make no sense; the text says which one or why.
    Usage(String),
    /// The command ran and did not succeed.
    Failed(String),
}

impl CommandError {
    /// Wrong arguments, in words.
    pub fn usage(reason: impl fmt::Display) -> Self {
        Self::Usage(alloc::format!("{reason}"))
    }

    /// A failure, in words.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(alloc::format!("{reason}"))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown command `{name}` (try `help`)"),
            Self::Usage(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl From<fmt::Error> for CommandError {
    fn from(_: fmt::Error) -> Self {
        Self::failed("could not print")
    }
}

registry! {
    /// Every registered command, in no order.
    pub fn commands() -> [Command]; start "__start_shell_commands", stop "__stop_shell_commands"
}

/// Registers a shell command.
///
/// ```ignore
/// command! { "echo", "[WORD]...", "print the words", echo }
/// fn echo(arguments: &[String]) -> CommandResult {
///     kprintln!("{}", arguments.join(" "));
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! command {
    ($name:literal, $usage:literal, $help:literal, $run:expr) => {
        $crate::__register!(
            "shell_commands",
            $crate::shell::Command,
            $crate::shell::Command {
                name: $name,
                usage: $usage,
                help: $help,
                run: $run,
            }
        );
    };
}

/// TSC when the shell was ready for its first command.
static READY: AtomicU64 = AtomicU64::new(0);

/// The TSC when the shell was ready for its first command; 0 before that.
#[must_use]
pub fn ready_tsc() -> u64 {
    READY.load(Ordering::Relaxed)
}

/// Reads and runs lines until the machine is powered off.
pub fn interactive() -> ! {
    READY.store(time::tsc(), Ordering::Relaxed);
    let mut editor = LineEditor::new();
    kprintln!("Type `help` for a list of commands.");
    loop {
        kprint!("{PROMPT}");
        if let Event::Line(line) = read_line(&mut editor) {
            // Each command has said what went wrong; a terminal has no exit status.
            let _ = run_line(&line);
        }
    }
}

fn read_line(editor: &mut LineEditor) -> Event {
    let mut echo = console::Console;
    loop {
        let Some(byte) = console::read() else {
            // The port keeps sixteen bytes, a millisecond's worth and more. Nothing here forbids to
            // sleep; if it did, this would be polling.
            let _ = sched::sleep_ms(1);
            continue;
        };
        match editor.feed(byte, &mut echo) {
            Ok(Event::Pending) | Err(fmt::Error) => {}
            Ok(event) => return event,
        }
    }
}

/// Runs the commands of `exec=` and ends the machine with a status that tells how it went.
pub fn execute_and_exit(line: &str) -> ! {
    READY.store(time::tsc(), Ordering::Relaxed);
    let status = if run_line(line) {
        Status::Pass
    } else {
        Status::CommandFailed
    };
    exit::exit(status)
}

/// Runs all commands of a line, whether or not the ones before succeeded, and says whether all did.
///
/// What goes wrong is printed.
pub fn run_line(line: &str) -> bool {
    let commands = match parse::parse(line) {
        Ok(commands) => commands,
        Err(error) => {
            kprintln!("error: {error}");
            return false;
        }
    };
    let mut all_succeeded = true;
    for words in commands {
        all_succeeded &= run_words(&words);
    }
    all_succeeded
}

fn run_words(words: &[String]) -> bool {
    let Some((name, arguments)) = words.split_first() else {
        return true;
    };
    let result = run(name, arguments);
    if let Err(error) = &result {
        kprintln!("{name}: error: {error}");
        if matches!(error, CommandError::Usage(_))
            && let Some(command) = find(name)
        {
            kprintln!("usage: {} {}", command.name, command.usage);
        }
    }
    result.is_ok()
}

/// Runs one command.
///
/// # Errors
///
/// There is no such command, or it failed.
pub fn run(name: &str, arguments: &[String]) -> CommandResult {
    let command = find(name).ok_or_else(|| CommandError::Unknown(String::from(name)))?;
    (command.run)(arguments)
}

/// Finds a command by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Command> {
    commands()
        .iter()
        .copied()
        .find(|command| command.name == name)
}

/// Fails if there are arguments: for commands that take none.
///
/// # Errors
///
/// Names the first argument.
pub fn no_arguments(arguments: &[String]) -> CommandResult {
    match arguments.first() {
        None => Ok(()),
        Some(extra) => Err(CommandError::usage(format_args!(
            "unexpected argument `{extra}`"
        ))),
    }
}
