//! A set of objects of one slab.
#![forbid(unsafe_code)]

use crate::slab::shape::MOST;

const WORDS: usize = MOST / 64;

/// Objects of a slab, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::slab) struct Bits([u64; WORDS]);

impl Bits {
    pub(in crate::slab) const NONE: Self = Self([0; WORDS]);

    /// Adds one; answers whether it is new, and one of a slab at all.
    pub(in crate::slab) fn insert(&mut self, number: u16) -> bool {
        let Some(word) = self.0.get_mut(usize::from(number / 64)) else {
            return false;
        };
        let bit = 1_u64 << (number % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(in crate::slab) fn contains(&self, number: u16) -> bool {
        let word = self.0.get(usize::from(number / 64));
        word.is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// How many there are.
    pub(in crate::slab) fn count(&self) -> u16 {
        let ones = self.0.iter().map(|word| word.count_ones());
        u16::try_from(ones.fold(0, u32::saturating_add)).unwrap_or(u16::MAX)
    }
}
