//! The command line's say about memory: `mem=`, `memmap=`, `kernelcore=`, `movablecore=`,
//! `movable_node`, `cma=`.
//!
//! [`Params::parse`] takes any text: what it does not know belongs to others, what it knows but
//! cannot read is reported and left out. Linux counterpart: `parse_memopt`, `parse_memmap_opt`,
//! `cmdline_parse_core`; numbers are read as its `memparse` does (`0x` is hexadecimal, a leading
//! `0` octal; suffixes K, M, G, T, P, E).
#![forbid(unsafe_code)]

use core::fmt;

use super::firmware::FirmwareKind;
use crate::addr::{PhysAddr, PhysRange};

/// How many edits of the map a command line may ask for.
pub const MAX_EDITS: usize = 64;

/// What the command line wants of the firmware map and of the zones.
#[derive(Clone, Debug)]
pub struct Params {
    edits: [MapEdit; MAX_EDITS],
    count: usize,
    /// `kernelcore=`: memory that movable allocations must not take.
    pub kernelcore: Option<CoreSize>,
    /// `movablecore=`: memory that only movable allocations may take.
    pub movablecore: Option<CoreSize>,
    /// `movable_node`: memory that may be unplugged is for movable allocations only.
    pub movable_node: bool,
    /// `cma=`: bytes of contiguous memory that devices can have back from movable allocations.
    pub cma: Option<u64>,
}

/// A change to the firmware map, in the order of the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapEdit {
    /// `mem=`, or `memmap=` with a size only: usable memory from here on is taken away.
    LimitUsable(PhysAddr),
    /// `memmap=` with a place: one more entry in the map, under the usual rule of the highest type.
    Add {
        /// Which bytes.
        range: PhysRange,
        /// What they are to be.
        kind: FirmwareKind,
    },
    /// `memmap=exactmap`: forget the firmware's entries and all edits so far.
    Exact,
}

/// An amount of memory for `kernelcore=` or `movablecore=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CoreSize {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of all memory, at most 100.
    Percent(u8),
}

/// Why a parameter was left out, with the text that caused it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamError<'a> {
    /// Not a number with an optional suffix.
    BadNumber(&'a str),
    /// A number that 64 bits do not hold.
    TooLarge(&'a str),
    /// A size of zero.
    ZeroSize(&'a str),
    /// Something follows the number that means nothing here.
    Trailing(&'a str),
    /// More than 100 per cent.
    BadPercentage(&'a str),
    /// A form that Linux knows and this library does not: `kernelcore=mirror`, `memmap=…%…`, `cma=…@…`.
    Unsupported(&'a str),
    /// More than [`MAX_EDITS`] changes to the map.
    TooMany(&'a str),
}

impl Default for Params {
    /// [`Params::NONE`].
    fn default() -> Self {
        Self::NONE
    }
}

impl Params {
    /// No wishes at all.
    pub const NONE: Self = Self {
        edits: [MapEdit::Exact; MAX_EDITS],
        count: 0,
        kernelcore: None,
        movablecore: None,
        movable_node: false,
        cma: None,
    };

    /// Reads a kernel command line. Parameters after a lone `--` belong to the init program. Context: any.
    #[must_use]
    pub fn parse<'a>(cmdline: &'a str, mut refused: impl FnMut(ParamError<'a>)) -> Self {
        let mut params = Self::NONE;
        let words = Words { rest: cmdline };
        for word in words.take_while(|word| *word != "--") {
            let Some((name, value)) = word.split_once('=') else {
                params.movable_node |= word == "movable_node";
                continue;
            };
            match name {
                "mem" => params.limit(value).unwrap_or_else(&mut refused),
                "memmap" => {
                    for item in value.split(',') {
                        params.memmap(item).unwrap_or_else(&mut refused);
                    }
                }
                "kernelcore" => match core_size(value) {
                    Ok(size) => params.kernelcore = Some(size),
                    Err(error) => refused(error),
                },
                "movablecore" => match core_size(value) {
                    Ok(size) => params.movablecore = Some(size),
                    Err(error) => refused(error),
                },
                "cma" => match cma_size(value) {
                    Ok(bytes) => params.cma = Some(bytes),
                    Err(error) => refused(error),
                },
                _ => {}
            }
        }
        params
    }

    /// The changes to the map, in order. Context: any.
    #[must_use]
    pub fn edits(&self) -> &[MapEdit] {
        self.edits.get(..self.count).unwrap_or_default()
    }

    fn push<'a>(&mut self, edit: MapEdit, text: &'a str) -> Result<(), ParamError<'a>> {
        let slot = self.edits.get_mut(self.count);
        *slot.ok_or(ParamError::TooMany(text))? = edit;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn limit<'a>(&mut self, value: &'a str) -> Result<(), ParamError<'a>> {
        if value == "nopentium" {
            // Linux 2.x on 32 bits: no large pages. It has no meaning here.
            return Err(ParamError::Unsupported(value));
        }
        let (size, rest) = number(value)?;
        if !rest.is_empty() {
            return Err(ParamError::Trailing(value));
        }
        if size == 0 {
            return Err(ParamError::ZeroSize(value));
        }
        self.push(MapEdit::LimitUsable(PhysAddr::new(size)), value)
    }

    fn memmap<'a>(&mut self, item: &'a str) -> Result<(), ParamError<'a>> {
        if item == "exactmap" {
            return self.push(MapEdit::Exact, item);
        }
        let (size, rest) = number(item)?;
        if size == 0 {
            return Err(ParamError::ZeroSize(item));
        }
        let Some(sign) = rest.chars().next() else {
            return self.push(MapEdit::LimitUsable(PhysAddr::new(size)), item);
        };
        let kind = match sign {
            '@' => FirmwareKind::Usable,
            '#' => FirmwareKind::AcpiReclaimable,
            '$' => FirmwareKind::Reserved,
            '!' => FirmwareKind::PersistentRam,
            '%' => return Err(ParamError::Unsupported(item)),
            _ => return Err(ParamError::Trailing(item)),
        };
        let (start, tail) = number(rest.get(1..).unwrap_or_default())?;
        if !tail.is_empty() {
            return Err(ParamError::Trailing(item));
        }
        if start.checked_add(size).is_none() {
            return Err(ParamError::TooLarge(item));
        }
        let range = PhysRange::from_size(PhysAddr::new(start), size);
        self.push(MapEdit::Add { range, kind }, item)
    }
}

/// A size alone: `SIZE@START-END`, with which Linux takes a place too, is not supported.
fn cma_size(value: &str) -> Result<u64, ParamError<'_>> {
    match number(value)? {
        (bytes, "") => Ok(bytes),
        (_, rest) if rest.starts_with('@') => Err(ParamError::Unsupported(value)),
        _ => Err(ParamError::Trailing(value)),
    }
}

