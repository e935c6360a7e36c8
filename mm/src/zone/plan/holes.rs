//! Frames in unavailable ranges: holes inside 128 MiB sections that also contain RAM.
//!
//! Such frames get records like all others of their section. As in Linux they are counted where
//! the walk over RAM meets them: charged to the node and zone of the range that follows, and
//! the tail of the last section to the highest zone of the node that comes last. Linux
//! counterpart: `memmap_init`, `init_unavailable_range`.
#![forbid(unsafe_code)]

use super::{Plan, ZoneKind};
use crate::addr::{Pfn, PfnRange};
use crate::config::SECTION_FRAMES;
use crate::memblock::Memblock;
use crate::platform::NodeId;

/// Frames in holes, found at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unavailable {
    /// The node they are charged to.
    pub node: NodeId,
    /// The zone they are charged to.
    pub zone: ZoneKind,
    /// How many; never none.
    pub frames: u64,
}

impl Plan<'_> {
    /// Finds the frames in unavailable ranges, in Linux's order. They may lie outside what the
    /// zone they are charged to spans.
    pub fn unavailable(&self, memblock: &Memblock, found: &mut dyn FnMut(Unavailable)) {
        // Everything below is RAM or was counted.
        let mut seen = Pfn::ZERO;
        let mut last = (NodeId::default(), ZoneKind::Dma);
        let mut count = |hole: Option<PfnRange>, (node, zone): (NodeId, ZoneKind)| {
            let frames = hole.map_or(0, |hole| frames_near_ram(memblock, hole));
            if frames > 0 {
                found(Unavailable { node, zone, frames });
            }
        };
        for ram in memblock.frames(None) {
            let node = ram.node.unwrap_or_default();
            let Some(plan) = self.nodes().get(usize::from(node.0)) else {
                continue;
            };
            for kind in ZoneKind::ALL {
                let zone = plan.zone(kind);
                if zone.present == 0 {
                    continue;
                }
                last = (node, kind);
                let part = ram.frames.intersect(zone.frames);
                if part.is_empty() {
                    continue;
                }
                count(PfnRange::new(seen, part.first()), last);
                seen = part.end();
            }
        }
        let end = self.end().as_u64();
        let end = end.checked_next_multiple_of(SECTION_FRAMES).unwrap_or(end);
        count(PfnRange::new(seen, Pfn::new(end)), last);
    }
}

/// Frames of a hole that lie in a section with RAM. A hole has no RAM inside, so these can only
/// be at its ends.
fn frames_near_ram(memblock: &Memblock, hole: PfnRange) -> u64 {
    let Some(last) = hole.frames().checked_sub(1) else {
        return 0;
    };
    let first_section = hole.first().section();
    let last_section = hole.first().saturating_add(last).section();
    let in_section = |section: u64| {
        let start = section.saturating_mul(SECTION_FRAMES);
        let frames = PfnRange::from_numbers(start, start.saturating_add(SECTION_FRAMES));
        let has_ram = memblock
            .frames(None)
            .any(|ram| !ram.frames.intersect(frames).is_empty());
        if has_ram {
            hole.intersect(frames).frames()
        } else {
            0
        }
    };
    let at_start = in_section(first_section);
    if first_section == last_section {
        return at_start;
    }
    at_start.saturating_add(in_section(last_section))
}
