//! The kernel command line: `key=value` words, with quotes around values that hold blanks.
//!
//! A parameter that somebody registered with [`kernel_param!`](crate::kernel_param) is known;
//! any other is warned about at boot, and so is a value that it does not have. `exec=` takes the rest of the line, whatever is in it.

use crate::registry::registry;
use crate::shell::parse::number;
use core::fmt;
use spin::Once;

static LINE: Once<&'static str> = Once::new();

/// A parameter the kernel knows.
#[derive(Clone, Copy, Debug)]
pub struct KernelParam {
    /// What stands before the `=`.
    pub name: &'static str,
    /// What stands behind it: nothing at all, `NUMBER`, all values there are (`off|on`), or, in capitals,
    /// something that whoever reads the parameter checks. In brackets from the start if it may be left out.
    pub takes: &'static str,
    /// One line for the documentation.
    pub help: &'static str,
}

registry! {
    /// Every registered parameter.
    pub fn known() -> [KernelParam]; start "__start_kernel_params", stop "__stop_kernel_params"
}

/// Registers a kernel parameter: `kernel_param!("mem", "SIZE", "use no memory above");`.
#[macro_export]
macro_rules! kernel_param {
    ($name:literal, $help:literal $(,)?) => {
        $crate::kernel_param!($name, "", $help);
    };
    ($name:literal, $takes:literal, $help:literal $(,)?) => {
        $crate::__register!(
            "kernel_params",
            $crate::params::KernelParam,
            $crate::params::KernelParam {
                name: $name,
                takes: $takes,
                help: $help,
            }
        );
    };
}

kernel_param!(
    "exec",
    "\"CMD; CMD\"",
    "run these commands, then power off; last on the line"
);
kernel_param!(
    "icount",
    "the emulator counts instructions: one TSC tick each"
);
// `boot` reads it, before the kernel runs.
kernel_param!(
    "la57",
    "off|on",
    "five levels of page tables where the CPU has them; default on"
);
kernel_param!(
    "loglevel",
    "off|error|warn|info|debug|trace",
    "what is logged; default info"
);

/// One word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The word up to `=`, or all of it.
    pub name: &'a str,
    /// What follows the `=`, without its quotes.
    pub value: Option<&'a str>,
}

/// Splits a command line into its parameters.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    rest: &'a str,
}

/// Parses `line`.
#[must_use]
pub const fn parse(line: &str) -> Params<'_> {
    Params { rest: line }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let text = self.rest.trim_start();
        if text.is_empty() {
            self.rest = text;
            return None;
        }

        if let Some(commands) = text.strip_prefix("exec=") {
            self.rest = "";
            return Some(Param {
                name: "exec",
                value: Some(unquote(commands)),
            });
        }

        let (word, rest) = text.split_at(word_length(text));
        self.rest = rest;
        // Linux's rule: the quotes may be around the value or around the whole word.
        let word = unquote(word);
        Some(match word.split_once('=') {
            Some((name, value)) => Param {
                name,
                value: Some(unquote(value)),
            },
            None => Param {
                name: word,
                value: None,
            },
        })
    }
}

/// Bytes up to the first blank outside quotes.
fn word_length(text: &str) -> usize {
    let mut quoted = false;
    for (index, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => return index,
            _ => {}
        }
    }
    text.len()
}

/// Takes one pair of quotes off; a lone one at the start goes too.
fn unquote(text: &str) -> &str {
    let text = text.trim();
    match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => text,
    }
}

/// Keeps the boot command line.
pub(crate) fn init(line: &'static str) {
    LINE.call_once(|| line);
}

/// The whole command line.
#[must_use]
pub fn line() -> &'static str {
    LINE.get().copied().unwrap_or("")
}

/// All parameters of the boot command line, in order.
#[must_use]
pub fn all() -> Params<'static> {
    parse(line())
}

/// The value of the last `name=value`.
#[must_use]
pub fn get(name: &str) -> Option<&'static str> {
    let named = all().filter(|param| param.name == name);
    named.filter_map(|param| param.value).last()
}

/// Whether `name` stands on the command line by itself.
#[must_use]
pub fn is_set(name: &str) -> bool {
    all().any(|param| param.name == name && param.value.is_none())
}

/// The command line up to the commands, which may hold anything.
#[must_use]
pub fn without_commands() -> &'static str {
    let starts = |at: &usize| {
        let before = line().get(..*at).unwrap_or_default();
        before.is_empty() || before.ends_with(|c: char| c.is_ascii_whitespace())
    };
    let commands = line().match_indices("exec=").map(|(at, _)| at).find(starts);
    commands.and_then(|at| line().get(..at)).unwrap_or(line())
}

/// Why a parameter has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows it.
    Unknown,
    /// It says all by itself.
    TakesNoValue,
    /// It says nothing without a value.
    NeedsValue,
    /// Its values are others.
    NoSuchValue,
    /// Its value is a number.
    NotANumber,
}

impl Param<'_> {
    /// What is wrong with it, as far as that can be seen without whoever reads it.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let Some(known) = known().iter().find(|known| known.name == self.name) else {
            return Some(Refusal::Unknown);
        };
        match (known.takes, self.value) {
            ("", None) => None,
            ("", Some(_)) => Some(Refusal::TakesNoValue),
            (takes, None) => (!takes.starts_with('[')).then_some(Refusal::NeedsValue),
            ("NUMBER", Some(value)) => number(value).is_none().then_some(Refusal::NotANumber),
            (takes, Some(_)) if takes.contains(|c: char| c.is_ascii_uppercase()) => None,
            (takes, Some(value)) => {
                let is_known = takes.split('|').any(|known| known == value);
                (!is_known).then_some(Refusal::NoSuchValue)
            }
        }
    }
}

impl fmt::Display for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// Warns about parameters that have no effect.
pub(crate) fn warn_refused() {
    for param in all() {
        let takes = || {
            let known = known().iter().find(|known| known.name == param.name);
            known.map_or("", |known| known.takes)
        };
        let Some(refusal) = param.refusal() else {
            continue;
        };
        let name = param.name;
        match refusal {
            Refusal::Unknown => log::warn!("kernel parameter ignored: `{name}` is unknown"),
            Refusal::TakesNoValue => {
                log::warn!("kernel parameter ignored: `{param}`: write `{name}` alone");
            }
            Refusal::NeedsValue => {
                log::warn!(
                    "kernel parameter ignored: `{name}` needs a value: {}",
                    takes()
                );
            }
            Refusal::NoSuchValue => {
                log::warn!(
                    "kernel parameter ignored: `{param}` has no such value: {}",
                    takes()
                );
            }
            Refusal::NotANumber => {
                log::warn!("kernel parameter ignored: `{param}` is not a number");
            }
        }
    }
}