fn core_size(value: &str) -> Result<CoreSize, ParamError<'_>> {
    if value == "mirror" {
        return Err(ParamError::Unsupported(value));
    }
    let (amount, rest) = number(value)?;
    match rest {
        "" => Ok(CoreSize::Bytes(amount)),
        "%" => match u8::try_from(amount) {
            Ok(percent) if percent <= 100 => Ok(CoreSize::Percent(percent)),
            _ => Err(ParamError::BadPercentage(value)),
        },
        _ => Err(ParamError::Trailing(value)),
    }
}

/// Reads a number with its suffix and gives what follows.
fn number(text: &str) -> Result<(u64, &str), ParamError<'_>> {
    let (radix, digits) = match text.strip_prefix('0') {
        Some(rest) if rest.starts_with(['x', 'X']) => (16, rest.get(1..).unwrap_or_default()),
        Some(_) => (8, text),
        None => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix));
    let (digits, rest) = digits.split_at(end.unwrap_or(digits.len()));
    if digits.is_empty() {
        return Err(ParamError::BadNumber(text));
    }
    // The digits were looked at, so only the size of the number can be wrong.
    let value = u64::from_str_radix(digits, radix).map_err(|_| ParamError::TooLarge(text))?;
    let shift = match rest.chars().next().map(|c| c.to_ascii_uppercase()) {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some('P') => 50,
        Some('E') => 60,
        _ => return Ok((value, rest)),
    };
    let scaled = value.checked_mul(1 << shift);
    let scaled = scaled.ok_or(ParamError::TooLarge(text))?;
    Ok((scaled, rest.get(1..).unwrap_or_default()))
}

/// Splits at blanks outside double quotes.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        if text.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = text.find(|c: char| {
            quoted ^= c == '"';
            c.is_whitespace() && !quoted
        });
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        self.rest = rest;
        Some(word)
    }
}

impl fmt::Display for ParamError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadNumber(text) => write!(f, "`{text}` is not a size"),
            Self::TooLarge(text) => write!(f, "`{text}` does not fit into 64 bits"),
            Self::ZeroSize(text) => write!(f, "`{text}`: a size of zero"),
            Self::Trailing(text) => write!(f, "`{text}`: unexpected text behind the number"),
            Self::BadPercentage(text) => write!(f, "`{text}` is more than 100 per cent"),
            Self::Unsupported(text) => write!(f, "`{text}` is not supported"),
            Self::TooMany(text) => {
                write!(
                    f,
                    "`{text}`: more than {MAX_EDITS} changes to the memory map"
                )
            }
        }
    }
}

