//! What can be wrong with the runner's arguments, and the help text.

use core::fmt;

use crate::cmdline::{CommandLine, CommandsError};
use crate::machine::{Firmware, UnknownName};
use crate::size::SizeError;

/// The text of `--help`.
pub const HELP: &str = include_str!("help.txt");

const MOVIE_OF_VIEW: &str = "--view shows what --movie would record: use one of them";
const MOVIE_OF_FILE: &str = "--movie records a machine while it runs: use it without `view`";

/// Why the arguments were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No option has this name.
    UnknownOption(String),
    /// A word that is neither an option nor the value of one.
    UnexpectedWord(String),
    /// The option needs a value.
    MissingValue(String),
    /// The option takes none.
    UnexpectedValue(String),
    /// A value that is not UTF-8.
    NotUnicode,
    /// A value of `--memory`.
    Memory(SizeError),
    /// A value of `--exec`.
    Commands(CommandsError),
    /// `--cmdline` and `--exec` together are longer than a kernel command line can be.
    CommandLineTooLong(usize),
    /// A value of `--timeout`.
    NotSeconds(String),
    /// A value that is none of the option's names.
    UnknownValue {
        /// The option.
        option: &'static str,
        /// The name and the known ones.
        name: UnknownName,
    },
    /// Lines for GRUB on a machine that boots without it.
    NoGrub,
    /// `exec=` in `--cmdline`: two lots of commands, or ones that the runner does not know of.
    CommandsInCommandLine,
    /// `microvm` has no CD drive to boot GRUB from.
    NoFirmwareOnMicroVm(Firmware),
    /// `--numa` and `--numa-node`.
    TwoNumas,
    /// `--numa-dist` names a node that there is not, of so many.
    NoSuchNode {
        /// The node.
        node: u8,
        /// How many nodes there are.
        count: usize,
    },
    /// `microvm` has no ACPI tables that name nodes.
    NoNumaOnMicroVm,
    /// `microvm` has no PCI bus for a VGA adapter.
    NoScreenOnMicroVm,
    /// `view` without a file.
    NoRamFile,
    /// `--movie` with `--view`.
    MovieOfView,
    /// `--movie` of memory that does not change.
    MovieOfFile,
}

impl From<SizeError> for UsageError {
    fn from(error: SizeError) -> Self {
        Self::Memory(error)
    }
}

impl From<CommandsError> for UsageError {
    fn from(error: CommandsError) -> Self {
        Self::Commands(error)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        match error {
            lexopt::Error::MissingValue { option } => {
                Self::MissingValue(option.unwrap_or_default())
            }
            lexopt::Error::UnexpectedValue { option, .. } => Self::UnexpectedValue(option),
            lexopt::Error::UnexpectedOption(option) => Self::UnknownOption(option),
            lexopt::Error::UnexpectedArgument(word) => {
                Self::UnexpectedWord(word.to_string_lossy().into_owned())
            }
            // The other variants come from lexopt's own value parsers, which are not used here.
            _ => Self::NotUnicode,
        }
    }
}

impl core::error::Error for UsageError {}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOption(option) => write!(f, "there is no option {option}"),
            Self::UnexpectedWord(word) => write!(
                f,
                "unexpected argument `{word}`: only options are understood, behind a `--` of \
                 their own, as in `cargo run -- --memory 1G`; shell commands go to --exec"
            ),
            Self::MissingValue(option) => write!(f, "{option} needs a value"),
            Self::UnexpectedValue(option) => write!(f, "{option} takes no value"),
            Self::NotUnicode => write!(f, "an argument is not valid UTF-8"),
            Self::Memory(error) => write!(f, "--memory: {error}"),
            Self::Commands(error) => write!(f, "--exec: {error}"),
            Self::CommandLineTooLong(length) => write!(
                f,
                "--cmdline and --exec make a line of {length} bytes; the kernel takes {}",
                CommandLine::CAPACITY
            ),
            Self::NotSeconds(given) => {
                write!(
                    f,
                    "--timeout: `{given}` is not a number of seconds from 1 upwards"
                )
            }
            Self::UnknownValue { option, name } => write!(f, "{option}: {name}"),
            Self::CommandsInCommandLine => {
                write!(
                    f,
                    "--cmdline cannot hold `exec=`: shell commands go to --exec"
                )
            }
            Self::NoGrub => write!(
                f,
                "--grub-line is for GRUB, which --firmware direct does without; \
                 use --firmware bios or uefi"
            ),
            Self::NoFirmwareOnMicroVm(firmware) => write!(
                f,
                "--firmware {firmware} boots from a CD and --machine microvm has no drive for one; \
                 use q35 or pc, or --firmware direct"
            ),
            Self::TwoNumas => f.write_str("--numa splits evenly, --numa-node one by one: use one"),
            Self::NoSuchNode { count: 0, .. } => f.write_str(
                "--numa-dist is between nodes, and there are none: add --numa or --numa-node",
            ),
            Self::NoSuchNode { node, count } => write!(
                f,
                "--numa-dist: there is no node {node}: the {count} nodes are numbered from 0"
            ),
            Self::NoNumaOnMicroVm => f.write_str("--machine microvm has no nodes"),
            Self::NoRamFile => f.write_str("view: name the file that the memory is in"),
            Self::MovieOfView => f.write_str(MOVIE_OF_VIEW),
            Self::MovieOfFile => f.write_str(MOVIE_OF_FILE),
            Self::NoScreenOnMicroVm => {
                write!(
                    f,
                    "--display needs a VGA adapter and --machine microvm has no bus for one"
                )
            }
        }
    }
}
