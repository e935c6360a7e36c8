//! What is typed into the guest: nothing, this terminal's keys, or the lines of a file or pipe.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::termios::{self, InputModes, LocalModes, OptionalActions, Termios};

/// What the kernel's shell prints when it waits for a line.
pub const PROMPT: &str = "mm> ";

/// What the kernel prints when a command of its shell waits for any key.
const KEY_PROMPT: &str = "any key leads back";

/// What the guest waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// The next line.
    Line,
    /// Any key: the lines are for the shell.
    Key,
}

/// What is typed when the lines are at an end, so that the machine does not wait for ever.
const LAST_LINE: &str = "poweroff";

/// Where the guest's input comes from.
#[derive(Debug)]
pub enum Input {
    /// Nowhere.
    Nothing,
    /// The terminal on standard input, key by key; Ctrl-C is the guest's.
    Keys,
    /// The lines of standard input, one at each prompt of the shell, then `poweroff`.
    Lines,
    /// Whoever has the other end.
    Typed(Receiver<Vec<u8>>),
}

impl Input {
    /// What suits a shell on this process's standard input.
    #[must_use]
    pub fn of_stdin() -> Self {
        if io::stdin().is_terminal() {
            Self::Keys
        } else {
            Self::Lines
        }
    }

    pub(crate) fn stdio(&self) -> Stdio {
        match self {
            Self::Nothing => Stdio::null(),
            Self::Keys | Self::Lines | Self::Typed(_) => Stdio::piped(),
        }
    }
}

/// The typist at work; ends with the process, and gives the terminal back when dropped.
#[derive(Debug)]
pub(crate) struct Typist {
    prompts: Option<PromptWatch>,
    _terminal: Option<RawTerminal>,
}

impl Typist {
    /// Starts to type `input` into `guest`.
    pub(crate) fn start(input: Input, guest: Option<ChildStdin>) -> Self {
        match (input, guest) {
            (Input::Keys, Some(guest)) => {
                let terminal = RawTerminal::enter();
                thread::spawn(move || type_keys(guest));
                Self {
                    prompts: None,
                    _terminal: terminal,
                }
            }
            (Input::Lines, Some(guest)) => {
                let (sender, prompts) = channel();
                thread::spawn(move || type_lines(io::stdin().lock(), guest, &prompts));
                Self {
                    prompts: Some(PromptWatch::new(sender)),
                    _terminal: None,
                }
            }
            (Input::Typed(keys), Some(mut guest)) => {
                thread::spawn(move || {
                    let mut is_there = true;
                    while let Ok(typed) = keys.recv() {
                        is_there = is_there && guest.write_all(&typed).is_ok();
                    }
                });
                Self {
                    prompts: None,
                    _terminal: None,
                }
            }
            (Input::Nothing, _) | (_, None) => Self {
                prompts: None,
                _terminal: None,
            },
        }
    }

    /// Takes note of what the guest printed.
    pub(crate) fn notice(&mut self, output: &[u8]) {
        if let Some(prompts) = &mut self.prompts {
            prompts.notice(output);
        }
    }
}

/// Passes keys on until the terminal or the guest is gone.
fn type_keys(mut guest: ChildStdin) {
    let mut keys = [0; 64];
    while let Ok(count @ 1..) = io::stdin().read(&mut keys) {
        let typed = keys.get(..count).unwrap_or_default();
        if guest.write_all(typed).is_err() {
            return;
        }
    }
}

/// Types one line at each prompt: a guest's receive buffer is small, and bytes that arrive
/// before the kernel has set up its serial port are lost.
fn type_lines(source: impl BufRead, mut guest: impl Write, prompts: &Receiver<Wanted>) {
    let lines = source.lines().map_while(Result::ok);
    for line in lines.chain([LAST_LINE.to_owned()]) {
        if !type_keys_until_prompt(&mut guest, prompts) {
            return;
        }
        // Enter is a carriage return, as from a terminal.
        if guest.write_all(format!("{line}\r").as_bytes()).is_err() {
            return;
        }
    }
    // The guest's end of the pipe stays open until the machine is gone.
    while type_keys_until_prompt(&mut guest, prompts) {}
}

