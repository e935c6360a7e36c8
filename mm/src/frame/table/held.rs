//! Blocks that wait with whoever took them for something to happen.

use crate::addr::{Pfn, PfnRange};
use crate::frame::{FrameState, FrameTable};
use crate::mem::Exclusive;

/// Blocks with one owner, who has this value: linked through their records, whose link word nobody else uses meanwhile.
///
/// # Invariants
/// From `first` on, records lead to one another; the token of each block was given up for it. All are of one frame table.
#[derive(Debug)]
#[must_use = "dropping it leaks the blocks: take them out"]
pub(crate) struct HeldBlocks {
    first: Option<Pfn>,
}

/// The end of the list.
const END: u64 = u64::MAX;

impl HeldBlocks {
    /// None.
    pub(crate) const fn none() -> Self {
        // INVARIANT: no blocks.
        Self { first: None }
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl FrameTable {
    /// Puts a block to others of this table.
    ///
    /// # Errors
    /// The token, if it is not for one block of this table.
    pub(crate) fn hold(&self, held: &mut HeldBlocks, block: Exclusive) -> Result<(), Exclusive> {
        let frames = block.frames();
        let pfn = frames.first();
        let is_block = |frames: PfnRange| frames == PfnRange::block(pfn, block.order());
        let Some(frame) = self.frame(pfn).filter(|_| is_block(frames)) else {
            return Err(block);
        };
        let word = frame.word();
        if !word.is(FrameState::Unique) || word.order() != block.order() {
            return Err(block);
        }
        frame.set_link(held.first.map_or(END, Pfn::as_u64));
        // INVARIANT: the token is given up for it.
        held.first = Some(block.leak().first());
        Ok(())
    }

    /// Takes one of them out. `None` if there are none, or a record was overwritten: those behind it are lost then.
    pub(crate) fn take_held(&self, held: &mut HeldBlocks) -> Option<Exclusive> {
        let pfn = held.first.take()?;
        let frame = self.frame(pfn)?;
        let next = frame.link();
        frame.set_link(0);
        let word = frame.word();
        // INVARIANT: the rest of the list.
        held.first = (next != END).then(|| Pfn::new(next));
        if !word.is(FrameState::Unique) {
            held.first = None;
            return None;
        }
        // SAFETY: (1) the token was given up for the list, which has the block no more; (2) it was adopted.
        Some(unsafe { Exclusive::new(PfnRange::block(pfn, word.order())) })
    }
}
