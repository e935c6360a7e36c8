//! From a firmware map to the memory table, step by step as Linux on x86_64.
//!
//! [`add_firmware_map`] is what the kernel and the tests over real maps both call. The steps:
//! the map as the firmware gave it is repaired and logged; the command line's edits are applied;
//! page 0 becomes reserved and 0xa0000–0xfffff stops being usable (`trim_bios_range`); usable
//! ranges, merged, become memory and are then trimmed to whole pages; soft-reserved ranges and,
//! by [`LowMemory`], the first MiB are reserved (`e820__memblock_setup`, `reserve_real_mode`).
#![forbid(unsafe_code)]

use core::fmt;

use super::firmware::{FirmwareKind, FirmwareRegion};
use super::params::{MapEdit, Params};
use super::sanitize::{FirmwareMap, KindRange, Repair};
use super::{GrowError, Memblock};
use crate::addr::{Pfn, PhysAddr, PhysRange};
use crate::config::PAGE_SIZE;
use crate::platform::Platform;

/// Where the BIOS and the VGA window lie, whatever the firmware says.
pub(crate) const BIOS: PhysRange = PhysRange::from_size(PhysAddr::new(0xa_0000), 0x6_0000);
/// Real mode's vectors and the BIOS data area.
pub(crate) const PAGE_ZERO: PhysRange = PhysRange::from_size(PhysAddr::ZERO, PAGE_SIZE);
/// The memory that firmware is known to scribble over.
const FIRST_MIB: PhysRange = PhysRange::from_size(PhysAddr::ZERO, 1 << 20);
/// The part of it that is never handed out.
const FIRST_64K: PhysRange = PhysRange::from_size(PhysAddr::ZERO, 1 << 16);

/// What becomes of the first MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LowMemory {
    /// Present but never handed out, because firmware is known to write there (Linux's way).
    Reserve,
    /// Handed out from 64 KiB on, where the firmware calls it usable.
    HandOut,
}

/// What the boot steps need to know about machine and wishes.
#[derive(Clone, Copy, Debug)]
pub struct SetupPolicy<'a> {
    /// The CPU's physical address bits: CPUID leaf 8000_0008h, EAX bits 7:0; 36 on a CPU without
    /// that leaf (SDM vol. 3A, 4.1.4). What the map has above is cut off, with a
    /// [`SetupLine::Repaired`].
    pub phys_bits: u32,
    /// What becomes of the first MiB.
    pub low_memory: LowMemory,
    /// What the command line wants.
    pub params: &'a Params,
}

/// Why there is no memory to boot with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// No whole page of the map is usable, so many entries it may have.
    NoUsableMemory {
        /// How many entries there were.
        entries: usize,
    },
    /// The firmware's map has usable memory, but the command line's `mem=` and `memmap=` take all
    /// of it away.
    NothingLeft,
    /// A table of memblock was full and could not grow.
    Table(GrowError),
}

/// A line of the boot log, in Linux's words where Linux has one.
#[derive(Clone, Copy, Debug)]
pub enum SetupLine {
    /// `BIOS-provided physical RAM map:`, before the first range.
    MapHeading,
    /// A sanitised range of the firmware's map.
    Firmware(KindRange),
    /// Something in the firmware's map was put right.
    Repaired(Repair),
    /// `user-defined physical RAM map:`, before the first range.
    UserHeading,
    /// A range of the map after the command line's edits.
    User(KindRange),
    /// An addition of the command line ends past the CPU's physical addresses.
    TooWide {
        /// The addition.
        range: PhysRange,
        /// What is left of it.
        clipped: PhysRange,
    },
    /// Page 0 was usable.
    PageZero,
    /// Usable memory was taken out of the BIOS area.
    BiosArea,
    /// The first frame above all RAM.
    LastPfn(Pfn),
}

impl From<GrowError> for SetupError {
    fn from(error: GrowError) -> Self {
        Self::Table(error)
    }
}

