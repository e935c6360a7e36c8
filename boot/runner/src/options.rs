//! The runner's command line, parsed once into an [`Invocation`].

use core::time::Duration;
use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::cmdline::CommandLine;
use crate::kernel::{KernelBuild, Optimisation};
use crate::machine::{Board, Clock, Debugger, Firmware, Machine, Screen};
use crate::size::SizeError;
use crate::usage::UsageError;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Print the help text.
    Help,
    /// Build the kernel and boot it.
    Boot(Box<BootOptions>),
    /// Show the memory that is in files: of a machine that runs elsewhere, or that has ended; as pictures if there are paths
    /// for any, else in the terminal.
    View(Vec<PathBuf>, Show),
}

/// How to build and boot the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOptions {
    /// Which kernel.
    pub kernel: KernelBuild,
    /// On what.
    pub machine: Machine,
    /// What the kernel is told.
    pub cmdline: CommandLine,
    /// When to give up; never without.
    pub timeout: Option<Duration>,
    /// What is shown of its memory.
    pub show: Show,
}

/// What is shown of a machine's memory, from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// All of it in a terminal, while it runs.
    pub view: bool,
    /// A picture of the frames as they are at the end.
    pub picture: Option<PathBuf>,
    /// Such pictures from the beginning on.
    pub movie: Option<PathBuf>,
    /// How a block was halved and merged, as a drawing.
    pub splits: Option<PathBuf>,
    /// The kernel's addresses, as a drawing.
    pub addresses: Option<PathBuf>,
}

impl Show {
    /// Whether nothing is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let Self {
            view,
            picture,
            movie,
            splits,
            addresses,
        } = self;
        !*view
            && [picture, movie, splits, addresses]
                .iter()
                .all(|path| path.is_none())
    }
}

impl Invocation {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// Names the first argument that is not understood, or the first pair that excludes itself.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut parser = Parser::from_args(args);
        let mut options = BootOptions::default();
        let mut is_first = true;
        while let Some(arg) = parser.next().map_err(UsageError::from)? {
            match arg {
                Arg::Long("help") | Arg::Short('h') => return Ok(Self::Help),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    options.set(&name, &mut parser)?;
                }
                Arg::Short(letter) => return Err(UsageError::UnknownOption(format!("-{letter}"))),
                Arg::Value(word) if is_first && word == "view" => return view(parser),
                Arg::Value(word) => {
                    return Err(UsageError::UnexpectedWord(
                        word.to_string_lossy().into_owned(),
                    ));
                }
            }
            is_first = false;
        }
        options.sum_up()?;
        options.check()?;
        Ok(Self::Boot(Box::new(options)))
    }
}

impl BootOptions {
    /// Takes in one option, with its value from `parser` when it has one.
    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), UsageError> {
        let machine = &mut self.machine;
        match name {
            "memory" => machine.memory = text(parser)?.parse()?,
            "cpus" => machine.cpus = named("--cpus", &text(parser)?)?,
            "numa" => machine.numa.even = Some(named("--numa", &text(parser)?)?),
            "numa-node" => {
                let node = named("--numa-node", &text(parser)?)?;
                machine.numa.nodes.push(node);
            }
            "numa-dist" => {
                let distance = named("--numa-dist", &text(parser)?)?;
                machine.numa.distances.push(distance);
            }
            "machine" => machine.board = named("--machine", &text(parser)?)?,
            "firmware" => machine.firmware = named("--firmware", &text(parser)?)?,
            "grub-line" => machine.grub_lines.push(text(parser)?),
            "cpu" => machine.cpu = Some(text(parser)?),
            "cmdline" => self.cmdline.text = text(parser)?,
            "profile" => self.kernel.profile = named("--profile", &text(parser)?)?,
            "exec" => self.cmdline.commands = Some(text(parser)?.parse()?),
            "icount" => machine.clock = Clock::Instructions,
            "debug" => self.kernel.optimisation = Optimisation::None,
            "display" => machine.screen = Screen::Window,
            "gdb" => machine.debugger = Debugger::Gdb,
            "timeout" => self.timeout = Some(seconds(&text(parser)?)?),
            "ram-file" => machine.ram_file = Some(path(parser)?),
            "view" => self.show.view = true,
            "events" => self.kernel.events = true,
            "picture" => self.show.picture = Some(path(parser)?),
            "movie" => self.show.movie = Some(path(parser)?),
            "addresses" => self.show.addresses = Some(path(parser)?),
            "splits" => {
                self.show.splits = Some(path(parser)?);
                self.kernel.events = true;
            }
            "qemu-arg" => machine.extra_args.push(text(parser)?),
            _ => return Err(UsageError::UnknownOption(format!("--{name}"))),
        }
        Ok(())
    }

    /// Nodes that are named say how much memory there is.
    fn sum_up(&mut self) -> Result<(), UsageError> {
        let machine = &mut self.machine;
        if !machine.numa.nodes.is_empty() {
            machine.memory = machine.numa.memory().ok_or(SizeError::Zero)?;
        }
        Ok(())
    }

    /// Refuses options that exclude each other, or are too much together.
    fn check(&self) -> Result<(), UsageError> {
        let machine = &self.machine;
        let length = self.cmdline.clone().with_counting().to_string().len();
        if length > CommandLine::CAPACITY {
            return Err(UsageError::CommandLineTooLong(length));
        }
        let mut words = self.cmdline.text.split_whitespace();
        if words.any(|word| word.starts_with("exec=")) {
            return Err(UsageError::CommandsInCommandLine);
        }
        if self.show.view && self.show.movie.is_some() {
            return Err(UsageError::MovieOfView);
        }
        if machine.firmware == Firmware::Direct && !machine.grub_lines.is_empty() {
            return Err(UsageError::NoGrub);
        }
        let numa = &machine.numa;
        if numa.even.is_some() && !numa.nodes.is_empty() {
            return Err(UsageError::TwoNumas);
        }
        if let Some(node) = numa.node_that_is_not_there() {
            let count = numa.count();
            return Err(UsageError::NoSuchNode { node, count });
        }
        if machine.board == Board::MicroVm {
            if numa.even.is_some() || !numa.nodes.is_empty() {
                return Err(UsageError::NoNumaOnMicroVm);
            }
            if machine.firmware != Firmware::Direct {
                return Err(UsageError::NoFirmwareOnMicroVm(machine.firmware));
            }
            if machine.screen == Screen::Window {
                return Err(UsageError::NoScreenOnMicroVm);
            }
        }
        Ok(())
    }
}

