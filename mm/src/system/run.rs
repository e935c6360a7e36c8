//! Runs of pages whose length is not a power of two, and runs at a given place.
#![forbid(unsafe_code)]

use core::ptr::NonNull;
use core::{fmt, iter};

use super::drain::Ask;
use super::held::Held;
use super::{AllocError, Core, Home, Memory};
use crate::addr::{Order, PfnRange};
use crate::buddy::{Gfp, MigrateType, RangeError, Request, Told};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;
use crate::zone::{Pause, Zone};

/// Why [`Memory::alloc_pages_exact`] failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExactError {
    /// Nothing was asked for.
    Empty,
    /// More than the largest block was asked for.
    TooLarge,
    /// The allocation itself failed.
    Alloc(AllocError),
}

/// Why [`Memory::alloc_contig_range`] failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContigError {
    /// The flags contradict each other, or memory is not up.
    Alloc(AllocError),
    /// The range crosses zones, or is not memory.
    NoZone,
    /// The zone cannot give the range.
    Range(RangeError),
    /// The range was free, but written to; it was reported and stays out of circulation.
    Damaged(Corruption),
}

impl fmt::Display for ExactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing was asked for"),
            Self::TooLarge => f.write_str("larger than the largest block"),
            Self::Alloc(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for ContigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => error.fmt(f),
            Self::NoZone => f.write_str("the range is not memory of one zone"),
            Self::Range(error) => error.fmt(f),
            Self::Damaged(corruption) => corruption.fmt(f),
        }
    }
}

impl core::error::Error for ExactError {}
impl core::error::Error for ContigError {}

/// An exclusively owned run of contiguous frames of any length; dropping it returns them.
#[must_use = "dropping a run returns it to its zone"]
pub struct PageRun<H: Home> {
    held: Held<H>,
    origin: Origin,
}

/// Where a run came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// From the zone at large.
    Zone,
    /// From the CMA area, which has to know when it comes back.
    Cma,
}

impl<H: Home> PageRun<H> {
    pub(super) const fn new(frames: Exclusive, home: H, origin: Origin) -> Self {
        Self {
            held: Held::new(frames, home),
            origin,
        }
    }

    /// Takes the frames out of the handle.
    pub(super) fn into_frames(mut self) -> Option<Exclusive> {
        self.held.take()
    }

    /// Which frames. Context: any.
    #[must_use]
    pub fn frames(&self) -> PfnRange {
        self.held.frames()
    }

    /// Where the kernel reaches the first byte. Context: any.
    #[must_use]
    pub fn as_ptr(&self) -> Option<NonNull<u8>> {
        self.held.as_ptr()
    }

    /// The bytes; empty if the platform does not reach them. Context: any.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.held.bytes()
    }

    /// The bytes, to be written; empty if the platform does not reach them. Context: any.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.held.bytes_mut()
    }
}

impl<H: Home> Drop for PageRun<H> {
    fn drop(&mut self) {
        let home = self.held.home;
        let memory = home.memory();
        let Some(core) = memory.core() else { return };
        let frames = self.frames();
        if let Some(run) = self.held.take() {
            memory.release_run(core, run);
        }
        if let Some(area) = core.cma.as_ref().filter(|_| self.origin == Origin::Cma) {
            area.disclaim(memory.platform(), frames);
        }
    }
}

