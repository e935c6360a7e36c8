//! The firmware maps in `data/firmware-maps`, with what Linux computed from them.
//!
//! The fields are described in that directory's README; only those that tests look at are read.

mod marks;

pub use marks::{MarksFile, MarksResults, Vm, ZoneMarks};

use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mm::memblock::firmware::{EfiAttributes, FirmwareKind, FirmwareRegion};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

/// A number written as `"0x…"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hex(pub u64);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text
            .strip_prefix("0x")
            .ok_or_else(|| D::Error::custom(&text))?;
        let number = u64::from_str_radix(digits, 16).map_err(D::Error::custom)?;
        Ok(Self(number))
    }
}

/// One file.
#[derive(Clone, Debug, Deserialize)]
pub struct FirmwareMapFile {
    /// The file's name without ending.
    pub name: String,
    /// `e820`, `efi` or `pvh`.
    pub kind: String,
    /// The firmware's map; for `efi` its memory descriptors.
    pub regions: Vec<MapRegion>,
    /// For `efi`: the map that the boot loader made of the descriptors.
    #[serde(default)]
    pub e820: Vec<MapRegion>,
    /// Which memory belongs to which node, as the firmware says.
    #[serde(default)]
    pub numa: Vec<NodeRange>,
    /// Where that comes from, if it is not the firmware's own table.
    #[serde(default)]
    pub numa_source: Option<String>,
    /// The distances between nodes that Linux reports, row by row.
    #[serde(default)]
    pub distances: Option<Vec<Vec<u8>>>,
    /// What Linux made of it.
    #[serde(default)]
    pub linux: LinuxResults,
    /// What Linux 6.1 made of the same map on an emulated machine.
    pub linux_replay: Option<LinuxResults>,
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MapRegion {
    /// First byte.
    pub start: Hex,
    /// First byte behind it, modulo 2^64.
    pub end: Hex,
    /// Length, in hand-made tables.
    pub size: Option<Hex>,
    /// The type's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The type's number, in hand-made tables.
    pub raw_type: Option<u32>,
}

/// A range of memory on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeRange {
    /// The node.
    pub node: u16,
    /// First byte.
    pub start: Hex,
    /// First byte behind it.
    pub end: Hex,
    /// It may be unplugged.
    #[serde(default)]
    pub hotplug: bool,
}

/// A zone in `/proc/zoneinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ZoneInfo {
    /// First frame; not printed for a zone without memory.
    pub start_pfn: Option<u64>,
    /// Frames, holes included.
    pub spanned: u64,
    /// Frames of memory.
    pub present: u64,
}

/// What a Linux boot computed and printed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LinuxResults {
    /// The version.
    pub version: String,
    /// The architecture, where it is not x86_64.
    pub arch: Option<String>,
    /// Kernel parameters that touch memory.
    pub params: Option<Vec<String>>,
    /// Linux did not survive.
    pub boot_failed: Option<serde_json::Value>,
    /// "Fallback order for Node N", by node.
    pub fallback_order: BTreeMap<u16, Vec<u16>>,
    /// "Zone ranges": first and last byte.
    pub zones: BTreeMap<String, (Hex, Hex)>,
    /// Zones printed as empty.
    pub empty_zones: Vec<String>,
    /// "Movable zone start for each node".
    pub movable_start: BTreeMap<u16, Hex>,
    /// "Early memory node ranges".
    pub node_ranges: Vec<NodeRange>,
    /// "Initmem setup node".
    pub initmem: Vec<NodeRange>,
    /// "pages in unavailable ranges", by `nodeN/ZONE`, in the log's order.
    pub unavailable: Option<BTreeMap<String, Vec<u64>>>,
    /// "On node N totalpages".
    pub node_totalpages: BTreeMap<u16, u64>,
    /// `/proc/zoneinfo`, by `nodeN/ZONE`.
    pub zoneinfo: BTreeMap<String, ZoneInfo>,
    /// "System RAM" in `/proc/iomem`.
    pub iomem_system_ram: Vec<(Hex, Hex)>,
    /// The map after Linux's clean-up.
    pub sanitized_map: Vec<MapRegion>,
    /// The map after the command line's edits.
    pub user_map: Vec<MapRegion>,
    /// "last_pfn": of all RAM, then of RAM below 4 GiB.
    pub last_pfn: Vec<Hex>,
}

