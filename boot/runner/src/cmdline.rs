//! The kernel's command line: the user's own text, then the shell commands of `--exec`.
//!
//! The commands travel as the last parameter, `exec="CMD; CMD"`. The kernel splits parameters
//! at blanks outside double quotes and knows no escapes, so a command cannot contain a quote.

use core::fmt;
use core::str::FromStr;

/// Shell commands for the kernel to run, separated by `;`, before it powers off.
///
/// # Invariants
/// 1. No double quote and no control character; not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands(String);

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot be handed to the kernel as commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandsError {
    /// Nothing to run.
    Empty,
    /// A double quote, which would end the parameter.
    Quote,
    /// A control character, such as a line break.
    Control(char),
}

/// What the kernel finds on its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The user's text (`--cmdline`).
    pub text: String,
    /// Commands to run (`--exec`); without them the kernel starts its shell.
    pub commands: Option<Commands>,
}

impl CommandLine {
    /// How many bytes the kernel keeps; QEMU and GRUB fail on far longer lines in ways of their
    /// own.
    pub const CAPACITY: usize = 4096;

    /// A command line of nothing but `commands`.
    #[must_use]
    pub const fn of(commands: Commands) -> Self {
        Self {
            text: String::new(),
            commands: Some(commands),
        }
    }

    /// The same, with the word that tells the kernel to take its clock for a count of
    /// instructions.
    #[must_use]
    pub(crate) fn with_counting(mut self) -> Self {
        self.text = match self.text.as_str() {
            "" => "icount".to_owned(),
            text => format!("icount {text}"),
        };
        self
    }
}

impl FromStr for Commands {
    type Err = CommandsError;

    fn from_str(text: &str) -> Result<Self, CommandsError> {
        if text.contains('"') {
            return Err(CommandsError::Quote);
        }
        if let Some(control) = text.chars().find(|character| character.is_control()) {
            return Err(CommandsError::Control(control));
        }
        if text.split(';').all(|command| command.trim().is_empty()) {
            return Err(CommandsError::Empty);
        }
        // INVARIANT: (1) each clause was just checked.
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let Some(Commands(commands)) = &self.commands else {
            return Ok(());
        };
        if !self.text.is_empty() {
            f.write_str(" ")?;
        }
        write!(f, "exec=\"{commands}\"")
    }
}

impl core::error::Error for CommandsError {}

impl fmt::Display for CommandsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "there is no command in it"),
            Self::Quote => write!(f, "a command cannot contain a double quote"),
            Self::Control(control) => {
                write!(
                    f,
                    "a command cannot contain the control character {control:?}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, Commands, CommandsError};

    #[test]
    fn commands_come_last_and_in_quotes() {
        let line = |text: &str, commands: Option<&str>| {
            let commands = commands.map(|commands| commands.parse::<Commands>().unwrap());
            CommandLine {
                text: text.to_owned(),
                commands,
            }
            .to_string()
        };
        assert_eq!(line("", None), "");
        assert_eq!(line("mem=1G", None), "mem=1G");
        assert_eq!(line("", Some("help")), "exec=\"help\"");
        assert_eq!(
            line("mem=1G", Some(" help; dmesg ")),
            "mem=1G exec=\"help; dmesg\""
        );
    }

    #[test]
    fn a_counting_machine_tells_its_kernel_so() {
        let line = |text: &str| CommandLine {
            text: text.to_owned(),
            commands: None,
        };
        assert_eq!(line("").with_counting().to_string(), "icount");
        assert_eq!(line("mem=1G").with_counting().to_string(), "icount mem=1G");
    }

    #[test]
    fn what_the_kernel_could_not_read_back_is_refused() {
        for (text, error) in [
            ("", CommandsError::Empty),
            (" ; ;", CommandsError::Empty),
            ("echo \"x\"", CommandsError::Quote),
            ("help\ndmesg", CommandsError::Control('\n')),
        ] {
            assert_eq!(text.parse::<Commands>(), Err(error), "{text}");
        }
    }
}
