//! The PVH boot protocol: `hvm_start_info`, as `qemu -kernel` passes it in `ebx`.
//!
//! Layout after Xen's public `arch-x86/hvm/start_info.h`, version 1 (the first with a memory
//! map). [`parse`] is a total function: what it cannot read is a [`PvhError`].

use core::fmt;

use crate::bytes::{PhysMemory, u32_at, u64_at};
use crate::handoff::{Escapes, Handoff, Protocol, RangeKind};
use crate::regions::Regions;
use crate::warning::Warning;

const MAGIC: u32 = 0x336e_c578;
const START_INFO_SIZE: u64 = 56;
const MAP_ENTRY_SIZE: usize = 24;
const MODULE_ENTRY_SIZE: usize = 32;
/// Xen allows 4096; more is a sign of a lie.
const COMMAND_LINE_SEARCH: u64 = 0x1_0000;

/// The longest table that is believed: 1 MiB, which is over 40,000 regions.
const TABLE_LIMIT: u64 = 0x10_0000;

/// What is wrong with a start info.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PvhError {
    /// The structure is out of reach.
    Unreadable {
        /// Its physical address.
        at: u64,
    },
    /// The first word is not the magic number.
    Magic {
        /// What stands there.
        found: u32,
    },
    /// The version has no memory map.
    Version {
        /// The version.
        found: u32,
    },
    /// The memory map is out of reach.
    MapUnreadable {
        /// Its physical address.
        at: u64,
        /// The number of its entries.
        entries: u32,
    },
    /// There is no memory map.
    MapMissing,
    /// The module list is out of reach.
    ModulesUnreadable {
        /// Its physical address.
        at: u64,
        /// The number of modules.
        entries: u32,
    },
    /// The command line is out of reach, or has no end within 64 KiB.
    CommandLineUnterminated {
        /// Its physical address.
        at: u64,
    },
}

impl fmt::Display for PvhError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { at } => write!(out, "PVH start info at {at:#x} is out of reach"),
            Self::Magic { found } => write!(
                out,
                "PVH start info begins with {found:#x} instead of {MAGIC:#x}"
            ),
            Self::Version { found } => write!(
                out,
                "PVH start info has version {found}, which has no memory map"
            ),
            Self::MapUnreadable { at, entries } => write!(
                out,
                "PVH memory map of {entries} entries at {at:#x} is out of reach or too long"
            ),
            Self::MapMissing => out.write_str("PVH start info has no memory map"),
            Self::ModulesUnreadable { at, entries } => write!(
                out,
                "PVH list of {entries} modules at {at:#x} is out of reach or too long"
            ),
            Self::CommandLineUnterminated { at } => write!(
                out,
                "PVH command line at {at:#x} has no end within 64 KiB or is out of reach"
            ),
        }
    }
}

impl core::error::Error for PvhError {}

/// The fields of interest.
struct StartInfo {
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    map: u64,
    map_entries: u32,
}

/// Reads the start info at physical address `at`.
///
/// # Errors
///
/// [`PvhError`] names what is truncated or nonsense; `handoff` and `regions` then hold what was
/// read before.
pub fn parse(
    memory: &impl PhysMemory,
    at: u64,
    handoff: &mut Handoff,
    regions: &mut Regions<'_>,
) -> Result<(), PvhError> {
    let info = start_info(memory, at)?;
    handoff.set_protocol(Protocol::Pvh);
    handoff.reserve(RangeKind::StartInfo, at, START_INFO_SIZE);
    handoff.rsdp = Some(info.rsdp).filter(|address| *address != 0);

    read_map(memory, &info, handoff, regions)?;
    read_command_line(memory, info.command_line, handoff)?;
    read_modules(memory, &info, handoff)
}