impl core::error::Error for ParamError<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (Vec<MapEdit>, Params, Vec<String>) {
        let mut errors = Vec::new();
        let params = Params::parse(line, |error| errors.push(format!("{error:?}")));
        (params.edits().to_vec(), params, errors)
    }

    fn add(size: u64, start: u64, kind: FirmwareKind) -> MapEdit {
        let range = PhysRange::from_size(PhysAddr::new(start), size);
        MapEdit::Add { range, kind }
    }

    #[test]
    fn sizes_take_suffixes_and_three_radices() {
        for (text, value) in [
            ("1", 1),
            ("0x10", 16),
            ("010", 8),
            ("0", 0),
            ("2k", 2 << 10),
            ("3M", 3 << 20),
            ("0x2G", 2 << 30),
            ("1T", 1 << 40),
            ("1P", 1 << 50),
            ("15E", 15 << 60),
        ] {
            assert_eq!(number(text), Ok((value, "")), "{text}");
        }
        assert_eq!(number("16E"), Err(ParamError::TooLarge("16E")));
        assert_eq!(number("0x"), Err(ParamError::BadNumber("0x")));
        assert_eq!(number(""), Err(ParamError::BadNumber("")));
        assert_eq!(number("08"), Ok((0, "8")));
    }

    #[test]
    fn every_form_of_memmap_is_read_in_order() {
        let (edits, _, errors) =
            parse("quiet mem=5G memmap=exactmap,1M@0x100000,4K#8k memmap=64M$1G,1G!4G memmap=2G");
        assert!(errors.is_empty());
        assert_eq!(
            edits,
            [
                MapEdit::LimitUsable(PhysAddr::new(5 << 30)),
                MapEdit::Exact,
                add(1 << 20, 1 << 20, FirmwareKind::Usable),
                add(4096, 8192, FirmwareKind::AcpiReclaimable),
                add(64 << 20, 1 << 30, FirmwareKind::Reserved),
                add(1 << 30, 4 << 30, FirmwareKind::PersistentRam),
                MapEdit::LimitUsable(PhysAddr::new(2 << 30)),
            ]
        );
    }

    #[test]
    fn cores_are_bytes_or_per_cent() {
        let (_, params, errors) = parse("kernelcore=50% movablecore=300M cma=16M cma=0x20M");
        assert_eq!(params.cma, Some(32 << 20), "the last one counts");
        assert!(errors.is_empty() && !params.movable_node);
        assert_eq!(params.kernelcore, Some(CoreSize::Percent(50)));
        assert_eq!(params.movablecore, Some(CoreSize::Bytes(300 << 20)));
    }

    #[test]
    fn movable_node_is_a_word_of_its_own() {
        assert!(parse("quiet movable_node mem=1G").1.movable_node);
        for line in ["", "movable_nodes", "movable_node=1", "-- movable_node"] {
            assert!(!parse(line).1.movable_node, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_left_out() {
        for (line, error) in [
            ("mem=", "BadNumber(\"\")"),
            ("mem=x", "BadNumber(\"x\")"),
            ("mem=0", "ZeroSize(\"0\")"),
            ("mem=1Q", "Trailing(\"1Q\")"),
            (
                "mem=99999999999999999999",
                "TooLarge(\"99999999999999999999\")",
            ),
            ("memmap=1M@", "BadNumber(\"\")"),
            ("memmap=1M?2", "Trailing(\"1M?2\")"),
            ("memmap=1M%2-1+2", "Unsupported(\"1M%2-1+2\")"),
            (
                "memmap=1M@0xffffffffffffffff",
                "TooLarge(\"1M@0xffffffffffffffff\")",
            ),
            ("kernelcore=mirror", "Unsupported(\"mirror\")"),
            ("kernelcore=101%", "BadPercentage(\"101%\")"),
            ("movablecore=1M2", "Trailing(\"1M2\")"),
            ("cma=", "BadNumber(\"\")"),
            ("cma=64Q", "Trailing(\"64Q\")"),
            ("cma=64M@1G", "Unsupported(\"64M@1G\")"),
            (
                "cma=99999999999999999999",
                "TooLarge(\"99999999999999999999\")",
            ),
        ] {
            let (edits, params, errors) = parse(line);
            assert_eq!(errors, [error], "{line}");
            assert!(edits.is_empty() && params.kernelcore.is_none(), "{line}");
            assert_eq!(params.cma, None, "{line}");
        }
        let many = format!("memmap=1M@1M{} mem=1é", ",1M@1M".repeat(MAX_EDITS));
        let (edits, _, errors) = parse(&many);
        assert_eq!(edits.len(), MAX_EDITS);
        assert_eq!(errors, ["TooMany(\"1M@1M\")", "Trailing(\"1é\")"]);
    }

    #[test]
    fn quoted_words_and_those_of_init_are_not_ours() {
        let (edits, ..) = parse("foo=\"a mem=1G b\" -- mem=2G");
        assert!(edits.is_empty());
    }
}
