//! The set of free blocks of a machine.

use std::fmt::Write;

use mm::addr::{Order, Pfn, PfnRange};
use mm::frame::FrameState;
use mm::system::Memory;

use super::{Blocks, Found};
use crate::sim::{SimConfig, SimPlatform};

/// Every free block: where, and how large.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape(Vec<(Pfn, Order)>);

impl Shape {
    /// The free blocks right now.
    #[must_use]
    pub fn of<C: SimConfig>(memory: &Memory<SimPlatform<C>>) -> Self {
        settle(memory);
        let free = |found: &Found| found.word.state() == Some(FrameState::Free);
        let blocks = Blocks::of(memory).filter(free);
        Self(
            blocks
                .map(|found| (found.pfn, found.word.order()))
                .collect(),
        )
    }

    /// Those that do not lie in certain sections.
    #[must_use]
    pub fn outside(&self, sections: &[u64]) -> Self {
        let blocks = self.0.iter();
        let kept = blocks.filter(|(pfn, _)| !sections.contains(&pfn.section()));
        Self(kept.copied().collect())
    }

    /// The blocks, lowest first.
    #[must_use]
    pub fn blocks(&self) -> &[(Pfn, Order)] {
        &self.0
    }

    /// How many blocks of an order there are.
    #[must_use]
    pub fn count(&self, order: Order) -> usize {
        self.0.iter().filter(|block| block.1 == order).count()
    }

    /// Free frames in all.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.0.iter().map(|(_, order)| order.frames()).sum()
    }

    /// Free frames inside 2 MiB that are free as a whole.
    #[must_use]
    pub fn huge_frames(&self) -> u64 {
        let huge = self.0.iter().filter(|block| block.1 >= Order::PAGEBLOCK);
        huge.map(|(_, order)| order.frames()).sum()
    }

    /// The free blocks as ranges, neighbours joined.
    #[must_use]
    pub fn ranges(&self) -> Vec<PfnRange> {
        let mut ranges: Vec<PfnRange> = Vec::new();
        for &(pfn, order) in &self.0 {
            let block = PfnRange::block(pfn, order);
            match ranges.last_mut() {
                Some(last) if last.end() == pfn => {
                    *last = PfnRange::new(last.first(), block.end()).unwrap();
                }
                _ => ranges.push(block),
            }
        }
        ranges
    }

    /// O5: these are the free blocks that `now` has.
    ///
    /// # Panics
    /// If not, with the difference.
    pub fn assert_same(&self, now: &Self) {
        let mut text = String::new();
        for (name, one, other) in [("gone", self, now), ("new", now, self)] {
            let missing = one
                .0
                .iter()
                .filter(|block| other.0.binary_search(block).is_err());
            for (pfn, order) in missing.take(8) {
                let _ = write!(text, "\n  {name}: {pfn} of {order}");
            }
        }
        assert!(text.is_empty(), "O5: other free blocks than before:{text}");
    }
}

/// Has every zone merge the block that came back last: records tell the whole then.
pub(super) fn settle<C: SimConfig>(memory: &Memory<SimPlatform<C>>) {
    for zone in memory.zones() {
        let _ = zone.snapshot(memory.platform());
    }
}
