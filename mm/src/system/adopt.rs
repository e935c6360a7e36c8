//! Early memory goes to the zones: all that is free when memory comes up, and later what was
//! reserved until then.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Core, Memory};
use crate::addr::{Order, Pfn, PfnRange};
use crate::mem::{EarlyRam, Exclusive};
use crate::platform::{NodeId, Platform};
use crate::report::Corruption;
use crate::zone::{Node, Zone};

/// Where memory was until a zone got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// With memblock, or whoever allocated it early: the zone manages more from now on.
    Early,
    /// In a latent section, managed already.
    Latent,
}

/// Why [`Memory::free_early`] did not take memory over. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeEarlyError {
    /// Memory is not up yet.
    NotUp,
    /// Frames do not lie in the node's zones.
    OutsideNode(PfnRange),
    /// A frame is not reserved in that node: it is a hole, or was handed over already.
    NotReserved(Pfn),
    /// A frame's record was overwritten.
    Corrupt(Corruption),
}

impl fmt::Display for FreeEarlyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::OutsideNode(frames) => write!(f, "frames {frames:?} are not of that node"),
            Self::NotReserved(pfn) => write!(f, "frame {pfn} is not reserved"),
            Self::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl core::error::Error for FreeEarlyError {}

impl<P: Platform> Memory<P> {
    /// Gives memory that was reserved or allocated early to the allocator (Linux:
    /// `free_reserved_area`, `memblock_free_late`): whole frames only. Context: task.
    ///
    /// # Errors
    /// [`FreeEarlyError`], and the memory comes back.
    pub fn free_early(
        &self,
        node: NodeId,
        ram: EarlyRam,
    ) -> Result<(), (FreeEarlyError, EarlyRam)> {
        let Some(core) = self.core() else {
            return Err((FreeEarlyError::NotUp, ram));
        };
        // Frames that are still latent have no records to say that they are reserved.
        self.populate(ram.range().whole_frames());
        if let Err(error) = core.check_reserved(node, ram.range().whole_frames()) {
            return Err((error, ram));
        }
        core.adopt(&self.platform, node, ram)
            .map_err(|(corruption, rest)| (FreeEarlyError::Corrupt(corruption), rest))
    }
}

impl Core {
    /// Whether all frames of a range are reserved ones of a node.
    fn check_reserved(&self, node: NodeId, frames: PfnRange) -> Result<(), FreeEarlyError> {
        let zones = self.node(node).into_iter().flat_map(zones_by_address);
        let inside = zones
            .map(|zone| zone.span().intersect(frames).frames())
            .fold(0, u64::saturating_add);
        if inside != frames.frames() {
            return Err(FreeEarlyError::OutsideNode(frames));
        }
        let mut frames = frames.iter();
        let other = frames.find(|&pfn| self.frames.reserved_in(pfn) != Some(node));
        other.map_or(Ok(()), |pfn| Err(FreeEarlyError::NotReserved(pfn)))
    }

    /// Hands a range to the zones of a node.
    ///
    /// # Errors
    /// [`Corruption::BadRecord`] if a frame was handed out before, and what is left of the range.
    pub(super) fn adopt<P: Platform>(
        &self,
        platform: &P,
        node: NodeId,
        ram: EarlyRam,
    ) -> Result<(), (Corruption, EarlyRam)> {
        let frames = ram.range().whole_frames();
        let mut rest = ram;
        for zone in self.node(node).into_iter().flat_map(zones_by_address) {
            let here = zone.span().intersect(frames);
            let Some(below) = here.addrs().start().offset_from(rest.range().start()) else {
                continue;
            };
            if here.is_empty() {
                continue;
            }
            let (_, from_here) = rest.split_at(below);
            let (ram, above) = from_here.split_at(here.addrs().size());
            if let Err((corruption, left)) = self.adopt_in(platform, zone, ram, Source::Early) {
                return Err((
                    corruption,
                    left.join(above).unwrap_or_else(|(left, _)| left),
                ));
            }
            rest = above;
        }
        Ok(())
    }

    /// Hands a range of one zone to it.
    ///
    /// # Errors
    /// As [`Self::adopt`].
    pub(super) fn adopt_in<P: Platform>(
        &self,
        platform: &P,
        zone: &Zone,
        ram: EarlyRam,
        source: Source,
    ) -> Result<(), (Corruption, EarlyRam)> {
        let each = |block| self.adopt_block(platform, zone, block, source);
        self.frames.adopt(ram, zone.id(), each)
    }

    fn adopt_block<P: Platform>(
        &self,
        platform: &P,
        zone: &Zone,
        block: Exclusive,
        source: Source,
    ) {
        let Some(block) = self.wipe(platform, block) else {
            return;
        };
        let frames = block.frames();
        // What the platform does not reach can be neither zeroed nor checked: it stays out.
        let reachable = block.as_ptr(platform).is_some();
        let adopted = reachable
            && match source {
                Source::Early => zone.adopt(platform, block).is_ok(),
                Source::Latent => zone.adopt_latent(platform, block).is_ok(),
            };
        if !adopted {
            if source == Source::Latent {
                zone.lose_latent(frames.frames());
            }
            let (pfn, order) = (frames.first(), Order::ZERO);
            platform.corruption(&Corruption::LostBlock { pfn, order });
        }
    }
}

/// A node's zones, lowest first: Movable may start below or above Normal's end, never inside.
fn zones_by_address(node: &Node) -> impl Iterator<Item = &Zone> {
    let mut next = Pfn::ZERO;
    core::iter::from_fn(move || {
        let ahead = node
            .zones()
            .iter()
            .filter(|zone| zone.is_populated() && zone.span().first() >= next);
        let zone = ahead.min_by_key(|zone| zone.span().first())?;
        next = zone.span().end();
        Some(zone)
    })
}
