//! A bank of sets of small numbers, each with its smallest member at hand.
//!
//! Every set is a bitmap with a summary bitmap above it (one bit a word) and so on, up to a
//! single word: the smallest member is found in one trailing-zero count a level, and there is
//! one level up to 64 possible members, two up to 4,096, three up to 262,144.
#![forbid(unsafe_code)]

use crate::addr::{to_count, to_index};
use crate::mem::{Array, CarveError, EarlyRam};
use crate::platform::Platform;

/// Levels that 64-bit indices could ever need here: 64^5 members.
const LEVELS: usize = 5;
const WORD_BITS: u64 = 64;

/// Whether a set has members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Members {
    /// It is empty.
    None,
    /// It has some.
    Some,
}

/// Equally large sets of numbers below a bound.
///
/// # Invariants
/// A bit of an upper level is set exactly if the word below it is not zero.
#[derive(Debug)]
pub struct SetBank {
    words: Array<u64>,
    /// Where each level starts among a set's words, lowest first.
    level_start: [u64; LEVELS],
    levels: usize,
    words_per_set: u64,
    bound: u64,
}

/// Where a level's words start, how many levels there are, and how many words in all.
const fn shape(bound: u64) -> ([u64; LEVELS], usize, u64) {
    let mut starts = [0; LEVELS];
    let mut total: u64 = 0;
    let mut level: usize = 0;
    let mut bits = bound;
    while level < LEVELS {
        starts[level] = total;
        let words = if bits == 0 {
            1
        } else {
            bits.div_ceil(WORD_BITS)
        };
        total = total.saturating_add(words);
        level = level.saturating_add(1);
        if words == 1 {
            break;
        }
        bits = words;
    }
    (starts, level, total)
}

impl SetBank {
    /// Bytes that `sets` sets of numbers below `bound` need, or `None` if that overflows.
    #[must_use]
    pub fn bytes_for(sets: u64, bound: u64) -> Option<u64> {
        let (_, _, words) = shape(bound);
        Array::<u64>::bytes_for(to_index(words.checked_mul(sets)?))
    }

    /// No sets at all.
    #[must_use]
    pub const fn empty() -> Self {
        let words = Array::empty();
        Self {
            words,
            level_start: [0; LEVELS],
            levels: 0,
            words_per_set: 0,
            bound: 0,
        }
    }

