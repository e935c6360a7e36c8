//! What happens to frames and addresses, as an event of 16 bytes that a viewer can play forwards and backwards.
#![forbid(unsafe_code)]

use crate::addr::{Order, Pfn, VirtAddr};
use crate::config::PAGE_SHIFT;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// A block became somebody's, from a CPU's list or from its zone.
    Alloc = 1,
    /// Somebody gave a block back, to a CPU's list or to its zone.
    Free = 2,
    /// A free block left the free areas of its zone, whole: for its owner, or for a CPU's list if a
    /// [`Refill`](Self::Refill) follows. The detail is the migrate type that its pageblock had.
    Take = 3,
    /// A block came to the free areas of its zone, before it is merged.
    Give = 4,
    /// A free block was halved: this is the upper half, which stays free.
    Split = 5,
    /// A free block met its free buddy: this is the block of twice the size.
    Merge = 6,
    /// A block was taken out of a pageblock of another type, or all of that pageblock: then the number says
    /// which, and the order is a pageblock's. The detail is the type that it had.
    Steal = 7,
    /// A CPU's list was filled; the takes before this one did it. The number says how many blocks.
    Refill = 8,
    /// A CPU's list was shortened; the gives before this one did it. The number says how many frames.
    Drain = 9,
    /// Pages were mapped: the number is that of the first one, the detail the binary logarithm of how many,
    /// rounded up.
    Map = 10,
    /// Pages were unmapped; numbers as of [`Map`](Self::Map).
    Unmap = 11,
    /// A section of a zone was populated; the number is its first frame.
    Populate = 12,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Alloc,
        Self::Free,
        Self::Take,
        Self::Give,
        Self::Split,
        Self::Merge,
        Self::Steal,
        Self::Refill,
        Self::Drain,
        Self::Map,
        Self::Unmap,
        Self::Populate,
    ];

    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    const fn number(self) -> u8 {
        self as u8
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| u64::from(kind.number()) == number)
    }

    /// Its name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::Free => "free",
            Self::Take => "take",
            Self::Give => "give",
            Self::Split => "split",
            Self::Merge => "merge",
            Self::Steal => "steal",
            Self::Refill => "refill",
            Self::Drain => "drain",
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Populate => "populate",
        }
    }
}

/// Something that happened; see [`EventKind`] for what its numbers mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// A frame, a page of addresses, or how many; below 2⁴⁵.
    pub number: u64,
    /// The order of a block, or of blocks; otherwise 0.
    pub order: Order,
    /// What else there is to say; below 64.
    pub detail: u8,
}

/// Bits of the first word of an event: the number above all, …
const NUMBER_BITS: u32 = 45;
/// … then the lap that a ring was in, where it needs no shift if the ring is one of 65,536 events; …
const LAP_BITS: u32 = 3;
/// … the order and the kind, …
const NIBBLE_BITS: u32 = 4;
/// … and the detail.
const DETAIL_BITS: u32 = 6;
const KIND_SHIFT: u32 = DETAIL_BITS;
const ORDER_SHIFT: u32 = KIND_SHIFT + NIBBLE_BITS;
const LAP_SHIFT: u32 = 16;
const NUMBER_SHIFT: u32 = LAP_SHIFT + LAP_BITS;

const _: () = assert!(ORDER_SHIFT + NIBBLE_BITS <= LAP_SHIFT && NUMBER_SHIFT + NUMBER_BITS == 64);

const fn low(word: u64, bits: u32) -> u64 {
    word & (1_u64 << (bits & 63)).wrapping_sub(1)
}

impl Event {
    /// Something that happened to a block.
    #[inline(always)]
    #[must_use]
    pub const fn block(kind: EventKind, pfn: Pfn, order: Order) -> Self {
        Self {
            kind,
            number: pfn.as_u64(),
            order,
            detail: 0,
        }
    }

    /// Something that happened to so many, of an order.
    #[inline(always)]
    #[must_use]
    pub const fn count(kind: EventKind, number: u64, order: Order) -> Self {
        Self {
            kind,
            number,
            order,
            detail: 0,
        }
    }

