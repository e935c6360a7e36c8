//! Runs: blocks in a row that are one piece, though no block is that large.
//!
//! The first frame's private word says how many frames the run has. The records of all its blocks say that they
//! are part of one, so that none is taken for a block of its own.

use crate::addr::{Pfn, PfnRange, PhysAddr};
use crate::frame::{Frame, FrameTable, Kind};
use crate::mem::Exclusive;

impl FrameTable {
    /// The records of the blocks of a run. What is no block ends it.
    fn blocks_of(&self, run: PfnRange) -> impl Iterator<Item = &Frame> {
        let mut next = run.first();
        core::iter::from_fn(move || {
            let frame = self.frame(next).filter(|_| next < run.end())?;
            next = next.saturating_add(frame.word().order().frames());
            Some(frame)
        })
    }

    /// Gives the token of blocks in a row up; their records say that they are one piece.
    ///
    /// # Errors
    /// The token, if it is not for blocks of this table.
    pub(crate) fn make_run(&self, blocks: Exclusive) -> Result<(), Exclusive> {
        let frames = blocks.frames();
        let Some(first) = self.frame(frames.first()) else {
            return Err(blocks);
        };
        for frame in self.blocks_of(frames) {
            frame.publish(frame.word().for_kind(Kind::Run));
            frame.set_private(0);
        }
        first.set_private(frames.frames());
        let _ = blocks.leak();
        Ok(())
    }

    /// The run that starts at a frame. Context: any.
    pub(crate) fn run_at(&self, pfn: Pfn) -> Option<PfnRange> {
        let frame = self.frame(pfn)?;
        let is_first = frame.word_acquire().is_run() && frame.private() > 0;
        PfnRange::from_count(pfn, frame.private()).filter(|_| is_first)
    }

    /// Turns the address of a run back into the token of its blocks. `None` if no run starts
    /// there; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the run, as an address, and gives it up.
    pub(crate) unsafe fn end_run_at(&self, at: PhysAddr) -> Option<Exclusive> {
        let pfn = at.frame();
        if at != pfn.addr() {
            return None;
        }
        let frames = self.run_at(pfn)?;
        let first = self.frame(pfn)?;
        let word = first.word();
        // One caller wins.
        let won = word.is_run() && first.exchange(word, word.for_kind(Kind::Plain)).is_ok();
        if !won {
            return None;
        }
        first.set_private(0);
        for frame in self.blocks_of(frames) {
            frame.publish(frame.word().for_kind(Kind::Plain));
        }
        // SAFETY: (1) the token was consumed by `make_run`, the caller gives the run up, and the exchange lets
        // one through; (2) only adopted frames become runs.
        Some(unsafe { Exclusive::new(frames) })
    }
}