impl<H: Home> fmt::Debug for PageRun<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageRun")
            .field("frames", &self.frames())
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Memory<P> {
    /// Allocates just as many contiguous pages as hold `bytes` (Linux: `alloc_pages_exact`): the
    /// unused end of the block goes back at once. Context: as [`Self::alloc_block`].
    ///
    /// # Errors
    /// [`ExactError`].
    #[track_caller]
    pub fn alloc_pages_exact(&self, gfp: Gfp, bytes: u64) -> Result<PageRun<&Self>, ExactError> {
        if bytes == 0 {
            return Err(ExactError::Empty);
        }
        let order = Order::for_bytes(bytes).ok_or(ExactError::TooLarge)?;
        let gfp = gfp.difference(Gfp::COMP);
        let request = Request::new(gfp, order).map_err(|error| ExactError::Alloc(error.into()))?;
        let block = self
            .alloc_request(&request, &mut Told(&self.platform))
            .map_err(ExactError::Alloc)?;
        let frames = bytes.div_ceil(crate::config::PAGE_SIZE);
        let end = block.frames().first().saturating_add(frames);
        let Some(table) = self.frames().filter(|_| frames < order.frames()) else {
            return Ok(PageRun::new(block, self, Origin::Zone));
        };
        let (used, spare) = table.carve_up(block, end);
        drop(PageRun::new(spare, self, Origin::Zone));
        Ok(PageRun::new(used, self, Origin::Zone))
    }

    /// Allocates exactly the frames of `range` (Linux: `alloc_contig_range`). All must be free:
    /// moving pages that are in use out of the way comes with migration. Context: task.
    ///
    /// # Errors
    /// [`ContigError`]; nothing is changed then, except that damaged memory leaves circulation.
    #[track_caller]
    pub fn alloc_contig_range(
        &self,
        range: PfnRange,
        gfp: Gfp,
    ) -> Result<PageRun<&Self>, ContigError> {
        let request =
            Request::new(gfp, Order::ZERO).map_err(|error| ContigError::Alloc(error.into()))?;
        if range.is_empty() {
            return Err(ContigError::Range(RangeError::Empty));
        }
        let core = self.core().ok_or(ContigError::NoZone)?;
        let frames = self
            .take_range(core, range, &request)
            .map_err(|error| error.map_or(ContigError::NoZone, ContigError::Range))?;
        self.prepared_run(core, &request, frames, Origin::Zone)
    }

    /// What happens to a range on its way out, as with a block.
    pub(super) fn prepared_run(
        &self,
        core: &Core,
        request: &Request,
        frames: Exclusive,
        origin: Origin,
    ) -> Result<PageRun<&Self>, ContigError> {
        let prepared = self.prepared(core, request, frames);
        let frames = prepared.map_err(ContigError::Damaged)?;
        Ok(PageRun::new(frames, self, origin))
    }

    /// Takes the range from the zone it belongs to: nodes may lie among each other, so several
    /// can span it. `Err(None)` if none does.
    fn take_range(
        &self,
        core: &Core,
        range: PfnRange,
        request: &Request,
    ) -> Result<Exclusive, Option<RangeError>> {
        let mut refused = None;
        for zone in self.zones() {
            if !zone.is_managed() || !zone.span().covers(range) {
                continue;
            }
            self.populate(range);
            // Free pages on the lists of CPUs would be in the way.
            let _pause = Pause::new(zone);
            let _ = self.drain_zones(core, || iter::once(zone), Ask::Everybody);
            match self.take_range_of(zone, range, request.migrate()) {
                Ok(frames) => return Ok(frames),
                Err(error @ RangeError::NotInZone { .. }) => refused = Some(error),
                Err(error) => return Err(Some(error)),
            }
        }
        Err(refused)
    }

    /// Takes the range from a zone whose lists are drained and paused.
    pub(super) fn take_range_of(
        &self,
        zone: &Zone,
        range: PfnRange,
        kind: MigrateType,
    ) -> Result<Exclusive, RangeError> {
        let mut whole: Option<Exclusive> = None;
        let join = |block| {
            // Pieces come lowest first and without gaps, so each joins on.
            whole = match whole.take() {
                None => Some(block),
                Some(before) => before.join(block).ok(),
            };
        };
        let outcome = zone.alloc_range(&self.platform, range, kind, join);
        match (outcome, whole) {
            (Ok(()), Some(frames)) => Ok(frames),
            (outcome, taken) => {
                // What was taken before it failed goes back.
                drop(taken.map(|taken| PageRun::new(taken, self, Origin::Zone)));
                let pfn = range.first();
                Err(outcome.err().unwrap_or(RangeError::Busy { pfn }))
            }
        }
    }
}
