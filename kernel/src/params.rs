//! The kernel command line: `key=value` words, with quotes around values that hold blanks.
//!
//! A parameter that somebody registered with [`kernel_param!`](crate::kernel_param) is known;
//! any other is warned about at boot. `exec=` takes the rest of the line, whatever is in it.

use crate::registry::registry;
use spin::Once;

static LINE: Once<&'static str> = Once::new();

/// A parameter the kernel knows.
#[derive(Clone, Copy, Debug)]
pub struct KernelParam {
    /// What stands before the `=`.
    pub name: &'static str,
    /// One line for the documentation.
    pub help: &'static str,
}

registry! {
    /// Every registered parameter.
    pub fn known() -> [KernelParam]; start "__start_kernel_params", stop "__stop_kernel_params"
}

/// Registers a kernel parameter: `kernel_param!("mem", "SIZE: use no memory above");`.
#[macro_export]
macro_rules! kernel_param {
    ($name:literal, $help:literal) => {
        $crate::__register!(
            "kernel_params",
            $crate::params::KernelParam,
            $crate::params::KernelParam {
                name: $name,
                help: $help,
            }
        );
    };
}

kernel_param!(
    "exec",
    "\"CMD; CMD\": run these commands, then power off; last on the line"
);
kernel_param!(
    "icount",
    "the emulator counts instructions: one TSC tick each"
);
kernel_param!(
    "loglevel",
    "off|error|warn|info|debug|trace: what is logged; default info"
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

/// The value of the last `name=value`; a bare `name` is an empty value.
#[must_use]
pub fn get(name: &str) -> Option<&'static str> {
    all()
        .filter(|param| param.name == name)
        .last()
        .map(|param| param.value.unwrap_or(""))
}

/// Whether `name` stands on the command line, with or without a value.
#[must_use]
pub fn is_set(name: &str) -> bool {
    get(name).is_some()
}

/// Warns about parameters nobody registered.
pub(crate) fn warn_unknown() {
    let unknown = |param: &Param<'_>| !known().iter().any(|known| known.name == param.name);
    for param in all().filter(unknown) {
        log::warn!("kernel parameter ignored: `{}` is unknown", param.name);
    }
}
