//! Copies for each CPU: who owns which bytes of the units of a chunk.
//!
//! The only place that cuts pieces out of units and takes them back: it looks into the map each time, so that no
//! bytes are in two pieces whatever whoever searches for room may think.

use core::ptr::NonNull;

use crate::addr::{to_count, to_index};
use crate::kspace::Area;
use crate::kspace::percpu::bits::Bits;
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Bytes that a bit of the map stands for (Linux: `PCPU_MIN_ALLOC_SIZE`).
pub(crate) const GRANULE: usize = 4;

/// How the copies lie: CPU `n`'s is `n` units above CPU 0's, in every chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    pub(crate) cpus: usize,
    /// Bytes that a chunk has for each CPU: whole pages.
    pub(crate) unit: usize,
}

impl Geometry {
    /// Granules of a unit.
    pub(crate) const fn granules(self) -> usize {
        self.unit / GRANULE
    }

    /// Bytes of a chunk.
    pub(crate) const fn bytes(self) -> usize {
        self.unit.saturating_mul(self.cpus)
    }
}

/// As many bytes for each CPU.
///
/// # Invariants
/// Whoever has it owns `bytes` bytes at `first` and at every further unit of the chunk that it was cut from, and is
/// shown no geometry but that of the chunk.
#[derive(Debug)]
pub(crate) struct Piece {
    first: NonNull<u8>,
    bytes: u32,
}

// SAFETY: it owns its bytes, on whatever CPU.
unsafe impl Send for Piece {}

impl Piece {
    /// What its owner gives up.
    ///
    /// # Safety
    ///
    /// 1. If `first` is what [`Self::into_raw`] said, the caller owns that, and `bytes` is how many were asked for.
    /// 2. Nobody uses the bytes any more.
    #[inline(always)]
    pub(crate) const unsafe fn given_up(first: NonNull<u8>, bytes: u32) -> Self {
        // INVARIANT: the caller's word. A pointer that was none of ours is refused by `Units::give_back`; who
        // keeps it without asking there relies on the caller's word, too.
        Self { first, bytes }
    }

    /// CPU 0's copy; the caller owns all of them now.
    #[inline(always)]
    pub(crate) const fn into_raw(self) -> NonNull<u8> {
        self.first
    }

    /// CPU 0's copy.
    #[inline(always)]
    pub(crate) const fn first(&self) -> NonNull<u8> {
        self.first
    }

    /// Bytes of each copy.
    #[inline(always)]
    pub(crate) const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Writes zeroes over every copy, which the caller expects to have so many bytes: where that is a constant, no
    /// more than the stores is left.
    #[inline(always)]
    pub(crate) fn zero_expected(&mut self, bytes: u32, geometry: Geometry) {
        match bytes == self.bytes {
            true => Self {
                first: self.first,
                bytes,
            }
            .zero(geometry),
            false => self.zero_bytes(geometry),
        }
    }

    /// Writes zeroes over every copy.
    #[inline(always)]
    pub(crate) fn zero(&mut self, geometry: Geometry) {
        // Sizes that are handed out again and again, by a store or a few instead of a call.
        match self.bytes {
            4 => self.fill(geometry, 0_u32),
            8 => self.fill(geometry, 0_u64),
            16 => self.fill(geometry, [0_u64; 2]),
            32 => self.fill(geometry, [0_u64; 4]),
            64 => self.fill(geometry, [0_u64; 8]),
            _ => self.zero_bytes(geometry),
        }
    }

    /// Writes a value that is as large as a copy to each.
    #[inline(always)]
    fn fill<T: Copy>(&mut self, geometry: Geometry, value: T) {
        let mut copy = self.first.as_ptr();
        let mut left = geometry.cpus;
        loop {
            // SAFETY: the invariant: each copy is ours, and as large as a `T`; it need not be aligned. There is one
            // CPU at least, which runs this.
            unsafe { copy.cast::<T>().write_unaligned(value) };
            left = left.saturating_sub(1);
            if left == 0 {
                return;
            }
            copy = copy.wrapping_add(geometry.unit);
        }
    }

    #[inline(never)]
    fn zero_bytes(&mut self, geometry: Geometry) {
        let bytes = to_index(u64::from(self.bytes));
        let mut copy = self.first.as_ptr();
        for _ in 0..geometry.cpus {
            // SAFETY: the invariant: each copy is ours.
            unsafe { copy.write_bytes(0, bytes) };
            copy = copy.wrapping_add(geometry.unit);
        }
    }
}

/// Why a piece was not taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// No piece that was cut starts there.
    NoPiece,
    /// It has so many bytes, rounded up.
    OtherSize(usize),
}

/// An area whose pages are mapped one behind the other.
///
/// # Invariants
/// Whoever has it owns the area, with `bytes` bytes that are mapped from `first` on.
#[derive(Debug)]
pub(crate) struct MappedArea {
    area: &'static Area,
    first: NonNull<u8>,
    bytes: usize,
}

impl MappedArea {
    /// An area of the space for such areas.
    ///
    /// # Safety
    ///
    /// The caller owns the area and gives it up; so many bytes of its own are mapped from `first` on, to be read and
    /// written to, until it ends.
    pub(crate) const unsafe fn new(area: &'static Area, first: NonNull<u8>, bytes: usize) -> Self {
        // INVARIANT: the caller's word.
        Self { area, first, bytes }
    }

    /// Which area.
    pub(crate) const fn area(&self) -> &'static Area {
        self.area
    }
}

