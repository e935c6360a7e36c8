//! What happened, in the order in which it did: a ring of [`Event`]s for each CPU.
#![forbid(unsafe_code)]

use crate::addr::{VirtAddr, to_count, to_index};
use crate::report::Event;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Room for an event.
pub type EventCell = [AtomicU64; 2];

/// The latest `N` [`Event`]s of a CPU; older ones are overwritten. A kernel makes one for each CPU, has
/// [`Platform::event`](crate::platform::Platform::event) record into it, and shows them to viewers with
/// [`Memory::publish_events`](crate::system::Memory::publish_events).
///
/// Recording waits for nobody: a place is taken by one atomic addition, so that interrupts and NMIs may come in between, and
/// even another CPU. Who reads meanwhile finds out which events are whole: each carries the number of the ring's lap. How many
/// there are is part of the type, a power of two: finding the place is a mask then.
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
pub struct EventRing<const N: usize> {
    /// Events recorded so far.
    head: AtomicU64,
    cells: &'static [EventCell; N],
}

impl<const N: usize> EventRing<N> {
    const CAPACITY: u64 = {
        assert!(N.is_power_of_two(), "a place is found by a mask");
        to_count(N)
    };

    /// A ring of `cells`, which hold zeroes.
    #[must_use]
    pub const fn new(cells: &'static [EventCell; N]) -> Self {
        Self {
            head: AtomicU64::new(0),
            cells,
        }
    }

    /// How many events it holds.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        Self::CAPACITY
    }

    /// Events recorded so far, those that were overwritten included. Context: any.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The place of an event.
    #[inline(always)]
    const fn cell(&self, number: u64) -> &EventCell {
        &self.cells[to_index(number & Self::CAPACITY.wrapping_sub(1))]
    }

    /// Records what happened at a time, in whatever unit. Context: any, NMI included.
    #[inline(always)]
    pub fn record(&self, time: u64, event: Event) {
        // Who sees anything of this event sees that it is counted.
        let number = self.head.fetch_add(1, Ordering::AcqRel);
        let [what, when] = self.cell(number);
        let [first, second] = event.to_words(time, lap(number, Self::CAPACITY));
        // The lap is in the word that is written last, and lies first: whoever copies a cell reads it before the other.
        when.store(second, Ordering::Relaxed);
        what.store(first, Ordering::Release);
    }

    /// The events that are there, the oldest first, with their times. Context: any; what is overwritten meanwhile is left out.
    pub fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        numbers(self.recorded(), Self::CAPACITY).filter_map(move |number| {
            let [what, when] = self.cell(number);
            // In the other order than they are written: what is of this lap has its time.
            let what = what.load(Ordering::Acquire);
            let when = when.load(Ordering::Acquire);
            let is_overwritten = self.recorded().wrapping_sub(number) > Self::CAPACITY;
            let words = (!is_overwritten).then_some([what, when])?;
            Event::from_words(words, lap(number, Self::CAPACITY))
        })
    }

    /// Where viewers find the number of events, and the first of the cells.
    pub(crate) fn places(&self) -> (VirtAddr, VirtAddr) {
        let first = VirtAddr::from_ptr(self.cells.as_ptr());
        (VirtAddr::from_ptr(&raw const self.head), first)
    }
}

/// The numbers of the events that a ring holds which has recorded so many.
fn numbers(recorded: u64, capacity: u64) -> impl Iterator<Item = u64> {
    recorded.saturating_sub(capacity)..recorded
}

/// The lap of a ring that an event is in.
#[inline]
#[must_use]
pub const fn lap(number: u64, capacity: u64) -> u64 {
    number >> (capacity.trailing_zeros() & 63)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::addr::{Order, Pfn};
    use crate::report::EventKind;
    use core::sync::atomic::AtomicBool;

    #[test]
    fn nobody_reads_half_an_event() {
        static CELLS: [EventCell; 2] = [const { [const { AtomicU64::new(0) }; 2] }; 2];
        let (ring, is_done) = (EventRing::new(&CELLS), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..3_000_000 {
                    let event = Event::block(EventKind::Alloc, Pfn::new(number), Order::ZERO);
                    ring.record(number, event);
                }
                is_done.store(true, Ordering::Release);
            });
            while !is_done.load(Ordering::Acquire) {
                for (time, event) in ring.events() {
                    assert_eq!(time, event.number);
                }
            }
        });
        assert_eq!(ring.events().count(), 2);
    }
}
