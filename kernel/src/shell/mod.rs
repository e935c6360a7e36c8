//! The shell: reads lines from the terminal (or from `exec=`) and runs commands.
//!
//! A command is registered where it is written, with [`command!`](crate::command); it gets its
//! arguments, prints with `kprintln!`, and returns a [`CommandResult`]. What it returns becomes a
//! message and, under `exec=`, the exit status of the machine.

mod commands;
mod crash;
pub mod editor;
mod info;
pub mod interrupt;
pub mod keys;
pub mod parse;

use crate::arch::exit::{self, Status};
use crate::arch::time;
use crate::registry::registry;
use crate::{console, heap, kprint, kprintln, memory};
use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use editor::{Event, LineEditor};
use interrupt::Interrupted;
use keys::Keys;

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
    /// What `help NAME` adds to that, in lines.
    pub details: &'static str,
    /// Runs it.
    pub run: fn(&[String]) -> CommandResult,
}

/// A command and its arguments, as a user types them.
pub(crate) struct Synopsis<'a>(pub(crate) &'a Command);

impl fmt::Display for Synopsis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { name, usage, .. } = self.0;
        f.write_str(name)?;
        match usage.is_empty() {
            true => Ok(()),
            false => write!(f, " {usage}"),
        }
    }
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
    /// Ctrl-C ended it.
    Interrupted,
    /// A command that ran inside this one failed, and that was printed.
    Inner,
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
            Self::Unknown(name) if matches!(&**name, "exit" | "quit" | "halt" | "shutdown") => {
                write!(f, "unknown command `{name}`: `poweroff` ends the machine")
            }
            Self::Unknown(name) => write!(f, "unknown command `{name}` (try `help`)"),
            Self::Usage(reason) | Self::Failed(reason) => f.write_str(reason),
            Self::Interrupted => Interrupted.fmt(f),
            Self::Inner => f.write_str("the command inside failed"),
        }
    }
}

impl From<fmt::Error> for CommandError {
    fn from(_: fmt::Error) -> Self {
        if interrupt::pending() {
            return Self::Interrupted;
        }
        Self::failed("could not print")
    }
}

impl From<Interrupted> for CommandError {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
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
        $crate::command! { $name, $usage, $help, $run, "" }
    };
    ($name:literal, $usage:literal, $help:literal, $run:expr, $details:literal) => {
        $crate::__register!(
            "shell_commands",
            $crate::shell::Command,
            $crate::shell::Command {
                name: $name,
                usage: $usage,
                help: $help,
                details: $details,
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

/// Whether a command has failed since boot: the machine ends with a status that says so.
static FAILED: AtomicBool = AtomicBool::new(false);

/// The status to end with: how the commands so far went.
fn session_status() -> Status {
    if FAILED.load(Ordering::Relaxed) {
        Status::CommandFailed
    } else {
        Status::Pass
    }
}

/// Reads and runs lines until the machine is powered off.
pub fn interactive() -> ! {
    READY.store(time::tsc(), Ordering::Relaxed);
    heap::end_early();
    memory::boot_memory::give_back();
    let (mut editor, mut keys) = (LineEditor::new(), Keys::default());
    kprintln!("Type `help` for a list of commands, `poweroff` to leave; Ctrl-C stops a command.");
    loop {
        kprint!("{PROMPT}");
        memory::populate::begin();
        if let Event::Line(line) = read_line(&mut editor, &mut keys) {
            interrupt::begin();
            run_line(&line, &FAILED);
        }
    }
}

fn read_line(editor: &mut LineEditor, keys: &mut Keys) -> Event {
    let mut echo = console::Console;
    loop {
        let Some(byte) = keys.next_before(u64::MAX) else {
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
    heap::end_early();
    memory::boot_memory::give_back();
    memory::populate::begin();
    run_line(line, &FAILED);
    exit::exit(session_status())
}

/// Runs all commands of a line, whether or not the ones before succeeded, until Ctrl-C.
///
/// What goes wrong is printed, and sets `failed`: at once, since `poweroff` may follow.
pub fn run_line(line: &str, failed: &AtomicBool) {
    let commands = match parse::parse(line) {
        Ok(commands) => commands,
        Err(error) => {
            kprintln!("error: {error}");
            failed.store(true, Ordering::Relaxed);
            return;
        }
    };
    for words in commands {
        if run_words(&words).is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        if interrupt::pending() {
            return;
        }
    }
}

/// Runs one command and prints what goes wrong.
fn run_words(words: &[String]) -> CommandResult {
    let Some((name, arguments)) = words.split_first() else {
        return Ok(());
    };
    let result = match interrupt::check() {
        Ok(()) => run(name, arguments),
        Err(interrupted) => Err(interrupted.into()),
    };
    match &result {
        Ok(()) | Err(CommandError::Inner) => {}
        Err(error) => kprintln!("{name}: error: {error}"),
    }
    if matches!(result, Err(CommandError::Usage(_)))
        && let Some(command) = find(name)
    {
        kprintln!("usage: {}", Synopsis(command));
    }
    result
}

/// Runs a command that another one was given; what goes wrong is printed here.
///
/// # Errors
///
/// [`CommandError::Inner`] if anything did.
pub(crate) fn run_inner(words: &[String]) -> CommandResult {
    run_words(words).map_err(|_| CommandError::Inner)
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

/// Reads a number, decimal or with `0x` before it.
///
/// # Errors
///
/// Names the text that is none, or too large a one.
pub fn number(text: &str) -> Result<u64, CommandError> {
    parse::whole_number(text).map_err(|error| CommandError::usage(format_args!("`{text}` {error}")))
}

/// Reads a number of bytes: as [`number`], with K, M, G, T, P or E behind it.
///
/// # Errors
///
/// As [`number`].
pub fn size(text: &str) -> Result<u64, CommandError> {
    parse::size(text).map_err(|error| CommandError::usage(format_args!("`{text}` {error}")))
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
