//! Puts the kernel on a GRUB CD image, with its command line, for machines with real firmware.

use core::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cmdline::CommandLine;
use crate::host::{Doing, HostError, workspace_root};
use crate::image::KernelImage;
use crate::machine::{Firmware, Machine};
use crate::qemu_args::{BootMedium, UefiFlash};
use crate::tools::{self, ToolError};

/// Why there is nothing to boot from.
#[derive(Debug)]
pub enum MediumError {
    /// The host failed.
    Host(HostError),
    /// A program is missing.
    Tools(ToolError),
    /// The image could not be made; what the script said.
    Script(String),
}

/// Prepares what `machine` boots `image` from; new files go to `folder`.
///
/// # Errors
/// Missing programs, or a failure of the script that makes the image.
pub(crate) fn medium(
    machine: &Machine,
    image: &KernelImage,
    cmdline: &CommandLine,
    folder: &Path,
) -> Result<BootMedium, MediumError> {
    let cmdline = cmdline.to_string();
    let kernel = image.elf.clone();
    match machine.firmware {
        Firmware::Direct => Ok(BootMedium::Elf { kernel, cmdline }),
        Firmware::Bios => {
            tools::iso_tools()?;
            let iso = make_iso(&kernel, &cmdline, &machine.grub_lines, folder)?;
            Ok(BootMedium::Cd { iso, uefi: None })
        }
        Firmware::Uefi => {
            let installed = tools::iso_tools()?;
            let iso = make_iso(&kernel, &cmdline, &machine.grub_lines, folder)?;
            let variables = folder.join("variables.fd");
            fs::copy(&installed.variables, &variables)
                .map_err(HostError::at(Doing::Copy, &variables))?;
            let uefi = Some(UefiFlash {
                code: installed.code,
                variables,
            });
            Ok(BootMedium::Cd { iso, uefi })
        }
    }
}

fn make_iso(
    kernel: &Path,
    cmdline: &str,
    grub_lines: &[String],
    folder: &Path,
) -> Result<std::path::PathBuf, MediumError> {
    let iso = folder.join("kernel.iso");
    let script = workspace_root().join("scripts/make-iso.sh");
    let output = Command::new("bash")
        .arg(&script)
        .args(grub_lines.iter().flat_map(|line| ["--grub-line", line]))
        .arg(kernel)
        .arg(cmdline)
        .arg(&iso)
        .output();
    let output = output.map_err(HostError::at(Doing::Start, &script))?;
    if output.status.success() {
        return Ok(iso);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(MediumError::Script(
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

impl From<HostError> for MediumError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<ToolError> for MediumError {
    fn from(error: ToolError) -> Self {
        Self::Tools(error)
    }
}

impl core::error::Error for MediumError {}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Tools(error) => error.fmt(f),
            Self::Script(said) => write!(f, "the CD image could not be made:\n{}", said.trim_end()),
        }
    }
}
