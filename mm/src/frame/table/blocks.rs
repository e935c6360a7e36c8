//! Every block of a table, one after the other.
#![forbid(unsafe_code)]

use super::FrameTable;
use crate::addr::Pfn;
use crate::config::SECTION_FRAMES;
use crate::frame::{Frame, FrameState};

/// The records that say what a block is, lowest frame first: those of blocks, and of each reserved frame; where a record says
/// neither, one frame at a time.
#[derive(Debug)]
pub(crate) struct Blocks<'a> {
    frames: &'a FrameTable,
    next: Pfn,
}

impl FrameTable {
    /// Every block. Context: any; what it shows may change at any time.
    pub(crate) const fn blocks(&self) -> Blocks<'_> {
        Blocks {
            frames: self,
            next: Pfn::ZERO,
        }
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = (Pfn, &'a Frame);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.frames.limit() {
            let pfn = self.next;
            let Some(frame) = self.frames.frame(pfn) else {
                // No memory in this section, or no records yet.
                let behind = pfn.section().saturating_add(1);
                self.next = Pfn::new(behind.saturating_mul(SECTION_FRAMES));
                continue;
            };
            let word = frame.word();
            let step = match word.state().is_some_and(FrameState::starts_block) {
                true => word.order().frames(),
                false => 1,
            };
            self.next = pfn.saturating_add(step);
            return Some((pfn, frame));
        }
        None
    }
}
