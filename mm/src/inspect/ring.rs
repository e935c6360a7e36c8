//! What happened, in the order in which it did: a ring of [`Event`]s for each CPU.
#![forbid(unsafe_code)]

use crate::addr::{VirtAddr, to_count, to_index};
use crate::report::Event;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Room for an event.
pub type EventCell = [AtomicU64; 2];

/// The latest [`Event`]s of a CPU; older ones are overwritten. A kernel makes one for each CPU, has
/// [`Platform::event`](crate::platform::Platform::event) record into it, and shows them to viewers with
/// [`Memory::publish_events`](crate::system::Memory::publish_events).
///
/// Recording waits for nobody: a place is taken by one atomic addition, so that interrupts and NMIs may come in between, and
/// even another CPU. Who reads meanwhile finds out which events are whole: each carries the number of the ring's lap.
///
/// ```
/// use mm::addr::{Order, Pfn};
/// use mm::inspect::{EventCell, EventRing};
/// use mm::report::{Event, EventKind};
/// use std::sync::atomic::AtomicU64;
///
/// static CELLS: [EventCell; 4] = [const { [const { AtomicU64::new(0) }; 2] }; 4];
/// let ring = EventRing::new(&CELLS);
/// for number in 0..6 {
///     ring.record(100 + number, Event::block(EventKind::Alloc, Pfn::new(number), Order::ZERO));
/// }
/// let times: Vec<u64> = ring.events().map(|(time, _)| time).collect();
/// assert_eq!(times, [102, 103, 104, 105]);
/// ```
#[derive(Debug)]
pub struct EventRing {
    /// Events recorded so far.
    head: AtomicU64,
    /// A power of two of them, or none, …
    cells: &'static [EventCell],
    /// … and log2 of that.
    log: u32,
}

impl EventRing {
    /// A ring of the largest power of two of `cells`, which hold zeroes; without any it records nothing.
    #[must_use]
    pub fn new(cells: &'static [EventCell]) -> Self {
        let log = cells.len().checked_ilog2();
        let count = log.map_or(0, |log| 1_usize << log);
        Self {
            head: AtomicU64::new(0),
            cells: &cells[..count],
            log: log.unwrap_or(0),
        }
    }

    /// How many events it holds.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.cells.len()
    }

    /// Events recorded so far, those that were overwritten included. Context: any.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Records what happened at a time, in whatever unit. Context: any, NMI included.
    #[inline]
    pub fn record(&self, time: u64, event: Event) {
        let Some(last) = self.cells.len().checked_sub(1) else {
            return;
        };
        let number = self.head.fetch_add(1, Ordering::Relaxed);
        let Some([what, rest]) = self.cells.get(to_index(number) & last) else {
            return;
        };
        let [first, second] = event.to_words(time, number >> (self.log & 63));
        // The lap is in the word that is written last; on x86_64 others see both in this order.
        rest.store(second, Ordering::Relaxed);
        what.store(first, Ordering::Release);
    }

    /// The events that are there, the oldest first, with their times. Context: any; what is overwritten meanwhile is left out.
    pub fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        let capacity = to_count(self.cells.len());
        numbers(self.recorded(), capacity).filter_map(move |number| {
            let [what, rest] = self
                .cells
                .get(to_index(number & capacity.wrapping_sub(1)))?;
            let load = || what.load(Ordering::Acquire);
            let first = load();
            let second = rest.load(Ordering::Acquire);
            // The same before and after: nobody wrote in between.
            let words = (first == load()).then_some([first, second])?;
            Event::from_words(words, lap(number, capacity))
        })
    }

    /// Where viewers find the number of events, and the first of the cells.
    pub(crate) fn places(&self) -> (VirtAddr, VirtAddr) {
        let first = VirtAddr::from_ptr(self.cells.as_ptr());
        (VirtAddr::from_ptr(&raw const self.head), first)
    }
}

/// The numbers of the events that a ring holds which has recorded so many.
pub fn numbers(recorded: u64, capacity: u64) -> impl Iterator<Item = u64> {
    recorded.saturating_sub(capacity)..recorded
}

/// The lap of a ring that an event is in.
#[inline]
#[must_use]
pub fn lap(number: u64, capacity: u64) -> u64 {
    number >> (capacity.trailing_zeros() & 63)
}
