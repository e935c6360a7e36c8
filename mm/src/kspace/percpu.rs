//! Memory of which each CPU has a copy of its own (Linux: `mm/percpu.c`).
//!
//! A chunk has one unit for each CPU, all of one size. An object takes the same bytes of every unit, so that its
//! copy for CPU `n` is `n` units above that for CPU 0, in every chunk: one number for each CPU leads from any
//! object to that CPU's copy.
//!
//! ```text
//!            unit 0        unit 1        unit 2        unit 3
//! chunk 0  |··AAAA·BB···|··AAAA·BB···|··AAAA·BB···|··AAAA·BB···|
//! chunk 1  |CC··········|CC··········|CC··········|CC··········|
//!             ^ address      ^ address + unit
//! ```
//!
//! Where the kernel's [layout](crate::config::Layout::percpu) has a region for it, a chunk is an area there, and each unit is
//! made of pages of its CPU's own node; else, and where nobody may sleep, it is a block of the direct map.
//!
//! Which bytes are taken is in one map for all units of a chunk (`kspace::raw::percpu`);
//! chunks are listed by what they have room for, and the fullest that may fit is searched first, from its lowest
//! address on. One chunk without objects is kept, others go back. Small pieces that come back stay at hand of the
//! CPU that gave them up, to be handed out again without a lock (`front`).
#![forbid(unsafe_code)]

pub(crate) mod bits;
mod chunk;
mod chunks;
pub(crate) mod front;
mod table;

use core::fmt;

use self::chunks::{Chunks, Surplus};
use self::front::{Front, Gauges};
use crate::addr::to_index;
use crate::buddy::GfpError;
use crate::config::PAGE_SIZE;
use crate::kspace::raw::PageBox;
use crate::kspace::raw::percpu::{
    GRANULE, Geometry, Ground, MappedArea, Piece, Refusal, Units, granules,
};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;
use crate::sync::{PerCpu, SpinLock, rank};
use core::ptr::NonNull;

/// The largest copy: 32 KiB (Linux: `PCPU_MIN_UNIT_SIZE`), or less where more than 128 CPUs share a
/// block of the largest order.
pub const PERCPU_MAX_SIZE: usize = 32 << 10;
/// The largest alignment: a page.
pub const PERCPU_MAX_ALIGN: usize = to_index(PAGE_SIZE);
/// The largest block that pages come in.
const LARGEST_BLOCK: usize = to_index(crate::addr::Order::MAX.bytes());

/// Bytes that a chunk has for each of so many CPUs.
const fn unit_bytes(cpus: usize) -> usize {
    let share = match LARGEST_BLOCK.checked_div(cpus) {
        Some(share) if share < PERCPU_MAX_SIZE => share,
        _ => PERCPU_MAX_SIZE,
    };
    share & !PERCPU_MAX_ALIGN.wrapping_sub(1)
}

/// Why there is no memory with a copy for each CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PerCpuError {
    /// Memory is not up yet.
    NotUp,
    /// Nothing was asked for.
    ZeroSize,
    /// A copy would be larger than a unit.
    TooLarge {
        /// Bytes of a unit.
        most: usize,
    },
    /// The alignment is no power of two, or larger than a page.
    BadAlign(usize),
    /// The flags contradict each other.
    Flags(GfpError),
    /// There are no pages for another chunk.
    OutOfMemory,
}

impl fmt::Display for PerCpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::ZeroSize => f.write_str("nothing was asked for"),
            Self::TooLarge { most } => write!(f, "a copy has {most} bytes at most"),
            Self::BadAlign(align) => write!(f, "{align} is no alignment up to a page"),
            Self::Flags(error) => write!(f, "bad flags: {error}"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

impl core::error::Error for PerCpuError {}

/// Why an object was not taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPerCpuFree {
    /// It is in no chunk.
    NotPerCpu,
    /// No object starts there: it was given back before, or the address is inside of one.
    NoObject,
    /// It has so many bytes, rounded up to 4.
    OtherSize(usize),
}

impl fmt::Display for BadPerCpuFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPerCpu => f.write_str("it is in no chunk"),
            Self::NoObject => f.write_str("no object starts there"),
            Self::OtherSize(bytes) => write!(f, "it has {bytes} bytes"),
        }
    }
}

impl core::error::Error for BadPerCpuFree {}

/// What CPUs have copies of, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerCpuStats {
    /// CPUs that there are copies for.
    pub cpus: usize,
    /// Bytes of a unit.
    pub unit_bytes: usize,
    /// Chunks, …
    pub chunks: usize,
    /// … of which so many have units of pages of their CPUs' own nodes, …
    pub mapped: usize,
    /// … of which so many have no objects.
    pub empty: usize,
    /// Objects, those at hand of CPUs included.
    pub objects: usize,
    /// Bytes of one copy of all of them.
    pub used_bytes: usize,
    /// Bytes of one unit of every chunk that are free.
    pub free_bytes: usize,
    /// Objects that wait at hand of CPUs to be handed out again.
    pub at_hand: usize,
}

