//! How a machine's life ended, and the exit status that the runner makes of it.

use core::fmt;
use std::process::ExitStatus;

/// How a machine's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel ran all it was asked to, with success.
    Passed,
    /// The kernel ran to the end, and a command failed.
    CommandFailed,
    /// The kernel panicked.
    Panicked,
    /// The kernel cannot run on this CPU model.
    UnsupportedCpu,
    /// The kernel refused what the firmware or the boot loader gave it.
    BootFailed,
    /// The CPU raised an exception that the kernel reported and could not handle.
    Faulted,
    /// The CPU could not even deliver a double fault: no report is possible.
    TripleFaulted,
    /// The machine was switched off from outside, by the user in QEMU's monitor or window, or
    /// restarted: QEMU is told to end then.
    SwitchedOff,
    /// The kernel ended the machine with a value that means nothing.
    UnknownVerdict(u8),
    /// The machine outlived its time.
    TimedOut,
    /// QEMU itself failed; its exit code, or `None` when a signal ended it.
    QemuFailed(Option<i32>),
}

/// QEMU's exit status is `2v + 1` for a verdict `v` written to the debug-exit port.
const fn verdict(value: i32) -> i32 {
    value.wrapping_mul(2).wrapping_add(1)
}

const PASSED: i32 = verdict(0x10);
const COMMAND_FAILED: i32 = verdict(0x11);
const PANICKED: i32 = verdict(0x12);
const UNSUPPORTED_CPU: i32 = verdict(0x13);
const BOOT_FAILED: i32 = verdict(0x14);
const FAULTED: i32 = verdict(0x15);

impl Outcome {
    /// Classifies a QEMU that ended by itself; `reset_log` is what it noted about CPU resets.
    #[must_use]
    pub fn classify(status: ExitStatus, reset_log: &str) -> Self {
        match status.code() {
            Some(0) if reset_log.contains(crate::qemu_args::TRIPLE_FAULT_MARK) => {
                Self::TripleFaulted
            }
            Some(0) => Self::SwitchedOff,
            Some(PASSED) => Self::Passed,
            Some(COMMAND_FAILED) => Self::CommandFailed,
            Some(PANICKED) => Self::Panicked,
            Some(UNSUPPORTED_CPU) => Self::UnsupportedCpu,
            Some(BOOT_FAILED) => Self::BootFailed,
            Some(FAULTED) => Self::Faulted,
            Some(code) if code > 1 && code % 2 == 1 => match u8::try_from(code / 2) {
                Ok(value) => Self::UnknownVerdict(value),
                Err(_) => Self::QemuFailed(Some(code)),
            },
            code => Self::QemuFailed(code),
        }
    }

    /// The runner's exit status. Leaving an interactive shell is success, whatever was tried in
    /// it; leaving a machine that was to run commands is not.
    #[must_use]
    pub const fn exit_status(self, ran_commands: RanCommands) -> u8 {
        match (self, ran_commands) {
            (Self::Passed, _) | (Self::SwitchedOff | Self::CommandFailed, RanCommands::No) => 0,
            (Self::CommandFailed, RanCommands::Yes) => 1,
            (Self::Panicked, _) => 101,
            (Self::Faulted | Self::TripleFaulted, _) => 102,
            (Self::BootFailed, _) => 103,
            (Self::UnsupportedCpu, _) => 104,
            (Self::SwitchedOff, RanCommands::Yes) | (Self::UnknownVerdict(_), _) => 105,
            (Self::TimedOut, _) => 124,
            (Self::QemuFailed(_), _) => 125,
        }
    }
}

/// Whether the kernel was given commands to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RanCommands {
    /// Those of `--exec`, or lines from a file or pipe.
    Yes,
    /// None: the shell was on a terminal.
    No,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "all commands succeeded"),
            Self::CommandFailed => write!(f, "a command failed"),
            Self::Panicked => write!(f, "the kernel panicked"),
            Self::UnsupportedCpu => write!(f, "the kernel cannot run on this CPU model"),
            Self::BootFailed => write!(
                f,
                "the kernel refused what the firmware or the boot loader gave it"
            ),
            Self::Faulted => write!(f, "the CPU raised a fault that the kernel could not handle"),
            Self::TripleFaulted => write!(f, "the CPU took a triple fault and reset the machine"),
            Self::SwitchedOff => {
                write!(
                    f,
                    "the machine was restarted or switched off before the commands were done"
                )
            }
            Self::UnknownVerdict(value) => {
                write!(
                    f,
                    "the kernel ended the machine with the unknown verdict {value:#x}"
                )
            }
            Self::TimedOut => write!(f, "the time limit expired and the machine was stopped"),
            Self::QemuFailed(Some(code)) => write!(f, "QEMU failed with exit status {code}"),
            Self::QemuFailed(None) => write!(f, "QEMU was killed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, RanCommands};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn each_debug_exit_value_has_its_outcome_and_status() {
        for (value, outcome, status) in [
            (0x10, Outcome::Passed, 0),
            (0x11, Outcome::CommandFailed, 1),
            (0x12, Outcome::Panicked, 101),
            (0x13, Outcome::UnsupportedCpu, 104),
            (0x14, Outcome::BootFailed, 103),
            (0x15, Outcome::Faulted, 102),
            (0x7f, Outcome::UnknownVerdict(0x7f), 105),
        ] {
            let seen = Outcome::classify(exited(value << 1 | 1), "");
            assert_eq!(seen, outcome);
            assert_eq!(seen.exit_status(RanCommands::Yes), status);
        }
    }

    #[test]
    fn qemu_and_the_host_have_outcomes_of_their_own() {
        assert_eq!(
            Outcome::classify(exited(1), ""),
            Outcome::QemuFailed(Some(1))
        );
        assert_eq!(
            Outcome::classify(exited(2), ""),
            Outcome::QemuFailed(Some(2))
        );
        assert_eq!(
            Outcome::classify(ExitStatus::from_raw(9), ""),
            Outcome::QemuFailed(None)
        );
        assert_eq!(Outcome::TimedOut.exit_status(RanCommands::No), 124);
        assert_eq!(Outcome::QemuFailed(None).exit_status(RanCommands::No), 125);
    }

    #[test]
    fn an_end_without_verdict_is_a_reset_or_the_users_wish() {
        let reset = Outcome::classify(exited(0), "CPU Reset (CPU 0)\nTriple fault\n");
        assert_eq!(
            (reset, reset.exit_status(RanCommands::No)),
            (Outcome::TripleFaulted, 102)
        );

        let left = Outcome::classify(exited(0), "CPU Reset (CPU 0)\n");
        assert_eq!(left, Outcome::SwitchedOff);
        assert_eq!(left.exit_status(RanCommands::No), 0);
        assert_eq!(left.exit_status(RanCommands::Yes), 105);
        assert!(left.to_string().contains("restarted or switched off"));
    }

    #[test]
    fn what_failed_in_a_shell_on_a_terminal_was_seen_there() {
        assert_eq!(Outcome::CommandFailed.exit_status(RanCommands::No), 0);
        assert_eq!(Outcome::Panicked.exit_status(RanCommands::No), 101);
    }
}
