//! Looking, without locks: what is found may change at any time, but is not freed while the caller looks.
#![forbid(unsafe_code)]

use super::PageTable;
use super::entry::{Decoded, Entry, Leaf};
use super::entry_io::Table;
use super::level::Level;
use super::memory::{Reader, TableMemory};
use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange, to_count};

/// A step of the walk that the CPU makes for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// How high the table stands.
    pub level: Level,
    /// The table's frame.
    pub table: Pfn,
    /// Which entry.
    pub index: usize,
    /// What stands there.
    pub entry: Entry,
}

/// The walk that the CPU makes for an address (SDM vol. 3A, 4.5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    steps: [Option<Step>; 5],
}

impl Walk {
    /// The steps, from the root down.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.steps.into_iter().flatten()
    }

    /// The last step.
    #[must_use]
    pub fn last(&self) -> Option<Step> {
        self.steps().last()
    }

    /// The page at the end, if there is one that can be used.
    #[must_use]
    pub fn leaf(&self) -> Option<Leaf> {
        let last = self.last()?;
        match last.entry.decode(last.level) {
            Decoded::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    /// The physical address behind `at`, for which the walk was made.
    #[must_use]
    pub fn phys(&self, at: VirtAddr) -> Option<PhysAddr> {
        let leaf = self.leaf()?;
        let offset = at.as_u64() & leaf.size.bytes().wrapping_sub(1);
        leaf.phys().checked_add(offset)
    }
}

impl PageTable {
    /// The walk for an address; without a step if that is not canonical, or the tables are out of reach.
    pub(crate) fn walk<M: TableMemory>(&self, memory: &M, at: VirtAddr) -> Walk {
        let mut walk = Walk { steps: [None; 5] };
        if !at.is_canonical(self.levels) {
            return walk;
        }
        let _reader = Reader::of(memory);
        let Some(root) = self.top(memory) else {
            return walk;
        };
        let (mut table, mut pfn, mut level) = (root.table, self.root, self.top_level());
        for step in &mut walk.steps {
            let index = level.index(at);
            let entry = table.slot(index).load();
            *step = Some(Step {
                level,
                table: pfn,
                index,
                entry,
            });
            let next = level.below().zip(entry.table_pfn());
            let below = Table::below(table, memory.platform(), entry);
            let (Some((lower, frame)), Some(below)) = (next, below) else {
                break;
            };
            (table, pfn, level) = (below, frame, lower);
        }
        walk
    }

    /// The first page at or behind an address that can be used, and where it starts.
    pub(crate) fn next_leaf<M: TableMemory>(
        &self,
        memory: &M,
        from: VirtAddr,
    ) -> Option<(VirtAddr, Leaf)> {
        let span = self.next_span(memory, from)?;
        Some((span.range.start(), span.first))
    }

    /// The first pages at or behind an address that can be used: as many in a row as one table maps with the same rights,
    /// and as the same table maps that stands in the next places, too.
    pub(crate) fn next_span<M: TableMemory>(&self, memory: &M, from: VirtAddr) -> Option<Span> {
        let mut at = from;
        loop {
            if !at.is_canonical(self.levels) {
                // Behind the hole.
                let half = self.top_level().entry_bytes().wrapping_shl(8);
                at = VirtAddr::new(half.wrapping_neg());
                if at < from {
                    return None;
                }
            }
            // For one table at a time: others may have to wait until nobody reads.
            let _reader = Reader::of(memory);
            let (lowest, above) = self.lowest(memory, at)?;
            let (table, level) = lowest;
            match scan(table, level, at) {
                Found::Span(span) => {
                    let mut range = span.range;
                    for above in above.into_iter().rev().flatten() {
                        match repeated(above, range) {
                            Some(longer) => range = longer,
                            None => break,
                        }
                    }
                    return Some(Span { range, ..span });
                }
                Found::GoOn(next) => at = next?,
            }
        }
    }

    /// The lowest table on the way to an address, and those above it, the lowest last.
    fn lowest<'a, M: TableMemory>(&self, memory: &'a M, at: VirtAddr) -> Option<Way<'a>> {
        let mut above = [None; 4];
        let mut found = (self.top(memory)?.table, self.top_level());
        for place in &mut above {
            let (table, level) = found;
            let below = table.below(memory.platform(), table.slot(level.index(at)).load());
            let Some((below, lower)) = below.zip(level.below()) else {
                break;
            };
            *place = Some(found);
            found = (below, lower);
        }
        Some((found, above))
    }
}

/// A table on the way to an address.
type Stand<'a> = (Table<'a>, Level);
/// The lowest one, and those above it.
type Way<'a> = (Stand<'a>, [Option<Stand<'a>>; 4]);

/// As far as a table stands in one place after the other of the table `above`, if `range` is all that it maps.
fn repeated((above, level): Stand<'_>, range: VirtRange) -> Option<VirtRange> {
    let bytes = level.entry_bytes();
    let start = range.start();
    if range.size() != bytes || start.align_down(bytes) != start {
        return None;
    }
    let mut slots = above.slots().get(level.index(start)..)?.iter();
    let table = slots.next()?.load();
    let _ = table.table_pfn()?;
    let alike = slots.take_while(|slot| slot.load().leads_alike(table));
    let more = to_count(alike.count()).wrapping_mul(bytes);
    VirtRange::new(start, range.end().checked_add(more)?)
}

/// Pages in a row that one table maps with the same rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Their addresses.
    pub range: VirtRange,
    /// The first of them; the others have its size and attributes.
    pub first: Leaf,
}

/// What a table has from an entry on.
enum Found {
    Span(Span),
    /// Nothing before this address, if there is one.
    GoOn(Option<VirtAddr>),
}

/// Looks for pages from the entry for `at` on, as far as no other table has to be looked at.
fn scan(table: Table<'_>, level: Level, at: VirtAddr) -> Found {
    let bytes = level.entry_bytes();
    let origin = at.align_down(bytes);
    let slots = table.slots().get(level.index(at)..).unwrap_or_default();
    // Where the entry with a number starts: the last entry of the space ends behind it.
    let start_of = |index: usize| {
        let offset = to_count(index).wrapping_mul(bytes);
        origin.checked_add(offset)
    };
    let Some(index) = slots.iter().position(|slot| slot.load().is_present()) else {
        return Found::GoOn(start_of(slots.len()));
    };
    let (Some(first), Some(start)) = (slots.get(index), start_of(index)) else {
        return Found::GoOn(None);
    };
    let entry = first.load();
    let Decoded::Leaf(leaf) = entry.decode(level) else {
        // A table: at the entry itself only if that is where the walk went wrong.
        let next = if start > at {
            Some(start)
        } else {
            start_of(index.wrapping_add(1))
        };
        return Found::GoOn(next);
    };
    let rest = slots.get(index..).unwrap_or_default();
    let alike = rest
        .iter()
        .take_while(|slot| slot.load().is_like(entry, level));
    let end = start_of(index.wrapping_add(alike.count()));
    let range = VirtRange::new(start, end.unwrap_or(VirtAddr::new(u64::MAX)));
    Found::Span(Span {
        range: range.unwrap_or_default(),
        first: leaf,
    })
}
