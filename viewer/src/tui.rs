//! The viewer in a terminal: what is shown, and what keys do. Drawing is in [`draw`], the loop in [`run`].

mod draw;
mod past;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use draw::draw;
pub use past::Past;
pub use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
pub use run::{Console, run};

use crate::grid::log_for;
use crate::snapshot::{CpuList, Snapshot};

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pane {
    /// The frames as cells.
    #[default]
    Map,
    /// Zones, marks and free blocks.
    Zones,
    /// What CPUs have at hand.
    Cpus,
    /// Caches of objects.
    Caches,
    /// Areas of kernel addresses.
    Areas,
    /// All numbers, and how fast they change.
    Numbers,
    /// What the machine prints, and what is typed into it.
    Console,
    /// What happened to blocks and pages.
    Events,
}

impl Pane {
    /// All of them, by key from 1 on.
    pub const ALL: [Self; 8] = [
        Self::Map,
        Self::Zones,
        Self::Cpus,
        Self::Caches,
        Self::Areas,
        Self::Numbers,
        Self::Console,
        Self::Events,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Zones => "zones",
            Self::Cpus => "CPUs",
            Self::Caches => "caches",
            Self::Areas => "areas",
            Self::Numbers => "numbers",
            Self::Console => "console",
            Self::Events => "events",
        }
    }
}

/// By what caches are sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// The largest first.
    #[default]
    Frames,
    /// By the alphabet.
    Name,
    /// The largest objects first.
    Size,
    /// The most objects first.
    Objects,
}

/// Where a machine is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// It can be seen.
    Seen,
    /// It cannot, for this reason.
    Unseen(String),
    /// It is gone; what is shown is its last.
    Ended(String),
}

/// What a key asks for that is not the screen's affair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// To end.
    Quit,
    /// To type this into the machine.
    Type(Vec<u8>),
}

/// What is on the screen.
#[derive(Clone, Debug)]
pub struct Ui {
    /// What is shown.
    pub pane: Pane,
    /// What it is of.
    pub title: String,
    /// Where the machine is.
    pub status: Status,
    /// The memory as it was seen last.
    pub snapshot: Snapshot,
    /// By how much numbers changed in the last second.
    pub rates: BTreeMap<String, i128>,
    /// What is known of the selected frame.
    pub selected: Vec<String>,
    /// What happened before.
    pub past: Past,
    /// Nothing is looked at anew.
    pub is_paused: bool,
    /// Keys are explained.
    pub helps: bool,
    /// The frame that is selected, …
    pub cursor: u64,
    /// … the first that is shown, and log2 of the frames of a cell; none: all are shown.
    pub window: Option<(u64, u32)>,
    /// Cells of the map: columns and rows, as it was drawn last.
    pub cells: (u64, u64),
    /// How far lists are scrolled.
    pub scroll: usize,
    /// How caches are sorted.
    pub order: Order,
    /// What the machine printed last.
    pub console: Vec<String>,
}