    /// `sets` empty sets of numbers below `bound`.
    ///
    /// # Errors
    /// [`CarveError`] if `ram` cannot hold them.
    pub fn carve<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        sets: u64,
        bound: u64,
    ) -> Result<Self, CarveError> {
        let (level_start, levels, words_per_set) = shape(bound);
        let words = to_index(words_per_set.saturating_mul(sets));
        let words = Array::carve(platform, ram, words, |_| 0)?;
        Ok(Self {
            words,
            level_start,
            levels,
            words_per_set,
            bound,
        })
    }

    /// Numbers below this one may be members.
    #[must_use]
    pub const fn bound(&self) -> u64 {
        self.bound
    }

    #[inline]
    fn place(&self, set: u64, level: usize, word: u64) -> usize {
        let base = set.wrapping_mul(self.words_per_set);
        to_index(
            base.wrapping_add(self.level_start[level])
                .wrapping_add(word),
        )
    }

    /// The smallest member of a set.
    #[inline]
    #[must_use]
    pub fn first(&self, set: u64) -> Option<u64> {
        if self.bound > WORD_BITS {
            return self.first_of_many(set);
        }
        let word = *self.words.get(to_index(set))?;
        (word != 0).then(|| u64::from(word.trailing_zeros()))
    }

    fn first_of_many(&self, set: u64) -> Option<u64> {
        let mut smallest = None;
        for level in (0..self.levels).rev() {
            let above = smallest.unwrap_or_default();
            let word = *self.words.get(self.place(set, level, above))?;
            if word == 0 {
                return None;
            }
            smallest = Some((above << 6) | u64::from(word.trailing_zeros()));
        }
        smallest
    }

    /// Puts a number into a set; it may be there already. Numbers at or above the bound are no members.
    #[inline]
    pub fn insert(&mut self, set: u64, member: u64) {
        if member >= self.bound {
            return;
        }
        if self.bound > WORD_BITS {
            return self.insert_among_many(set, member);
        }
        if let Some(word) = self.words.get_mut(to_index(set)) {
            *word |= 1 << (member & 63);
        }
    }

    fn insert_among_many(&mut self, set: u64, member: u64) {
        let mut index = member;
        for level in 0..self.levels {
            let place = self.place(set, level, index >> 6);
            let Some(word) = self.words.get_mut(place) else {
                return;
            };
            let was_empty = *word == 0;
            *word |= 1 << (index & 63);
            if !was_empty {
                return;
            }
            index >>= 6;
        }
    }

    /// Puts all numbers from `first` up to, not including, `end` into a set.
    pub fn insert_all(&mut self, set: u64, first: u64, end: u64) {
        let (mut first, mut end) = (first, end.min(self.bound));
        for level in 0..self.levels {
            if first >= end {
                return;
            }
            let last = end.wrapping_sub(1);
            for word in first >> 6..=last >> 6 {
                let place = self.place(set, level, word);
                let (low, high) = (first.max(word << 6) & 63, last.min(word << 6 | 63) & 63);
                if let Some(word) = self.words.get_mut(place) {
                    *word |= (u64::MAX << low) & (u64::MAX >> (63 ^ high));
                }
            }
            first >>= 6;
            end = (last >> 6).wrapping_add(1);
        }
    }

    /// Takes a number out of a set; it may be missing. Answers what is left.
    #[inline]
    pub fn remove(&mut self, set: u64, member: u64) -> Members {
        if member >= self.bound {
            return Members::Some;
        }
        if self.bound > WORD_BITS {
            return self.remove_among_many(set, member);
        }
        let Some(word) = self.words.get_mut(to_index(set)) else {
            return Members::Some;
        };
        *word &= !(1 << (member & 63));
        if *word == 0 {
            Members::None
        } else {
            Members::Some
        }
    }

    fn remove_among_many(&mut self, set: u64, member: u64) -> Members {
        let mut index = member;
        for level in 0..self.levels {
            let place = self.place(set, level, index >> 6);
            let Some(word) = self.words.get_mut(place) else {
                return Members::Some;
            };
            *word &= !(1 << (index & 63));
            if *word != 0 {
                return Members::Some;
            }
            index >>= 6;
        }
        Members::None
    }

    /// Whether a number is in a set.
    #[must_use]
    pub fn contains(&self, set: u64, member: u64) -> bool {
        let word = self
            .words
            .get(self.place(set, 0, member >> 6))
            .copied()
            .unwrap_or_default();
        member < self.bound && word >> (member & 63) & 1 == 1
    }

    /// Whether the summaries of a set agree with its bits.
    #[must_use]
    pub fn is_consistent(&self, set: u64) -> bool {
        (1..self.levels).all(|level| {
            let below = level.saturating_sub(1);
            let start = self.level_start[below];
            let words = self.level_start[level].saturating_sub(start);
            (0..words).all(|word| {
                let summary = self.words.get(self.place(set, level, word >> 6));
                let bits = self.words.get(self.place(set, below, word));
                let (Some(summary), Some(bits)) = (summary, bits) else {
                    return true;
                };
                (summary >> (word & 63) & 1 == 1) == (*bits != 0)
            })
        })
    }

    /// How many words a look-up touches.
    #[must_use]
    pub fn depth(&self) -> u64 {
        to_count(self.levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_without_sets_has_no_members() {
        let mut bank = SetBank::empty();
        assert_eq!(bank.first(0), None);
        assert_eq!(bank.first(u64::MAX), None);
        assert!(!bank.contains(0, 0));
        assert!(bank.is_consistent(u64::MAX));
        bank.insert(0, 0);
        assert_eq!(bank.remove(0, 0), Members::Some);
        assert_eq!(bank.first(0), None);
    }
}
