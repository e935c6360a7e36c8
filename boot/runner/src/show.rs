//! Looking at a machine's memory: pictures of it, and all of it in a terminal.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread;

use mm_viewer::guest::{AttachError, Guest};
use mm_viewer::history::History;
use mm_viewer::movie::Movie;
use mm_viewer::picture::{Picture, PictureError};
use mm_viewer::ram::{Ram, RamError};
use mm_viewer::snapshot::Snapshot;
use mm_viewer::{space, splits};

use crate::cli::CliError;
use crate::host::{Doing, HostError};
use crate::input::Input;
use crate::options::Show;
use crate::scratch::Scratch;
use crate::vm::{Boot, Finished};

/// Pictures of a movie come so far apart.
const FRAME: Duration = Duration::from_millis(100);
/// The same in hundredths of a second, as the format counts.
const HUNDREDTHS: u16 = 10;

/// Why nothing can be shown.
#[derive(Debug)]
pub enum ShowError {
    /// The memory cannot be read.
    Ram(RamError),
    /// Nothing is found in it.
    Attach(AttachError),
    /// A picture cannot be written.
    Picture(PathBuf, PictureError),
    /// No block was halved in what was recorded.
    NoSplits,
    /// There is no room for the memory.
    Host(HostError),
    /// The terminal refuses.
    Terminal(io::Error),
    /// There is none.
    NoTerminal,
}

impl core::error::Error for ShowError {}

impl fmt::Display for ShowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram(error) => error.fmt(f),
            Self::Attach(error) => error.fmt(f),
            Self::Picture(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::NoSplits => f.write_str("no block was halved in what the kernel recorded last"),
            Self::Host(error) => error.fmt(f),
            Self::Terminal(error) => write!(f, "the terminal: {error}"),
            Self::NoTerminal => f.write_str(
                "the viewer draws on a terminal, and standard output is none; for a picture in a file there is --picture",
            ),
        }
    }
}

impl From<HostError> for ShowError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

/// A machine that was shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// How it ended; nothing, if the screen was left before.
    pub(crate) finished: Option<Finished>,
    /// Whether all that was wanted of its memory could be written.
    pub(crate) saved: Result<(), ShowError>,
}

/// Whether what is wanted can be written at all: found out before minutes go into a run.
///
/// # Errors
/// [`ShowError`].
pub(crate) fn check(show: &Show) -> Result<(), ShowError> {
    let paths = [&show.picture, &show.movie, &show.splits, &show.addresses];
    for path in paths.into_iter().flatten() {
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).open(path);
        opened.map_err(HostError::at(Doing::Create, path))?;
        if is_new {
            fs::remove_file(path).map_err(HostError::at(Doing::Create, path))?;
        }
    }
    match show.view {
        true => has_terminal(),
        false => Ok(()),
    }
}

/// A viewer needs one.
fn has_terminal() -> Result<(), ShowError> {
    let is_there = io::stdout().is_terminal();
    is_there.then_some(()).ok_or(ShowError::NoTerminal)
}

/// Boots a machine with its memory in files, and shows what is to be shown.
///
/// # Errors
/// [`CliError`]: it could not be run; it is gone in any case.
pub(crate) fn run(mut boot: Boot, input: Input, show: &Show) -> Result<Shown, CliError> {
    // It goes when this returns.
    let _scratch = match boot.machine.ram_file {
        Some(_) => None,
        None => Some(Scratch::of(&mut boot.machine).map_err(ShowError::from)?),
    };
    let files = boot.machine.ram_files();
    let title = title(&boot);
    let (finished, filmed) = match show.view {
        true => (crate::view::run(boot, &input, &files, &title)?, Ok(())),
        false => {
            let (finished, filmed) = watch(&boot, input, &files, show, &title)?;
            (Some(finished), filmed)
        }
    };
    let saved = filmed.and_then(|()| save(show, &files, &title));
    Ok(Shown { finished, saved })
}