impl Ui {
    /// A screen without a machine.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self {
            pane: Pane::Map,
            title: title.to_owned(),
            status: Status::Unseen("waiting for the kernel".to_owned()),
            snapshot: Snapshot::default(),
            rates: BTreeMap::new(),
            selected: Vec::new(),
            past: Past::default(),
            is_paused: false,
            helps: false,
            cursor: 0,
            window: None,
            cells: (80, 16),
            scroll: 0,
            order: Order::Frames,
            console: Vec::new(),
        }
    }

    /// Frames that there are to be seen.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.snapshot.owners.len() as u64
    }

    /// The first frame of the map and log2 of the frames of a cell.
    #[must_use]
    pub fn shown(&self) -> (u64, u32) {
        let (columns, rows) = self.cells;
        let all = log_for(self.frames(), columns * rows);
        self.window
            .map_or((0, all), |(first, log)| (first, log.min(all)))
    }

    /// All numbers, by name.
    #[must_use]
    pub fn numbers(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = self.snapshot.numbers.clone();
        for zone in &self.snapshot.zones {
            let prefix = format!("node {} {}", zone.node, zone.name);
            for (name, value) in &zone.numbers {
                all.insert(format!("{prefix}: {name}"), *value);
            }
            let sum = |of: fn(&CpuList) -> u64| {
                let all = zone.lists.iter().map(of);
                all.fold(0, u64::wrapping_add)
            };
            all.insert(format!("{prefix}: freed to lists"), sum(|list| list.freed));
            all.insert(format!("{prefix}: refilled"), sum(|list| list.refilled));
            all.insert(format!("{prefix}: drained"), sum(|list| list.drained));
        }
        all
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Asked {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if self.helps {
            self.helps = false;
            return Asked::Nothing;
        }
        if self.pane == Pane::Console {
            return self.console_key(key, is_control);
        }
        match key.code {
            KeyCode::Char('c') if is_control => return Asked::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.helps = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char(digit @ '1'..='8') => {
                let place = digit as usize - '1' as usize;
                if let Some(&pane) = Pane::ALL.get(place) {
                    self.show(pane);
                }
            }
            KeyCode::Tab => self.show(self.next_pane(1)),
            KeyCode::BackTab => self.show(self.next_pane(Pane::ALL.len() - 1)),
            KeyCode::Char('s') if self.pane == Pane::Caches => {
                self.order = match self.order {
                    Order::Frames => Order::Name,
                    Order::Name => Order::Size,
                    Order::Size => Order::Objects,
                    Order::Objects => Order::Frames,
                };
            }
            code if self.past_key(code) => {}
            code if self.pane == Pane::Map => self.map_key(code),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(16),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(16),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        Asked::Nothing
    }

    fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.scroll = 0;
    }

    fn next_pane(&self, step: usize) -> Pane {
        let place = Pane::ALL.iter().position(|&pane| pane == self.pane);
        let next = (place.unwrap_or(0) + step) % Pane::ALL.len();
        Pane::ALL.get(next).copied().unwrap_or_default()
    }

    /// Keys go to the machine, but for those that lead away.
    fn console_key(&mut self, key: KeyEvent, is_control: bool) -> Asked {
        match key.code {
            KeyCode::Esc | KeyCode::Tab => {
                self.show(self.next_pane(1));
                Asked::Nothing
            }
            KeyCode::Enter => Asked::Type(b"\r".to_vec()),
            KeyCode::Backspace => Asked::Type(vec![0x7f]),
            KeyCode::Char(letter @ 'a'..='z') if is_control => {
                Asked::Type(vec![letter as u8 - b'a' + 1])
            }
            KeyCode::Char(letter) => Asked::Type(letter.to_string().into_bytes()),
            _ => Asked::Nothing,
        }
    }

    /// Moves the cursor, and the window behind it.
    fn map_key(&mut self, code: KeyCode) {
        let (first, log) = self.shown();
        let (columns, rows) = self.cells;
        let cell = 1_u64 << log;
        let last = self.frames().saturating_sub(1);
        let cursor = self.cursor >> log << log;
        let page = columns * rows * cell;
        let (row, screen) = (
            columns * cell,
            page.saturating_sub(columns * cell).max(cell),
        );
        self.cursor = match code {
            KeyCode::Left => cursor.saturating_sub(cell),
            KeyCode::Right => (cursor + cell).min(last),
            KeyCode::Up => cursor.checked_sub(row).unwrap_or(self.cursor),
            KeyCode::Down if cursor + row <= last => cursor + row,
            KeyCode::PageUp => cursor.saturating_sub(screen),
            KeyCode::PageDown => (cursor + screen).min(last),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => self.cursor,
        };
        let log = match code {
            KeyCode::Char('+' | '=') => log.saturating_sub(1),
            KeyCode::Char('-') => log + 1,
            KeyCode::Char('0') => {
                self.window = None;
                return;
            }
            _ => log,
        };
        let all = log_for(self.frames(), columns * rows);
        if log >= all {
            self.window = None;
            return;
        }
        // The cursor's row stays in sight.
        let row = columns << log;
        let is_zoom = log != self.shown().1;
        let at = self.cursor / row * row;
        let end = first.saturating_add(row * rows);
        let first = if is_zoom {
            at.saturating_sub(rows / 2 * row)
        } else if at < first {
            at
        } else if self.cursor >= end {
            at.saturating_sub((rows - 1) * row)
        } else {
            first
        };
        self.window = Some((first, log));
    }
}
