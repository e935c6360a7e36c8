//! Who gave each frame back last (Linux: `page_owner`'s "page last free stack trace").
//!
//! Eight words a frame, only where it is asked for (`page_owner=on`).
#![forbid(unsafe_code)]

use super::ByFrame;
use crate::addr::{Pfn, PfnRange, VirtAddr, to_count};
use crate::report::{CALLERS, FreedBy};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// In the first word: nobody had the frame since.
const IS_FREE: u64 = 1 << 62;

/// Who gave a frame back last: a word for CPU and task, and those who called.
#[derive(Debug, Default)]
pub struct LastFree {
    who: AtomicU64,
    callers: [AtomicU64; CALLERS],
}

impl LastFree {
    /// Words of it.
    pub(crate) const WORDS: u64 = to_count(size_of::<Self>()) / to_count(size_of::<AtomicU64>());

    fn set(&self, by: &FreedBy) {
        let who = self.who.load(Relaxed);
        // What could not be freed at once comes a second time, from somebody who only tidies up.
        if who & IS_FREE != 0 {
            return;
        }
        for (place, caller) in self.callers.iter().zip(by.callers) {
            place.store(caller.as_u64(), Relaxed);
        }
        self.who.store(by.to_word() | IS_FREE, Relaxed);
    }

    fn get(&self) -> Option<FreedBy> {
        let mut callers = [VirtAddr::default(); CALLERS];
        for (caller, place) in callers.iter_mut().zip(&self.callers) {
            *caller = VirtAddr::new(place.load(Relaxed));
        }
        FreedBy::from_words(self.who.load(Relaxed), callers)
    }
}

/// The last frees of all frames of a machine, where they are kept.
pub type LastFrees = ByFrame<LastFree>;

impl LastFrees {
    /// Notes who gave frames back. Context: any.
    pub fn note(&self, frames: PfnRange, by: &FreedBy) {
        for record in frames.iter().filter_map(|pfn| self.at(pfn)) {
            record.set(by);
        }
    }

    /// Somebody has frames again: who gives them back next is the last one then. Context: any.
    pub fn taken(&self, frames: PfnRange) {
        for record in frames.iter().filter_map(|pfn| self.at(pfn)) {
            record.who.fetch_and(!IS_FREE, Relaxed);
        }
    }

    /// Who gave a frame back last, also if somebody has it again. Context: any.
    #[must_use]
    pub fn of(&self, pfn: Pfn) -> Option<FreedBy> {
        self.at(pfn)?.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::CpuId;

    fn by(task: u64) -> FreedBy {
        FreedBy {
            cpu: CpuId(3),
            task,
            callers: [VirtAddr::new(0xffff_ffff_8020_0000 | task); CALLERS],
        }
    }

    #[test]
    fn the_one_who_tidies_up_is_not_the_one_who_freed() {
        let record = LastFree::default();
        assert_eq!(record.get(), None);
        record.set(&by(7));
        record.set(&by(8));
        assert_eq!(record.get(), Some(by(7)));
        // It stays known while somebody has the frame, and the next one takes its place.
        record.who.fetch_and(!IS_FREE, Relaxed);
        assert_eq!(record.get(), Some(by(7)));
        record.set(&by(8));
        assert_eq!(record.get(), Some(by(8)));
    }
}
