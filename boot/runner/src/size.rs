//! Amounts of memory as a person writes them: `512M`, `64G`, `512K`, or plain bytes.
//!
//! Parsed once, here; the type [`MemorySize`] then promises what QEMU needs to know.

use core::fmt;
use core::str::FromStr;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What guest memory is counted in.
const PAGE: u64 = 4 * KIB;
/// No x86_64 processor addresses more (SDM Vol. 3A, 4.1.4: MAXPHYADDR is at most 52).
const ARCHITECTURAL_LIMIT: u64 = 1 << 52;

/// Where QEMU starts to move memory on `q35` with its usual 40-bit CPU models: RAM that would
/// reach AMD's HyperTransport hole below 1 TiB is placed above it, out of their reach.
/// (QEMU 7.2 refuses at 980G; the margin is for wider PCI windows.)
const FORTY_BIT_LIMIT: u64 = 960 * GIB;
/// What may lie below or beside such memory: the hole itself and QEMU's 64-bit PCI window.
const MOVED_BY: u64 = TIB + 64 * GIB;

/// The amount of a guest's memory.
///
/// # Invariants
/// 1. Not zero, a multiple of 4 KiB, and within 52 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize {
    bytes: u64,
}

/// Why a text is no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Not a number with an optional unit.
    NotASize(String),
    /// Zero bytes.
    Zero,
    /// Not whole pages.
    NotWholePages(String),
    /// More than any x86_64 processor can address.
    TooLarge(String),
}

impl MemorySize {
    /// The default of `--memory`.
    // INVARIANT: (1) 512 whole MiB.
    pub const DEFAULT: Self = Self { bytes: 512 * MIB };

    /// The amount in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The whole pages that `bytes` bytes take; `None` for none, or more than x86_64 addresses.
    pub(crate) fn of_pages_around(bytes: u64) -> Option<Self> {
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        // INVARIANT: (1) a multiple by the line above, and the range is checked here.
        (1..=ARCHITECTURAL_LIMIT)
            .contains(&bytes)
            .then_some(Self { bytes })
    }

    /// How many physical address bits a CPU needs for this much memory; `None` when the 40 that
    /// QEMU's models have are enough.
    #[must_use]
    pub fn wider_phys_bits(self) -> Option<u32> {
        if self.bytes <= FORTY_BIT_LIMIT {
            return None;
        }
        let end = self.bytes.saturating_add(MOVED_BY);
        Some(u64::BITS.saturating_sub(end.leading_zeros()).min(52))
    }
}

impl FromStr for MemorySize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (text.get(..text.len().saturating_sub(1)), KIB),
            Some(b'M' | b'm') => (text.get(..text.len().saturating_sub(1)), MIB),
            Some(b'G' | b'g') => (text.get(..text.len().saturating_sub(1)), GIB),
            Some(b'T' | b't') => (text.get(..text.len().saturating_sub(1)), TIB),
            _ => (Some(text), 1),
        };
        let digits = digits.unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SizeError::NotASize(text.to_owned()));
        }

        // Only digits are left, so the one possible error is overflow.
        let bytes = digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(unit));
        match bytes {
            None => Err(SizeError::TooLarge(text.to_owned())),
            Some(0) => Err(SizeError::Zero),
            Some(bytes) if bytes > ARCHITECTURAL_LIMIT => Err(SizeError::TooLarge(text.to_owned())),
            Some(bytes) if bytes % PAGE != 0 => Err(SizeError::NotWholePages(text.to_owned())),
            // INVARIANT: (1) each clause was just checked.
            Some(bytes) => Ok(Self { bytes }),
        }
    }
}

/// The shortest exact form, as QEMU and [`FromStr`] read it.
impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(TIB, "T"), (GIB, "G"), (MIB, "M"), (KIB, "K")];
        let whole = units
            .into_iter()
            .find(|(unit, _)| self.bytes.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or((1, ""));
        write!(
            f,
            "{}{name}",
            self.bytes.checked_div(unit).unwrap_or(self.bytes)
        )
    }
}

impl core::error::Error for SizeError {}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASize(text) => {
                write!(
                    f,
                    "`{text}` is not an amount of memory; write 512M, 4G, 512K or bytes"
                )
            }
            Self::Zero => write!(f, "a machine needs some memory"),
            Self::NotWholePages(text) => {
                write!(f, "`{text}` is not a whole number of 4 KiB pages")
            }
            Self::TooLarge(text) => {
                write!(f, "`{text}` is more than the 4096T that x86_64 can address")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GIB, KIB, MIB, MemorySize, SizeError, TIB};

    #[test]
    fn units_are_powers_of_two_in_either_case() {
        for (text, bytes) in [
            ("16M", 16 * MIB),
            ("16m", 16 * MIB),
            ("1G", GIB),
            ("64g", 64 * GIB),
            ("512K", 512 * KIB),
            ("1T", TIB),
            ("536870912", 512 * MIB),
            ("4096T", 1 << 52),
        ] {
            assert_eq!(
                text.parse::<MemorySize>().map(MemorySize::bytes),
                Ok(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_rule_it_breaks() {
        let not_a_size = |text: &str| SizeError::NotASize(text.to_owned());
        for (text, error) in [
            ("", not_a_size("")),
            ("M", not_a_size("M")),
            ("lots", not_a_size("lots")),
            ("-1G", not_a_size("-1G")),
            ("+1G", not_a_size("+1G")),
            ("1.5G", not_a_size("1.5G")),
            ("1GiB", not_a_size("1GiB")),
            ("5 M", not_a_size("5 M")),
            ("12é", not_a_size("12é")),
            ("0", SizeError::Zero),
            ("0G", SizeError::Zero),
            ("4097", SizeError::NotWholePages("4097".to_owned())),
            ("1K", SizeError::NotWholePages("1K".to_owned())),
            ("4097T", SizeError::TooLarge("4097T".to_owned())),
            (
                "99999999999999999999",
                SizeError::TooLarge("99999999999999999999".to_owned()),
            ),
        ] {
            assert_eq!(text.parse::<MemorySize>(), Err(error), "{text}");
        }
    }

    #[test]
    fn bytes_take_whole_pages() {
        let pages = |bytes| MemorySize::of_pages_around(bytes).map(MemorySize::bytes);
        assert_eq!(pages(0), None);
        assert_eq!((pages(1), pages(4096)), (Some(4096), Some(4096)));
        assert_eq!(pages(4097), Some(8192));
        assert_eq!(pages(1 << 52), Some(1 << 52));
        assert_eq!((pages((1 << 52) + 1), pages(u64::MAX)), (None, None));
    }

    #[test]
    fn an_amount_prints_in_the_largest_unit_that_is_exact() {
        for (text, printed) in [
            ("1024M", "1G"),
            ("1536M", "1536M"),
            ("4096", "4K"),
            ("2048G", "2T"),
        ] {
            assert_eq!(
                text.parse::<MemorySize>().map(|size| size.to_string()),
                Ok(printed.to_owned())
            );
        }
    }

    #[test]
    fn only_memory_beyond_forty_bits_asks_for_a_wider_cpu() {
        for (text, bits) in [
            ("512M", None),
            ("960G", None),
            ("961G", Some(42)),
            ("1T", Some(42)),
            ("2000G", Some(42)),
            ("63T", Some(47)),
            ("4096T", Some(52)),
        ] {
            assert_eq!(
                text.parse::<MemorySize>().map(MemorySize::wider_phys_bits),
                Ok(bits),
                "{text}"
            );
        }
    }
}
