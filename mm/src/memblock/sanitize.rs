//! From any firmware map to sorted ranges that do not overlap.
//!
//! [`FirmwareMap`] joins the firmware's entries with the command line's edits; its
//! [`ranges`](FirmwareMap::ranges) walk from border to border and ask at each which kind wins
//! there. Nothing is copied, so no map is too long and nothing is cut off; the price is
//! O(n²) for n entries, which is nothing for the few hundred that firmware has.
//!
//! The rules are Linux's (`e820__update_table`): the highest type number wins, type 0 loses to
//! everything and disappears, neighbours of one kind merge unless their borders mean something.
//! Where Linux throws the whole table away (an entry wraps, only one entry), the one bad entry
//! is clipped or dropped here, and [`repairs`](FirmwareMap::repairs) say so.
#![forbid(unsafe_code)]

use core::fmt;

use super::firmware::{FirmwareKind, FirmwareRegion};
use super::params::{MapEdit, Params};
use crate::addr::{PhysAddr, PhysRange};
use crate::config::MAX_PHYS_BITS;

/// A firmware map with the command line's edits: the view that is sanitised.
#[derive(Clone, Copy, Debug)]
pub struct FirmwareMap<'a> {
    entries: &'a [FirmwareRegion],
    edits: &'a [MapEdit],
    /// First byte that the CPU cannot address.
    limit: PhysAddr,
}

/// A range of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindRange {
    /// Which bytes.
    pub range: PhysRange,
    /// What they are for.
    pub kind: FirmwareKind,
}

impl<'a> FirmwareMap<'a> {
    /// A map as the firmware gave it, for a CPU with `phys_bits` physical address bits
    /// (CPUID leaf 8000_0008h; more than [`MAX_PHYS_BITS`] count as that). Context: any.
    #[must_use]
    pub const fn new(entries: &'a [FirmwareRegion], phys_bits: u32) -> Self {
        let bits = if phys_bits < MAX_PHYS_BITS {
            phys_bits
        } else {
            MAX_PHYS_BITS
        };
        Self {
            entries,
            edits: &[],
            limit: PhysAddr::new(1 << bits),
        }
    }

    /// The same map with the edits of the command line (`mem=`, `memmap=`). Context: any.
    #[must_use]
    pub fn edited(self, params: &'a Params) -> Self {
        Self {
            edits: params.edits(),
            ..self
        }
    }

    /// The sanitised ranges: sorted, disjoint, neighbours of one kind merged. Context: any.
    #[must_use]
    pub const fn ranges(self) -> Ranges<'a> {
        Ranges {
            map: self,
            at: PhysAddr::ZERO,
        }
    }

    /// Everything in the firmware's entries that had to be put right, by entry. Context: any.
    pub fn repairs(self) -> impl Iterator<Item = Repair> + 'a {
        let entries = self.entries.iter().enumerate();
        entries.flat_map(move |(index, entry)| {
            [
                self.extent_repair(index, entry),
                self.order_repair(index, entry),
                self.overlap_repair(index, entry),
            ]
            .into_iter()
            .flatten()
        })
    }

    fn extent_repair(&self, index: usize, entry: &FirmwareRegion) -> Option<Repair> {
        let entry = *entry;
        if entry.size == 0 {
            return Some(Repair::Empty { index, entry });
        }
        if entry.kind == 0 {
            return Some(Repair::NoType { index, entry });
        }
        let clipped = self.clip(entry.range());
        if clipped.is_empty() {
            return Some(Repair::Unaddressable { index, entry });
        }
        if entry.wraps() {
            return Some(Repair::Wraps {
                index,
                entry,
                clipped,
            });
        }
        (clipped != entry.range()).then_some(Repair::TooWide {
            index,
            entry,
            clipped,
        })
    }

    fn order_repair(&self, index: usize, entry: &FirmwareRegion) -> Option<Repair> {
        let before = self.entries.get(index.checked_sub(1)?)?;
        let entry = *entry;
        (entry.start < before.start).then_some(Repair::Unsorted { index, entry })
    }

    /// The first other entry that takes bytes away from this one.
    fn overlap_repair(&self, index: usize, entry: &FirmwareRegion) -> Option<Repair> {
        let range = self.clip(entry.range());
        let loses_to = |other: usize, stronger: &FirmwareRegion| {
            let wins = stronger.kind > entry.kind || (stronger.kind == entry.kind && other < index);
            wins && self.clip(stronger.range()).overlaps(range)
        };
        let entry = *entry;
        self.entries
            .iter()
            .enumerate()
            .find(|(other, stronger)| loses_to(*other, stronger))
            .map(|(other, stronger)| Repair::Overlap {
                index,
                entry,
                other,
                kind: FirmwareKind::from_e820(stronger.kind),
            })
    }

    /// What is left of a range below the end of what the CPU can address.
    pub(super) fn clip(&self, range: PhysRange) -> PhysRange {
        let addressable = PhysRange::from_size(PhysAddr::ZERO, self.limit.as_u64());
        range.intersect(addressable)
    }

    /// Every piece that claims bytes: the firmware's entries, then the additions of the command
    /// line, each with the range that is left of it once later limits are applied.
    fn claims(&self) -> impl Iterator<Item = (PhysRange, u32)> {
        let from = self.edits.iter().rposition(|edit| *edit == MapEdit::Exact);
        let (entries, edits) = match from {
            Some(exact) => (&[][..], &self.edits[exact..]),
            None => (self.entries, self.edits),
        };
        let firmware = entries.iter().map(move |entry| {
            let range = limited(entry.range(), entry.kind, edits);
            (self.clip(range), entry.kind)
        });
        let added = edits.iter().enumerate().filter_map(move |(index, edit)| {
            let MapEdit::Add { range, kind } = *edit else {
                return None;
            };
            let later = edits.get(index..).unwrap_or_default();
            let range = limited(range, kind.as_e820(), later);
            Some((self.clip(range), kind.as_e820()))
        });
        firmware.chain(added).filter(|(range, _)| !range.is_empty())
    }

    /// The kind that wins at `at` and the next address where that may change.
    fn winner(&self, at: PhysAddr) -> (u32, Option<PhysAddr>) {
        let mut kind = 0;
        let mut next: Option<PhysAddr> = None;
        for (range, claimed) in self.claims() {
            if range.contains(at) {
                kind = kind.max(claimed);
            }
            let border = [range.start(), range.end()].into_iter().find(|b| *b > at);
            if let Some(border) = border {
                next = Some(next.map_or(border, |nearest| nearest.min(border)));
            }
        }
        (kind, next)
    }
}

