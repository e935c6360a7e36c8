//! From a line to commands: `;` between commands, blanks between words, quotes around words. `>` and `>>`
//! outside of quotes are words of their own, as in `echo 7>FILE`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why a line is not a sequence of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// A quote was opened and not closed.
    OpenQuote(char),
    /// No memory for the words.
    OutOfMemory,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "a {quote} is not closed"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

/// The words of one command; the first is its name.
pub type Words = Vec<String>;

/// Splits a line into commands, leaving out empty ones.
///
/// # Errors
///
/// An open quote, or no memory.
pub fn parse(line: &str) -> Result<Vec<Words>, ParseError> {
    let mut parser = Parser::default();
    for character in line.chars() {
        parser.feed(character)?;
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    commands: Vec<Words>,
    words: Words,
    /// The word being read; `None` between words. An empty quoted word is a word.
    word: Option<String>,
    quote: Option<char>,
    /// The character before was a `>` outside of quotes.
    after_sign: bool,
}

impl Parser {
    fn feed(&mut self, character: char) -> Result<(), ParseError> {
        if self.quote.is_some() || character != '>' {
            self.after_sign = false;
        }
        match (self.quote, character) {
            (Some(quote), c) if c == quote => self.quote = None,
            (Some(_), c) => self.push(c)?,
            (None, '\'' | '"') => {
                self.quote = Some(character);
                self.word.get_or_insert_default();
            }
            (None, ';') => self.end_command()?,
            (None, '>') => self.sign()?,
            (None, c) if c.is_whitespace() => self.end_word()?,
            (None, c) => self.push(c)?,
        }
        Ok(())
    }

    fn push(&mut self, character: char) -> Result<(), ParseError> {
        let word = self.word.get_or_insert_default();
        word.try_reserve(character.len_utf8())
            .map_err(|_| ParseError::OutOfMemory)?;
        word.push(character);
        Ok(())
    }

    /// `>`, or the second one of `>>`.
    fn sign(&mut self) -> Result<(), ParseError> {
        let follows = core::mem::replace(&mut self.after_sign, true);
        match self.words.last_mut() {
            Some(sign) if follows && sign == ">" => {
                sign.try_reserve(1).map_err(|_| ParseError::OutOfMemory)?;
                sign.push('>');
                Ok(())
            }
            _ => {
                self.end_word()?;
                self.push('>')?;
                self.end_word()
            }
        }
    }

    fn end_word(&mut self) -> Result<(), ParseError> {
        match self.word.take() {
            Some(word) => push(&mut self.words, word),
            None => Ok(()),
        }
    }

    fn end_command(&mut self) -> Result<(), ParseError> {
        self.end_word()?;
        if self.words.is_empty() {
            return Ok(());
        }
        push(&mut self.commands, core::mem::take(&mut self.words))
    }

    fn finish(mut self) -> Result<Vec<Words>, ParseError> {
        if let Some(quote) = self.quote {
            return Err(ParseError::OpenQuote(quote));
        }
        self.end_command()?;
        Ok(self.commands)
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), ParseError> {
    list.try_reserve(1).map_err(|_| ParseError::OutOfMemory)?;
    list.push(item);
    Ok(())
}

/// A number, decimal or with `0x` before it.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    // `from_str_radix` takes a sign, too.
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let unsigned = !digits.starts_with('+');
    u64::from_str_radix(digits, radix).ok().filter(|_| unsigned)
}

/// Why a text is not a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// It is something else.
    NotANumber,
    /// It does not fit into 64 bits.
    TooLarge,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "is not a number",
            Self::TooLarge => "does not fit into 64 bits",
        })
    }
}

/// A number, decimal or with `0x` before it.
///
/// # Errors
///
/// [`NumberError`].
pub fn whole_number(text: &str) -> Result<u64, NumberError> {
    number(text).ok_or_else(|| {
        let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(hex) => (hex, 16),
            None => (text, 10),
        };
        match !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)) {
            true => NumberError::TooLarge,
            false => NumberError::NotANumber,
        }
    })
}

/// A number of bytes: as [`whole_number`], with K, M, G, T, P or E behind it as in kernel parameters. (A hexadecimal one ends in
/// no E.)
///
/// # Errors
///
/// [`NumberError`].
pub fn size(text: &str) -> Result<u64, NumberError> {
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let suffix = text.char_indices().next_back();
    let unit = suffix.and_then(|(at, letter)| {
        let shift = match letter.to_ascii_uppercase() {
            'K' => 10,
            'M' => 20,
            'G' => 30,
            'T' => 40,
            'P' => 50,
            'E' if !is_hex => 60,
            _ => return None,
        };
        Some((text.get(..at)?, 1_u64 << shift))
    });
    let Some((digits, unit)) = unit else {
        return whole_number(text);
    };
    let units = whole_number(digits)?;
    units.checked_mul(unit).ok_or(NumberError::TooLarge)
}

/// Whether `name` matches a glob: `*` is any run of characters, `?` is any one.
#[must_use]
pub fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n): (usize, usize) = (0, 0);
    // Where to go on when a match after the last star fails: one more character for the star.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p = p.saturating_add(1);
            }
            Some(&c) if c == b'?' || Some(&c) == name.get(n) => {
                p = p.saturating_add(1);
                n = n.saturating_add(1);
            }
            _ => {
                let Some((star, taken)) = retry else {
                    return false;
                };
                let taken = taken.saturating_add(1);
                retry = Some((star, taken));
                p = star.saturating_add(1);
                n = taken;
            }
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|&c| c == b'*')
}

/// The first glob of a comma-separated list that matches none of `names`.
#[must_use]
pub fn unmatched_glob<N: AsRef<str>>(
    patterns: &str,
    names: impl Iterator<Item = N> + Clone,
) -> Option<&str> {
    patterns
        .split(',')
        .find(|pattern| !names.clone().any(|name| glob(pattern, name.as_ref())))
}

/// Whether `name` matches any glob of a comma-separated list.
#[must_use]
pub fn glob_list(patterns: &str, name: &str) -> bool {
    patterns.split(',').any(|pattern| glob(pattern, name))
}