/// A checked request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    bytes: u32,
    /// In granules, both.
    granules: usize,
    align: usize,
}

/// Where chunks have their memory from, and how they are found again.
pub(crate) trait Backing {
    /// The machine.
    type P: Platform;

    /// The machine.
    fn platform(&self) -> &Self::P;

    /// Contiguous pages of so many bytes.
    ///
    /// # Errors
    /// Why there are none.
    fn pages(&self, bytes: usize) -> Result<Exclusive, PerCpuError>;

    /// Gives such pages back.
    fn give_back(&self, pages: Exclusive);

    /// An area for a chunk, in which each CPU's unit is made of pages of its own node, if there are any. Nothing where no
    /// area can be had: there are no addresses for them yet, or the caller may not sleep.
    fn area(&self, geometry: Geometry) -> Option<MappedArea>;

    /// Ends such an area.
    fn end_area(&self, area: MappedArea);

    /// Remembers which chunk CPU 0's unit, the first of so many bytes, belongs to.
    fn set_chunk(&self, units: &Units, unit: usize, chunk: Option<u32>);

    /// The number that was remembered, or any other where there was none.
    fn chunk_of(&self, first: NonNull<u8>) -> Option<u32>;
}

/// All memory of which each CPU has a copy.
#[derive(Debug)]
pub(crate) struct PerCpuMemory {
    geometry: Geometry,
    chunks: SpinLock<Chunks>,
    fronts: PerCpu<Front, Gauges>,
}

impl PerCpuMemory {
    /// Without chunks yet; with room for what so many CPUs have at hand.
    pub(crate) const fn new(cpus: usize, fronts: PerCpu<Front, Gauges>) -> Self {
        let unit = unit_bytes(cpus);
        Self {
            geometry: Geometry { cpus, unit },
            chunks: SpinLock::new(rank::PERCPU, Chunks::new()),
            fronts,
        }
    }

    #[inline(always)]
    pub(crate) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    #[inline(always)]
    pub(crate) const fn fronts(&self) -> &PerCpu<Front, Gauges> {
        &self.fronts
    }

