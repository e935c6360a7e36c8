//! Memory of a machine that nobody asked to keep: in files without a name, which are gone with this process, however it ends.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::host::{Doing, HostError};
use crate::machine::Machine;

/// Memory that is in a file needs no disk there.
const SHARED_MEMORY: &str = "/dev/shm";

/// The files, and a folder with the names that QEMU and viewers know them by. The names lead to descriptors of this process:
/// a Ctrl-C leaves no memory behind.
#[derive(Debug)]
pub(crate) struct Scratch {
    _names: TempDir,
    _files: Vec<File>,
}

impl Scratch {
    /// Gives a machine files for its memory.
    ///
    /// # Errors
    /// [`HostError`]: there is no room for them.
    pub(crate) fn of(machine: &mut Machine) -> Result<Self, HostError> {
        let here = Path::new("a temporary folder");
        let names = tempfile::tempdir().map_err(HostError::at(Doing::Create, here))?;
        let place = place(Path::new(SHARED_MEMORY), machine.memory.bytes());
        machine.ram_file = Some(names.path().join("ram"));
        let mut files = Vec::new();
        for name in machine.ram_files() {
            let file =
                tempfile::tempfile_in(&place).map_err(HostError::at(Doing::Create, &place))?;
            let target = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            symlink(target, &name).map_err(HostError::at(Doing::Create, &name))?;
            files.push(file);
        }
        Ok(Self {
            _names: names,
            _files: files,
        })
    }
}

/// Where so much memory goes: where no disk is written to, if there is room for all of it. (QEMU is killed by a signal when the
/// machine touches a page that finds none; containers have 64 MiB there.)
fn place(shared: &Path, bytes: u64) -> PathBuf {
    let room = statvfs(shared).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    match room {
        Ok(room) if room >= bytes => shared.to_owned(),
        _ => std::env::temp_dir(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Scratch, place};
    use crate::machine::Machine;
    use std::fs;
    use std::path::Path;

    #[test]
    fn what_a_killed_process_leaves_is_names_only() {
        let mut machine = Machine {
            numa: crate::numa::Numa {
                even: "2".parse().ok(),
                ..Default::default()
            },
            cpus: "2".parse().unwrap_or_else(|_| Machine::default().cpus),
            ..Machine::default()
        };
        let scratch = Scratch::of(&mut machine).unwrap();
        let files = machine.ram_files();
        assert_eq!(files.len(), 2);
        for (byte, name) in (1..).zip(&files) {
            fs::write(name, [byte; 4096]).unwrap();
            assert_eq!(fs::read(name).unwrap(), [byte; 4096]);
            assert!(fs::symlink_metadata(name).unwrap().is_symlink());
        }
        // The memory has no name of its own anywhere: it is there as long as this process has it open.
        let target = fs::read_link(fs::read_link(&files[0]).unwrap()).unwrap();
        assert!(
            target.to_string_lossy().ends_with(" (deleted)"),
            "{target:?}"
        );
        drop(scratch);
        assert!(!files[0].exists() && fs::symlink_metadata(&files[0]).is_err());
    }

    #[test]
    fn memory_goes_where_there_is_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(place(folder.path(), 1), folder.path());
        for (shared, bytes) in [(folder.path(), u64::MAX), (Path::new("/nowhere"), 1)] {
            assert_eq!(place(shared, bytes), std::env::temp_dir());
        }
    }
}
