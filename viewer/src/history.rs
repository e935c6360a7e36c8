//! What happened to the memory, as far as the kernel recorded it: read from the rings of its CPUs, and undone.

use core::ops::Range;

use mm::addr::Order;
use mm::buddy::MigrateType;
use mm::inspect::{EntryKind, ring};
use mm::report::{Event, EventKind};

use crate::guest::Guest;
use crate::owner::{Owner, Type};

/// Bytes of an event in a ring.
const CELL: u64 = 16;
/// Events that a ring may have; whatever says more is damaged.
const MOST: u64 = 1 << 24;
/// Events of all rings together.
const MOST_OF_ALL: u64 = 1 << 24;
/// Events that are read at once.
const AT_ONCE: u64 = 1 << 12;
/// Frames of a pageblock.
const PAGEBLOCK: u64 = Order::PAGEBLOCK.frames();

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Happening {
    /// When, in units of the kernel's clock.
    pub time: u64,
    /// On which CPU.
    pub cpu: u32,
    /// What.
    pub event: Event,
}

impl Happening {
    /// In words, without time and place.
    #[must_use]
    pub fn describe(&self) -> String {
        let Event {
            kind,
            number,
            order,
            detail,
        } = self.event;
        let order = order.as_u8();
        match kind {
            EventKind::Map | EventKind::Unmap => {
                let pages = 1_u128 << detail.min(64);
                format!("{:#x}, up to {pages} pages", self.event.start().as_u64())
            }
            EventKind::Refill => format!("{number} blocks of order {order}"),
            EventKind::Drain => format!("{number} frames"),
            EventKind::Populate => format!("the section of frame {number:#x}"),
            EventKind::Take => format!("{number:#x} order {order}, {}", type_name(detail)),
            EventKind::Steal if number == 0 => format!("from {}", type_name(detail)),
            EventKind::Steal => format!("pageblock {number:#x}, was {}", type_name(detail)),
            _ => format!("{number:#x} order {order}"),
        }
    }

    /// The frames that it is about.
    #[must_use]
    pub const fn frames(&self) -> Option<(u64, u64)> {
        match self.event.kind {
            EventKind::Map
            | EventKind::Unmap
            | EventKind::Refill
            | EventKind::Drain
            | EventKind::Populate
            | EventKind::Steal => None,
            _ => Some((self.event.number, self.event.order.frames())),
        }
    }
}

/// The events of a ring from one number to another, and what is in their cells. All that lies together is read at once: it
/// goes on being written to.
fn events_of(
    guest: &Guest,
    cells: u64,
    numbers: Range<u64>,
    capacity: u64,
) -> Vec<(u64, Option<(u64, Event)>)> {
    let mut found = Vec::new();
    let mut next = numbers.start;
    while next < numbers.end {
        let place = next & (capacity - 1);
        let count = (capacity - place).min(numbers.end - next).min(AT_ONCE);
        let mut bytes = vec![0; usize::try_from(count * CELL).unwrap_or(0)];
        let is_read = guest.read(cells.wrapping_add(place * CELL), &mut bytes);
        for (number, cell) in (next..).zip(bytes.chunks_exact(CELL as usize)) {
            // Copied from its start on, so that what was read first has its time.
            let (what, when) = cell.split_at(8);
            let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            let words = word(what).zip(word(when)).filter(|_| is_read);
            let event = words.and_then(|(what, when)| {
                Event::from_words([what, when], ring::lap(number, capacity))
            });
            found.push((number, event));
        }
        next += count;
    }
    found
}

fn type_of(detail: u8) -> Type {
    MigrateType::from_bits(detail)
}

/// As legends call it.
fn type_name(detail: u8) -> &'static str {
    let name = Owner::Free(type_of(detail)).name();
    name.strip_prefix("free, ").unwrap_or(name)
}

/// All that is known of what happened, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// What happened.
    pub events: Vec<Happening>,
    /// Units of time of a second, if that is known.
    pub per_second: Option<u64>,
    /// Whether there are rings at all.
    pub is_recorded: bool,
}