/// Shows memory that is in files.
///
/// # Errors
/// [`ShowError`].
pub fn files(files: &[PathBuf], show: &Show) -> Result<(), ShowError> {
    let name = files.first().map(|file| file.display().to_string());
    match show.is_nothing() {
        true => has_terminal().and_then(|()| crate::view::files(files)),
        false => save(show, files, &name.unwrap_or_default()),
    }
}

/// A machine in files.
///
/// # Errors
/// [`ShowError`].
pub fn attach(files: &[PathBuf]) -> Result<Guest, ShowError> {
    let ram = Ram::open(files).map_err(ShowError::Ram)?;
    Guest::attach(ram).map_err(|(error, _)| ShowError::Attach(error))
}

/// Writes what is wanted of memory as it is now.
fn save(show: &Show, files: &[PathBuf], title: &str) -> Result<(), ShowError> {
    if let Some(path) = &show.picture {
        let picture = Picture::new(&Snapshot::take(&attach(files)?), title);
        let saved = picture.save(path);
        saved.map_err(|error| ShowError::Picture(path.clone(), error))?;
    }
    if let Some(path) = &show.splits {
        let history = History::read(&attach(files)?, u64::MAX);
        write(path, &splits::svg(&history).ok_or(ShowError::NoSplits)?)?;
    }
    if let Some(path) = &show.addresses {
        write(path, &space::draw(&attach(files)?, title))?;
    }
    Ok(())
}

fn write(path: &Path, drawing: &str) -> Result<(), HostError> {
    fs::write(path, drawing).map_err(HostError::at(Doing::Create, path))
}

/// What a machine's pictures are called: what it is, and what it was told to do.
#[must_use]
pub fn title(boot: &Boot) -> String {
    let machine = &boot.machine;
    let mut title = format!("{} of memory, {} CPUs", machine.memory, machine.cpus);
    if let Some(commands) = &boot.cmdline.commands {
        title.push_str(&format!(": {commands}"));
    }
    title
}

/// Runs the machine; if there is to be a movie, looks at its memory meanwhile. Answers how both ended.
fn watch(
    boot: &Boot,
    input: Input,
    files: &[PathBuf],
    show: &Show,
    title: &str,
) -> Result<(Finished, Result<(), ShowError>), CliError> {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let movie = show.movie.as_deref();
        let movie = movie.map(|path| scope.spawn(|| film(path, files, title, &has_ended)));
        let finished = boot.run(input, &mut io::stdout());
        has_ended.store(true, Ordering::Release);
        let filmed = match movie.map(thread::ScopedJoinHandle::join) {
            Some(Ok(filmed)) => filmed,
            _ => Ok(()),
        };
        Ok((finished?, filmed))
    })
}

/// Takes pictures until the machine has ended, and one then.
fn film(
    path: &Path,
    files: &[PathBuf],
    title: &str,
    has_ended: &AtomicBool,
) -> Result<(), ShowError> {
    let wrong = |error| ShowError::Picture(path.to_owned(), error);
    let mut guest = None;
    let mut movie: Option<Movie> = None;
    loop {
        let is_last = has_ended.load(Ordering::Acquire);
        // There is nothing to be seen before the kernel has come so far.
        if guest.is_none() {
            match attach(files) {
                Ok(found) => guest = Some(found),
                Err(error) if is_last => return Err(error),
                Err(_) => {}
            }
        }
        if let Some(guest) = &mut guest {
            guest.refresh();
            let picture = Picture::new(&Snapshot::take(guest), title);
            let movie = match &mut movie {
                Some(movie) => movie,
                none => none.insert(Movie::new(path, &picture, HUNDREDTHS).map_err(wrong)?),
            };
            movie.add(picture).map_err(wrong)?;
        }
        if is_last {
            break;
        }
        thread::sleep(FRAME);
    }
    movie.map_or(Ok(()), |movie| movie.finish().map_err(wrong))
}