/// What units lie in.
#[derive(Debug)]
pub(crate) enum Ground {
    /// Frames in a row, as the direct map shows them.
    Frames(Exclusive),
    /// Pages from anywhere.
    Area(MappedArea),
}

/// The units of a chunk, one for each CPU, and which of their bytes are in pieces.
///
/// # Invariants
/// 1. `ground` holds the geometry's units one after the other, and `first` is where they start.
/// 2. `taken` says which granules are in pieces that exist, and `ends` which of those are the last of theirs.
#[derive(Debug)]
pub(crate) struct Units {
    first: NonNull<u8>,
    ground: Ground,
    geometry: Geometry,
    taken: Bits,
    ends: Bits,
}

// SAFETY: it owns its memory, on whatever CPU.
unsafe impl Send for Units {}

impl Units {
    /// Frames that hold units for all CPUs one after the other, as the direct map shows them.
    ///
    /// # Errors
    /// The frames, if they are too few or the platform does not reach them.
    pub(crate) fn embedded<P: Platform>(
        platform: &P,
        frames: Exclusive,
        geometry: Geometry,
    ) -> Result<Self, Exclusive> {
        let pages = frames.frames().addrs().size();
        let is_fit = pages >= to_count(geometry.bytes()) && is_small(geometry);
        let Some(first) = frames.as_ptr(platform).filter(|_| is_fit) else {
            return Err(frames);
        };
        // INVARIANT: (1) checked; (2) nothing is cut.
        Ok(Self {
            first,
            ground: Ground::Frames(frames),
            geometry,
            taken: Bits::new(),
            ends: Bits::new(),
        })
    }

    /// An area that holds units for all CPUs one after the other.
    ///
    /// # Errors
    /// The area, if it is too small.
    pub(crate) const fn mapped(area: MappedArea, geometry: Geometry) -> Result<Self, MappedArea> {
        if area.bytes < geometry.bytes() || !is_small(geometry) {
            return Err(area);
        }
        // INVARIANT: (1) checked; (2) nothing is cut.
        Ok(Self {
            first: area.first,
            ground: Ground::Area(area),
            geometry,
            taken: Bits::new(),
            ends: Bits::new(),
        })
    }

    /// What they lie in.
    pub(crate) const fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Which granules are in pieces.
    pub(crate) const fn taken(&self) -> &Bits {
        &self.taken
    }

    /// How many pieces there are.
    pub(crate) fn pieces(&self) -> usize {
        self.ends.count()
    }

    /// Cuts a piece of so many bytes out of granules that are in no other. `None` if they are.
    pub(crate) fn cut(&mut self, at: usize, bytes: u32) -> Option<Piece> {
        let end = at.checked_add(granules(bytes))?;
        let is_free = at < end && end <= self.geometry.granules();
        if !is_free || self.taken.next_set(at, end) < end {
            return None;
        }
        self.taken.set(at, end);
        self.ends.set(end.saturating_sub(1), end);
        let offset = at.checked_mul(GRANULE)?;
        // SAFETY: below the end of the unit (just checked).
        let first = unsafe { self.first.add(offset) };
        // INVARIANT: nobody else has those granules of any unit: they were not taken, and are now.
        Some(Piece { first, bytes })
    }

    /// Takes a piece back. Answers where it was: from which granule to before which.
    ///
    /// # Errors
    /// The piece, and why.
    pub(crate) fn give_back(&mut self, piece: Piece) -> Result<(usize, usize), (Piece, Refusal)> {
        let (at, end) = match self.check(&piece) {
            Ok(place) => place,
            Err(refusal) => return Err((piece, refusal)),
        };
        self.taken.clear(at, end);
        self.ends.clear(end.saturating_sub(1), end);
        Ok((at, end))
    }

    /// Where a piece like that is.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn check(&self, piece: &Piece) -> Result<(usize, usize), Refusal> {
        let (base, address) = (self.first.addr().get(), piece.first.addr().get());
        let offset = address.checked_sub(base);
        let at = offset.filter(|offset| offset.is_multiple_of(GRANULE));
        let at = at.ok_or(Refusal::NoPiece)? / GRANULE;
        let end = self.end_of(at).ok_or(Refusal::NoPiece)?;
        match end.saturating_sub(at) {
            length if length == granules(piece.bytes) => Ok((at, end)),
            length => Err(Refusal::OtherSize(length.saturating_mul(GRANULE))),
        }
    }

    /// Where the piece ends that starts at a granule, if one does.
    pub(crate) fn end_of(&self, at: usize) -> Option<usize> {
        let is_inside = at < self.geometry.granules() && self.taken.get(at);
        let before = at.checked_sub(1);
        let starts = before.is_none_or(|before| !self.taken.get(before) || self.ends.get(before));
        let last = self.ends.next_set(at, self.geometry.granules());
        (is_inside && starts).then(|| last.saturating_add(1))
    }

    /// What they lay in, if no pieces exist; otherwise it stays with those for good.
    pub(crate) fn into_ground(self) -> Option<Ground> {
        (self.pieces() == 0).then_some(self.ground)
    }
}

/// Whether the map has room for all granules.
const fn is_small(geometry: Geometry) -> bool {
    geometry.granules() <= Bits::MOST
}

/// Granules that so many bytes take.
pub(crate) fn granules(bytes: u32) -> usize {
    to_index(u64::from(bytes)).div_ceil(GRANULE)
}
