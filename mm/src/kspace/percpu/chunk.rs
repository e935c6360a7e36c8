//! A chunk: one unit for each CPU, and where there is room in them.
#![forbid(unsafe_code)]

use crate::kspace::percpu::bits::Bits;
use crate::kspace::raw::percpu::{Geometry, Ground, Piece, Refusal, Units};
use crate::report::{Check, Corruption};

use super::Ask;

/// Lists of chunks, by what they have room for: none, 1 granule, 2 or 3, 4 to 7, …
pub(super) const SLOTS: usize = 15;

/// The list for chunks whose largest run of free granules is so long.
pub(super) fn slot_of(run: usize) -> usize {
    run.checked_ilog2().map_or(0, |log| {
        let log = usize::try_from(log).unwrap_or(SLOTS);
        log.saturating_add(1).min(SLOTS - 1)
    })
}

/// A chunk of units, and its place in a list.
#[derive(Debug)]
pub(super) struct Chunk {
    units: Units,
    granules: usize,
    free: usize,
    /// No run of free granules is longer (Linux: `contig_hint`); it is exact after a search in vain.
    longest: usize,
    /// No granule below is free (Linux: `first_free`).
    first_free: usize,
    /// The chunks before and behind it in its list, …
    pub(super) previous: Option<u32>,
    pub(super) next: Option<u32>,
    /// … and which list that is.
    pub(super) slot: usize,
}

impl Chunk {
    /// All of it is free.
    pub(super) const fn new(units: Units, geometry: Geometry) -> Self {
        let granules = geometry.granules();
        Self {
            units,
            granules,
            free: granules,
            longest: granules,
            first_free: 0,
            previous: None,
            next: None,
            slot: 0,
        }
    }

    pub(super) const fn units(&self) -> &Units {
        &self.units
    }

    /// Whether its units are made of pages of their CPUs' own nodes.
    pub(super) const fn is_mapped(&self) -> bool {
        matches!(self.units.ground(), Ground::Area(_))
    }

    /// The units of a chunk that is given up.
    pub(super) fn into_units(self) -> Units {
        self.units
    }

    /// Whether nothing in it is used.
    pub(super) const fn is_empty(&self) -> bool {
        self.free == self.granules
    }

    pub(super) const fn free(&self) -> usize {
        self.free
    }

    /// The list that it belongs to.
    pub(super) fn proper_slot(&self) -> usize {
        slot_of(self.longest)
    }

    /// Whether a search may find room: there is none where it says no.
    pub(super) const fn may_fit(&self, ask: &Ask) -> bool {
        self.longest >= ask.granules
    }

    /// Cuts a piece out of the first run that it fits in. If there is none, the longest run is known after that.
    pub(super) fn alloc(&mut self, ask: &Ask) -> Option<Piece> {
        let at = self.first_fit(ask)?;
        let piece = self.units.cut(at, ask.bytes)?;
        self.free = self.free.saturating_sub(ask.granules);
        self.longest = self.longest.min(self.free);
        if at == self.first_free {
            self.first_free = at.saturating_add(ask.granules);
        }
        Some(piece)
    }

    fn first_fit(&mut self, ask: &Ask) -> Option<usize> {
        let taken = self.units.taken();
        let mut longest = 0;
        let mut start = taken.next_clear(self.first_free, self.granules);
        self.first_free = start;
        while start < self.granules {
            let end = taken.next_set(start, self.granules);
            let at = start.checked_next_multiple_of(ask.align)?;
            if at.saturating_add(ask.granules) <= end {
                return Some(at);
            }
            longest = longest.max(end.saturating_sub(start));
            start = taken.next_clear(end, self.granules);
        }
        self.longest = longest;
        None
    }

    /// Takes a piece back.
    ///
    /// # Errors
    /// The piece, and why it is none of the chunk's.
    pub(super) fn free_piece(&mut self, piece: Piece) -> Result<(), (Piece, Refusal)> {
        let (at, end) = self.units.give_back(piece)?;
        self.free = self.free.saturating_add(end.saturating_sub(at));
        self.first_free = self.first_free.min(at);
        let taken = self.units.taken();
        let run_end = taken.next_set(end, self.granules);
        let run = run_end.saturating_sub(taken.clear_before(at));
        self.longest = self.longest.max(run);
        Ok(())
    }

    /// Recounts.
    ///
    /// # Errors
    /// What is not as recorded.
    pub(super) fn validate(&self) -> Result<(), Corruption> {
        let taken = self.units.taken();
        compare(self.granules.saturating_sub(taken.count()), self.free)?;
        let mut start = taken.next_clear(0, self.granules);
        // Hints may promise too much, never too little.
        if start < self.first_free {
            compare(start, self.first_free)?;
        }
        while start < self.granules {
            let end = taken.next_set(start, self.granules);
            let run = end.saturating_sub(start);
            if run > self.longest {
                compare(run, self.longest)?;
            }
            start = taken.next_clear(end, self.granules);
        }
        // The pieces, one behind the other, are what is taken.
        let mut at = taken.next_set(0, self.granules);
        let mut pieces: usize = 0;
        while at < self.granules {
            pieces = pieces.saturating_add(1);
            let Some(end) = self.units.end_of(at) else {
                return compare(at, self.granules);
            };
            at = taken.next_set(end, self.granules);
        }
        compare(pieces, self.units.pieces())
    }
}

/// Whether a recount gives what is recorded.
pub(super) fn compare(counted: usize, recorded: usize) -> Result<(), Corruption> {
    if counted == recorded {
        return Ok(());
    }
    Err(Corruption::Miscount {
        check: Check::PerCpu,
        recorded: crate::addr::to_count(recorded),
        counted: crate::addr::to_count(counted),
    })
}

const _: () = assert!(1 << (SLOTS - 2) == Bits::MOST, "a list for every length");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_in_the_list_of_its_longest_run() {
        let slots = [0, 1, 2, 3, 4, 7, 8, 4096, 8191, 8192].map(slot_of);
        assert_eq!(slots, [0, 1, 2, 2, 3, 3, 4, 13, 13, 14]);
    }
}
