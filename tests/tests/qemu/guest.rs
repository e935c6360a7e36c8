//! Boots for the tests: a line of runner options and commands in, a recorded boot out.

use core::fmt;
use core::time::Duration;
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Mutex;

use boot_runner::cmdline::CommandsError;
use boot_runner::image::KernelImage;
use boot_runner::kernel::{BuildError, KernelBuild};
use boot_runner::machine::Firmware;
use boot_runner::options::{BootOptions, Invocation};
use boot_runner::usage::UsageError;
use boot_runner::vm::{Boot, Recorded, RunError};

/// Time for a boot that QEMU does itself, in-kernel tests included.
pub(crate) const DIRECT_LIMIT: Duration = Duration::from_secs(120);
/// Time for one that goes through firmware and GRUB.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(180);

/// Why there was no boot.
#[derive(Debug)]
pub(crate) enum GuestError {
    /// The case's options are no options for a boot.
    Options(Option<UsageError>),
    /// The case's commands cannot be given to the kernel.
    Commands(CommandsError),
    /// There is no kernel.
    Build(BuildError),
    /// There was no machine.
    Run(RunError),
}

/// A line of options as the words that a shell would make of it: blanks part words, except
/// between single quotes.
pub(crate) fn words(line: &str) -> impl Iterator<Item = OsString> {
    let mut quoted = false;
    let words = line.split(move |character: char| {
        quoted ^= character == '\'';
        character.is_whitespace() && !quoted
    });
    let words = words.filter(|word| !word.is_empty());
    words.map(|word| OsString::from(word.replace('\'', "")))
}

/// Options that describe a boot.
pub(crate) fn options(line: &str) -> Result<Box<BootOptions>, GuestError> {
    match Invocation::parse(words(line)) {
        Ok(Invocation::Boot(options)) => Ok(options),
        Ok(Invocation::Help | Invocation::View(..)) => Err(GuestError::Options(None)),
        Err(error) => Err(GuestError::Options(Some(error))),
    }
}

/// Boots the kernel of `options` to run `commands`.
pub(crate) fn boot(options: &BootOptions, commands: &str) -> Result<Recorded, GuestError> {
    let mut options = options.clone();
    options.cmdline.commands = Some(commands.parse().map_err(GuestError::Commands)?);
    start(&options)
}

/// Boots the kernel of `options` with their command line.
pub(crate) fn start(options: &BootOptions) -> Result<Recorded, GuestError> {
    let limit = match options.machine.firmware {
        Firmware::Direct => DIRECT_LIMIT,
        Firmware::Bios | Firmware::Uefi => FIRMWARE_LIMIT,
    };
    let image = kernel(options.kernel).map_err(GuestError::Build)?;
    let boot = Boot {
        image,
        machine: options.machine.clone(),
        cmdline: options.cmdline.clone(),
        timeout: Some(limit),
    };
    boot.record().map_err(GuestError::Run)
}

/// The kernel of `build`, built once.
pub(crate) fn kernel(build: KernelBuild) -> Result<KernelImage, BuildError> {
    static BUILT: Mutex<Option<HashMap<KernelBuild, KernelImage>>> = Mutex::new(None);
    let mut built = BUILT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let images = built.get_or_insert_default();
    if let Some(image) = images.get(&build) {
        return Ok(image.clone());
    }
    let image = build.build()?;
    images.insert(build, image.clone());
    Ok(image)
}

impl core::error::Error for GuestError {}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(None) => write!(f, "the case asks for help only"),
            Self::Options(Some(error)) => error.fmt(f),
            Self::Commands(error) => error.fmt(f),
            Self::Build(error) => error.fmt(f),
            Self::Run(error) => error.fmt(f),
        }
    }
}
