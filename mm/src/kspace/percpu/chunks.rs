//! Chunks, listed by what they have room for.
#![forbid(unsafe_code)]

use super::chunk::{Chunk, SLOTS, compare, slot_of};
use super::table::{Pages, Table};
use super::{Ask, PerCpuStats};
use crate::addr::to_count;
use crate::kspace::raw::PageBox;
use crate::kspace::raw::percpu::{GRANULE, Geometry, Ground, Piece, Refusal, Units};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::{Check, Corruption};

/// Chunks of one list that are searched for a piece before those with more room are: where the longest run is long
/// enough, the alignment may still not fit.
const TRIES: usize = 8;
/// Chunks of one list that are looked at.
const LOOKS: usize = 64;

/// What is to be given back when the lock is not held any more.
#[derive(Default)]
pub(super) struct Surplus {
    pub(super) chunk: Option<PageBox<Chunk>>,
    pub(super) pages: Pages,
    pub(super) page: Option<Exclusive>,
    pub(super) ground: Option<Ground>,
}

/// All chunks, and the heads of their lists.
#[derive(Debug)]
pub(super) struct Chunks {
    table: Table,
    heads: [Option<u32>; SLOTS],
    chunks: usize,
    mapped: usize,
    empty: usize,
    objects: usize,
    /// Granules of all chunks that are free.
    free: usize,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self {
            table: Table::new(),
            heads: [None; SLOTS],
            chunks: 0,
            mapped: 0,
            empty: 0,
            objects: 0,
            free: 0,
        }
    }

    /// Pages that one more chunk needs beside its own.
    pub(super) fn needs(&self) -> usize {
        self.table.needs()
    }

    /// Cuts a piece out of the fullest chunk that has room, lists apart.
    pub(super) fn alloc(&mut self, ask: &Ask) -> Option<Piece> {
        (slot_of(ask.granules)..SLOTS).find_map(|slot| self.alloc_from(slot, ask))
    }

    fn alloc_from(&mut self, slot: usize, ask: &Ask) -> Option<Piece> {
        let mut next = self.head(slot);
        let mut tries: usize = 0;
        for _ in 0..LOOKS {
            let number = next?;
            let chunk = self.table.get_mut(number)?;
            next = chunk.next;
            if !chunk.may_fit(ask) {
                continue;
            }
            let (was_empty, before) = (chunk.is_empty(), chunk.free());
            let piece = chunk.alloc(ask);
            let used = before.saturating_sub(chunk.free());
            if piece.is_some() {
                self.objects = self.objects.saturating_add(1);
                self.free = self.free.saturating_sub(used);
                self.empty = self.empty.saturating_sub(usize::from(was_empty));
            }
            self.relist(number);
            if piece.is_some() {
                return piece;
            }
            tries = tries.saturating_add(1);
            if tries == TRIES {
                return None;
            }
        }
        None
    }

    /// Takes a piece back into a chunk.
    ///
    /// # Errors
    /// The piece, and why it is none of that chunk.
    pub(super) fn free(&mut self, number: u32, piece: Piece) -> Result<Surplus, (Piece, Refusal)> {
        let Some(chunk) = self.table.get_mut(number) else {
            return Err((piece, Refusal::NoPiece));
        };
        let before = chunk.free();
        chunk.free_piece(piece)?;
        let came = chunk.free().saturating_sub(before);
        let is_empty = chunk.is_empty();
        self.objects = self.objects.saturating_sub(1);
        self.free = self.free.saturating_add(came);
        self.relist(number);
        if is_empty {
            self.empty = self.empty.saturating_add(1);
        }
        // One is kept for who comes next.
        let surplus = match is_empty && self.empty > 1 {
            true => self.remove(number),
            false => None,
        };
        Ok(surplus.unwrap_or_default())
    }

    /// Whether a piece like that is taken.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, number: u32, piece: &Piece) -> Result<(), Refusal> {
        let chunk = self.table.get(number).ok_or(Refusal::NoPiece)?;
        chunk.units().check(piece).map(drop)
    }

    /// Adds a chunk. Answers its number.
    ///
    /// # Errors
    /// The chunk, if there is no room in the table for it.
    pub(super) fn insert<P: Platform>(
        &mut self,
        platform: &P,
        chunk: PageBox<Chunk>,
        pages: &mut Pages,
    ) -> Result<u32, PageBox<Chunk>> {
        let (free, is_mapped) = (chunk.free(), chunk.is_mapped());
        let number = self.table.insert(platform, chunk, pages)?;
        self.chunks = self.chunks.saturating_add(1);
        self.mapped = self.mapped.saturating_add(usize::from(is_mapped));
        self.empty = self.empty.saturating_add(1);
        self.free = self.free.saturating_add(free);
        self.link(number);
        Ok(number)
    }

    /// The units of a chunk.
    pub(super) fn units(&self, number: u32) -> Option<&Units> {
        self.table.get(number).map(Chunk::units)
    }

    /// Takes out a chunk without objects, if there is one.
    pub(super) fn take_empty(&mut self) -> Option<Surplus> {
        if self.empty == 0 {
            return None;
        }
        let mut all = self.table.iter();
        let (number, _) = all.find(|(_, chunk)| chunk.is_empty())?;
        drop(all);
        self.remove(number)
    }

    /// Takes out a chunk that is empty.
    fn remove(&mut self, number: u32) -> Option<Surplus> {
        self.unlink(number);
        let (chunk, pages) = self.table.remove(number)?;
        self.chunks = self.chunks.saturating_sub(1);
        self.mapped = self.mapped.saturating_sub(usize::from(chunk.is_mapped()));
        self.empty = self.empty.saturating_sub(1);
        self.free = self.free.saturating_sub(chunk.free());
        Some(Surplus {
            chunk: Some(chunk),
            pages,
            ..Surplus::default()
        })
    }

    fn head(&self, slot: usize) -> Option<u32> {
        self.heads.get(slot).copied().flatten()
    }

    fn set_head(&mut self, slot: usize, head: Option<u32>) {
        if let Some(place) = self.heads.get_mut(slot) {
            *place = head;
        }
    }

    /// Moves a chunk to the list that it belongs to now.
    fn relist(&mut self, number: u32) {
        let moves = self
            .table
            .get(number)
            .is_some_and(|chunk| chunk.slot != chunk.proper_slot());
        if moves {
            self.unlink(number);
            self.link(number);
        }
    }

    fn link(&mut self, number: u32) {
        let Some(slot) = self.table.get(number).map(Chunk::proper_slot) else {
            return;
        };
        let behind = self.head(slot);
        if let Some(chunk) = self.table.get_mut(number) {
            (chunk.slot, chunk.previous, chunk.next) = (slot, None, behind);
        }
        if let Some(behind) = behind.and_then(|behind| self.table.get_mut(behind)) {
            behind.previous = Some(number);
        }
        self.set_head(slot, Some(number));
    }

    fn unlink(&mut self, number: u32) {
        let Some(chunk) = self.table.get(number) else {
            return;
        };
        let (slot, previous, next) = (chunk.slot, chunk.previous, chunk.next);
        match previous {
            None => self.set_head(slot, next),
            Some(previous) => {
                if let Some(previous) = self.table.get_mut(previous) {
                    previous.next = next;
                }
            }
        }
        if let Some(next) = next.and_then(|next| self.table.get_mut(next)) {
            next.previous = previous;
        }
    }

    /// In numbers, but for what CPUs have at hand.
    pub(super) fn stats(&self, geometry: Geometry) -> PerCpuStats {
        let all = self.chunks.saturating_mul(geometry.granules());
        PerCpuStats {
            chunks: self.chunks,
            mapped: self.mapped,
            empty: self.empty,
            objects: self.objects,
            used_bytes: all.saturating_sub(self.free).saturating_mul(GRANULE),
            free_bytes: self.free.saturating_mul(GRANULE),
            ..PerCpuStats::default()
        }
    }

    /// Recounts.
    ///
    /// # Errors
    /// What is not as recorded.
    pub(super) fn validate(&self) -> Result<(), Corruption> {
        let (mut chunks, mut empty, mut objects, mut free) = (0_usize, 0_usize, 0_usize, 0_usize);
        let mut mapped: usize = 0;
        for (_, chunk) in self.table.iter() {
            chunk.validate()?;
            chunks = chunks.saturating_add(1);
            mapped = mapped.saturating_add(usize::from(chunk.is_mapped()));
            empty = empty.saturating_add(usize::from(chunk.is_empty()));
            objects = objects.saturating_add(chunk.units().pieces());
            free = free.saturating_add(chunk.free());
        }
        compare(chunks, self.chunks)?;
        compare(mapped, self.mapped)?;
        compare(empty, self.empty)?;
        compare(objects, self.objects)?;
        compare(free, self.free)?;
        let mut listed: usize = 0;
        for slot in 0..SLOTS {
            let (mut next, mut previous) = (self.head(slot), None);
            while let Some(number) = next.filter(|_| listed <= chunks) {
                let chunk = self.table.get(number);
                let is_right = chunk.is_some_and(|chunk| {
                    (chunk.slot, chunk.proper_slot(), chunk.previous) == (slot, slot, previous)
                });
                if !is_right {
                    return Err(Corruption::Miscount {
                        check: Check::Links,
                        recorded: to_count(slot),
                        counted: u64::from(number),
                    });
                }
                listed = listed.saturating_add(1);
                (previous, next) = (next, chunk.and_then(|chunk| chunk.next));
            }
        }
        compare(listed, chunks)
    }
}