/// The value of the option that `parser` is at.
///
/// `--qemu-arg -snapshot` is meant as it stands: a value may begin with a dash.
fn text(parser: &mut Parser) -> Result<String, UsageError> {
    let value = parser.value().map_err(UsageError::from)?;
    value.string().map_err(UsageError::from)
}

/// A value that names a file.
fn path(parser: &mut Parser) -> Result<PathBuf, UsageError> {
    let value = parser.value().map_err(UsageError::from)?;
    Ok(PathBuf::from(value))
}

/// `view FILE…`, and what is to be written.
fn view(mut parser: Parser) -> Result<Invocation, UsageError> {
    let (mut files, mut show) = (Vec::new(), Show::default());
    while let Some(arg) = parser.next().map_err(UsageError::from)? {
        match arg {
            Arg::Value(file) => files.push(PathBuf::from(file)),
            Arg::Long("picture") => show.picture = Some(path(&mut parser)?),
            Arg::Long("splits") => show.splits = Some(path(&mut parser)?),
            Arg::Long("addresses") => show.addresses = Some(path(&mut parser)?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Invocation::Help),
            Arg::Long("movie") => return Err(UsageError::MovieOfFile),
            Arg::Long(name) => return Err(UsageError::UnknownOption(format!("--{name}"))),
            Arg::Short(letter) => return Err(UsageError::UnknownOption(format!("-{letter}"))),
        }
    }
    match files.is_empty() {
        true => Err(UsageError::NoRamFile),
        false => Ok(Invocation::View(files, show)),
    }
}

