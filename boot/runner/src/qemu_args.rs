//! From a [`Machine`] to QEMU's command line: a pure function, tested on its text.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::machine::{Board, Clock, Debugger, Firmware, Machine, Screen};
use crate::numa::NumaNode;
use crate::size::MemorySize;

/// What the machine boots from: files that exist by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootMedium {
    /// QEMU loads the ELF and hands over the command line (PVH).
    Elf {
        /// The kernel.
        kernel: PathBuf,
        /// Its command line.
        cmdline: String,
    },
    /// A CD image with GRUB, the kernel and its command line in it.
    Cd {
        /// The image.
        iso: PathBuf,
        /// UEFI firmware; SeaBIOS without.
        uefi: Option<UefiFlash>,
    },
}

/// The two flash chips of a UEFI machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UefiFlash {
    /// The firmware, shared and read-only.
    pub code: PathBuf,
    /// Its variables, a private copy.
    pub variables: PathBuf,
}

/// Where QEMU notes CPU resets, to tell a triple fault from an ordinary power-off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetLog(pub PathBuf);

/// The text that QEMU puts into its [`ResetLog`] when a guest could not even take a double fault.
pub(crate) const TRIPLE_FAULT_MARK: &str = "Triple fault";

/// QEMU's arguments for `machine`, booting from `medium`.
#[must_use]
pub fn qemu_args(machine: &Machine, medium: &BootMedium, log: &ResetLog) -> Vec<OsString> {
    let mut args = Args(Vec::new());
    args.hardware(machine);
    args.clock_and_cpu(machine);
    args.console(machine);
    args.medium(medium);

    // A guest that resets is a guest that died: end, and look into the log for the reason.
    args.flag("-no-reboot");
    args.pair("-d", "cpu_reset");
    args.path("-D", &log.0);
    // How the kernel tells its verdict: a write of `v` ends QEMU with status `2v + 1`.
    args.pair("-device", "isa-debug-exit,iobase=0xf4,iosize=4");

    if machine.debugger == Debugger::Gdb {
        args.flag("-s");
        args.flag("-S");
    }
    args.0.extend(machine.extra_args.iter().map(OsString::from));
    args.0
}

struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.pair(name, path);
    }

    fn hardware(&mut self, machine: &Machine) {
        self.flag("-no-user-config");
        self.flag("-nodefaults");
        let nodes = machine.numa.nodes_of(machine.memory, machine.cpus.get());
        if !nodes.is_empty() {
            return self.nodes(machine, &nodes);
        }
        self.pair("-machine", format!("{},memory-backend=ram", machine.board));
        let file = machine.ram_files().into_iter().next();
        self.pair("-object", backend("ram", &machine.memory, file.as_deref()));
        self.pair("-smp", machine.cpus.to_string());
    }

    /// Memory and CPUs, node by node.
    fn nodes(&mut self, machine: &Machine, nodes: &[NumaNode]) {
        self.pair("-machine", machine.board.to_string());
        self.pair("-m", machine.memory.to_string());
        self.pair("-smp", machine.cpus.to_string());
        let mut files = machine.ram_files().into_iter();
        for (id, node) in nodes.iter().enumerate() {
            if let Some(size) = node.memory {
                let file = files.next();
                let name = format!("ram{id}");
                self.pair("-object", backend(&name, &size, file.as_deref()));
            }
            self.pair("-numa", node.option(id));
        }
        for option in machine.numa.distance_options(nodes.len()) {
            self.pair("-numa", option);
        }
    }

    fn clock_and_cpu(&mut self, machine: &Machine) {
        // Emulation even where KVM exists: the same machine, and the same counts, everywhere.
        self.pair("-accel", "tcg");
        if machine.clock == Clock::Instructions {
            self.pair("-icount", "shift=0,sleep=off");
        }
        if let Some(model) = cpu_model(machine) {
            self.pair("-cpu", model);
        }
    }

    fn console(&mut self, machine: &Machine) {
        // One channel for serial line and monitor: Ctrl-A X quits, Ctrl-A C is the monitor.
        self.pair("-chardev", "stdio,id=console,mux=on,signal=off");
        self.pair("-serial", "chardev:console");
        self.pair("-mon", "chardev=console");

        let has_pci = machine.board != Board::MicroVm;
        let needs_vga = machine.screen == Screen::Window || machine.firmware != Firmware::Direct;
        if has_pci && needs_vga {
            self.pair("-vga", "std");
        }
        if machine.screen == Screen::None {
            self.pair("-display", "none");
        }
    }

    fn medium(&mut self, medium: &BootMedium) {
        match medium {
            BootMedium::Elf { kernel, cmdline } => {
                self.path("-kernel", kernel);
                if !cmdline.is_empty() {
                    self.pair("-append", cmdline);
                }
            }
            BootMedium::Cd { iso, uefi } => {
                if let Some(flash) = uefi {
                    let code = "if=pflash,format=raw,unit=0,readonly=on,file=";
                    self.pair("-drive", option_with_path(code, &flash.code));
                    let variables = "if=pflash,format=raw,unit=1,file=";
                    self.pair("-drive", option_with_path(variables, &flash.variables));
                }
                self.pair("-boot", "d");
                self.path("-cdrom", iso);
            }
        }
    }
}

/// Memory, in a file that others see if there is one.
fn backend(id: &str, size: &MemorySize, file: Option<&Path>) -> OsString {
    match file {
        // Without `reserve=off` QEMU refuses more than the host has.
        None => format!("memory-backend-ram,id={id},size={size},reserve=off").into(),
        Some(file) => {
            let prefix = format!("memory-backend-file,id={id},size={size},share=on,mem-path=");
            option_with_path(&prefix, file)
        }
    }
}

/// The `-cpu` argument; `None` for QEMU's default.
fn cpu_model(machine: &Machine) -> Option<String> {
    let chosen = machine.cpu.clone();
    let default = (machine.clock == Clock::Instructions).then(|| "max".to_owned());
    match (chosen.or(default), machine.memory.wider_phys_bits()) {
        (Some(model), Some(bits)) if !model.contains("phys-bits=") => {
            Some(format!("{model},phys-bits={bits}"))
        }
        (None, Some(bits)) => Some(format!("max,phys-bits={bits}")),
        (model, _) => model,
    }
}

/// `prefix` and a path as the value of a QEMU option list, where a comma is written twice.
fn option_with_path(prefix: &str, path: &Path) -> OsString {
    let mut value = OsString::from(prefix);
    match path.to_str() {
        Some(text) => value.push(text.replace(',', ",,")),
        None => value.push(path),
    }
    value
}

#[cfg(test)]
#[path = "qemu_args_tests.rs"]
mod tests;