    /// Checks a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn ask(&self, (size, align): (usize, usize)) -> Result<Ask, PerCpuError> {
        let most = self.geometry.unit;
        if size == 0 {
            return Err(PerCpuError::ZeroSize);
        }
        if !align.is_power_of_two() || align > PERCPU_MAX_ALIGN {
            return Err(PerCpuError::BadAlign(align));
        }
        let bytes = u32::try_from(size).ok().filter(|_| size <= most);
        let bytes = bytes.ok_or(PerCpuError::TooLarge { most })?;
        // What may come to be at hand is aligned to its size, so that it serves whoever asks for as much.
        let align = match front::class_of(bytes) {
            Some(_) => align.max(size),
            None => align,
        };
        Ok(Ask {
            bytes,
            granules: granules(bytes),
            align: align.div_ceil(GRANULE),
        })
    }

    /// Cuts a piece out of a chunk, a new one if need be. It holds anything.
    ///
    /// # Errors
    /// [`PerCpuError`]; nothing is changed then.
    pub(crate) fn alloc(&self, backing: &impl Backing, ask: &Ask) -> Result<Piece, PerCpuError> {
        let platform = backing.platform();
        // Others may be as quick to use what is new.
        for _ in 0..ROUNDS {
            let mut chunks = self.chunks.lock(platform);
            if let Some(piece) = chunks.alloc(ask) {
                return Ok(piece);
            }
            let needs = chunks.needs();
            drop(chunks);
            self.add_chunk(backing, needs)?;
        }
        Err(PerCpuError::OutOfMemory)
    }

    /// Makes a chunk, with so many pages for the table of chunks.
    fn add_chunk(&self, backing: &impl Backing, needs: usize) -> Result<(), PerCpuError> {
        let mut surplus = Surplus::default();
        let added = self.try_add_chunk(backing, needs, &mut surplus);
        give_back(backing, self.geometry, surplus);
        added
    }

    fn try_add_chunk(
        &self,
        backing: &impl Backing,
        needs: usize,
        surplus: &mut Surplus,
    ) -> Result<(), PerCpuError> {
        let platform = backing.platform();
        let page = || backing.pages(to_index(PAGE_SIZE));
        for place in surplus.pages.iter_mut().take(needs) {
            *place = Some(page()?);
        }
        let own = page()?;
        let units = match self.units(backing, surplus) {
            Ok(units) => units,
            Err(error) => {
                surplus.page = Some(own);
                return Err(error);
            }
        };
        let geometry = self.geometry;
        let made = PageBox::new(platform, own, || chunk::Chunk::new(units, geometry));
        let chunk = match made {
            Ok(chunk) => chunk,
            Err(own) => {
                surplus.page = Some(own);
                return Err(PerCpuError::OutOfMemory);
            }
        };
        let mut chunks = self.chunks.lock(platform);
        match chunks.insert(platform, chunk, &mut surplus.pages) {
            Ok(number) => {
                if let Some(units) = chunks.units(number) {
                    backing.set_chunk(units, geometry.unit, Some(number));
                }
            }
            Err(chunk) => surplus.chunk = Some(chunk),
        }
        Ok(())
    }

    /// Units for a new chunk: near to their CPUs, or else in a row.
    fn units(&self, backing: &impl Backing, surplus: &mut Surplus) -> Result<Units, PerCpuError> {
        if let Some(area) = backing.area(self.geometry) {
            match Units::mapped(area, self.geometry) {
                Ok(units) => return Ok(units),
                Err(area) => surplus.ground = Some(Ground::Area(area)),
            }
        }
        let frames = backing.pages(self.geometry.bytes())?;
        Units::embedded(backing.platform(), frames, self.geometry).map_err(|frames| {
            surplus.ground = Some(Ground::Frames(frames));
            PerCpuError::OutOfMemory
        })
    }

    /// Takes a piece back into its chunk, and gives the chunk up if it is the second without any.
    ///
    /// # Errors
    /// The piece, and why it is none.
    pub(crate) fn free(
        &self,
        backing: &impl Backing,
        piece: Piece,
    ) -> Result<(), (Piece, BadPerCpuFree)> {
        let Some(number) = backing.chunk_of(piece.first()) else {
            return Err((piece, BadPerCpuFree::NotPerCpu));
        };
        let mut chunks = self.chunks.lock(backing.platform());
        let freed = chunks.free(number, piece);
        drop(chunks);
        let surplus = freed.map_err(|(piece, refusal)| (piece, refused(refusal)))?;
        give_back(backing, self.geometry, surplus);
        Ok(())
    }

    /// Whether an object of so many bytes starts there.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, backing: &impl Backing, piece: &Piece) -> Result<(), BadPerCpuFree> {
        let number = backing.chunk_of(piece.first());
        let number = number.ok_or(BadPerCpuFree::NotPerCpu)?;
        let chunks = self.chunks.lock(backing.platform());
        chunks.check(number, piece).map_err(refused)
    }

    /// Gives back chunks without objects. Answers how many.
    pub(crate) fn shrink(&self, backing: &impl Backing) -> usize {
        let mut given: usize = 0;
        loop {
            let mut chunks = self.chunks.lock(backing.platform());
            let surplus = chunks.take_empty();
            drop(chunks);
            let Some(surplus) = surplus else { return given };
            give_back(backing, self.geometry, surplus);
            given = given.saturating_add(1);
        }
    }

    /// In numbers.
    pub(crate) fn stats<P: Platform>(&self, platform: &P) -> PerCpuStats {
        let Geometry { cpus, unit } = self.geometry;
        let at_hand = self.fronts.shared().map(Gauges::count);
        let chunks = self.chunks.lock(platform);
        PerCpuStats {
            cpus,
            unit_bytes: unit,
            at_hand: at_hand.fold(0, usize::saturating_add),
            ..chunks.stats(self.geometry)
        }
    }

    /// Recounts every chunk.
    ///
    /// # Errors
    /// The first thing that is not as recorded.
    pub(crate) fn validate<P: Platform>(&self, platform: &P) -> Result<(), Corruption> {
        self.chunks.lock(platform).validate()
    }
}

/// How often a request makes a chunk that others use up.
const ROUNDS: u32 = 16;

const fn refused(refusal: Refusal) -> BadPerCpuFree {
    match refusal {
        Refusal::NoPiece => BadPerCpuFree::NoObject,
        Refusal::OtherSize(bytes) => BadPerCpuFree::OtherSize(bytes),
    }
}

/// Gives back what is not needed any more. No lock is held.
fn give_back(backing: &impl Backing, geometry: Geometry, surplus: Surplus) {
    let Surplus {
        chunk,
        pages,
        page,
        ground,
    } = surplus;
    let mut own = None;
    let mut units = None;
    if let Some(chunk) = chunk {
        let (chunk, page) = chunk.into_parts();
        own = Some(page);
        backing.set_chunk(chunk.units(), geometry.unit, None);
        // A chunk with pieces is none that anybody gives up; what it lies in would stay with it.
        units = chunk.into_units().into_ground();
    }
    for ground in ground.into_iter().chain(units) {
        match ground {
            Ground::Frames(frames) => backing.give_back(frames),
            Ground::Area(area) => backing.end_area(area),
        }
    }
    let all = pages.into_iter().flatten();
    all.chain(page)
        .chain(own)
        .for_each(|frames| backing.give_back(frames));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_as_large_as_a_block_for_all_cpus_allows() {
        for (cpus, unit) in [
            (0, 32 << 10),
            (1, 32 << 10),
            (128, 32 << 10),
            (129, 28 << 10),
            (255, 16 << 10),
            (1024, 4 << 10),
            (1025, 0),
        ] {
            assert_eq!(unit_bytes(cpus), unit, "{cpus} CPUs");
        }
    }
}
