//! How often a frame is mapped for user code, and what may be mapped twice (Linux: `page_table_check.c`).
//!
//! One word a frame beside the records, only where it is asked for (`page_table_check=on`), and made for a whole section when
//! the first of its frames is mapped: a bit says whether the frame is a named page, the others how often it is mapped. Both
//! change together, so that a mapping is decided at once.
#![forbid(unsafe_code)]

use core::mem::ManuallyDrop;

use super::entry::Leaf;
use super::memory::OutOfTables;
use crate::addr::{Order, Pfn, PfnRange, to_index};
use crate::config::SECTION_FRAMES;
use crate::mem::{Array, CarveError, EarlyRam, Exclusive};
use crate::platform::Platform;
use crate::report::{Backing, Corruption, DoubleMapping};
use crate::sync::atomic::{AtomicU32, Ordering, spin_loop};
use crate::sync::{Once, Pin};

/// Whether a page that is mapped already may be mapped once more (Linux: the table of
/// `Documentation/mm/page_table_check.rst`).
const fn may_be_both(current: Backing, new: Backing, is_writable: bool) -> bool {
    match (current, new) {
        (Backing::Anonymous, Backing::Anonymous) => !is_writable,
        (Backing::Named, Backing::Named) => true,
        _ => false,
    }
}

/// The frame is a named page.
const NAMED: u32 = 1 << 31;

/// How often a frame is mapped for user code, and as what.
#[derive(Debug, Default)]
pub(crate) struct MapCount(AtomicU32);

impl MapCount {
    /// What stands there: what the frame is mapped as, and how often.
    fn get(word: u32) -> (Option<Backing>, u32) {
        let backing = match word & NAMED {
            0 => Backing::Anonymous,
            _ => Backing::Named,
        };
        let count = word & !NAMED;
        ((count != 0).then_some(backing), count)
    }

    fn update(&self, change: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        let (set, seen) = (Ordering::AcqRel, Ordering::Acquire);
        self.0.fetch_update(set, seen, change)
    }

    /// One mapping more. The error is what it is mapped as.
    fn enter(&self, new: Backing, is_writable: bool) -> Result<(), Backing> {
        let kind = match new {
            Backing::Anonymous => 0,
            Backing::Named => NAMED,
        };
        let more = |word: u32| match Self::get(word) {
            (None, _) => Some(kind | 1),
            (Some(current), count) => {
                let is_allowed = may_be_both(current, new, is_writable) && count < !NAMED;
                is_allowed.then(|| word.wrapping_add(1))
            }
        };
        let entered = self.update(more);
        entered
            .map(drop)
            .map_err(|word| Self::get(word).0.unwrap_or(new))
    }

    /// One mapping less; `false` if there is none.
    fn leave(&self) -> bool {
        let less = |word: u32| match Self::get(word).1 {
            0 => None,
            1 => Some(0),
            _ => Some(word.wrapping_sub(1)),
        };
        self.update(less).is_ok()
    }

    /// Whether the frame may be written to where it was not.
    fn may_be_written(&self) -> bool {
        let (backing, count) = Self::get(self.0.load(Ordering::Acquire));
        backing != Some(Backing::Anonymous) || count <= 1
    }
}

/// Those of all frames of a machine, by section; no sections where they are not kept.
#[derive(Debug)]
pub struct MapCounts {
    sections: Array<Section>,
}

/// Those of a section, once one of its frames was mapped. They stay for good.
type Section = ManuallyDrop<Once<Array<MapCount>>>;

impl MapCounts {
    /// Nothing is counted.
    pub(crate) const fn none() -> Self {
        Self {
            sections: Array::empty(),
        }
    }

    /// Bytes for so many sections.
    pub(crate) fn bytes_for(sections: usize) -> u64 {
        Array::<Section>::bytes_for(sections).unwrap_or(u64::MAX)
    }