fn start_info(memory: &impl PhysMemory, at: u64) -> Result<StartInfo, PvhError> {
    let unreadable = PvhError::Unreadable { at };
    // The magic and the version first: an older structure is shorter.
    let head = memory.bytes(at, 8).ok_or(unreadable)?;
    let magic = u32_at(head, 0).ok_or(unreadable)?;
    if magic != MAGIC {
        return Err(PvhError::Magic { found: magic });
    }
    let version = u32_at(head, 4).ok_or(unreadable)?;
    if version == 0 {
        return Err(PvhError::Version { found: version });
    }

    let bytes = memory.bytes(at, START_INFO_SIZE).ok_or(unreadable)?;
    let fields = || {
        Some(StartInfo {
            modules: u32_at(bytes, 12)?,
            module_list: u64_at(bytes, 16)?,
            command_line: u64_at(bytes, 24)?,
            rsdp: u64_at(bytes, 32)?,
            map: u64_at(bytes, 40)?,
            map_entries: u32_at(bytes, 48)?,
        })
    };
    fields().ok_or(unreadable)
}

fn read_map(
    memory: &impl PhysMemory,
    info: &StartInfo,
    handoff: &mut Handoff,
    regions: &mut Regions<'_>,
) -> Result<(), PvhError> {
    if info.map == 0 || info.map_entries == 0 {
        return Err(PvhError::MapMissing);
    }
    let unreadable = PvhError::MapUnreadable {
        at: info.map,
        entries: info.map_entries,
    };
    let length = table_length(info.map_entries, MAP_ENTRY_SIZE).ok_or(unreadable)?;
    let bytes = memory.bytes(info.map, length).ok_or(unreadable)?;

    handoff.reserve(RangeKind::MemoryMap, info.map, length);
    for entry in bytes.chunks_exact(MAP_ENTRY_SIZE) {
        let start = u64_at(entry, 0).ok_or(unreadable)?;
        let size = u64_at(entry, 8).ok_or(unreadable)?;
        let kind = u32_at(entry, 16).ok_or(unreadable)?;
        regions.push_bios(start, size, kind);
    }
    Ok(())
}

fn read_command_line(
    memory: &impl PhysMemory,
    at: u64,
    handoff: &mut Handoff,
) -> Result<(), PvhError> {
    if at == 0 {
        return Ok(());
    }
    let unterminated = PvhError::CommandLineUnterminated { at };
    let mut length = 0_u64;
    while length < COMMAND_LINE_SEARCH {
        let place = at.checked_add(length).ok_or(unterminated)?;
        let byte = memory.bytes(place, 1).ok_or(unterminated)?;
        if byte == [0] {
            let text = memory.bytes(at, length).ok_or(unterminated)?;
            handoff.set_command_line(text, Escapes::None);
            handoff.reserve(RangeKind::CommandLine, at, length.saturating_add(1));
            return Ok(());
        }
        length = length.saturating_add(1);
    }
    Err(unterminated)
}

fn read_modules(
    memory: &impl PhysMemory,
    info: &StartInfo,
    handoff: &mut Handoff,
) -> Result<(), PvhError> {
    if info.modules == 0 {
        return Ok(());
    }
    let unreadable = PvhError::ModulesUnreadable {
        at: info.module_list,
        entries: info.modules,
    };
    let length = table_length(info.modules, MODULE_ENTRY_SIZE).ok_or(unreadable)?;
    let bytes = memory.bytes(info.module_list, length).ok_or(unreadable)?;

    handoff.reserve(RangeKind::ModuleList, info.module_list, length);
    let mut count = 0_usize;
    for entry in bytes.chunks_exact(MODULE_ENTRY_SIZE) {
        let start = u64_at(entry, 0).ok_or(unreadable)?;
        let size = u64_at(entry, 8).ok_or(unreadable)?;
        handoff.add_module(start, size);
        count = count.saturating_add(1);
    }
    if count > 1 {
        let count = count.saturating_sub(1);
        handoff.warn(Warning::ModulesIgnored { count });
    }
    Ok(())
}

fn table_length(entries: u32, entry_size: usize) -> Option<u64> {
    let length = u64::from(entries).checked_mul(u64::try_from(entry_size).ok()?)?;
    (length <= TABLE_LIMIT).then_some(length)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may add")]
mod tests;
