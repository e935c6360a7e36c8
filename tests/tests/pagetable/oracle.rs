//! What page tables map, read from RAM word by word, and what they should map, as stretches of addresses. Neither shares
//! anything with the library, and neither costs more for a large page than for a small one.

use std::collections::BTreeMap;

use mm::addr::{PhysAddr, PhysRange};
use mm::pagetable::{Attributes, Protection};
use mm_tests::sim::mmu::bit;
use mm_tests::sim::{Machine, SimConfig};

/// Where an entry's address is.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a page may be used for, in the bits of an entry of the lowest level (SDM vol. 3A, table 4-20).
const RIGHTS: u64 = bit::RW | bit::US | bit::G | bit::XD | CACHE;
/// The index into the attribute table: page-level write-through, cache-disable, PAT.
const CACHE: u64 = 1 << 3 | 1 << 4 | PAT;
const PAT: u64 = 1 << 7;

/// Attributes in these bits.
pub(crate) fn rights(attributes: Attributes) -> u64 {
    let index = attributes.cache as u64;
    let mut bits = (index & 3) << 3 | (index >> 2) << 7;
    for (right, place) in [
        (Protection::WRITE, bit::RW),
        (Protection::USER, bit::US),
        (Protection::GLOBAL, bit::G),
    ] {
        bits |= if attributes.protection.contains(right) {
            place
        } else {
            0
        };
    }
    if !attributes.protection.contains(Protection::EXECUTE) {
        bits |= bit::XD;
    }
    bits
}

/// Addresses that lead to memory in a row, all alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    pub(crate) end: u64,
    pub(crate) phys: u64,
    pub(crate) rights: u64,
}

/// What is mapped: stretches by where they start, as long as can be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Map(BTreeMap<u64, Stretch>);

impl Map {
    /// The stretch that an address lies in, and where it starts.
    pub(crate) fn at(&self, addr: u64) -> Option<(u64, Stretch)> {
        let (start, stretch) = self.0.range(..=addr).next_back()?;
        (addr < stretch.end).then_some((*start, *stretch))
    }

    /// What is mapped of `start..end`, piece by piece.
    pub(crate) fn within(&self, start: u64, end: u64) -> Vec<(u64, Stretch)> {
        let first = self.at(start).map_or(start, |(first, _)| first);
        let touched = self.0.range(first..end);
        let clip = |(&at, &stretch): (&u64, &Stretch)| {
            let from = at.max(start);
            let clipped = Stretch {
                end: stretch.end.min(end),
                phys: stretch.phys + (from - at),
                ..stretch
            };
            (from, clipped)
        };
        touched.map(clip).collect()
    }

    /// Whether all of `start..end` is mapped.
    pub(crate) fn is_full(&self, start: u64, end: u64) -> bool {
        let bytes = |(at, stretch): &(u64, Stretch)| stretch.end - at;
        self.within(start, end).iter().map(bytes).sum::<u64>() == end - start
    }

    /// Whether nothing is.
    pub(crate) fn is_empty(&self, start: u64, end: u64) -> bool {
        self.within(start, end).is_empty()
    }

    /// Takes away what is mapped of `start..end`.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        self.cut(start);
        self.cut(end);
        let gone: Vec<u64> = self.0.range(start..end).map(|(at, _)| *at).collect();
        for at in gone {
            self.0.remove(&at);
        }
    }

    /// Maps a stretch where nothing is.
    pub(crate) fn insert(&mut self, start: u64, stretch: Stretch) {
        if start == stretch.end {
            return;
        }
        self.0.insert(start, stretch);
        self.join_at(stretch.end);
        self.join_at(start);
    }

    /// Changes the rights of all that is mapped of `start..end`.
    pub(crate) fn change(&mut self, start: u64, end: u64, change: impl Fn(u64) -> u64) {
        let pieces = self.within(start, end);
        self.remove(start, end);
        for (at, piece) in pieces {
            let rights = change(piece.rights);
            self.insert(at, Stretch { rights, ..piece });
        }
    }

    /// How many stretches there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn cut(&mut self, at: u64) {
        let Some((start, stretch)) = self.at(at).filter(|(start, _)| *start != at) else {
            return;
        };
        let phys = stretch.phys + (at - start);
        self.0.insert(start, Stretch { end: at, ..stretch });
        self.0.insert(at, Stretch { phys, ..stretch });
    }

    /// Makes one of two that meet at an address and go on alike.
    fn join_at(&mut self, at: u64) {
        let Some(second) = self.0.get(&at).copied() else {
            return;
        };
        let before = self.0.range_mut(..at).next_back();
        if let Some((start, first)) = before
            && first.end == at
            && first.rights == second.rights
            && first.phys + (at - start) == second.phys
        {
            first.end = second.end;
            self.0.remove(&at);
        }
    }
}

