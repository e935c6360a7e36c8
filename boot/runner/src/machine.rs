//! The machine to boot, as a value: what the options describe and what becomes a QEMU command.

use core::fmt;
use core::str::FromStr;
use std::path::PathBuf;

use crate::numa::Numa;
use crate::size::MemorySize;

/// A machine to boot the kernel on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The board.
    pub board: Board,
    /// What loads the kernel.
    pub firmware: Firmware,
    /// Memory; the host commits only what the guest touches.
    pub memory: MemorySize,
    /// Number of CPUs.
    pub cpus: CpuCount,
    /// The file that memory is, for others to look at; nobody but QEMU has it otherwise. With nodes there is one for each.
    pub ram_file: Option<PathBuf>,
    /// How memory and CPUs are spread over nodes.
    pub numa: Numa,
    /// A QEMU CPU model with optional features; `None` is QEMU's default, or, where the memory
    /// needs it, one that can address all of it.
    pub cpu: Option<String>,
    /// Lines of GRUB's script that run before the kernel is loaded; only with a firmware that
    /// boots GRUB.
    pub grub_lines: Vec<String>,
    /// How guest time passes.
    pub clock: Clock,
    /// Whether there is a screen.
    pub screen: Screen,
    /// Whether the machine waits for a debugger.
    pub debugger: Debugger,
    /// Arguments passed to QEMU as they are, last.
    pub extra_args: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            board: Board::Q35,
            firmware: Firmware::Direct,
            memory: MemorySize::DEFAULT,
            cpus: CpuCount::ONE,
            ram_file: None,
            numa: Numa::default(),
            cpu: None,
            grub_lines: Vec::new(),
            clock: Clock::Host,
            screen: Screen::None,
            debugger: Debugger::None,
            extra_args: Vec::new(),
        }
    }
}

impl Machine {
    /// The files that memory is, in the order of its addresses: one, or one for each node that has some; the first has the name
    /// that was chosen.
    #[must_use]
    pub fn ram_files(&self) -> Vec<PathBuf> {
        let nodes = self.numa.nodes_of(self.memory, self.cpus.get());
        let with_memory = nodes.iter().filter(|node| node.memory.is_some()).count();
        let name = |place: usize| {
            let mut path = self.ram_file.clone()?.into_os_string();
            if place > 0 {
                path.push(format!(".{place}"));
            }
            Some(PathBuf::from(path))
        };
        (0..with_memory.max(1)).filter_map(name).collect()
    }
}

/// A QEMU machine type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// PCI Express PC (Intel Q35, 2007).
    Q35,
    /// PCI PC (Intel 440FX, 1996).
    Pc,
    /// Minimal machine without PCI.
    MicroVm,
}

/// How the kernel gets into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU loads the ELF itself (PVH).
    Direct,
    /// GRUB from a CD image, under SeaBIOS.
    Bios,
    /// GRUB from a CD image, under OVMF.
    Uefi,
}

/// How guest time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// With the host's time.
    Host,
    /// One nanosecond for each guest instruction: deterministic, for counting.
    Instructions,
}

/// Whether the machine's screen is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// No window; the serial line is the console.
    None,
    /// A VGA adapter in a window.
    Window,
}

/// Whether the machine waits for a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugger {
    /// It starts at once.
    None,
    /// It waits, stopped, for gdb on port 1234.
    Gdb,
}

/// A number of CPUs.
///
/// # Invariants
/// 1. From 1 to 255: xAPIC identifiers have 8 bits, and QEMU's `pc` allows no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCount(u8);

impl CpuCount {
    /// One CPU.
    pub const ONE: Self = Self(1);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A word that names no value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// What was given.
    pub given: String,
    /// What is understood.
    pub known: &'static str,
}

impl FromStr for CpuCount {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text.parse() {
            // INVARIANT: (1) `u8` and not zero.
            Ok(count @ 1..) => Ok(Self(count)),
            _ => Err(UnknownName {
                given: text.to_owned(),
                known: "a number from 1 to 255",
            }),
        }
    }
}

impl FromStr for Board {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "q35" => Ok(Self::Q35),
            "pc" => Ok(Self::Pc),
            "microvm" => Ok(Self::MicroVm),
            _ => Err(UnknownName {
                given: text.to_owned(),
                known: "q35, pc or microvm",
            }),
        }
    }
}

impl FromStr for Firmware {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "direct" => Ok(Self::Direct),
            "bios" => Ok(Self::Bios),
            "uefi" => Ok(Self::Uefi),
            _ => Err(UnknownName {
                given: text.to_owned(),
                known: "direct, bios or uefi",
            }),
        }
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::MicroVm => "microvm",
        })
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        })
    }
}

impl core::error::Error for UnknownName {}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not {}", self.given, self.known)
    }
}
