//! The naive model: a map from frame to what is known of it, and linear searches.

use std::collections::{BTreeMap, BTreeSet};

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::{Gfp, RangeError, Request};
use mm::frame::{FrameState, ZoneId};
use mm::platform::NodeId;
use mm::system::{ContigError, Memory};
use mm::zone::ZoneKind;
use mm_tests::oracles::{Blocks, Found};
use mm_tests::sim::{SimConfig, SimPlatform};

/// What the model knows of a frame that the allocator manages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    zone: ZoneId,
    free: bool,
}

/// A zone, as the model sees it.
struct ModelZone {
    id: ZoneId,
    kind: ZoneKind,
    span: PfnRange,
    /// Sections in which the zone has RAM.
    sections: BTreeSet<u64>,
    managed: bool,
}

/// The naive page map.
pub(crate) struct Model {
    frames: BTreeMap<u64, Known>,
    /// Reserved frames and their zones.
    reserved: BTreeMap<u64, ZoneId>,
    zones: Vec<ModelZone>,
    /// First frames of isolated pageblocks, by zone.
    isolated: BTreeSet<(u8, u16, u64)>,
}

impl Model {
    /// Learns what a machine has right after boot.
    pub(crate) fn of<C: SimConfig>(memory: &Memory<SimPlatform<C>>) -> Self {
        let (mut frames, mut reserved) = (BTreeMap::new(), BTreeMap::new());
        for Found { pfn, word } in Blocks::of(memory) {
            let zone = word.zone_id();
            if word.state() == Some(FrameState::Reserved) {
                reserved.insert(pfn.as_u64(), zone);
                continue;
            }
            assert_eq!(word.state(), Some(FrameState::Free));
            for frame in PfnRange::block(pfn, word.order()).iter() {
                frames.insert(frame.as_u64(), Known { zone, free: true });
            }
        }
        let zones = memory.zones().map(|zone| {
            let ours = frames.iter().map(|(pfn, known)| (*pfn, known.zone));
            let ours = ours.chain(reserved.iter().map(|(pfn, zone)| (*pfn, *zone)));
            let ours = ours.filter(|(_, id)| *id == zone.id());
            ModelZone {
                id: zone.id(),
                kind: zone.kind(),
                span: zone.span(),
                sections: ours.map(|(pfn, _)| Pfn::new(pfn).section()).collect(),
                managed: zone.is_managed(),
            }
        });
        Self {
            zones: zones.collect(),
            frames,
            reserved,
            isolated: BTreeSet::new(),
        }
    }

    fn is_isolated(&self, zone: ZoneId, pfn: Pfn) -> bool {
        let block = pfn.align_down(Order::PAGEBLOCK).as_u64();
        self.isolated.contains(&(zone.zone, zone.node.0, block))
    }

    /// Whether a frame can be handed out as part of a block of `zone`.
    fn is_available(&self, zone: ZoneId, pfn: Pfn) -> bool {
        let known = self.frames.get(&pfn.as_u64());
        known.is_some_and(|known| known.free && known.zone == zone) && !self.is_isolated(zone, pfn)
    }

    /// Whether a request must be served: some zone that may serve it has a whole free block.
    pub(crate) fn has_room(&self, gfp: Gfp, order: Order) -> bool {
        let highest = Request::new(gfp, order).unwrap().highest();
        let zones = self.zones.iter().filter(|zone| {
            zone.id.node == NodeId(0) && zone.kind.index() <= highest.index() && zone.managed
        });
        zones.into_iter().any(|zone| {
            let starts = zone.span.first().align_down(order).as_u64()..zone.span.end().as_u64();
            let mut starts = starts.step_by(order.frames() as usize);
            starts.any(|start| {
                let mut block = PfnRange::block(Pfn::new(start), order).iter();
                block.all(|pfn| self.is_available(zone.id, pfn))
            })
        })
    }

    /// Takes note of frames handed out for a request.
    pub(crate) fn take(&mut self, frames: PfnRange, gfp: Gfp) {
        let highest = Request::new(gfp, Order::ZERO).unwrap().highest();
        for pfn in frames.iter() {
            let known = self.frames[&pfn.as_u64()];
            let zone = self.zones.iter().find(|zone| zone.id == known.zone);
            let zone = zone.unwrap();
            assert!(zone.kind.index() <= highest.index(), "{pfn}: wrong zone");
            assert_eq!(zone.id.node, NodeId(0), "{pfn}: wrong node");
            assert!(!self.is_isolated(known.zone, pfn), "{pfn} is isolated");
        }
        self.take_at(frames);
    }

