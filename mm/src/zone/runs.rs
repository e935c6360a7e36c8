//! Where a zone has pageblocks in a row that are free.
#![forbid(unsafe_code)]

use super::Zone;
use crate::addr::{Order, Pfn, PfnRange};
use crate::config::SECTION_PAGEBLOCKS;
use crate::platform::Platform;

impl Zone {
    /// The lowest `frames` frames from `from` on whose pageblocks are all free, the first one a multiple of
    /// `align` frames (a power of two). The zone's lock is held for one section at a time: others may take
    /// them before the caller does. Context: any but NMI.
    pub(crate) fn find_run<P: Platform>(
        &self,
        platform: &P,
        (frames, align): (u64, u64),
        from: Pfn,
    ) -> Option<PfnRange> {
        let end = self.span().end();
        let mut first = None;
        let mut pfn = from.max(self.span().first()).align_up(Order::PAGEBLOCK);
        while pfn < end {
            let areas = self.lock(platform);
            for _ in 0..SECTION_PAGEBLOCKS {
                let is_free = areas.is_free_pageblock(pfn);
                let is_aligned = pfn.as_u64() & align.wrapping_sub(1) == 0;
                let begins = (is_free && is_aligned).then_some(pfn);
                first = first.filter(|_| is_free).or(begins);
                pfn = pfn.saturating_add(Order::PAGEBLOCK.frames());
                let run = first.and_then(|first| PfnRange::from_count(first, frames));
                if let Some(run) = run
                    && run.end() <= pfn.min(end)
                {
                    self.unlock(areas);
                    return Some(run);
                }
            }
            // What the lock settled may have changed what there is to tell.
            self.unlock(areas);
        }
        None
    }
}
