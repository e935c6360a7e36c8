//! Room for small blocks in a few pages, by one bit for each 64 bytes: who gives a block back says how large
//! it is, so nothing is kept inside of them.
#![forbid(unsafe_code)]

use core::ops::Range;

use crate::addr::to_index;
use crate::config::PAGE_SIZE;

/// Bytes of a granule: a page has as many as a word has bits.
const GRANULE: usize = PAGE / BITS;
const BITS: usize = 64;
const PAGE: usize = to_index(PAGE_SIZE);

/// Which granules of `PAGES` pages are taken.
#[derive(Debug)]
pub(crate) struct Granules<const PAGES: usize> {
    /// A word for each page. A page that was given away is taken for good.
    taken: [u64; PAGES],
    /// How many were given away.
    gone: usize,
    /// No block is handed out any more.
    is_closed: bool,
}

impl<const PAGES: usize> Granules<PAGES> {
    /// All free.
    pub(crate) const fn new() -> Self {
        Self {
            taken: [0; PAGES],
            gone: 0,
            is_closed: false,
        }
    }

    /// Takes the lowest place for `bytes`, aligned to `align`, a power of two up to a page: how far it is from
    /// the first page's start.
    pub(crate) fn take(&mut self, bytes: usize, align: usize) -> Option<usize> {
        if self.is_closed || align > PAGE {
            return None;
        }
        let (count, step) = (granules(bytes), align.div_ceil(GRANULE).max(1));
        let mut at: usize = 0;
        loop {
            at = self.first(at, Bit::Free)?.checked_next_multiple_of(step)?;
            let end = at.checked_add(count).filter(|&end| end <= Self::ALL)?;
            match self.first(at, Bit::Taken).filter(|&taken| taken < end) {
                Some(taken) => at = taken,
                None => break,
            }
        }
        self.put(at, count, Bit::Taken);
        at.checked_mul(GRANULE)
    }

    /// Gives a block back. Answers whether that is one that was taken.
    pub(crate) fn give(&mut self, offset: usize, bytes: usize) -> bool {
        let Some(at) = self.block(offset, bytes) else {
            return false;
        };
        self.put(at, granules(bytes), Bit::Free);
        true
    }

    /// Changes how large a block is, where it is. Answers whether it could.
    pub(crate) fn resize(&mut self, offset: usize, (old, new): (usize, usize)) -> bool {
        let Some(at) = self.block(offset, old) else {
            return false;
        };
        let (old, new) = (granules(old), granules(new));
        if new <= old {
            self.put(at.saturating_add(new), old.wrapping_sub(new), Bit::Free);
            return true;
        }
        let end = at.saturating_add(old);
        let next = self.first(end, Bit::Taken).unwrap_or(Self::ALL);
        let fits = !self.is_closed && new <= next.saturating_sub(at);
        if fits {
            self.put(end, new.wrapping_sub(old), Bit::Taken);
        }
        fits
    }

    /// Gives pages away that no block is in, as many as lie in a row; no block is handed out any more. `None` if
    /// there are no more such pages.
    pub(crate) fn take_pages(&mut self) -> Option<Range<usize>> {
        self.is_closed = true;
        let first = self.taken.iter().position(|&word| word == 0)?;
        let empty = self.taken.iter().skip(first).take_while(|&&word| word == 0);
        let end = first.saturating_add(empty.count());
        for word in self.taken.get_mut(first..end)? {
            *word = u64::MAX;
        }
        self.gone = self.gone.saturating_add(end.saturating_sub(first));
        Some(first..end)
    }

    /// Bytes in blocks, and in pages that were given away.
    pub(crate) fn used(&self) -> (usize, usize) {
        let bits = self.taken.iter().map(|word| word.count_ones());
        let bits = to_index(bits.map(u64::from).fold(0, u64::saturating_add));
        let gone = self.gone.saturating_mul(PAGE);
        (bits.saturating_mul(GRANULE).saturating_sub(gone), gone)
    }

    const ALL: usize = PAGES.saturating_mul(BITS);

    /// The first granule of a block, if all of it is taken.
    fn block(&self, offset: usize, bytes: usize) -> Option<usize> {
        let at = offset / GRANULE;
        let end = at.checked_add(granules(bytes))?;
        let is_whole = offset.is_multiple_of(GRANULE) && end <= Self::ALL;
        let free = self.first(at, Bit::Free).filter(|&free| free < end);
        (is_whole && free.is_none()).then_some(at)
    }