    /// So many sections, of which no frame was mapped.
    ///
    /// # Errors
    /// [`CarveError`]: the memory is not enough.
    pub(crate) fn new<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        sections: usize,
    ) -> Result<Self, CarveError> {
        let sections = Array::carve(platform, ram, sections, |_| Section::new(Once::new()))?;
        Ok(Self { sections })
    }

    /// Makes room for counts of frames where there is none yet, from blocks that `take` takes. Context: as `take`'s.
    ///
    /// # Errors
    /// There is no memory for that.
    pub(crate) fn make_room<P: Platform>(
        &self,
        platform: &P,
        frames: PfnRange,
        take: impl Fn(Order) -> Result<Exclusive, OutOfTables>,
        give: impl Fn(Exclusive),
    ) -> Result<(), OutOfTables> {
        const SECTION: usize = to_index(SECTION_FRAMES);
        let order = Array::<MapCount>::bytes_for(SECTION).and_then(Order::for_bytes);
        let (first, end) = (frames.first().section(), frames.end().as_u64());
        let sections = first..Pfn::new(end.saturating_sub(1)).section().saturating_add(1);
        // What is taken once does until it is used: somebody else may fill a place meanwhile.
        let mut block = None;
        for place in sections.filter_map(|section| self.sections.at(section)) {
            while place.get().is_none() {
                if block.is_none() {
                    block = Some(take(order.ok_or(OutOfTables)?)?);
                    // Looked at once more: it may have taken long.
                    continue;
                }
                let pin = Pin::new(platform);
                let counts = place.get_or_make(|| {
                    let ram = EarlyRam::from_block(block.take()?);
                    Array::carve(platform, ram, SECTION, |_| MapCount::default()).ok()
                });
                let is_made = counts.is_some();
                drop(pin);
                match (is_made, &block) {
                    (false, None) => return Err(OutOfTables),
                    // Whoever fills it does not wait for anything meanwhile.
                    (false, Some(_)) => spin_loop(),
                    (true, _) => {}
                }
            }
        }
        if let Some(block) = block {
            give(block);
        }
        Ok(())
    }

    /// Whether anything is counted.
    pub(crate) fn are_kept(&self) -> bool {
        !self.sections.is_empty()
    }

    fn of(&self, pfn: Pfn) -> Option<&MapCount> {
        let section = self.sections.at(pfn.section())?.get()?;
        section.at(pfn.section_offset())
    }

    /// What a frame is mapped as, and how often.
    pub(crate) fn get(&self, pfn: Pfn) -> (Option<Backing>, u32) {
        let count = self.of(pfn);
        count.map_or((None, 0), |count| {
            MapCount::get(count.0.load(Ordering::Acquire))
        })
    }

    /// Counts one mapping more of each frame. Frames without memory count for nothing.
    ///
    /// # Errors
    /// The first that may not be mapped so; nothing is changed then.
    pub(crate) fn enter(
        &self,
        frames: PfnRange,
        new: Backing,
        is_writable: bool,
    ) -> Result<(), DoubleMapping> {
        for pfn in frames.iter() {
            let entered = self.of(pfn).map(|count| count.enter(new, is_writable));
            if let Some(Err(current)) = entered {
                let before = PfnRange::from_numbers(frames.first().as_u64(), pfn.as_u64());
                let _ = self.leave(before);
                return Err(DoubleMapping {
                    pfn,
                    current,
                    new,
                    is_writable,
                });
            }
        }
        Ok(())
    }

    /// Counts one mapping less of each frame.
    ///
    /// # Errors
    /// The first that was counted as mapped nowhere.
    pub(crate) fn leave(&self, frames: PfnRange) -> Result<(), Pfn> {
        let mut wrong = Ok(());
        for pfn in frames.iter() {
            if self.of(pfn).is_some_and(|count| !count.leave()) {
                wrong = wrong.and(Err(pfn));
            }
        }
        wrong
    }

    /// The first of some frames that is mapped: what as, and how often.
    #[inline]
    pub(crate) fn first_mapped(&self, frames: PfnRange) -> Option<(Pfn, Backing, u32)> {
        // At boot all memory comes here.
        if !self.are_kept() {
            return None;
        }
        frames.iter().find_map(|pfn| {
            let (backing, count) = self.get(pfn);
            backing.map(|backing| (pfn, backing, count))
        })
    }

    /// A mapping ends: if it was counted, one less of each of its frames. What was counted nowhere is reported.
    pub(crate) fn end<P: Platform>(&self, platform: &P, leaf: &Leaf) {
        if leaf.is_counted()
            && let Err(pfn) = self.leave(leaf.frames())
        {
            platform.corruption(&Corruption::UncountedMapping { pfn });
        }
    }

    /// Looks whether frames may be written to where they are mapped to be read.
    ///
    /// # Errors
    /// The first that may not.
    pub(crate) fn check_write(&self, frames: PfnRange) -> Result<(), DoubleMapping> {
        let may_not = |pfn: &Pfn| self.of(*pfn).is_some_and(|count| !count.may_be_written());
        frames.iter().find(may_not).map_or(Ok(()), |pfn| {
            Err(DoubleMapping {
                pfn,
                current: Backing::Anonymous,
                new: Backing::Anonymous,
                is_writable: true,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table_is_as_documented() {
        use Backing::{Anonymous, Named};
        let table = [
            (Anonymous, Anonymous, false, true),
            (Anonymous, Anonymous, true, false),
            (Anonymous, Named, false, false),
            (Anonymous, Named, true, false),
            (Named, Anonymous, false, false),
            (Named, Anonymous, true, false),
            (Named, Named, false, true),
            (Named, Named, true, true),
        ];
        for (current, new, is_writable, is_allowed) in table {
            for first_writable in [false, true] {
                let count = MapCount::default();
                assert_eq!(count.enter(current, first_writable), Ok(()));
                let outcome = count.enter(new, is_writable);
                let expected = if is_allowed { Ok(()) } else { Err(current) };
                assert_eq!(outcome, expected, "{current} and {new}, {is_writable}");
                let left = if is_allowed { 2 } else { 1 };
                let word = count.0.load(Ordering::Relaxed);
                assert_eq!(MapCount::get(word), (Some(current), left));
                assert_eq!(count.may_be_written(), current == Named || left == 1);
                for _ in 0..left {
                    assert!(count.leave());
                }
                assert!(!count.leave());
                assert_eq!(count.0.load(Ordering::Relaxed), 0);
            }
        }
    }
}
