//! The program behind `cargo run`: arguments in, a message and an exit status out.

use std::ffi::OsString;
use std::io::{self, Write};

use crate::host::{Doing, HostError};
use crate::image::KernelImage;
use crate::input::Input;
use crate::iso::MediumError;
use crate::kernel::BuildError;
use crate::machine::Debugger;
use crate::options::{BootOptions, Invocation};
use crate::outcome::{Outcome, RanCommands};
use crate::show::{self, ShowError, Shown};
use crate::tools::ToolError;
use crate::usage::{HELP, UsageError};
use crate::vm::{Boot, Finished, RunError};

/// What can end the program before a machine has run.
#[derive(Debug)]
pub enum CliError {
    /// The arguments are wrong.
    Usage(UsageError),
    /// There is no kernel.
    Build(BuildError),
    /// The machine could not be started or watched.
    Run(RunError),
    /// Its memory could not be shown.
    Show(ShowError),
}

impl CliError {
    /// The program's exit status.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Run(RunError::Memory(_)) => 2,
            Self::Build(BuildError::Cargo(_)) => 120,
            Self::Run(RunError::Medium(MediumError::Tools(
                ToolError::NotInstalled(_) | ToolError::NotFound(_),
            ))) => 127,
            Self::Build(BuildError::Host(_)) | Self::Run(_) | Self::Show(_) => 121,
        }
    }
}

/// Runs the program with `args`, which do not include its name; returns its exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    match run(args) {
        Ok(status) => status,
        Err(error) => {
            say(&error.to_string());
            if matches!(error, CliError::Usage(_)) {
                say("try `cargo run -- --help`");
            }
            error.exit_status()
        }
    }
}

fn run(args: impl IntoIterator<Item = OsString>) -> Result<u8, CliError> {
    match Invocation::parse(args).map_err(CliError::Usage)? {
        Invocation::Help => {
            let printed = io::stdout().write_all(HELP.as_bytes());
            printed.map_err(|source| {
                let path = "standard output".into();
                CliError::Run(
                    HostError {
                        doing: Doing::Print,
                        path,
                        source,
                    }
                    .into(),
                )
            })?;
            Ok(0)
        }
        Invocation::Boot(options) => boot(*options),
        Invocation::View(files, show) => {
            show::files(&files, &show).map_err(CliError::Show)?;
            Ok(0)
        }
    }
}

fn boot(options: BootOptions) -> Result<u8, CliError> {
    show::check(&options.show).map_err(CliError::Show)?;
    // QEMU first: a missing one is installed or reported before minutes go into a build.
    crate::tools::qemu().map_err(|error| CliError::Run(MediumError::from(error).into()))?;
    let image = options.kernel.build().map_err(CliError::Build)?;
    if options.machine.debugger == Debugger::Gdb {
        say(&gdb_hint(&image));
    }
    let input = match &options.cmdline.commands {
        Some(_) => Input::Nothing,
        None => Input::of_stdin(),
    };
    let ran_commands = match input {
        Input::Nothing | Input::Lines => RanCommands::Yes,
        Input::Keys | Input::Typed(_) => RanCommands::No,
    };
    if ran_commands == RanCommands::No && !options.show.view {
        say("Ctrl-A X leaves the machine, Ctrl-A C is QEMU's monitor");
    }

    let BootOptions {
        machine,
        cmdline,
        timeout,
        show,
        ..
    } = options;
    let boot = Boot {
        image,
        machine,
        cmdline,
        timeout,
    };
    let shown = match show.is_nothing() {
        true => Shown {
            finished: Some(boot.run(input, &mut io::stdout()).map_err(CliError::Run)?),
            saved: Ok(()),
        },
        false => show::run(boot, input, &show)?,
    };
    // First of all how the machine ended: that nothing was to be seen may come of it.
    let status = shown.finished.map_or(0, |finished| {
        report(&finished, ran_commands);
        finished.outcome.exit_status(ran_commands)
    });
    match shown.saved.map_err(CliError::Show) {
        Err(error) if status != 0 => say(&error.to_string()),
        saved => saved?,
    }
    Ok(status)
}

/// Says how the machine ended, unless that is what was asked for.
fn report(finished: &Finished, ran_commands: RanCommands) {
    let Finished {
        outcome,
        qemu_messages,
    } = finished;
    // Of a machine that was stopped, QEMU only says that it was.
    if !qemu_messages.is_empty() && *outcome != Outcome::TimedOut {
        say(qemu_messages.trim_end());
    }
    if outcome.exit_status(ran_commands) != 0 {
        say(&outcome.to_string());
    } else if *outcome == Outcome::SwitchedOff {
        say("left the machine");
    }
}

fn gdb_hint(image: &KernelImage) -> String {
    let elf = image.elf.display();
    format!("waiting for: gdb {elf} -ex 'target remote :1234'")
}

/// Prints a line for the user; a standard error that is gone has nobody to read it.
fn say(line: &str) {
    let _nobody_reads = writeln!(io::stderr(), "mm-run: {line}");
}

impl core::error::Error for CliError {}

impl From<ShowError> for CliError {
    fn from(error: ShowError) -> Self {
        Self::Show(error)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl core::fmt::Display for CliError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Build(error) => error.fmt(f),
            Self::Run(error) => error.fmt(f),
            Self::Show(error) => error.fmt(f),
        }
    }
}
