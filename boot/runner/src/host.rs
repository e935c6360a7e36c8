//! This computer: where the workspace is, and errors of its files and processes.

use core::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What was being done when the host failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Creating a file or folder.
    Create,
    /// Taking a file lock.
    Lock,
    /// Copying a file.
    Copy,
    /// Renaming a file.
    Rename,
    /// Starting a program.
    Start,
    /// Talking to or waiting for a running program.
    Talk,
    /// Writing the machine's output on.
    Print,
}

/// A failure of the host's files or processes.
#[derive(Debug)]
pub struct HostError {
    /// What was being done.
    pub doing: Doing,
    /// With what.
    pub path: PathBuf,
    /// What the host said.
    pub source: io::Error,
}

impl HostError {
    /// For `map_err`: `source` happened while `doing` something with `path`.
    pub(crate) fn at(doing: Doing, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

impl core::error::Error for HostError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.doing {
            Doing::Create => "create",
            Doing::Lock => "lock",
            Doing::Copy => "copy to",
            Doing::Rename => "rename to",
            Doing::Start => "start",
            Doing::Talk => "talk to",
            Doing::Print => "write to",
        };
        write!(f, "cannot {doing} {}: {}", self.path.display(), self.source)
    }
}

/// The workspace that this crate was built in.
#[must_use]
pub fn workspace_root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

/// Takes an exclusive lock on the file at `path`, waiting for it; dropping the file releases it.
pub(crate) fn lock_file(path: &Path) -> Result<File, HostError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(HostError::at(Doing::Create, folder))?;
    }
    let file = File::create(path).map_err(HostError::at(Doing::Create, path))?;
    file.lock().map_err(HostError::at(Doing::Lock, path))?;
    Ok(file)
}