    /// Takes note of frames handed out by place.
    pub(crate) fn take_at(&mut self, frames: PfnRange) {
        for pfn in frames.iter() {
            let known = self.frames.get_mut(&pfn.as_u64()).expect("managed");
            assert!(known.free, "{pfn} was handed out twice");
            known.free = false;
        }
    }

    /// Takes note of frames given back.
    pub(crate) fn give(&mut self, frames: PfnRange) {
        for pfn in frames.iter() {
            let known = self.frames.get_mut(&pfn.as_u64()).expect("managed");
            assert!(!known.free);
            known.free = true;
        }
    }

    /// What isolating a range of a zone must answer; takes note of it.
    pub(crate) fn isolate(&mut self, zone: ZoneId, range: PfnRange) -> Result<(), &'static str> {
        self.may_isolate(zone, range)?;
        for block in pageblocks(range) {
            self.isolated.insert((zone.zone, zone.node.0, block));
        }
        Ok(())
    }

    fn may_isolate(&self, zone: ZoneId, range: PfnRange) -> Result<(), &'static str> {
        let zone = self.zones.iter().find(|one| one.id == zone).unwrap();
        if range.is_empty() {
            return Err("empty");
        }
        if !zone.span.covers(range) {
            return Err("not in zone");
        }
        for block in pageblocks(range) {
            if !zone.sections.contains(&Pfn::new(block).section()) {
                return Err("not in zone");
            }
            if self.is_isolated(zone.id, Pfn::new(block)) {
                return Err("isolated");
            }
        }
        Ok(())
    }

    /// Takes note that a range of a zone is in use again.
    pub(crate) fn unisolate(&mut self, zone: ZoneId, range: PfnRange) {
        for block in pageblocks(range) {
            self.isolated.remove(&(zone.zone, zone.node.0, block));
        }
    }

    /// What taking a range must answer, in one word.
    pub(crate) fn may_take_range(&self, range: PfnRange) -> Result<(), &'static str> {
        if range.is_empty() {
            return Err("empty");
        }
        let mut answer = Err("no zone");
        let spanning = |zone: &&ModelZone| zone.managed && zone.span.covers(range);
        for zone in self.zones.iter().filter(spanning) {
            answer = self.may_take_from(zone.id, range);
            if answer != Err("not in zone") {
                return answer;
            }
        }
        answer
    }

    fn may_take_from(&self, zone: ZoneId, range: PfnRange) -> Result<(), &'static str> {
        self.may_isolate(zone, range)?;
        range.iter().try_for_each(|pfn| {
            let reserved = self.reserved.get(&pfn.as_u64());
            match (self.frames.get(&pfn.as_u64()), reserved) {
                (Some(known), _) if known.zone == zone && known.free => Ok(()),
                (Some(known), _) if known.zone == zone => Err("busy"),
                (_, Some(home)) if *home == zone => Err("busy"),
                _ => Err("not in zone"),
            }
        })
    }
}

/// The library's answer in the model's words.
pub(crate) fn in_a_word(error: &ContigError) -> &'static str {
    match error {
        ContigError::NoZone => "no zone",
        ContigError::Range(error) => range_in_a_word(error),
        ContigError::Alloc(_) | ContigError::Damaged(_) => "something else",
    }
}

/// The library's answer in the model's words.
pub(crate) fn range_in_a_word(error: &RangeError) -> &'static str {
    match error {
        RangeError::Empty => "empty",
        RangeError::NotInZone { .. } => "not in zone",
        RangeError::Busy { .. } => "busy",
        RangeError::Cma { .. } => "cma",
        RangeError::Isolated { .. } => "isolated",
    }
}

fn pageblocks(range: PfnRange) -> impl Iterator<Item = u64> {
    let first = range.first().align_down(Order::PAGEBLOCK).as_u64();
    (first..range.end().as_u64()).step_by(Order::PAGEBLOCK.frames() as usize)
}