    /// The first granule from `at` on that is taken, or free.
    fn first(&self, at: usize, wanted: Bit) -> Option<usize> {
        let from = at / BITS;
        let mut before = below(at % BITS);
        for (page, &word) in (from..).zip(self.taken.get(from..)?) {
            let found = match wanted {
                Bit::Taken => word,
                Bit::Free => !word,
            };
            let found = found & !core::mem::take(&mut before);
            if found != 0 {
                let bit = to_index(u64::from(found.trailing_zeros()));
                return page.checked_mul(BITS)?.checked_add(bit);
            }
        }
        None
    }

    fn put(&mut self, at: usize, count: usize, bit: Bit) {
        let mut low = at % BITS;
        let mut left = count;
        for word in self.taken.iter_mut().skip(at / BITS) {
            if left == 0 {
                return;
            }
            let high = low.saturating_add(left).min(BITS);
            let mask = below(high) & !below(low);
            match bit {
                Bit::Taken => *word |= mask,
                Bit::Free => *word &= !mask,
            }
            left = left.saturating_sub(high.saturating_sub(low));
            low = 0;
        }
    }
}

#[derive(Clone, Copy)]
enum Bit {
    Taken,
    Free,
}

/// How many granules hold `bytes`.
const fn granules(bytes: usize) -> usize {
    let granules = bytes.div_ceil(GRANULE);
    if granules == 0 { 1 } else { granules }
}

/// The lowest bits, as many as said.
fn below(count: usize) -> u64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    1_u64.checked_shl(count).unwrap_or(0).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_aligned_and_come_back() {
        let mut granules = Granules::<4>::new();
        let mut blocks = Vec::new();
        for (bytes, align) in [
            (1, 1),
            (64, 64),
            (65, 8),
            (4096, 4096),
            (300, 256),
            (2000, 16),
        ] {
            let at = granules.take(bytes, align).unwrap();
            assert_eq!(at % align, 0);
            let apart = |&(other, size): &(usize, usize)| at >= other + size || at + bytes <= other;
            assert!(blocks.iter().all(apart), "{at}: {blocks:?}");
            blocks.push((at, bytes));
        }
        assert_eq!(granules.take(3 * PAGE, 1), None, "there is no such room");
        for (at, bytes) in blocks {
            assert!(granules.give(at, bytes));
            assert!(!granules.give(at, bytes), "a second time");
        }
        assert_eq!(granules.used(), (0, 0));
        assert_eq!(granules.take(4 * PAGE, PAGE), Some(0));
        assert_eq!(granules.take(1, 1), None);
    }

    #[test]
    fn a_block_grows_where_there_is_room_behind_it() {
        let mut granules = Granules::<2>::new();
        assert_eq!(
            (granules.take(64, 1), granules.take(64, 1)),
            (Some(0), Some(64))
        );
        assert!(!granules.resize(0, (64, 65)));
        assert!(granules.resize(64, (64, 2 * PAGE - 64)));
        assert!(
            !granules.resize(64, (2 * PAGE - 64, 2 * PAGE - 63)),
            "that is the end"
        );
        assert!(granules.resize(64, (2 * PAGE - 64, 10)));
        assert_eq!(granules.used(), (128, 0));
        assert!(!granules.resize(128, (1, 1)), "nobody has that");
    }

    #[test]
    fn pages_without_blocks_are_given_away_once() {
        let mut granules = Granules::<4>::new();
        let low = granules.take(10, 1).unwrap();
        let high = granules.take(10, PAGE).unwrap();
        assert_eq!((low, high), (0, PAGE));
        assert_eq!(granules.take_pages(), Some(2..4));
        assert_eq!(granules.take_pages(), None);
        assert_eq!(granules.used(), (128, 2 * PAGE));
        assert_eq!(granules.take(1, 1), None, "it is closed");
        assert!(!granules.resize(low, (10, 100)));
        assert!(granules.give(low, 10));
        assert_eq!(granules.take_pages(), Some(0..1));
        assert!(granules.give(high, 10));
        assert_eq!(granules.take_pages(), Some(1..2));
        assert_eq!(granules.used(), (0, 4 * PAGE));
    }
}