/// Fills the memory table from the firmware's map. Context: boot.
///
/// # Errors
/// [`SetupError`]; what was added until then stays.
pub fn add_firmware_map<P: Platform>(
    memblock: &mut Memblock,
    platform: &P,
    entries: &[FirmwareRegion],
    policy: &SetupPolicy<'_>,
    log: &mut dyn FnMut(&SetupLine),
) -> Result<(), SetupError> {
    let firmware = FirmwareMap::new(entries, policy.phys_bits);
    firmware
        .repairs()
        .for_each(|r| log(&SetupLine::Repaired(r)));
    log(&SetupLine::MapHeading);
    firmware.ranges().for_each(|r| log(&SetupLine::Firmware(r)));

    let map = firmware.edited(policy.params);
    if !policy.params.edits().is_empty() {
        log_wide_edits(firmware, policy.params, log);
        log(&SetupLine::UserHeading);
        map.ranges().for_each(|r| log(&SetupLine::User(r)));
    }

    // First, so that no table grows into it.
    let withheld = match policy.low_memory {
        LowMemory::Reserve => FIRST_MIB,
        LowMemory::HandOut => FIRST_64K,
    };
    memblock.reserve(platform, withheld)?;

    log_bios_range(map, log);
    for KindRange { range, kind } in map.ranges() {
        match kind {
            FirmwareKind::Usable => add_usable(memblock, platform, range)?,
            FirmwareKind::SoftReserved => memblock.reserve(platform, range)?,
            _ => {}
        }
    }
    memblock.trim_memory(PAGE_SIZE);

    if memblock.memory().is_empty() {
        if firmware.ranges().any(|found| gives_a_page(&found)) {
            return Err(SetupError::NothingLeft);
        }
        let added = policy.params.edits().iter();
        let added = added
            .filter(|edit| matches!(edit, MapEdit::Add { .. }))
            .count();
        let entries = entries.len().saturating_add(added);
        return Err(SetupError::NoUsableMemory { entries });
    }
    log(&SetupLine::LastPfn(memblock.span().end().frame()));
    Ok(())
}

/// Adds a usable range but for page 0 and the BIOS area.
fn add_usable<P: Platform>(
    memblock: &mut Memblock,
    platform: &P,
    range: PhysRange,
) -> Result<(), GrowError> {
    for part in without_bios(range) {
        memblock.add(platform, part)?;
    }
    Ok(())
}

/// A range but for page 0 and the BIOS area.
fn without_bios(range: PhysRange) -> impl Iterator<Item = PhysRange> {
    let between = PhysRange::new(PAGE_ZERO.end(), BIOS.start());
    let above = PhysRange::new(BIOS.end(), PhysAddr::MAX);
    let allowed = [between, above].into_iter().flatten();
    allowed.map(move |allowed| range.intersect(allowed))
}

/// Whether a whole page of the range can become memory.
fn gives_a_page(found: &KindRange) -> bool {
    found.kind == FirmwareKind::Usable
        && without_bios(found.range).any(|part| !part.whole_frames().is_empty())
}

fn log_wide_edits(map: FirmwareMap<'_>, params: &Params, log: &mut dyn FnMut(&SetupLine)) {
    for edit in params.edits() {
        let MapEdit::Add { range, .. } = *edit else {
            continue;
        };
        let clipped = map.clip(range);
        if clipped != range {
            log(&SetupLine::TooWide { range, clipped });
        }
    }
}

fn log_bios_range(map: FirmwareMap<'_>, log: &mut dyn FnMut(&SetupLine)) {
    let usable_in = |place: PhysRange| {
        map.ranges()
            .any(|r| r.kind == FirmwareKind::Usable && r.range.overlaps(place))
    };
    if usable_in(PAGE_ZERO) {
        log(&SetupLine::PageZero);
    }
    if usable_in(BIOS) {
        log(&SetupLine::BiosArea);
    }
}

impl fmt::Display for SetupLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MapHeading => f.write_str("BIOS-provided physical RAM map:"),
            Self::Firmware(KindRange { range, kind }) => write!(f, "BIOS-e820: {range} {kind}"),
            Self::Repaired(repair) => repair.fmt(f),
            Self::UserHeading => f.write_str("user-defined physical RAM map:"),
            Self::User(KindRange { range, kind }) => write!(f, "user: {range} {kind}"),
            Self::TooWide { range, clipped } if clipped.is_empty() => {
                write!(
                    f,
                    "memmap: {range}: beyond the CPU's physical addresses, dropped"
                )
            }
            Self::TooWide { range, clipped } => write!(
                f,
                "memmap: {range}: ends past the CPU's physical addresses, cut to {clipped}"
            ),
            Self::PageZero => {
                f.write_str("e820: update [mem 0x00000000-0x00000fff] usable ==> reserved")
            }
            Self::BiosArea => f.write_str("e820: remove [mem 0x000a0000-0x000fffff] usable"),
            Self::LastPfn(pfn) => {
                let max = Pfn::LIMIT;
                write!(f, "last_pfn = {pfn} max_arch_pfn = {max}")
            }
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUsableMemory { entries } => {
                write!(f, "no usable memory in a map of {entries} entries")
            }
            Self::NothingLeft => f.write_str(
                "the command line's mem= and memmap= leave nothing of the firmware's usable memory",
            ),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SetupError {}