/// A value that is one of a few names.
fn named<T>(option: &'static str, given: &str) -> Result<T, UsageError>
where
    T: core::str::FromStr<Err = crate::machine::UnknownName>,
{
    given
        .parse()
        .map_err(|name| UsageError::UnknownValue { option, name })
}

fn seconds(given: &str) -> Result<Duration, UsageError> {
    match given.parse::<u32>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(UsageError::NotSeconds(given.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{BootOptions, Invocation};
    use crate::cmdline::CommandsError;
    use crate::kernel::{Optimisation, Profile};
    use crate::machine::{Board, Clock, Debugger, Firmware, Screen};
    use crate::size::SizeError;
    use crate::usage::UsageError;

    fn parse(line: &[&str]) -> Result<Invocation, UsageError> {
        Invocation::parse(line.iter().map(std::ffi::OsString::from))
    }

    fn boot(line: &[&str]) -> BootOptions {
        match parse(line) {
            Ok(Invocation::Boot(options)) => *options,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn no_arguments_describe_the_default_machine() {
        let options = boot(&[]);
        assert_eq!(options, BootOptions::default());
        assert_eq!(options.machine.memory.to_string(), "512M");
        assert_eq!(options.kernel.optimisation, Optimisation::Release);
        assert_eq!(options.kernel.profile, Profile::Hardened);
    }

    #[test]
    fn distances_are_between_nodes_that_are_there() {
        let error = |line: &[&str]| parse(line).unwrap_err();
        let none = UsageError::NoSuchNode { node: 0, count: 0 };
        assert_eq!(error(&["--numa-dist", "0,1,31"]), none);
        let five = UsageError::NoSuchNode { node: 5, count: 2 };
        assert_eq!(error(&["--numa", "2", "--numa-dist", "0,5,31"]), five);
        let named = ["--numa-node", "1G", "--numa-node", "1G", "--numa-dist"];
        assert_eq!(error(&[&named[..], &["5,1,31"]].concat()), five);
        boot(&[&named[..], &["1,0,31"]].concat());
    }

    #[test]
    fn each_option_sets_its_field() {
        let options = boot(&[
            "--memory",
            "4G",
            "--cpus=3",
            "--machine",
            "pc",
            "--firmware",
            "uefi",
            "--grub-line",
            "insmod mmap",
            "--grub-line=ls",
            "--cpu",
            "Nehalem",
            "--cmdline",
            "mem=1G",
            "--profile",
            "debug",
            "--exec",
            "help",
            "--icount",
            "--debug",
            "--display",
            "--gdb",
            "--timeout",
            "7",
            "--qemu-arg",
            "-snapshot",
            "--qemu-arg=-S",
        ]);
        let machine = &options.machine;
        assert_eq!(machine.memory.to_string(), "4G");
        assert_eq!(machine.cpus.to_string(), "3");
        assert_eq!(
            (machine.board, machine.firmware),
            (Board::Pc, Firmware::Uefi)
        );
        assert_eq!(machine.grub_lines, ["insmod mmap", "ls"]);
        assert_eq!(machine.cpu.as_deref(), Some("Nehalem"));
        assert_eq!(machine.clock, Clock::Instructions);
        assert_eq!(
            (machine.screen, machine.debugger),
            (Screen::Window, Debugger::Gdb)
        );
        assert_eq!(machine.extra_args, ["-snapshot", "-S"]);
        assert_eq!(options.cmdline.to_string(), "mem=1G exec=\"help\"");
        assert_eq!(options.kernel.profile, Profile::Debug);
        assert_eq!(options.kernel.optimisation, Optimisation::None);
        assert_eq!(options.timeout, Some(core::time::Duration::from_secs(7)));
    }

    #[test]
    fn help_wins_over_what_follows_it() {
        assert_eq!(parse(&["--help", "--nonsense"]), Ok(Invocation::Help));
        assert_eq!(parse(&["-h"]), Ok(Invocation::Help));
    }

    #[test]
    fn each_kind_of_nonsense_is_refused_with_its_reason() {
        for (line, message) in NONSENSE {
            let words: Vec<_> = line.split(' ').collect();
            let error = parse(&words).map_err(|error| error.to_string());
            assert_eq!(error, Err(message.to_owned()), "{line}");
        }
        assert_eq!(
            parse(&["--exec", "a \"b\""]),
            Err(UsageError::Commands(CommandsError::Quote))
        );
        assert_eq!(
            parse(&["--cmdline", "mem=1G exec=\"echo one\"", "--exec", "nope"]),
            Err(UsageError::CommandsInCommandLine)
        );
        assert_eq!(
            parse(&["--memory", "0"]),
            Err(UsageError::Memory(SizeError::Zero))
        );
        assert_eq!(
            parse(&["--machine", "microvm", "--firmware", "uefi"]),
            Err(UsageError::NoFirmwareOnMicroVm(Firmware::Uefi))
        );
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let text = "x".repeat(4096);
        assert_eq!(
            parse(&["--cmdline", &text]),
            Err(UsageError::CommandLineTooLong(4103))
        );
    }

    const NONSENSE: [(&str, &str); 16] = [
        (
            "--view --movie out.gif",
            "--view shows what --movie would record: use one of them",
        ),
        (
            "view ram --movie out.gif",
            "--movie records a machine while it runs: use it without `view`",
        ),
        ("--frobnicate", "there is no option --frobnicate"),
        ("-x", "there is no option -x"),
        (
            "frobnicate",
            "unexpected argument `frobnicate`: only options are understood, behind a `--` of \
             their own, as in `cargo run -- --memory 1G`; shell commands go to --exec",
        ),
        ("--memory", "--memory needs a value"),
        ("--debug=yes", "--debug takes no value"),
        (
            "--memory lots",
            "--memory: `lots` is not an amount of memory; write 512M, 4G, 512K or bytes",
        ),
        ("--cpus 0", "--cpus: `0` is not a number from 1 to 255"),
        ("--cpus 256", "--cpus: `256` is not a number from 1 to 255"),
        (
            "--machine vax",
            "--machine: `vax` is not q35, pc or microvm",
        ),
        (
            "--firmware ofw",
            "--firmware: `ofw` is not direct, bios or uefi",
        ),
        (
            "--grub-line ls",
            "--grub-line is for GRUB, which --firmware direct does without; \
             use --firmware bios or uefi",
        ),
        (
            "--profile x",
            "--profile: `x` is not plain, hardened or debug",
        ),
        (
            "--timeout 0",
            "--timeout: `0` is not a number of seconds from 1 upwards",
        ),
        (
            "--display --machine microvm",
            "--display needs a VGA adapter and --machine microvm has no bus for one",
        ),
    ];
}
