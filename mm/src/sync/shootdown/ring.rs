//! Which translations were to be forgotten lately, by generation.
//!
//! Who asks takes the next generation and writes what it wants into that generation's place of the ring. Nobody
//! waits for anybody: a place that somebody else is writing to is left to them, and a reader that does not find the
//! generation it looks for, or finds it in the middle of a change, flushes everything. Linux keeps one range for each
//! interrupt that it sends (`flush_tlb_info`).
#![forbid(unsafe_code)]

use crate::addr::{VirtAddr, VirtRange, to_index};
use crate::config::PAGE_SIZE;
use crate::platform::TlbFlush;
use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// Requests that are remembered, a power of two: a CPU that missed more flushes everything.
#[cfg(not(loom))]
pub(super) const PLACES: usize = 8;
#[cfg(loom)]
pub(super) const PLACES: usize = 2;

/// Generations count in twos: the odd number behind one says that its place is being written to.
const STEP: u64 = 1 << STEP_SHIFT;
const STEP_SHIFT: u32 = 1;

/// The generation that a machine begins with: a few before the numbers start again, so that each machine has been
/// there (Linux does that with `jiffies`, `INITIAL_JIFFIES`).
const FIRST: u64 = 0_u64.wrapping_sub(10 * STEP);

/// In a place: everything is to be forgotten.
const EVERYTHING: u64 = u64::MAX;

/// Pages above which everything is forgotten, since that takes less time than one page after the other (Linux:
/// `tlb_single_page_flush_ceiling`).
pub const CEILING: u64 = 33;

/// What is to be forgotten for a range: the pages that it touches, or everything where they are many; nothing
/// where it is empty.
#[must_use]
pub fn to_forget(range: VirtRange) -> Option<TlbFlush> {
    if range.is_empty() {
        return None;
    }
    let start = range.start().align_down(PAGE_SIZE);
    let end = range.end().align_up(PAGE_SIZE);
    let pages = end.and_then(|end| VirtRange::new(start, end));
    let few = pages.filter(|pages| pages.pages() <= CEILING);
    Some(few.map_or(TlbFlush::All, TlbFlush::Pages))
}

/// Which request. Numbers start again after the last one, so generations are compared by how far apart
/// they are; no CPU is half of all numbers behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u64);

impl Generation {
    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }

    /// Whether this one was asked for after `other`.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    /// How many requests there were up to this one, since the machine began.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.since(Self(FIRST))
    }

    /// How many there were after `other`.
    #[must_use]
    pub const fn since(self, other: Self) -> u64 {
        self.0.wrapping_sub(other.0) >> STEP_SHIFT
    }

    const fn place(self) -> usize {
        to_index(self.0 >> STEP_SHIFT) & (PLACES.wrapping_sub(1))
    }
}

/// A request that is remembered: consistent where `tag` is the generation before and after it is read.
#[derive(Debug)]
struct Place {
    tag: AtomicU64,
    start: AtomicU64,
    bytes: AtomicU64,
}

impl Place {
    fn new() -> Self {
        Self {
            tag: AtomicU64::new(FIRST),
            start: AtomicU64::new(0),
            bytes: AtomicU64::new(EVERYTHING),
        }
    }

    /// Remembers a request, unless somebody else writes here right now, or has remembered a later one.
    fn write(&self, generation: Generation, what: TlbFlush) {
        let tag = self.tag.load(Ordering::Relaxed);
        let busy = generation.0 | 1;
        if tag & 1 != 0
            || Generation(tag).is_after(generation)
            || self
                .tag
                .compare_exchange(tag, busy, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        // Who reads one of the two words below sees the odd number afterwards.
        fence(Ordering::Release);
        let (start, bytes) = match what {
            TlbFlush::All => (0, EVERYTHING),
            TlbFlush::Pages(range) => (range.start().as_u64(), range.size()),
        };
        self.start.store(start, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.tag.store(generation.0, Ordering::Release);
    }

    /// The pages that a request was about; `None` where that is everything, or not known any more.
    fn read(&self, generation: Generation) -> Option<VirtRange> {
        if self.tag.load(Ordering::Acquire) != generation.0 {
            return None;
        }
        let start = self.start.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if self.tag.load(Ordering::Relaxed) != generation.0 || bytes == EVERYTHING {
            return None;
        }
        VirtRange::from_size(VirtAddr::new(start), bytes)
    }
}

/// What CPUs were asked to forget.
#[derive(Debug)]
pub struct Requests {
    latest: AtomicU64,
    places: [Place; PLACES],
}

impl Requests {
    /// Nothing was asked for.
    #[must_use]
    pub fn new() -> Self {
        Self {
            latest: AtomicU64::new(FIRST),
            places: core::array::from_fn(|_| Place::new()),
        }
    }

    /// Asks for something, after the page table was changed. Context: any.
    pub fn raise(&self, what: TlbFlush) -> Generation {
        let before = self.latest.fetch_add(STEP, Ordering::AcqRel);
        let generation = Generation(before.wrapping_add(STEP));
        // What a CPU looks for before this is written, it does not find.
        if let Some(place) = self.places.get(generation.place()) {
            place.write(generation, what);
        }
        generation
    }

    /// The last generation. Who sees it sees the page table that goes with it. Context: any.
    #[must_use]
    pub fn latest(&self) -> Generation {
        Generation(self.latest.load(Ordering::Acquire))
    }

    /// Has `flush` forget what was asked for after `seen`, up to `latest`.
    pub(super) fn since(
        &self,
        seen: Generation,
        latest: Generation,
        flush: &mut impl FnMut(TlbFlush),
    ) {
        let mut ranges = [VirtRange::EMPTY; PLACES];
        let Some(ranges) = self.ranges(seen, latest, &mut ranges) else {
            return flush(TlbFlush::All);
        };
        for range in ranges {
            flush(TlbFlush::Pages(*range));
        }
    }

    /// The ranges between, if all are known and they are few pages.
    fn ranges<'a>(
        &self,
        seen: Generation,
        latest: Generation,
        ranges: &'a mut [VirtRange; PLACES],
    ) -> Option<&'a [VirtRange]> {
        let behind = to_index(latest.since(seen));
        let ranges = ranges.get_mut(..behind)?;
        let mut pages: u64 = 0;
        let mut generation = seen;
        for range in ranges.iter_mut() {
            generation = Generation(generation.0.wrapping_add(STEP));
            *range = self.places.get(generation.place())?.read(generation)?;
            pages = pages.saturating_add(range.pages());
        }
        (pages <= CEILING).then_some(ranges)
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self::new()
    }
}
