//! One bit for each granule of a unit.
#![forbid(unsafe_code)]

/// Bits of a word.
const WORD: usize = 64;
/// Words of a map.
const WORDS: usize = Bits::MOST / WORD;

/// So many bits, all clear at first.
#[derive(Debug)]
pub(crate) struct Bits([u64; WORDS]);

/// The bits from `at` on that lie in its word and before `end`: which word, and a mask.
const fn piece(at: usize, end: usize) -> (usize, u64) {
    let first = at & (WORD - 1);
    let left = end.saturating_sub(at);
    let below = match left.saturating_add(first) {
        stop if stop < WORD => !(u64::MAX << stop),
        _ => u64::MAX,
    };
    (at / WORD, below & (u64::MAX << first))
}

/// The first bit of the next word.
const fn next_word(at: usize) -> usize {
    (at | (WORD - 1)).saturating_add(1)
}

impl Bits {
    /// How many there are.
    pub(crate) const MOST: usize = 8192;

    /// All clear.
    pub(crate) const fn new() -> Self {
        Self([0; WORDS])
    }

    /// Whether a bit is set; those that do not exist are.
    pub(crate) fn get(&self, at: usize) -> bool {
        let word = self.0.get(at / WORD).copied().unwrap_or(u64::MAX);
        word & (1 << (at & (WORD - 1))) != 0
    }

    /// Sets all of `at..end`.
    pub(crate) fn set(&mut self, at: usize, end: usize) {
        self.each_word(at, end, |word, mask| *word |= mask);
    }

    /// Clears all of `at..end`.
    pub(crate) fn clear(&mut self, at: usize, end: usize) {
        self.each_word(at, end, |word, mask| *word &= !mask);
    }

    fn each_word(&mut self, at: usize, end: usize, change: impl Fn(&mut u64, u64)) {
        let mut at = at;
        while at < end.min(Self::MOST) {
            let (index, mask) = piece(at, end);
            if let Some(word) = self.0.get_mut(index) {
                change(word, mask);
            }
            at = next_word(at);
        }
    }

    /// The first set bit of `at..end`, or `end`.
    pub(crate) fn next_set(&self, at: usize, end: usize) -> usize {
        self.next(at, end, 0)
    }

    /// The first clear bit of `at..end`, or `end`.
    pub(crate) fn next_clear(&self, at: usize, end: usize) -> usize {
        self.next(at, end, u64::MAX)
    }

    /// The first bit that differs from those of `same`.
    fn next(&self, at: usize, end: usize, same: u64) -> usize {
        let mut at = at;
        while at < end {
            let (index, mask) = piece(at, end);
            let found = self.0.get(index).map_or(0, |word| (word ^ same) & mask);
            if found != 0 {
                let bit = usize::try_from(found.trailing_zeros()).unwrap_or(0);
                return index.saturating_mul(WORD).saturating_add(bit);
            }
            at = next_word(at);
        }
        end
    }

    /// Where the clear bits begin that end before `end`.
    pub(crate) fn clear_before(&self, end: usize) -> usize {
        let mut end = end;
        while let Some(last) = end.checked_sub(1) {
            let start = last & !(WORD - 1);
            let (index, mask) = piece(start, end);
            let ones = self.0.get(index).copied().unwrap_or(0) & mask;
            if let Some(bit) = ones.checked_ilog2() {
                let bit = usize::try_from(bit).unwrap_or(0);
                return start.saturating_add(bit).saturating_add(1);
            }
            end = start;
        }
        0
    }

    /// How many are set.
    pub(crate) fn count(&self) -> usize {
        let ones = self.0.iter().map(|word| word.count_ones());
        usize::try_from(ones.fold(0, u32::saturating_add)).unwrap_or(usize::MAX)
    }
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
        ] {
            assert_eq!(piece(at, end), expected, "{at}..{end}");
        }
    }

    /// Against a row of `bool`s.
    #[test]
    fn runs_are_found_where_they_are() {
        let mut bits = Bits::new();
        let mut naive = vec![false; Bits::MOST];
        let mut state = 1_u64;
        for _ in 0..400 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap() % Bits::MOST;
            let end = (at + usize::try_from(state & 0xff).unwrap()).min(Bits::MOST);
            let value = state & 0x100 != 0;
            match value {
                true => bits.set(at, end),
                false => bits.clear(at, end),
            }
            naive[at..end].fill(value);
            let find = |wanted| (at..end).find(|&bit| naive[bit] == wanted).unwrap_or(end);
            assert_eq!(bits.next_set(at, end), find(true));
            let from = at / 2;
            let found = (from..end).find(|&bit| !naive[bit]).unwrap_or(end);
            assert_eq!(bits.next_clear(from, end), found);
            let run = naive[..at].iter().rev().take_while(|bit| !**bit).count();
            assert_eq!(bits.clear_before(at), at - run);
            assert!((at..end).all(|bit| bits.get(bit) == naive[bit]));
        }
        assert_eq!(bits.count(), naive.iter().filter(|bit| **bit).count());
        assert!(bits.get(Bits::MOST));
    }
}
