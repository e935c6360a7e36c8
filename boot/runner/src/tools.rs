//! Finds the programs a boot needs, and installs them where that can be done.

use core::fmt;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::{Doing, HostError, lock_file, workspace_root};
use crate::qemu_args::UefiFlash;

/// A set of programs and files that `scripts/setup.sh` installs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolSet {
    /// QEMU.
    Qemu,
    /// What makes and boots a GRUB CD image: GRUB, xorriso, mtools and OVMF.
    Iso,
}

/// Why a boot has not what it needs.
#[derive(Debug)]
pub enum ToolError {
    /// The host failed.
    Host(HostError),
    /// The set is missing, and the script could not install it (it has said what to type).
    NotInstalled(ToolSet),
    /// The script installed the set, and yet something of it is not found.
    NotFound(ToolSet),
}

/// QEMU's program, installed first when it is missing.
///
/// # Errors
/// When QEMU is missing and cannot be installed without help.
pub fn qemu() -> Result<PathBuf, ToolError> {
    find_or_install(ToolSet::Qemu, installed_qemu)
}

/// QEMU's program, if it is installed.
#[must_use]
pub fn installed_qemu() -> Option<PathBuf> {
    program("qemu-system-x86_64")
}

/// Makes sure that CD images can be made, and returns the UEFI firmware to boot them with.
pub(crate) fn iso_tools() -> Result<UefiFlash, ToolError> {
    find_or_install(ToolSet::Iso, || {
        // Fedora has the first under the name grub2-mkrescue.
        program("grub-mkrescue").or_else(|| program("grub2-mkrescue"))?;
        program("xorriso")?;
        program("mformat")?;
        ovmf()
    })
}

/// Finds `name` in the search path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Where distributions keep OVMF: code, and the template of its variables.
const OVMF: [(&str, &str); 6] = [
    // Debian, Ubuntu
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    // Fedora
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    // Arch
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.fd",
        "/usr/share/edk2/x64/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
        "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd",
    ),
];

fn ovmf() -> Option<UefiFlash> {
    let pairs = OVMF.into_iter().map(|(code, variables)| UefiFlash {
        code: PathBuf::from(code),
        variables: PathBuf::from(variables),
    });
    pairs
        .into_iter()
        .find(|flash| flash.code.is_file() && flash.variables.is_file())
}

fn find_or_install<T>(set: ToolSet, find: impl Fn() -> Option<T>) -> Result<T, ToolError> {
    if let Some(found) = find() {
        return Ok(found);
    }
    // One installer at a time; who waited for the lock looks again before installing.
    let _lock = lock_file(&workspace_root().join("target/.setup.lock"))?;
    if let Some(found) = find() {
        return Ok(found);
    }
    install(set)?;
    find().ok_or(ToolError::NotFound(set))
}

fn install(set: ToolSet) -> Result<(), ToolError> {
    let script = workspace_root().join("scripts/setup.sh");
    let name = match set {
        ToolSet::Qemu => "qemu",
        ToolSet::Iso => "iso",
    };
    let status = Command::new("bash").arg(&script).arg(name).status();
    let status = status.map_err(HostError::at(Doing::Start, &script))?;
    if status.success() {
        Ok(())
    } else {
        Err(ToolError::NotInstalled(set))
    }
}

impl From<HostError> for ToolError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl core::error::Error for ToolError {}

impl fmt::Display for ToolSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "QEMU (qemu-system-x86_64)",
            Self::Iso => "what makes a CD image (grub-mkrescue, xorriso, mtools, OVMF)",
        })
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::NotInstalled(set) => {
                write!(
                    f,
                    "{set} is missing; the command to install it is printed above"
                )
            }
            Self::NotFound(set) => {
                write!(
                    f,
                    "{set} was installed, but not all of it is where it was looked for"
                )
            }
        }
    }
}