/// Types a key wherever one is wanted, up to the next prompt for a line. `false`: the machine is gone.
fn type_keys_until_prompt(guest: &mut impl Write, prompts: &Receiver<Wanted>) -> bool {
    loop {
        match prompts.recv() {
            Ok(Wanted::Line) => return true,
            Ok(Wanted::Key) if guest.write_all(b" ").is_ok() => {}
            Ok(Wanted::Key) | Err(_) => return false,
        }
    }
}

/// Finds the shell's prompts in a stream of output.
#[derive(Debug)]
struct PromptWatch {
    line: Vec<u8>,
    seen: Sender<Wanted>,
}

impl PromptWatch {
    const fn new(seen: Sender<Wanted>) -> Self {
        Self {
            line: Vec::new(),
            seen,
        }
    }

    fn notice(&mut self, output: &[u8]) {
        for &byte in output {
            if matches!(byte, b'\r' | b'\n') {
                self.line.clear();
                continue;
            }
            // One byte more than the longest: a line that goes on is something else.
            if self.line.len() <= KEY_PROMPT.len() {
                self.line.push(byte);
            } else {
                continue;
            }
            for (prompt, wanted) in [(PROMPT, Wanted::Line), (KEY_PROMPT, Wanted::Key)] {
                if self.line == prompt.as_bytes() {
                    // The typist may be done; then nobody waits for prompts.
                    let _typist_gone = self.seen.send(wanted);
                }
            }
        }
    }
}

/// A terminal that passes each key on, as long as this lives.
#[derive(Debug)]
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` when the terminal refuses; typing then works line by line.
    fn enter() -> Option<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        raw.input_modes.remove(InputModes::ICRNL | InputModes::IXON);
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _gone = termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::{PromptWatch, Wanted, type_lines};
    use std::sync::mpsc::channel;

    fn prompts_in(chunks: &[&str]) -> usize {
        let (sender, seen) = channel();
        let mut watch = PromptWatch::new(sender);
        for chunk in chunks {
            watch.notice(chunk.as_bytes());
        }
        seen.try_iter().count()
    }

    #[test]
    fn a_prompt_is_seen_at_the_start_of_a_line_however_it_is_cut() {
        assert_eq!(prompts_in(&["boot\r\nmm> "]), 1);
        assert_eq!(
            prompts_in(&["m", "m", ">", " ", "help\r\nx\r\n", "mm> "]),
            2
        );
        assert_eq!(prompts_in(&["say mm> \r\n", "mm>\r\n", "xmm> "]), 0);
    }

    #[test]
    fn each_prompt_gets_one_line_and_the_last_gets_poweroff() {
        let typed = |prompts: usize| {
            let (sender, receiver) = channel();
            for _ in 0..prompts {
                sender.send(Wanted::Line).unwrap();
            }
            drop(sender);
            let mut guest = Vec::new();
            type_lines("help\ndmesg".as_bytes(), &mut guest, &receiver);
            String::from_utf8(guest).unwrap()
        };
        assert_eq!(typed(0), "");
        assert_eq!(typed(2), "help\rdmesg\r");
        assert_eq!(typed(5), "help\rdmesg\rpoweroff\r");
    }

    #[test]
    fn a_command_that_waits_for_a_key_gets_one_and_no_line() {
        let (sender, receiver) = channel();
        let mut watch = PromptWatch::new(sender);
        watch.notice(b"mm> view\r\nany key leads back\r\nmm> echo any key leads back\r\nmm> ");
        drop(watch);
        let mut guest = Vec::new();
        type_lines("view\necho".as_bytes(), &mut guest, &receiver);
        assert_eq!(guest, b"view\r echo\rpoweroff\r");
    }
}
