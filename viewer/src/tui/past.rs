//! Going back in time: what happened last, undone event by event.

use super::{KeyCode, Ui};
use crate::guest::Guest;
use crate::history::History;
use crate::snapshot::Snapshot;

/// Events that one of the larger steps goes.
const STRIDE: usize = 100;
/// Events of each CPU that are read while nobody goes back.
const LATEST: u64 = 256;

/// What happened, and how far back the screen is.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// What happened, as far as it was read.
    pub history: History,
    /// How many of the last events are undone.
    pub undone: usize,
    /// What was seen before any was undone; nothing while the machine is looked at live.
    now: Option<Snapshot>,
}

impl Past {
    /// The past of what is seen now: it can be undone.
    pub(super) fn new(history: History, now: &Snapshot) -> Self {
        Self {
            history,
            undone: 0,
            now: Some(now.clone()),
        }
    }
}

impl Ui {
    /// Takes a new look at a machine: at all that is known of its past, if the screen is paused, or else at what happened last.
    pub fn look(&mut self, guest: &Guest) {
        self.snapshot = Snapshot::take(guest);
        self.past = match self.is_paused {
            true => Past::new(History::read(guest, u64::MAX), &self.snapshot),
            false => Past {
                history: History::read(guest, LATEST),
                ..Past::default()
            },
        };
    }

    /// Whether it is paused, and nobody has looked since.
    pub(super) const fn wants_past(&self) -> bool {
        self.is_paused && self.past.now.is_none()
    }

    /// Goes back and forth. Answers whether that was a key for it.
    pub(super) fn past_key(&mut self, code: KeyCode) -> bool {
        let undone = self.past.undone;
        let undone = match code {
            KeyCode::Char('[') => undone.saturating_add(1),
            KeyCode::Char('{') => undone.saturating_add(STRIDE),
            KeyCode::Char(']') => undone.saturating_sub(1),
            KeyCode::Char('}') => undone.saturating_sub(STRIDE),
            KeyCode::Char('n') => 0,
            _ => return false,
        };
        // The first key only stops it: what is undone must be read first.
        self.is_paused = true;
        if let Some(now) = &self.past.now {
            self.past.undone = undone.min(self.past.history.events.len());
            self.snapshot.owners = self.past.history.undo(&now.owners, self.past.undone);
            self.scroll = 0;
        }
        true
    }

    /// Where in time the screen is, if not in the present.
    pub(super) fn when(&self) -> Option<String> {
        let past = &self.past;
        let place = past.history.events.len().checked_sub(past.undone)?;
        let last = place
            .checked_sub(1)
            .and_then(|place| past.history.events.get(place));
        let age = last.and_then(|event| past.history.age_us(event));
        let age = age.map_or(String::new(), |age| format!(", {age:.1} us"));
        (past.undone > 0).then(|| format!("{} events{age} back", past.undone))
    }

    /// How many events happened that are not undone.
    pub(super) fn happened(&self) -> usize {
        let events = self.past.history.events.len();
        events.saturating_sub(self.past.undone)
    }

    /// So many of them from one on, the latest first: when, where, what.
    pub(super) fn happenings(&self, first: usize, count: usize) -> Vec<Vec<String>> {
        let history = &self.past.history;
        let events = history.events.iter().rev().skip(self.past.undone);
        let events = events.skip(first).take(count);
        events
            .map(|happening| {
                let age = history.age_us(happening);
                vec![
                    age.map_or_else(|| happening.time.to_string(), |age| format!("-{age:.1}")),
                    happening.cpu.to_string(),
                    happening.event.kind.name().to_owned(),
                    happening.describe(),
                ]
            })
            .collect()
    }
}
