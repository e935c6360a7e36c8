//! Slabs of a debugged cache that have no free object: others are forgotten until one comes back, but these
//! are looked at too.
#![forbid(unsafe_code)]

use crate::addr::Pfn;
use crate::frame::{FrameTable, SlabFrame};

/// A list of them, through their records.
#[derive(Debug, Default)]
pub(in crate::slab) struct Full {
    first: Option<Pfn>,
}

impl Full {
    pub(in crate::slab) const fn new() -> Self {
        Self { first: None }
    }

    pub(in crate::slab) const fn first(&self) -> Option<Pfn> {
        self.first
    }

    pub(in crate::slab) fn insert(&mut self, slab: SlabFrame<'_>, frames: &FrameTable) {
        slab.frame.set_previous_slab(None);
        slab.frame.set_next_slab(self.first);
        if let Some(next) = self.first.and_then(|pfn| frames.frame(pfn)) {
            next.set_previous_slab(Some(slab.pfn));
        }
        self.first = Some(slab.pfn);
    }

    pub(in crate::slab) fn remove(&mut self, slab: SlabFrame<'_>, frames: &FrameTable) {
        let (next, previous) = slab.frame.slab_links();
        match previous.and_then(|pfn| frames.frame(pfn)) {
            Some(frame) => frame.set_next_slab(next),
            None => self.first = next,
        }
        if let Some(frame) = next.and_then(|pfn| frames.frame(pfn)) {
            frame.set_previous_slab(previous);
        }
        slab.frame.set_next_slab(None);
        slab.frame.set_previous_slab(None);
    }
}
