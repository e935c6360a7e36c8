//! Editing one line on a serial terminal: a state machine from bytes to lines.
//!
//! Typed characters are echoed; backspace, Ctrl-U (forget the line), Ctrl-C (give up) and the
//! up and down arrows (history) work as people expect. It knows no device: bytes come in through
//! [`LineEditor::feed`], the echo goes to a `fmt::Write`.

use super::interrupt::CTRL_C;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::{self, Write};

/// Longest line taken.
const MAX_LINE: usize = 1024;
/// Lines remembered.
const MAX_HISTORY: usize = 32;

const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// What a byte led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet.
    Pending,
    /// A whole line.
    Line(String),
    /// Ctrl-C: the line was thrown away.
    Interrupted,
}

/// How far an escape sequence has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Started,
    /// After `ESC [`: parameters until a letter.
    Bracket,
}

/// A line being typed, and the lines before it.
#[derive(Debug, Default)]
pub struct LineEditor {
    line: String,
    history: VecDeque<String>,
    /// Which line of the history is shown, counted back from the newest.
    shown: Option<usize>,
    escape: Escape,
    /// A carriage return came last: a newline right after it is the same key.
    after_return: bool,
}

impl LineEditor {
    /// An empty line, no history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one byte from the terminal and echoes what it does to `echo`.
    ///
    /// # Errors
    ///
    /// `echo` failed.
    pub fn feed(&mut self, byte: u8, echo: &mut dyn Write) -> Result<Event, fmt::Error> {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        if self.escape != Escape::None {
            self.feed_escape(byte, echo)?;
            return Ok(Event::Pending);
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => return self.finish(echo).map(Event::Line),
            BACKSPACE | DELETE if self.line.pop().is_some() => echo.write_str("\x08 \x08")?,
            CTRL_U => self.replace(String::new(), echo)?,
            CTRL_C => {
                self.line.clear();
                self.shown = None;
                echo.write_str("^C\n")?;
                return Ok(Event::Interrupted);
            }
            ESCAPE => self.escape = Escape::Started,
            b' '..=b'~' => self.insert(char::from(byte), echo)?,
            // Other control characters and bytes that are not ASCII mean nothing here.
            _ => {}
        }
        Ok(Event::Pending)
    }

    fn feed_escape(&mut self, byte: u8, echo: &mut dyn Write) -> fmt::Result {
        self.escape = match (self.escape, byte) {
            (Escape::Started, b'[' | b'O') => Escape::Bracket,
            (Escape::Bracket, b'0'..=b'9' | b';') => Escape::Bracket,
            (Escape::Bracket, b'A') => {
                self.recall(self.shown.map_or(0, |shown| shown.saturating_add(1)), echo)?;
                Escape::None
            }
            (Escape::Bracket, b'B') => {
                match self.shown.and_then(|shown| shown.checked_sub(1)) {
                    Some(newer) => self.recall(newer, echo)?,
                    None => {
                        self.replace(String::new(), echo)?;
                        self.shown = None;
                    }
                }
                Escape::None
            }
            _ => Escape::None,
        };
        Ok(())
    }

    fn insert(&mut self, character: char, echo: &mut dyn Write) -> fmt::Result {
        // A full line takes no more; the missing echo shows it.
        if self.line.len() >= MAX_LINE || self.line.try_reserve(1).is_err() {
            return Ok(());
        }
        self.line.push(character);
        echo.write_char(character)
    }

    fn finish(&mut self, echo: &mut dyn Write) -> Result<String, fmt::Error> {
        echo.write_str("\n")?;
        self.shown = None;
        let line = core::mem::take(&mut self.line);
        let is_news = self.history.front() != Some(&line);
        if !line.trim().is_empty() && is_news && self.history.try_reserve(1).is_ok() {
            self.history.push_front(line.clone());
            self.history.truncate(MAX_HISTORY);
        }
        Ok(line)
    }

    /// Shows the line `back` steps before the newest; beyond the oldest nothing changes.
    fn recall(&mut self, back: usize, echo: &mut dyn Write) -> fmt::Result {
        let Some(line) = self.history.get(back).cloned() else {
            return Ok(());
        };
        self.shown = Some(back);
        self.replace(line, echo)
    }

    fn replace(&mut self, line: String, echo: &mut dyn Write) -> fmt::Result {
        for _ in self.line.chars() {
            echo.write_str("\x08 \x08")?;
        }
        echo.write_str(&line)?;
        self.line = line;
        Ok(())
    }
}