/// Page tables as they lie in RAM.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Dump {
    /// Every word that is not zero: the level of its table, the first address that it is for, and what it says.
    pub(crate) words: Vec<(u32, u64, u64)>,
    /// What is mapped.
    pub(crate) map: Map,
    /// How many tables there are, …
    pub(crate) tables: u64,
    /// … and how many of them without an entry: for each its level.
    pub(crate) empty: Vec<u32>,
}

impl Dump {
    /// Reads tables of so many levels.
    pub(crate) fn of<C: SimConfig>(machine: &Machine<C>, root: PhysAddr, levels: u32) -> Self {
        let mut dump = Self {
            words: Vec::new(),
            map: Map::default(),
            tables: 0,
            empty: Vec::new(),
        };
        dump.read(machine, (root, levels), (0, levels));
        dump
    }

    /// Reads a table of a level, and those below it, for the addresses from `start` on.
    fn read<C: SimConfig>(
        &mut self,
        machine: &Machine<C>,
        (table, level): (PhysAddr, u32),
        (start, levels): (u64, u32),
    ) {
        self.tables += 1;
        let shift = 12 + 9 * (level - 1);
        let bytes = machine
            .hardware()
            .ram()
            .read(PhysRange::from_size(table, 4096));
        let words = bytes.as_chunks::<8>().0.iter();
        let words = words
            .map(|word| u64::from_le_bytes(*word))
            .zip(0_u64..)
            .filter(|(word, _)| *word != 0);
        let mut used = 0;
        for (word, index) in words {
            used += 1;
            let at = sign_extended(start | index << shift, levels);
            self.words.push((level, at, word));
            assert_ne!(word & bit::P, 0, "{at:#x}: {word:#x} is not present");
            if level == 1 || word & bit::PS != 0 {
                assert!(level <= 3, "{at:#x}: a page of level {level}");
                self.map.insert(at, leaf(word, shift, at));
            } else {
                let below = PhysAddr::new(word & ADDRESS);
                self.read(machine, (below, level - 1), (at, levels));
            }
        }
        if used == 0 {
            self.empty.push(level);
        }
    }
}

/// The address that the CPU takes for one of which the lower bits are known.
fn sign_extended(addr: u64, levels: u32) -> u64 {
    let unused = 64 - (12 + 9 * levels);
    ((addr << unused).cast_signed() >> unused).cast_unsigned()
}

/// What a leaf maps.
fn leaf(word: u64, shift: u32, at: u64) -> Stretch {
    let bytes = 1_u64 << shift;
    let is_large = shift > 12;
    // The bit of the attribute table is elsewhere in large pages.
    let pat = if is_large {
        word >> 12 & 1
    } else {
        word >> 7 & 1
    };
    Stretch {
        end: at + bytes,
        phys: word & ADDRESS & !(bytes - 1),
        rights: word & RIGHTS & !PAT | pat << 7,
    }
}

#[test]
fn stretches_are_joined_and_cut() {
    let stretch = |end, phys| Stretch {
        end,
        phys,
        rights: 0,
    };
    let mut map = Map::default();
    map.insert(0x1000, stretch(0x3000, 0x9000));
    map.insert(0x4000, stretch(0x5000, 0xc000));
    assert_eq!(map.len(), 2);
    map.insert(0x3000, stretch(0x4000, 0xb000));
    assert_eq!(map.len(), 1);
    assert!(map.is_full(0x1000, 0x5000) && !map.is_full(0, 0x5000));
    map.remove(0x2000, 0x3000);
    assert_eq!(map.at(0x3fff), Some((0x3000, stretch(0x5000, 0xb000))));
    assert!(map.is_empty(0x2000, 0x3000) && !map.is_empty(0x2000, 0x3001));
    map.change(0x1000, 0x4000, |rights| rights | bit::RW);
    assert_eq!(map.len(), 3);
    map.change(0x1000, 0x4000, |rights| rights & !bit::RW);
    assert_eq!(map.len(), 2);
}
