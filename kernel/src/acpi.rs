//! What the firmware's ACPI tables say about CPUs and nodes.
//!
//! Read once, before memory is handed out: nothing points into the tables afterwards. What is
//! missing or damaged is logged and left out; the machine then has one CPU, or one node.
#![expect(unsafe_code, reason = "reads what the firmware left in memory")]

use crate::arch::physmem::FirmwareMemory;
use acpi_tables::madt::CpuEntry;
use acpi_tables::srat::{CpuAffinity, MemoryAffinity};
use acpi_tables::{AcpiError, Madt, PhysMemory, Rsdp, Signature, Slit, Srat, Tables, find_rsdp};
use alloc::vec::Vec;
use bootloader_api::BootInfo;
use core::fmt;
use spin::Once;

/// What the tables say.
#[derive(Debug, Default)]
pub struct Acpi {
    /// Every table that the root names: name, physical address.
    pub tables: Vec<(Signature, u64)>,
    /// The CPUs of the MADT, in its order, those that cannot be used included.
    pub cpus: Vec<CpuEntry>,
    /// The CPUs of the SRAT.
    pub cpu_nodes: Vec<CpuAffinity>,
    /// The memory ranges of the SRAT.
    pub memory_nodes: Vec<MemoryAffinity>,
    /// The SLIT, row by row; empty where there is none that can be believed.
    pub distances: Vec<Vec<u8>>,
}

static ACPI: Once<Acpi> = Once::new();

/// What the firmware's tables say; empty before they are read, or without any.
#[must_use]
pub fn get() -> &'static Acpi {
    static NONE: Acpi = Acpi {
        tables: Vec::new(),
        cpus: Vec::new(),
        cpu_nodes: Vec::new(),
        memory_nodes: Vec::new(),
        distances: Vec::new(),
    };
    ACPI.get().unwrap_or(&NONE)
}

/// Reads the tables, with a log line for what is there and for what is wrong.
pub(crate) fn init(info: &BootInfo) {
    // SAFETY: memory is not handed out yet, and devices do not write to the firmware's tables.
    let Some(memory) = (unsafe { FirmwareMemory::new(info) }) else {
        log::warn!("ACPI: physical memory is not mapped");
        return;
    };
    let named = info.rsdp_addr.as_ref().copied();
    match read(&memory, named) {
        Ok(acpi) => {
            let names: Vec<&Signature> = acpi.tables.iter().map(|(name, _)| name).collect();
            log::info!("ACPI: {}", List(&names));
            ACPI.call_once(|| acpi);
        }
        Err(error) => log::warn!("ACPI: {error}"),
    }
}

/// Names with blanks between.
struct List<'a>(&'a [&'a Signature]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for name in self.0 {
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        Ok(())
    }
}

fn read(memory: &impl PhysMemory, named: Option<u64>) -> Result<Acpi, AcpiError> {
    let (at, rsdp) = match named.map(|at| (at, Rsdp::read(memory, at))) {
        Some((at, Ok(rsdp))) => (at, rsdp),
        _ => find_rsdp(memory)?,
    };
    let tables = Tables::open(memory, &rsdp)?;
    log::debug!(
        "ACPI: root pointer at {at:#x}, revision {}, {} at {:#x}",
        rsdp.revision,
        tables.root().signature(),
        tables.root().address()
    );
    let mut acpi = Acpi {
        tables: tables.list().collect(),
        ..Acpi::default()
    };
    match Madt::find(&tables) {
        Ok(madt) => {
            for error in madt.entries().filter_map(Result::err) {
                log::warn!("ACPI: MADT: {error}");
            }
            acpi.cpus = madt.cpus().collect();
        }
        Err(error) => log::warn!("ACPI: {error}"),
    }
    match Srat::find(&tables) {
        Ok(srat) => {
            for error in srat.entries().filter_map(Result::err) {
                log::warn!("ACPI: SRAT: {error}");
            }
            acpi.cpu_nodes = srat.cpus().collect();
            acpi.memory_nodes = srat.memory().collect();
        }
        Err(AcpiError::Missing(_)) => {}
        Err(error) => log::warn!("ACPI: {error}"),
    }
    match Slit::find(&tables) {
        Ok(slit) => {
            let row = |from| {
                (0..slit.nodes())
                    .filter_map(|to| slit.distance(from, to))
                    .collect()
            };
            acpi.distances = (0..slit.nodes()).map(row).collect();
        }
        Err(AcpiError::Missing(_)) => {}
        Err(error) => log::warn!("ACPI: {error}"),
    }
    Ok(acpi)
}
