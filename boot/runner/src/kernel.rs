//! Builds the kernel with a nested cargo and keeps the images of different builds apart.
//!
//! The nested build has a target folder of its own, so it cannot deadlock with the cargo that
//! started us, and a clean environment: compiler flags and wrappers meant for host programs must
//! not reach the kernel. The finished ELF is copied to a name of its own while a lock is held, so
//! that parallel runs never boot each other's kernel, or half of one.

use core::fmt;
use core::str::FromStr;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::host::{Doing, HostError, lock_file, workspace_root};
use crate::image::KernelImage;
use crate::machine::UnknownName;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What an outer cargo or its user may have set for host programs.
const HOST_ONLY_VARIABLES: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
];

/// Backtraces walk frame pointers. Given on the nested command line only: in a configuration
/// file the flag would reach host programs too, which are built for the same target.
const FRAME_POINTERS: &str =
    "target.x86_64-unknown-linux-gnu.rustflags=[\"-Cforce-frame-pointers=yes\"]";

/// Which kernel to build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KernelBuild {
    /// Which package of the workspace.
    pub package: Package,
    /// How hard the compiler works.
    pub optimisation: Optimisation,
    /// How much the kernel's allocators check.
    pub profile: Profile,
    /// Whether the reference kernel records what happens to memory, for viewers.
    pub events: bool,
}

/// A package of the workspace that is a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Package {
    /// The reference kernel.
    #[default]
    Kernel,
    /// The smallest example. Examples know no profiles.
    TinyKernel,
    /// The memory chapters of a tutorial.
    BlogOsStyle,
    /// A disk and its driver.
    VirtioBlk,
}

/// How hard the compiler works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Optimisation {
    /// Cargo's `release` profile.
    #[default]
    Release,
    /// Cargo's `dev` profile.
    None,
}

/// How much the kernel's allocators check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Only what soundness needs.
    Plain,
    /// What costs next to nothing.
    #[default]
    Hardened,
    /// Everything.
    Debug,
}

/// Why there is no kernel.
#[derive(Debug)]
pub enum BuildError {
    /// The host failed.
    Host(HostError),
    /// Cargo failed, and has said why.
    Cargo(ExitStatus),
}

impl KernelBuild {
    /// Builds the kernel; cargo's messages go to standard error.
    ///
    /// May be called by several threads and processes at once.
    ///
    /// # Errors
    /// Cargo's failure, or the host's in keeping the result.
    pub fn build(self) -> Result<KernelImage, BuildError> {
        let folder = workspace_root().join("target/kernel");
        let _lock = lock_file(&folder.join(".images.lock"))?;

        let target_dir = self.target_dir(&folder);
        let mut cargo = self.cargo(&target_dir);
        let program = PathBuf::from(cargo.get_program());
        let status = cargo
            .status()
            .map_err(HostError::at(Doing::Start, &program))?;
        if !status.success() {
            return Err(BuildError::Cargo(status));
        }

        let name = self.package.name();
        let built = target_dir.join(TARGET).join(self.folder()).join(name);
        let images = folder.join("images");
        let elf = images.join(format!("{name}-{}-{}", self.folder(), self.variant()));
        fs::create_dir_all(&images).map_err(HostError::at(Doing::Create, &images))?;
        // Renamed into place: a QEMU that reads the old image keeps the old file.
        let fresh = elf.with_extension("new");
        fs::copy(&built, &fresh).map_err(HostError::at(Doing::Copy, &fresh))?;
        fs::rename(&fresh, &elf).map_err(HostError::at(Doing::Rename, &elf))?;
        Ok(KernelImage { elf })
    }

    fn cargo(self, target_dir: &Path) -> Command {
        let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut cargo = Command::new(program);
        cargo
            .current_dir(workspace_root())
            .args(["build", "--package", self.package.name()]);
        // The outer cargo has just brought the lock file up to date for the whole workspace, so
        // `--locked` always holds. Its `--offline` leaves no trace; CARGO_NET_OFFLINE is
        // inherited, and with all packages at hand a locked build does not ask the network.
        cargo.args(["--locked", "--target", TARGET, "--config", FRAME_POINTERS]);
        cargo.arg("--target-dir").arg(target_dir);
        if self.optimisation == Optimisation::Release {
            cargo.arg("--release");
        }
        for name in HOST_ONLY_VARIABLES {
            cargo.env_remove(name);
        }
        cargo.env("MM_PROFILE", self.profile.to_string());
        match self.events {
            true => cargo.env("MM_EVENTS", "on"),
            false => cargo.env_remove("MM_EVENTS"),
        };
        cargo
    }

    /// One for each variant: in one folder, each change of profile would compile the kernel anew.
    fn target_dir(self, folder: &Path) -> PathBuf {
        match (self.profile, self.events) {
            (Profile::Hardened, false) => folder.to_owned(),
            _ => folder.join(format!("profile-{}", self.variant())),
        }
    }

    fn variant(self) -> String {
        let events = if self.events { "-events" } else { "" };
        format!("{}{events}", self.profile)
    }

    const fn folder(self) -> &'static str {
        match self.optimisation {
            Optimisation::Release => "release",
            Optimisation::None => "debug",
        }
    }
}

impl Package {
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::TinyKernel => "tiny-kernel",
            Self::BlogOsStyle => "blog-os-style",
            Self::VirtioBlk => "virtio-blk",
        }
    }
}

impl FromStr for Profile {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "plain" => Ok(Self::Plain),
            "hardened" => Ok(Self::Hardened),
            "debug" => Ok(Self::Debug),
            _ => Err(UnknownName {
                given: text.to_owned(),
                known: "plain, hardened or debug",
            }),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Hardened => "hardened",
            Self::Debug => "debug",
        })
    }
}

impl From<HostError> for BuildError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl core::error::Error for BuildError {}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Cargo(status) => write!(f, "the kernel could not be built (cargo: {status})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FRAME_POINTERS, HOST_ONLY_VARIABLES, KernelBuild, Optimisation, Package, Profile};
    use std::ffi::OsStr;
    use std::path::Path;

    fn arguments(build: KernelBuild) -> String {
        let cargo = build.cargo(Path::new("T"));
        let words: Vec<_> = cargo
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_kernel_is_built_alone_for_its_target_in_a_folder_of_its_own() {
        let common = format!(
            "build --package kernel --locked --target x86_64-unknown-linux-gnu \
             --config {FRAME_POINTERS} --target-dir T"
        );
        assert_eq!(
            arguments(KernelBuild::default()),
            format!("{common} --release")
        );
        let debug = KernelBuild {
            package: Package::Kernel,
            optimisation: Optimisation::None,
            profile: Profile::Debug,
            events: false,
        };
        assert_eq!(arguments(debug), common);
        let example = KernelBuild {
            package: Package::TinyKernel,
            ..debug
        };
        assert_eq!(
            arguments(example),
            common.replace("--package kernel", "--package tiny-kernel")
        );
    }

    #[test]
    fn the_environment_carries_the_profile_and_no_host_flags() {
        let build = KernelBuild {
            profile: Profile::Plain,
            ..KernelBuild::default()
        };
        let cargo = build.cargo(Path::new("T"));
        let variables: Vec<_> = cargo.get_envs().collect();
        assert!(variables.contains(&(OsStr::new("MM_PROFILE"), Some(OsStr::new("plain")))));
        assert!(variables.contains(&(OsStr::new("MM_EVENTS"), None)));
        for name in HOST_ONLY_VARIABLES {
            assert!(variables.contains(&(OsStr::new(name), None)), "{name}");
        }
    }
}