/// What is left of a range of type `kind` when the `mem=` limits among `edits` take usable
/// memory away.
fn limited(range: PhysRange, kind: u32, edits: &[MapEdit]) -> PhysRange {
    if kind != FirmwareKind::Usable.as_e820() {
        return range;
    }
    edits.iter().fold(range, |rest, edit| match edit {
        MapEdit::LimitUsable(limit) => {
            rest.intersect(PhysRange::from_size(PhysAddr::ZERO, limit.as_u64()))
        }
        MapEdit::Add { .. } | MapEdit::Exact => rest,
    })
}

/// Iterator over the sanitised ranges of a map; see [`FirmwareMap::ranges`].
#[derive(Clone, Debug)]
pub struct Ranges<'a> {
    map: FirmwareMap<'a>,
    at: PhysAddr,
}

impl Iterator for Ranges<'_> {
    type Item = KindRange;

    fn next(&mut self) -> Option<KindRange> {
        let (start, number, mut end) = loop {
            let (number, next) = self.map.winner(self.at);
            let next = next?;
            let start = self.at;
            self.at = next;
            if number != 0 {
                break (start, number, next);
            }
        };
        let kind = FirmwareKind::from_e820(number);
        while !kind.keeps_borders() {
            let (following, next) = self.map.winner(end);
            let Some(next) = next.filter(|_| following == number) else {
                break;
            };
            end = next;
        }
        self.at = end;
        PhysRange::new(start, end).map(|range| KindRange { range, kind })
    }
}

/// Something in a firmware map that was put right. `index` is the entry's place in the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    /// The entry has no bytes: dropped.
    Empty {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
    },
    /// The entry has type 0: dropped.
    NoType {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
    },
    /// The entry starts beyond what the CPU can address: dropped.
    Unaddressable {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
    },
    /// The entry's end is past 2^64: cut off.
    Wraps {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
        /// What is left.
        clipped: PhysRange,
    },
    /// The entry's end is past what the CPU can address: cut off.
    TooWide {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
        /// What is left.
        clipped: PhysRange,
    },
    /// The entry starts below the one before it: sorted.
    Unsorted {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
    },
    /// Another entry claims bytes of this one, with a stronger type or earlier in the map: the
    /// bytes go to the other one.
    Overlap {
        /// Place in the map.
        index: usize,
        /// The entry as it came.
        entry: FirmwareRegion,
        /// Place of the first such entry.
        other: usize,
        /// What the other entry says.
        kind: FirmwareKind,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, index: &usize, entry: &FirmwareRegion| {
            let kind = FirmwareKind::from_e820(entry.kind);
            let (start, size) = (entry.start, entry.size);
            write!(
                f,
                "firmware map entry {index} ({start:#x} + {size:#x}, {kind})"
            )
        };
        match self {
            Self::Empty { index, entry } => {
                line(f, index, entry)?;
                f.write_str(": empty, dropped")
            }
            Self::NoType { index, entry } => {
                line(f, index, entry)?;
                f.write_str(": no type, dropped")
            }
            Self::Unaddressable { index, entry } => {
                line(f, index, entry)?;
                f.write_str(": beyond the CPU's physical addresses, dropped")
            }
            Self::Wraps {
                index,
                entry,
                clipped,
            } => {
                line(f, index, entry)?;
                write!(f, ": ends past 2^64, cut to {clipped}")
            }
            Self::TooWide {
                index,
                entry,
                clipped,
            } => {
                line(f, index, entry)?;
                write!(
                    f,
                    ": ends past the CPU's physical addresses, cut to {clipped}"
                )
            }
            Self::Unsorted { index, entry } => {
                line(f, index, entry)?;
                f.write_str(": out of order, sorted")
            }
            Self::Overlap {
                index,
                entry,
                other,
                kind,
            } => {
                line(f, index, entry)?;
                write!(f, ": overlaps entry {other}, which stays {kind}")
            }
        }
    }
}
