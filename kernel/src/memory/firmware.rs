//! The boot loader's memory map as `mm` wants it, and what must not be handed out.

use crate::arch::image;
use crate::heap;
use alloc::vec::Vec;
use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::firmware::{EfiAttributes, FirmwareKind, FirmwareRegion};
use mm::memblock::sanitize::{FirmwareMap, KindRange};

/// What `memory` and its commands need to know about the machine's map.
#[derive(Debug)]
pub(super) struct Firmware {
    /// The map as it came, in any order, with whatever is wrong with it.
    pub(super) entries: Vec<FirmwareRegion>,
    /// What holds something, with a name. Part of the kernel's image is its early heap, which is given back.
    pub(super) taken: Vec<(PhysRange, &'static str)>,
}

impl Firmware {
    /// Reads what the boot loader handed over.
    pub(super) fn read(info: &BootInfo) -> Self {
        let entries = info
            .memory_regions
            .iter()
            .filter(|region| !is_note(info, region));
        let entries = entries.map(entry).collect();
        let mut taken: Vec<_> = boot::reserved_ranges()
            .iter()
            .filter_map(|range| Some((span(range.start, range.end)?, range.kind.name())))
            .collect();
        taken.push((image::physical(info), "kernel image"));
        taken.push((heap::early_pages(info), "early heap"));
        taken.extend(ramdisk(info).map(|range| (range, "ramdisk")));
        if let Some(&rsdp) = info.rsdp_addr.as_ref() {
            taken.push((
                PhysRange::from_size(PhysAddr::new(rsdp), RSDP_BYTES),
                "ACPI RSDP",
            ));
        }
        // Other loaders mark what they use as regions of their own kind.
        let used = info
            .memory_regions
            .iter()
            .filter(|region| region.kind == MemoryRegionKind::Bootloader);
        taken.extend(
            used.filter_map(|region| Some((span(region.start, region.end)?, "boot loader"))),
        );
        taken.retain(|(range, _)| !range.is_empty());
        Self { entries, taken }
    }

    /// The map, put right.
    pub(super) fn map(&self, phys_bits: u32) -> FirmwareMap<'_> {
        FirmwareMap::new(&self.entries, phys_bits)
    }

    /// The ranges that the firmware calls usable: what the boot loader mapped.
    pub(super) fn usable(&self, phys_bits: u32) -> impl Iterator<Item = PhysRange> {
        let usable = |range: &KindRange| range.kind == FirmwareKind::Usable;
        self.map(phys_bits)
            .ranges()
            .filter(usable)
            .map(|range| range.range)
    }
}

/// Whether a region only notes that the loader uses part of a usable one: our own loader does
/// so, others cut what they use out of the usable regions.
fn is_note(info: &BootInfo, region: &MemoryRegion) -> bool {
    let is_usable = |other: &&MemoryRegion| other.kind == MemoryRegionKind::Usable;
    let covers = |other: &MemoryRegion| other.start <= region.start && region.end <= other.end;
    let mut usable = info.memory_regions.iter().filter(is_usable);
    region.kind == MemoryRegionKind::Bootloader && usable.any(covers)
}

/// Where the ramdisk lies: its address is one of the loader's map of physical memory.
fn ramdisk(info: &BootInfo) -> Option<PhysRange> {
    let offset = info.physical_memory_offset.as_ref()?;
    let start = info.ramdisk_addr.as_ref()?.checked_sub(*offset)?;
    Some(PhysRange::from_size(PhysAddr::new(start), info.ramdisk_len))
}

/// Bytes of the ACPI root pointer, revision 2 (ACPI 6.5, 5.2.5.3).
const RSDP_BYTES: u64 = 36;

fn span(start: u64, end: u64) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

fn entry(region: &MemoryRegion) -> FirmwareRegion {
    let kind = match region.kind {
        // What a loader uses is RAM; it is reserved apart.
        MemoryRegionKind::Usable | MemoryRegionKind::Bootloader => FirmwareKind::Usable.as_e820(),
        MemoryRegionKind::UnknownBios(number) => number,
        MemoryRegionKind::UnknownUefi(number) => {
            FirmwareKind::from_efi(number, EfiAttributes::empty()).as_e820()
        }
        _ => FirmwareKind::Reserved.as_e820(),
    };
    // A region that wraps has an end below its start: its size says so.
    FirmwareRegion {
        start: region.start,
        size: region.end.wrapping_sub(region.start),
        kind,
    }
}
