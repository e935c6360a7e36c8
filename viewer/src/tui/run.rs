//! The loop: look at the machine, draw, take keys.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::{Asked, Status, Ui, draw};
use crate::frame::{Names, describe};
use crate::guest::Guest;
use crate::ram::Ram;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// How long the processor's time may be taken by looks: not longer than a quarter of the time.
const SHARE: u32 = 4;
/// Rates are by this.
const SECOND: Duration = Duration::from_secs(1);
/// Lines of the console that are kept.
const LINES: usize = 2000;

/// The machine's serial line, and how it ends.
#[derive(Debug)]
pub struct Console {
    /// What it prints.
    pub output: Receiver<Vec<u8>>,
    /// What is typed.
    pub keys: Sender<Vec<u8>>,
    /// How it ended, once it has.
    pub end: Receiver<String>,
}

/// Shows the memory in files until somebody quits. `names` knows the machine's functions, if anybody does.
///
/// # Errors
/// Those of the terminal.
pub fn run(
    title: &str,
    files: &[PathBuf],
    console: Option<Console>,
    names: Names<'_>,
) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    // Not all terminals have a second screen: what was printed before goes.
    terminal.clear()?;
    let mut ui = Ui::new(title);
    let mut looker = Looker {
        files,
        guest: None,
        next: Instant::now(),
        rates: Instant::now(),
        before: BTreeMap::new(),
    };
    let ended = loop {
        if let Some(console) = &console {
            take_output(&mut ui, console);
        }
        looker.look(&mut ui, names);
        if let Err(error) = terminal.draw(|frame| draw(frame, &mut ui)) {
            break Err(error);
        }
        match keys(&mut ui, looker.next, console.as_ref()) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::try_restore()?;
    ended
}

/// Takes keys until it is time for the next look. `false`: somebody quits.
fn keys(ui: &mut Ui, until: Instant, console: Option<&Console>) -> io::Result<bool> {
    let mut wait = until.saturating_duration_since(Instant::now());
    while event::poll(wait)? {
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match ui.key(key) {
                Asked::Quit => return Ok(false),
                Asked::Type(bytes) => {
                    if let Some(console) = console {
                        // A machine that is gone takes no keys.
                        let _gone = console.keys.send(bytes);
                    }
                }
                Asked::Nothing => {}
            }
        }
        wait = Duration::ZERO;
    }
    Ok(true)
}

fn take_output(ui: &mut Ui, console: &Console) {
    while let Ok(piece) = console.output.try_recv() {
        push(&mut ui.console, &piece);
    }
    match console.end.try_recv() {
        Ok(how) => ui.status = Status::Ended(how),
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
    }
}

/// Adds what was printed to lines; the last one is not ended yet.
fn push(lines: &mut Vec<String>, piece: &[u8]) {
    for &byte in piece {
        match byte {
            b'\n' => lines.push(String::new()),
            b'\r' => {}
            8 | 0x7f => {
                if let Some(line) = lines.last_mut() {
                    line.pop();
                }
            }
            b' '..=b'~' => {
                if lines.is_empty() {
                    lines.push(String::new());
                }
                if let Some(line) = lines.last_mut() {
                    line.push(char::from(byte));
                }
            }
            _ => {}
        }
    }
    let surplus = lines.len().saturating_sub(LINES);
    lines.drain(..surplus);
}

/// Who looks at the machine.
struct Looker<'f> {
    files: &'f [PathBuf],
    guest: Option<Guest>,
    next: Instant,
    /// When rates were reckoned last, and the numbers then.
    rates: Instant,
    before: BTreeMap<String, u64>,
}

impl Looker<'_> {
    fn look(&mut self, ui: &mut Ui, names: Names<'_>) {
        let began = Instant::now();
        if began < self.next {
            return;
        }
        if !ui.is_paused || ui.wants_past() {
            self.look_now(ui, began);
        }
        if let Some(guest) = &self.guest {
            ui.selected = describe(guest, &ui.snapshot, ui.cursor, names);
        }
        let ended = Instant::now();
        let took = ended.saturating_duration_since(began);
        self.next = ended + LOOK.saturating_sub(took).max(took * (SHARE - 1));
    }

    fn look_now(&mut self, ui: &mut Ui, now: Instant) {
        if self.guest.is_none() {
            let attached = Ram::open(self.files).map_err(|error| error.to_string());
            let attached =
                attached.and_then(|ram| Guest::attach(ram).map_err(|(error, _)| error.to_string()));
            match attached {
                Ok(guest) => self.guest = Some(guest),
                Err(why) if matches!(ui.status, Status::Unseen(_)) => {
                    ui.status = Status::Unseen(why);
                }
                Err(_) => {}
            }
        }
        let Some(guest) = &mut self.guest else { return };
        guest.refresh();
        ui.look(guest);
        if now.saturating_duration_since(self.rates) >= SECOND {
            let numbers = ui.numbers();
            let change = |(name, value): (&String, &u64)| {
                let before = self.before.get(name).copied().unwrap_or(*value);
                (name.clone(), i128::from(*value) - i128::from(before))
            };
            ui.rates = numbers.iter().map(change).collect();
            self.before = numbers;
            self.rates = now;
        }
        if matches!(ui.status, Status::Unseen(_)) {
            ui.status = Status::Seen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::push;

    #[test]
    fn what_is_printed_becomes_lines() {
        let mut lines = Vec::new();
        push(&mut lines, b"mm> he");
        push(&mut lines, b"x\x08lp\r\n\x1b[2Kyes\r\n");
        assert_eq!(lines, ["mm> help", "[2Kyes", ""]);
        for _ in 0..3000 {
            push(&mut lines, b"more\n");
        }
        assert_eq!(lines.len(), 2000);
    }
}
