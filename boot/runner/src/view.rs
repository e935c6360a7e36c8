//! The viewer in the terminal, of a machine that runs or of memory in files.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use mm_viewer::tui::{self, Console};

use crate::cli::CliError;
use crate::input::Input;
use crate::show::ShowError;
use crate::symbols::{ElfSymbols, Symbols};
use crate::vm::{Boot, Finished, RunError};

/// Runs a machine behind the screen, which goes on when the machine has ended, until somebody quits; then the machine ends too.
pub(crate) fn run(
    boot: Boot,
    input: &Input,
    files: &[PathBuf],
    title: &str,
) -> Result<Option<Finished>, CliError> {
    let (printed, output) = channel();
    let (keys, typed) = channel();
    let (ended, end) = channel();
    // Commands of the command line need nobody to type.
    let input = match input {
        Input::Nothing => Input::Nothing,
        _ => Input::Typed(typed),
    };
    let mut symbols = ElfSymbols::of(&boot.image.elf);
    let (answer, finished) = channel::<Result<Finished, RunError>>();
    // Nobody waits for it when the screen is gone: QEMU ends with this process.
    let _machine = thread::spawn(move || {
        let run = boot.run(input, &mut Output(printed));
        let how = match &run {
            Ok(finished) => finished.outcome.to_string(),
            Err(error) => error.to_string(),
        };
        let _screen_gone = ended.send(how);
        let _screen_gone = answer.send(run);
    });
    let console = Console { output, keys, end };
    let mut names = |at| symbols.describe(at);
    tui::run(title, files, Some(console), &mut names).map_err(ShowError::Terminal)?;
    Ok(finished.try_recv().ok().transpose()?)
}

/// Shows memory that is in files.
pub(crate) fn files(files: &[PathBuf]) -> Result<(), ShowError> {
    // What cannot be read is told before the screen is taken.
    let _guest = crate::show::attach(files)?;
    let name = files.first().map(|file| file.display().to_string());
    // Which kernel it was nobody knows.
    let title = name.unwrap_or_default();
    tui::run(&title, files, None, &mut |_| None).map_err(ShowError::Terminal)
}

/// What the machine prints goes to the screen; if that is gone, nowhere.
struct Output(Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _screen_gone = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
