//! What happened on a simulated machine, where that is recorded.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mm::inspect::{EventCell, EventRing};
use mm::report::Event;

/// Events that are kept.
const KEPT: usize = 1 << 16;

/// One ring for all CPUs: their events are in one order then.
#[derive(Debug, Default)]
pub struct Recorder {
    ring: OnceLock<EventRing<KEPT>>,
    clock: AtomicU64,
}

impl Recorder {
    pub(super) fn record(&self, event: Event) {
        let ring = self.ring.get_or_init(|| {
            let cells = (0..KEPT).map(|_| [const { AtomicU64::new(0) }; 2]);
            let cells: Box<[EventCell]> = cells.collect();
            EventRing::new(Box::leak(cells.try_into().expect("as many")))
        });
        ring.record(self.clock.fetch_add(1, Ordering::Relaxed), event);
    }

    /// The events that are kept, the oldest first, with their times: 0, 1, 2, …
    #[must_use]
    pub fn events(&self) -> Vec<(u64, Event)> {
        let ring = self.ring.get();
        ring.map_or_else(Vec::new, |ring| ring.events().collect())
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }
}
