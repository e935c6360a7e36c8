//! A bitmap that finds runs of clear bits.
#![forbid(unsafe_code)]

use crate::addr::{to_count, to_index};
use crate::mem::{Array, CarveError, EarlyRam};
use crate::platform::Platform;

const WORD_BITS: u64 = 64;

/// Bits, numbered from 0, all clear at first.
#[derive(Debug)]
pub struct Bitmap {
    words: Array<u64>,
    bits: u64,
}

impl Bitmap {
    /// Bytes that so many bits need.
    #[must_use]
    pub const fn bytes_for(bits: u64) -> u64 {
        bits.div_ceil(WORD_BITS).saturating_mul(8)
    }

    /// So many bits in `ram`. Context: boot or task.
    ///
    /// # Errors
    /// [`CarveError`] if the memory cannot hold them.
    pub fn carve<P: Platform>(platform: &P, ram: EarlyRam, bits: u64) -> Result<Self, CarveError> {
        let len = to_index(bits.div_ceil(WORD_BITS));
        Ok(Self {
            words: Array::carve(platform, ram, len, |_| 0)?,
            bits,
        })
    }

    /// How many bits are set.
    #[must_use]
    pub fn count(&self) -> u64 {
        let ones = self.words.iter().map(|word| u64::from(word.count_ones()));
        ones.fold(0, u64::saturating_add)
    }

    /// Sets or clears `len` bits from `first` on, as far as there are any.
    pub fn put(&mut self, first: u64, len: u64, value: Bit) {
        let end = first.saturating_add(len).min(self.bits);
        let mut at = first;
        while at < end {
            let (word, mask) = piece(at, end);
            if let Some(word) = self.words.get_mut(word) {
                match value {
                    Bit::Set => *word |= mask,
                    Bit::Clear => *word &= !mask,
                }
            }
            at = next_word(at);
        }
    }

    /// The first run of `len` clear bits that starts at or behind `from`, at a number that with
    /// `offset` added is a multiple of `align`, a power of two (Linux:
    /// `bitmap_find_next_zero_area_off`).
    #[must_use]
    pub fn find_clear(&self, from: u64, len: u64, (align, offset): (u64, u64)) -> Option<u64> {
        let mut from = from;
        loop {
            let place = from.checked_add(offset)?;
            let aligned = place.checked_next_multiple_of(align.max(1))?;
            let start = aligned.checked_sub(offset)?;
            let end = start.checked_add(len).filter(|end| *end <= self.bits)?;
            match self.last_set(start, end) {
                None => return Some(start),
                Some(set) => from = set.saturating_add(1),
            }
        }
    }

    /// The last set bit between two numbers.
    fn last_set(&self, first: u64, end: u64) -> Option<u64> {
        let mut found = None;
        let mut at = first;
        while at < end {
            let (index, mask) = piece(at, end);
            let ones = self.words.get(index).copied().unwrap_or(0) & mask;
            if let Some(bit) = ones.checked_ilog2() {
                let base = to_count(index).saturating_mul(WORD_BITS);
                found = Some(base.saturating_add(u64::from(bit)));
            }
            at = next_word(at);
        }
        found
    }
}

/// The value of a bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bit {
    /// 1.
    Set,
    /// 0.
    Clear,
}

/// The word of bit `at`, and which of its bits lie from there to before `end`.
const fn piece(at: u64, end: u64) -> (usize, u64) {
    let above = u64::MAX << (at & (WORD_BITS - 1));
    let left = next_word(at).saturating_sub(end);
    let below = if left < WORD_BITS {
        u64::MAX >> left
    } else {
        0
    };
    (to_index(at >> 6), above & below)
}

/// The first bit of the next word.
const fn next_word(at: u64) -> u64 {
    (at | (WORD_BITS - 1)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_the_bits_of_one_word_between_two_numbers() {
        for (at, end, expected) in [
            (0, 64, (0, u64::MAX)),
            (0, 1, (0, 1)),
            (3, 5, (0, 0b1_1000)),
            (63, 200, (0, 1 << 63)),
            (64, 65, (1, 1)),
            (130, 132, (2, 0b1100)),
            (130, 500, (2, u64::MAX << 2)),
        ] {
            assert_eq!(piece(at, end), expected, "{at}..{end}");
        }
        assert_eq!((next_word(0), next_word(63), next_word(64)), (64, 64, 128));
    }
}
