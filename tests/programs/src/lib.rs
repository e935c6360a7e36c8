//! Programs on an allocator: a JSON parser, a regular-expression engine and a hash map, as other people wrote
//! them, on inputs that are made up here, so that every result is known before.
//!
//! They use nothing but `alloc`: they run in a kernel, and on the host under whatever allocator is the global one.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod json;
mod maps;
mod regexes;

use alloc::string::String;
use core::fmt;

/// A program: makes up an input of at least so many bytes from a seed, works on it, and checks what comes out.
pub type Program = fn(bytes: usize, seed: u64) -> Result<Outcome, Wrong>;

/// All programs, with their names.
pub const PROGRAMS: [(&str, Program); 3] = [
    ("json", json::run),
    ("regex", regexes::run),
    ("hashmap", maps::run),
];

/// What a program did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Bytes of its input.
    pub bytes: usize,
    /// Things that were found in it, all of them right.
    pub items: usize,
}

/// A result that is not what it should be, or no memory for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong(String);

impl Wrong {
    fn new(what: impl fmt::Display) -> Self {
        Self(alloc::format!("{what}"))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Wrong {}

/// Fails unless a result is what it should be.
fn expect<T: PartialEq + fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), Wrong> {
    match found == expected {
        true => Ok(()),
        false => Err(Wrong::new(format_args!(
            "{what}: {found:?}, not {expected:?}"
        ))),
    }
}

/// Room for a text, or the reason why there is none.
fn text_of(bytes: usize) -> Result<String, Wrong> {
    let mut text = String::new();
    text.try_reserve(bytes).map_err(Wrong::new)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_find_what_was_put_in() {
        for (name, program) in PROGRAMS {
            let outcome = program(300_000, 1).unwrap();
            assert!(
                outcome.bytes >= 300_000 && outcome.items > 1000,
                "{name}: {outcome:?}"
            );
        }
    }
}