impl History {
    /// Reads the last `most` events of each CPU.
    #[must_use]
    pub fn read(guest: &Guest, most: u64) -> Self {
        let mut history = Self::default();
        // What is older than the oldest event of another CPU that was overwritten is not the whole story.
        let mut whole_from = 0;
        let mut left = MOST_OF_ALL;
        for entry in guest.of(EntryKind::Events) {
            let [cells, capacity, per_second] = entry.numbers;
            if !capacity.is_power_of_two() || capacity > MOST || u64::from(entry.width) != CELL {
                continue;
            }
            history.is_recorded = true;
            history.per_second = Some(per_second).filter(|&rate| rate > 0);
            let recorded = || guest.u64_at(entry.at).unwrap_or(0);
            let before = recorded();
            let first = before.saturating_sub(capacity.min(most).min(left));
            left -= before - first;
            let found = events_of(guest, cells, first..before, capacity);
            // What is older was overwritten meanwhile, or is just being: who writes counts first.
            let oldest = match recorded().checked_sub(capacity) {
                Some(first) => first.saturating_add(1),
                None => 0,
            };
            let cpu = entry.index;
            let kept = found.into_iter().filter(|&(number, _)| number >= oldest);
            let kept: Vec<_> = kept
                .filter_map(|(_, event)| event)
                .map(|(time, event)| Happening { time, cpu, event })
                .collect();
            if before > kept.len() as u64 {
                let first = kept.first().map_or(u64::MAX, |first| first.time);
                whole_from = whole_from.max(first);
            }
            history.events.extend(kept);
        }
        history
            .events
            .retain(|happening| happening.time >= whole_from);
        history.events.sort_by_key(|happening| happening.time);
        history
    }

    /// How long before the last event one was, in microseconds.
    #[must_use]
    pub fn age_us(&self, happening: &Happening) -> Option<f64> {
        let last = self.events.last()?.time;
        let ticks = last.saturating_sub(happening.time);
        Some(ticks as f64 * 1e6 / self.per_second? as f64)
    }

    /// What frames were used for before the last `count` events, from what they are used for after them. Whose a frame was
    /// that somebody gave back is not recorded: it was in use.
    #[must_use]
    pub fn undo(&self, now: &[Owner], count: usize) -> Vec<Owner> {
        let mut owners = now.to_vec();
        for happening in self.events.iter().rev().take(count) {
            undo(&mut owners, happening);
        }
        owners
    }
}

fn undo(owners: &mut [Owner], happening: &Happening) {
    let Some((first, count)) = happening.frames() else {
        return;
    };
    let before = match happening.event.kind {
        // Where from is told by the event before.
        EventKind::Alloc | EventKind::Give => Owner::PerCpu,
        EventKind::Free => Owner::Used,
        EventKind::Take => Owner::Free(type_around(owners, first, happening.event.detail)),
        _ => return,
    };
    let start = usize::try_from(first).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(count).unwrap_or(0));
    if let Some(frames) = owners.get_mut(start..end) {
        frames.fill(before);
    }
}

/// The type of a pageblock: that of what is free in it, or what was recorded.
fn type_around(owners: &[Owner], frame: u64, detail: u8) -> Type {
    let start = usize::try_from(frame / PAGEBLOCK * PAGEBLOCK).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(PAGEBLOCK).unwrap_or(0));
    let block = owners.get(start..end.min(owners.len()));
    let free = block
        .unwrap_or_default()
        .iter()
        .find_map(|owner| match owner {
            Owner::Free(kind) => Some(*kind),
            _ => None,
        });
    free.unwrap_or_else(|| type_of(detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm::addr::Pfn;

    fn happened(time: u64, kind: EventKind, pfn: u64, order: u8) -> Happening {
        Happening {
            time,
            cpu: 0,
            event: Event::block(kind, Pfn::new(pfn), Order::new(order).unwrap_or_default()),
        }
    }

    #[test]
    fn an_allocation_is_undone_step_by_step() {
        let free = Owner::Free(Type::Movable);
        let mut now = vec![free; 16];
        now[0] = Owner::Slab;
        let history = History {
            events: vec![
                happened(1, EventKind::Take, 0, 2),
                happened(2, EventKind::Split, 2, 1),
                happened(3, EventKind::Split, 1, 0),
                happened(4, EventKind::Alloc, 0, 0),
            ],
            ..History::default()
        };
        assert_eq!(history.undo(&now, 0), now);
        assert_eq!(history.undo(&now, 1)[0], Owner::PerCpu);
        assert_eq!(history.undo(&now, 3)[0], Owner::PerCpu);
        assert_eq!(history.undo(&now, 4), vec![free; 16]);
        // More than happened, and frames that there are not.
        assert_eq!(history.undo(&now, 100), vec![free; 16]);
        assert_eq!(history.undo(&[], 4), []);
    }

    #[test]
    fn what_was_given_back_was_in_use() {
        let now = vec![Owner::Free(Type::Unmovable); 4];
        let history = History {
            events: vec![
                happened(1, EventKind::Free, 2, 0),
                happened(2, EventKind::Give, 2, 0),
                happened(3, EventKind::Merge, 2, 1),
            ],
            ..History::default()
        };
        assert_eq!(history.undo(&now, 2)[2], Owner::PerCpu);
        assert_eq!(history.undo(&now, 3)[2], Owner::Used);
        assert_eq!(history.undo(&now, 3)[3], now[3]);
    }

    #[test]
    fn each_kind_has_words() {
        for kind in EventKind::ALL {
            let words = happened(0, kind, 0x1234, 3).describe();
            assert!(
                words.contains("1234") || words.contains("4660"),
                "{kind:?}: {words}"
            );
        }
    }
}