    /// Something that happened to pages of addresses.
    #[inline(always)]
    #[must_use]
    pub fn pages(kind: EventKind, start: VirtAddr, pages: u64) -> Self {
        let last = pages.max(1).wrapping_sub(1);
        let log = u64::BITS.wrapping_sub(last.leading_zeros());
        Self {
            kind,
            number: low(start.as_u64() >> PAGE_SHIFT, NUMBER_BITS),
            order: Order::ZERO,
            detail: u8::try_from(log.min(63)).unwrap_or(0),
        }
    }

    /// The same with a detail.
    #[inline]
    #[must_use]
    pub const fn with_detail(self, detail: u8) -> Self {
        Self { detail, ..self }
    }

    /// The first address of [pages](EventKind::Map).
    #[must_use]
    pub const fn start(&self) -> VirtAddr {
        // Canonical addresses: what is above is as the highest bit that is kept.
        let above = 0_u64.wrapping_sub(self.number >> (NUMBER_BITS - 1));
        VirtAddr::new((self.number | above << NUMBER_BITS) << PAGE_SHIFT)
    }

    /// As two words of a ring: what happened in one of the ring's laps, and the time.
    #[inline(always)]
    #[must_use]
    pub fn to_words(self, time: u64, lap: u64) -> [u64; 2] {
        let kind = u64::from(self.kind.number()) << KIND_SHIFT;
        let order = u64::from(self.order.as_u8()) << ORDER_SHIFT;
        let detail = low(u64::from(self.detail), DETAIL_BITS);
        let lap = low(lap, LAP_BITS) << LAP_SHIFT;
        [
            self.number << NUMBER_SHIFT | order | lap | kind | detail,
            time,
        ]
    }

    /// From two words, and the time, if they are an event of that lap: of another one if somebody is just
    /// writing them, or nobody ever did.
    #[must_use]
    pub fn from_words([what, time]: [u64; 2], lap: u64) -> Option<(u64, Self)> {
        if low(what >> LAP_SHIFT, LAP_BITS) != low(lap, LAP_BITS) {
            return None;
        }
        let nibble = |shift: u32| low(what >> (shift & 63), NIBBLE_BITS);
        let event = Self {
            kind: EventKind::from_number(nibble(KIND_SHIFT))?,
            number: what >> NUMBER_SHIFT,
            order: Order::new(u8::try_from(nibble(ORDER_SHIFT)).ok()?)?,
            detail: u8::try_from(low(what, DETAIL_BITS)).ok()?,
        };
        Some((time, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_its_two_words() {
        let most = (1 << NUMBER_BITS) - 1;
        for kind in EventKind::ALL {
            for (number, order, detail) in [(0, 0, 0), (most, 10, 63), (0x1234, 3, 7)] {
                let event =
                    Event::count(kind, number, Order::new(order).unwrap()).with_detail(detail);
                for (time, lap) in [(0, 0), (u64::MAX, 15), (77, 16 + 9)] {
                    let words = event.to_words(time, lap);
                    assert_eq!(Event::from_words(words, lap), Some((time, event)));
                    assert_eq!(Event::from_words(words, lap + 1), None);
                }
            }
        }
        assert_eq!(Event::from_words([0, 0], 0), None, "memory of zeroes");
    }

    #[test]
    fn addresses_of_both_halves_come_back() {
        for start in [
            0,
            0x1000,
            0x7fff_ffff_f000,
            0xffff_8000_0000_0000,
            0xff00_0000_0000_0000,
        ] {
            let start = VirtAddr::new(start);
            let event = Event::pages(EventKind::Map, start, 3);
            assert_eq!((event.start(), event.detail), (start, 2));
            let words = event.to_words(5, 5);
            assert_eq!(Event::from_words(words, 5), Some((5, event)));
        }
        assert_eq!(
            Event::pages(EventKind::Map, VirtAddr::new(0), u64::MAX).detail,
            63
        );
        assert_eq!(
            Event::pages(EventKind::Unmap, VirtAddr::new(0), 0).detail,
            0
        );
    }
}
