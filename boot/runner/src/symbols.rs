//! Names for the addresses of a backtrace.
//!
//! The kernel prints `  #N 0x<16 hex digits>` for each frame; [`BacktraceFilter`] appends
//! function, file and line to such lines as they stream by, and lets everything else through
//! at once, so that a prompt without line end is seen.

use core::fmt::Write;
use std::path::{Path, PathBuf};

use addr2line::Loader;

/// What can name an address.
pub trait Symbols {
    /// What is at `address`: one line of text, the innermost inlined function first.
    fn describe(&mut self, address: u64) -> Option<String>;
}

/// The debug information of an ELF file, read when the first address is asked for.
#[derive(Debug)]
pub struct ElfSymbols {
    path: PathBuf,
    state: State,
}

enum State {
    NotRead,
    Read(Box<Loader>),
    Unreadable,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotRead => "NotRead",
            Self::Read(_) => "Read",
            Self::Unreadable => "Unreadable",
        })
    }
}

impl ElfSymbols {
    /// The symbols of the ELF file at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            state: State::NotRead,
        }
    }

    fn loader(&mut self) -> Option<&Loader> {
        if matches!(self.state, State::NotRead) {
            self.state = Loader::new(&self.path)
                .map_or(State::Unreadable, |loader| State::Read(Box::new(loader)));
        }
        match &self.state {
            State::Read(loader) => Some(loader),
            State::NotRead | State::Unreadable => None,
        }
    }
}

impl Symbols for ElfSymbols {
    fn describe(&mut self, address: u64) -> Option<String> {
        let loader = self.loader()?;
        let mut text = String::new();
        let mut frames = loader.find_frames(address).ok()?;
        while let Ok(Some(frame)) = frames.next() {
            let name = frame
                .function
                .as_ref()
                .and_then(|name| name.demangle().ok());
            let Some(name) = name else { continue };
            if !text.is_empty() {
                text.push_str(", inlined into ");
            }
            text.push_str(without_hash(&name));
            if let Some(location) = frame.location {
                append_location(&mut text, location.file, location.line);
            }
        }
        if text.is_empty() {
            let symbol = loader.find_symbol(address)?;
            let name = addr2line::demangle_auto(symbol.into(), None);
            text.push_str(without_hash(&name));
        }
        Some(text)
    }
}

fn append_location(text: &mut String, file: Option<&str>, line: Option<u32>) {
    let Some(file) = file else { return };
    text.push_str(" (");
    text.push_str(shortened(file));
    if let Some(line) = line {
        // Writing to a `String` cannot fail.
        let _infallible = write!(text, ":{line}");
    }
    text.push(')');
}

/// `core::panicking::panic::h0123456789abcdef` without the compiler's hash.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && is_hex(hash) => path,
        _ => name,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A source path from the workspace, or from the standard library or a package, without what
/// lies before it on the machine that compiled it.
fn shortened(file: &str) -> &str {
    let workspace = crate::host::workspace_root();
    if let Ok(inside) = Path::new(file).strip_prefix(workspace) {
        return inside.to_str().unwrap_or(file);
    }
    let library = file
        .find("/library/")
        .filter(|_| file.starts_with("/rustc/"));
    if let Some(start) = library {
        return file.get(start..).unwrap_or(file).trim_start_matches('/');
    }
    let package = file
        .split_once("/registry/src/")
        .and_then(|(_, rest)| rest.split_once('/'));
    package.map_or(file, |(_, inside)| inside)
}

/// Longest beginning of a line that is kept to look for a backtrace in it.
const LINE_LIMIT: usize = 64;

/// Appends names to the backtrace lines of a stream of serial output.
#[derive(Debug)]
pub struct BacktraceFilter<S> {
    symbols: S,
    line: Vec<u8>,
}

impl<S: Symbols> BacktraceFilter<S> {
    /// A filter that asks `symbols`.
    pub const fn new(symbols: S) -> Self {
        Self {
            symbols,
            line: Vec::new(),
        }
    }

    /// The output for the next `input`.
    pub fn push(&mut self, input: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == b'\r' || byte == b'\n' {
                if let Some(name) = self.name_of_line() {
                    output.push(b' ');
                    output.extend_from_slice(name.as_bytes());
                }
                self.line.clear();
            } else if self.line.len() < LINE_LIMIT {
                self.line.push(byte);
            }
            output.push(byte);
        }
        output
    }

    fn name_of_line(&mut self) -> Option<String> {
        let Frame { number, address } = Frame::parse(&self.line)?;
        // A return address may already lie in the next line, or after the function's end when
        // the call never returns: the call is just before it. Frame 0 of a fault is where the
        // CPU was, that of a panic a return address like the others.
        let before = address.saturating_sub(1);
        match number {
            0 => self
                .symbols
                .describe(address)
                .or_else(|| self.symbols.describe(before)),
            _ => self.symbols.describe(before),
        }
    }
}

/// One line of the kernel's backtrace.
struct Frame {
    number: u32,
    address: u64,
}

impl Frame {
    /// Parses `  #N 0x<16 hex digits>`; a longer line is something else.
    fn parse(line: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(line).ok()?;
        let (number, address) = text.trim().strip_prefix('#')?.split_once(' ')?;
        let digits = address.trim_start().strip_prefix("0x")?;
        if digits.len() != 16 || !is_hex(digits) {
            return None;
        }
        let address = u64::from_str_radix(digits, 16).ok()?;
        Some(Self {
            number: number.parse().ok()?,
            address,
        })
    }
}

#[cfg(test)]
#[path = "symbols_tests.rs"]
mod tests;
