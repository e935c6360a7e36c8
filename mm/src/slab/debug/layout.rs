//! How an object of a debugged cache lies in its place.
//!
//! ```text
//! | left red zone | object | right red zone | next free | record | by whom | by whom | padding |
//! 0               left     left + size      link                  allocated freed     end   stride
//! ```
//!
//! Where the owner asked for fewer bytes than the object has, the right red zone starts right behind those.
#![forbid(unsafe_code)]

use core::ops::Range;

use crate::slab::shape::Shape;

/// A red zone has at least so many bytes: whoever runs over an end by as many spoils nothing else.
const RED_ZONE: usize = 16;
const WORD: usize = 8;
/// The words behind an object: the next free one, the record, who allocated it, and who freed it.
const WORDS: usize = 4;

/// Places and sizes, in bytes from the start of an object's place.
///
/// # Invariants
/// `left <= left + size <= link`, and the words behind `link` end within `stride`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::slab) struct Layout {
    left: usize,
    size: usize,
    link: usize,
    stride: usize,
}

/// Bytes of a place that no owner may use: those of a [`Layout`] without the object, or without as much
/// of it as its owner asked for.
#[derive(Clone, Debug)]
pub(in crate::slab) struct Outside(Range<usize>);

/// Bytes of an object.
#[derive(Clone, Debug)]
pub(in crate::slab) struct Inside(Range<usize>);

/// A word behind an object.
#[derive(Clone, Copy, Debug)]
pub(in crate::slab) struct Word(usize);

impl Outside {
    pub(in crate::slab) fn range(&self) -> Range<usize> {
        self.0.clone()
    }
}

impl Inside {
    pub(in crate::slab) fn range(&self) -> Range<usize> {
        self.0.clone()
    }
}

impl Word {
    pub(in crate::slab) const fn at(self) -> usize {
        self.0
    }
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::slab) struct Wrong {
    /// Where the first one is.
    pub(in crate::slab) at: usize,
    /// From there to the last one.
    pub(in crate::slab) len: usize,
    /// As many of them as fit.
    pub(in crate::slab) found: [u8; 8],
}

impl Wrong {
    /// What of `bytes`, which start at `from`, is not `expected`.
    pub(in crate::slab) fn find(bytes: &[u8], from: usize, expected: u8) -> Option<Self> {
        let first = bytes.iter().position(|&byte| byte != expected)?;
        let last = bytes.iter().rposition(|&byte| byte != expected)?;
        let wrong = bytes.get(first..=last)?;
        let mut found = [0; 8];
        for (place, byte) in found.iter_mut().zip(wrong) {
            *place = *byte;
        }
        Some(Self {
            at: from.saturating_add(first),
            len: wrong.len(),
            found,
        })
    }
}

impl Layout {
    /// Bytes that a place needs for an object, and where its words start.
    pub(in crate::slab) fn room(size: usize, align: usize) -> (usize, usize) {
        let link = align
            .max(RED_ZONE)
            .saturating_add(behind(size))
            .saturating_add(RED_ZONE);
        (link.saturating_add(WORD * WORDS), link)
    }

    /// The layout of a guarded shape.
    pub(in crate::slab) fn of(shape: &Shape) -> Self {
        let link = shape.free_at();
        // INVARIANT: `room` said where the words are.
        Self {
            left: link.saturating_sub(behind(shape.size()).saturating_add(RED_ZONE)),
            size: shape.size(),
            link,
            stride: shape.stride(),
        }
    }

    /// Where the object starts.
    pub(in crate::slab) const fn left(&self) -> usize {
        self.left
    }

    pub(super) const fn left_zone(&self) -> Outside {
        Outside(0..self.left)
    }

    /// What is behind `size` bytes of the object.
    pub(super) fn right_zone(&self, size: usize) -> Outside {
        Outside(self.left.saturating_add(size.min(self.size))..self.link)
    }

    pub(super) const fn padding(&self) -> Outside {
        Outside(self.word(WORDS).0..self.stride)
    }

    /// The object's first `size` bytes.
    pub(super) fn first_bytes(&self, size: usize) -> Inside {
        Inside(self.left..self.left.saturating_add(size.min(self.size)))
    }

    /// All bytes of the object but the last, …
    pub(super) fn body(&self) -> Inside {
        self.first_bytes(self.size.saturating_sub(1))
    }

    /// … and that.
    pub(super) fn last_byte(&self) -> Inside {
        let end = self.left.saturating_add(self.size);
        Inside(self.body().0.end..end)
    }

    pub(super) const fn record(&self) -> Word {
        self.word(1)
    }

    pub(super) const fn allocated(&self) -> Word {
        self.word(2)
    }

    pub(super) const fn freed(&self) -> Word {
        self.word(3)
    }

    const fn word(&self, number: usize) -> Word {
        Word(self.link.saturating_add(WORD.saturating_mul(number)))
    }
}

/// Bytes up to the first word behind an object.
fn behind(size: usize) -> usize {
    size.checked_next_multiple_of(WORD).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::SlabFlags;

    #[test]
    fn nothing_overlaps_and_all_is_inside() {
        for (size, align) in (1..700)
            .map(|size| (size, 8))
            .chain([(64, 64), (4096, 4096)])
        {
            let shape = Shape::guarded(size, align, SlabFlags::RED_ZONE).unwrap();
            let layout = Layout::of(&shape);
            assert_eq!(layout.left % align, 0);
            assert!(layout.left >= RED_ZONE);
            for asked in [0, 1, size / 2, size] {
                let zone = layout.right_zone(asked).range();
                assert_eq!(zone.start, layout.left + asked);
                assert!(zone.end - zone.start >= RED_ZONE + size - asked);
            }
            assert_eq!(layout.right_zone(0).range().end, layout.link);
            assert_eq!(layout.last_byte().range().end, layout.left + size);
            assert_eq!(layout.record().at() % WORD, 0);
            let padding = layout.padding().range();
            assert_eq!(padding.start, layout.freed().at() + WORD);
            assert!(padding.end == shape.stride() && padding.start <= padding.end);
            assert_eq!((shape.stride() % align, shape.at_hand()), (0, 0));
            assert_eq!(Shape::from_words(shape.words()), Some(shape));
        }
    }

    #[test]
    fn wrong_bytes_are_told_from_the_first_to_the_last() {
        let mut bytes = [7; 40];
        assert_eq!(Wrong::find(&bytes, 100, 7), None);
        bytes[3] = 1;
        bytes[20] = 2;
        let wrong = Wrong::find(&bytes, 100, 7).unwrap();
        assert_eq!((wrong.at, wrong.len), (103, 18));
        assert_eq!(wrong.found, [1, 7, 7, 7, 7, 7, 7, 7]);
    }
}
