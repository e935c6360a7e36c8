//! Small pieces that a CPU gave up and will hand out again: no lock, no map, no search.
//!
//! Sizes are 4, 8, 16, 32 and 64 bytes. Pieces of those sizes are aligned to their size wherever they come from, so
//! any one serves any request for as much. They count as used: their chunk does not go back while they are here.
#![forbid(unsafe_code)]

use crate::kspace::raw::percpu::Piece;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Sizes.
const CLASSES: usize = 5;
/// Pieces of a size.
const PLACES: usize = 16;

/// Which stack pieces of so many bytes are in, if any.
#[inline(always)]
pub(crate) const fn class_of(bytes: u32) -> Option<usize> {
    match bytes {
        4 => Some(0),
        8 => Some(1),
        16 => Some(2),
        32 => Some(3),
        64 => Some(4),
        _ => None,
    }
}

/// What everybody may know of a CPU's pieces. Written by the CPU itself.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    count: AtomicU32,
}

impl Gauges {
    /// Pieces at hand. Stale when it arrives.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.count.load(Ordering::Relaxed)).unwrap_or(0)
    }

    #[inline(always)]
    fn add(&self, change: u32) {
        let count = self.count.load(Ordering::Relaxed);
        self.count
            .store(count.wrapping_add(change), Ordering::Relaxed);
    }
}

/// Pieces of one size, the newest last.
///
/// # Invariants
/// They stand in the first `count` places.
#[derive(Debug)]
struct Stack {
    count: usize,
    pieces: [Option<Piece>; PLACES],
}

impl Stack {
    #[inline(always)]
    fn pop(&mut self) -> Option<Piece> {
        let last = self.count.checked_sub(1)?;
        self.count = last;
        self.pieces.get_mut(last)?.take()
    }

    #[inline(always)]
    fn push(&mut self, piece: Piece) -> Result<(), Piece> {
        let Some(place) = self.pieces.get_mut(self.count) else {
            return Err(piece);
        };
        *place = Some(piece);
        self.count = self.count.wrapping_add(1);
        Ok(())
    }
}

/// What one CPU has at hand.
#[derive(Debug)]
pub(crate) struct Front([Stack; CLASSES]);

impl Front {
    pub(crate) const fn new() -> Self {
        Self(
            [const {
                Stack {
                    count: 0,
                    pieces: [const { None }; PLACES],
                }
            }; CLASSES],
        )
    }

    /// Takes the newest piece of a size.
    #[inline(always)]
    pub(crate) fn pop(&mut self, class: usize, gauges: &Gauges) -> Option<Piece> {
        let piece = self.0.get_mut(class)?.pop();
        if piece.is_some() {
            gauges.add(u32::MAX);
        }
        piece
    }

    /// Keeps a piece.
    ///
    /// # Errors
    /// The piece, if there is no room.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        class: usize,
        piece: Piece,
        gauges: &Gauges,
    ) -> Result<(), Piece> {
        let Some(stack) = self.0.get_mut(class) else {
            return Err(piece);
        };
        stack.push(piece)?;
        gauges.add(1);
        Ok(())
    }

    /// Whether a piece is here already: then it was given up twice.
    #[inline(always)]
    pub(crate) fn has(&self, class: usize, piece: &Piece) -> bool {
        let Some(stack) = self.0.get(class) else {
            return false;
        };
        let mut pieces = stack.pieces.iter().take(stack.count);
        pieces.any(|kept| matches!(kept, Some(kept) if kept.first() == piece.first()))
    }

    /// Takes any piece.
    pub(crate) fn pop_any(&mut self, gauges: &Gauges) -> Option<Piece> {
        (0..CLASSES).find_map(|class| self.pop(class, gauges))
    }
}
