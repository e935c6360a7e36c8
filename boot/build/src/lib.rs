//! Build-time half of `boot`: writes a kernel's linker script and prints its link lines.
//!
//! A kernel's `build.rs` is one call:
//!
//! ```no_run
//! boot_build::configure();
//! ```
//!
//! Link arguments reach a binary only from its own package's build script, and flags in
//! `.cargo/config.toml` would also hit host tools (kernel and host share one target triple):
//! hence this crate instead of a target file. [`Kernel`] is the longer form, for kernels with
//! registries of their own or another load address.

mod script;

use std::path::PathBuf;
use std::{env, fs, process};

/// The physical address a kernel is loaded at unless it asks for another: 2 MiB.
///
/// Above the first MiB with its firmware data and ISA hole, and aligned to a large page so that
/// the image can be mapped by large pages at its place below −2 GiB + 2 MiB; low enough for a
/// machine with 4 MiB of memory.
pub const DEFAULT_PHYSICAL_BASE: u64 = 0x20_0000;

/// The registries every kernel gets without asking.
pub const DEFAULT_REGISTRIES: [&str; 3] = ["benches", "ktests", "shell_commands"];

/// A kernel's link configuration.
#[derive(Debug, Clone)]
pub struct Kernel {
    physical_base: u64,
    registries: Vec<String>,
}

/// A configuration that no linker script can be written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The load address is not a multiple of 4 KiB, is below 1 MiB, or leaves no room below 1 GiB.
    PhysicalBase(u64),
    /// The name is not a C identifier, or is given twice.
    Registry(String),
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PhysicalBase(base) => write!(
                out,
                "load address {base:#x} is not a multiple of 4 KiB from 1 MiB up to 1 GiB"
            ),
            Self::Registry(name) => {
                write!(out, "registry name {name:?} is not an unused C identifier")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel {
    /// Creates the configuration of [`configure`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            physical_base: DEFAULT_PHYSICAL_BASE,
            registries: DEFAULT_REGISTRIES.map(String::from).to_vec(),
        }
    }

    /// Loads the kernel at another physical address.
    #[must_use]
    pub fn physical_base(mut self, base: u64) -> Self {
        self.physical_base = base;
        self
    }

    /// Adds a registry: a linker section `name` whose statics survive `--gc-sections` and lie,
    /// sorted by section name, between the symbols `__start_<name>` and `__stop_<name>`.
    ///
    /// A static joins with `#[used] #[unsafe(link_section = "<name>")]`, or `"<name>.<key>"` to
    /// be sorted by `key`. All statics of one registry must have one type.
    #[must_use]
    pub fn registry(mut self, name: &str) -> Self {
        self.registries.push(name.into());
        self
    }

    /// Returns the linker script.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the setting that no script can be written for.
    pub fn linker_script(&self) -> Result<String, ConfigError> {
        script::render(self.physical_base, &self.registries)
    }

    /// Writes the linker script to `OUT_DIR` and prints the `cargo:` lines that use it.
    ///
    /// On failure it prints the reason and ends the build script with status 1, which is how a
    /// build script reports.
    pub fn configure(&self) {
        if let Err(error) = self.try_configure() {
            println!("cargo::error=boot_build: {error}");
            process::exit(1);
        }
    }

    fn try_configure(&self) -> Result<(), Box<dyn core::error::Error>> {
        let script = self.linker_script()?;
        let directory = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: call from build.rs")?;
        let path = PathBuf::from(directory).join("boot.ld");
        fs::write(&path, script)?;

        println!("cargo:rerun-if-changed=build.rs");
        for argument in LINK_ARGUMENTS {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", path.display());
        Ok(())
    }
}

/// `max-page-size` keeps the first segment, and with it the Multiboot2 header, within the first
/// 32 KiB of the file: GNU ld would otherwise align file offsets to 2 MiB.
const LINK_ARGUMENTS: [&str; 7] = [
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,norelro",
];

/// Configures the link of a kernel with the default load address and registries.
pub fn configure() {
    Kernel::new().configure();
}