impl FirmwareMapFile {
    /// Reads every file, by name.
    ///
    /// # Panics
    /// When one cannot be read.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut maps = read_all::<Self>();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        maps
    }

    /// The map that a boot loader hands to the kernel.
    #[must_use]
    pub fn entries(&self) -> Vec<FirmwareRegion> {
        let list = if self.e820.is_empty() {
            &self.regions
        } else {
            &self.e820
        };
        list.iter().map(MapRegion::entry).collect()
    }

    /// The entries that the firmware itself gave, EFI descriptors translated.
    #[must_use]
    pub fn firmware_entries(&self) -> Vec<FirmwareRegion> {
        self.regions.iter().map(MapRegion::entry).collect()
    }

    /// What Linux computed, by origin: the machine's own log, a replay with Linux 6.1.
    ///
    /// Logs of kernels before 4.0 and of 32-bit kernels are left out: they reserve the first
    /// 64 KiB, print DMA32 up to 4 GiB where memory ends below, start nodes at 0, or have other
    /// zones. Each such file has a replay.
    ///
    /// # Panics
    /// When a file has such a log only.
    #[must_use]
    pub fn results(&self) -> Vec<(Origin, &LinuxResults)> {
        let major = self
            .linux
            .version
            .split('.')
            .next()
            .and_then(|v| v.parse().ok());
        let old = self.linux.arch.is_some() || major.is_some_and(|major: u32| major < 4);
        assert!(!old || self.linux_replay.is_some(), "{}", self.name);
        let log = (!old && !self.linux.is_empty()).then_some((Origin::Log, &self.linux));
        let replay = self.linux_replay.as_ref().map(|r| (Origin::Replay, r));
        log.into_iter().chain(replay).collect()
    }
}

/// Reads what `T` wants of every file, in no order.
fn read_all<T: DeserializeOwned>() -> Vec<T> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/firmware-maps");
    let paths = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        })
        .collect()
}

/// Where a result comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The log of the machine.
    Log,
    /// Linux 6.1 on an emulated machine with the same map; always one node.
    Replay,
}

impl LinuxResults {
    /// The kernel parameters, as a command line.
    #[must_use]
    pub fn command_line(&self) -> String {
        self.params.clone().unwrap_or_default().join(" ")
    }

    /// Whether nothing was computed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.node_ranges.is_empty() && self.zones.is_empty()
    }
}

impl MapRegion {
    /// The entry as firmware would hand it over.
    #[must_use]
    pub fn entry(&self) -> FirmwareRegion {
        let size = self
            .size
            .unwrap_or(Hex(self.end.0.wrapping_sub(self.start.0)));
        FirmwareRegion {
            start: self.start.0,
            size: size.0,
            kind: self.raw_type.unwrap_or_else(|| self.number()),
        }
    }

    fn number(&self) -> u32 {
        let kind = match self.kind.as_str() {
            "usable" => FirmwareKind::Usable,
            "reserved" => FirmwareKind::Reserved,
            "acpi_reclaimable" => FirmwareKind::AcpiReclaimable,
            "acpi_nvs" => FirmwareKind::AcpiNvs,
            "unusable" => FirmwareKind::Unusable,
            "persistent" => FirmwareKind::PersistentRam,
            "soft_reserved" => FirmwareKind::SoftReserved,
            other => match other.strip_prefix("type_") {
                Some(number) => FirmwareKind::from_e820(number.parse().unwrap()),
                None => FirmwareKind::from_efi(efi_type(other), EfiAttributes::empty()),
            },
        };
        kind.as_e820()
    }
}

/// The number of an EFI memory type (UEFI 2.10, section 7.2.1).
fn efi_type(name: &str) -> u32 {
    match name {
        "EfiReservedMemoryType" => 0,
        "EfiLoaderCode" => 1,
        "EfiLoaderData" => 2,
        "EfiBootServicesCode" => 3,
        "EfiBootServicesData" => 4,
        "EfiRuntimeServicesCode" => 5,
        "EfiRuntimeServicesData" => 6,
        "EfiConventionalMemory" => 7,
        "EfiUnusableMemory" => 8,
        "EfiACPIReclaimMemory" => 9,
        "EfiACPIMemoryNVS" => 10,
        "EfiMemoryMappedIO" => 11,
        "EfiMemoryMappedIOPortSpace" => 12,
        other => panic!("EFI memory type {other}"),
    }
}
