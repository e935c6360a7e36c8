//! Maps of the boot protocols that kernels of one's own have, as `docs/porting.md` reads them: all come to the same memory.

use mm::memblock::firmware::{EfiAttributes, FirmwareKind, FirmwareRegion};
use mm::memblock::params::Params;
use mm::memblock::setup::{LowMemory, SetupPolicy, add_firmware_map};
use mm_tests::window::Window;
use multiboot2::{MemoryArea, MemoryAreaType, MemoryMapTag};

/// An entry of the map that PVH's `hvm_start_info` names (Xen: `hvm_memmap_table_entry`).
#[repr(C)]
struct PvhEntry {
    addr: u64,
    size: u64,
    /// A number of E820's.
    kind: u32,
    reserved: u32,
}

fn from_pvh(entry: &PvhEntry) -> FirmwareRegion {
    FirmwareRegion {
        start: entry.addr,
        size: entry.size,
        kind: entry.kind,
    }
}

fn from_multiboot2(area: &MemoryArea) -> FirmwareRegion {
    FirmwareRegion {
        start: area.start_address(),
        size: area.size(),
        // Numbers of E820's, too.
        kind: area.typ().val(),
    }
}

/// A memory descriptor of UEFI's, after boot services have ended (UEFI 2.10, section 7.2.3).
#[repr(C)]
struct EfiDescriptor {
    kind: u32,
    padding: u32,
    physical_start: u64,
    virtual_start: u64,
    pages: u64,
    attribute: u64,
}

fn from_efi(descriptor: &EfiDescriptor) -> FirmwareRegion {
    let attributes = EfiAttributes::from_bits_retain(descriptor.attribute);
    FirmwareRegion {
        start: descriptor.physical_start,
        size: descriptor.pages.saturating_mul(4096),
        kind: FirmwareKind::from_efi(descriptor.kind, attributes).as_e820(),
    }
}

/// Start, size, E820's number, UEFI's number: a machine of 64 MiB with ACPI tables at 48 MiB.
const MACHINE: [(u64, u64, u32, u32); 5] = [
    (0, 0xa_0000, 1, 7),
    (0xf_0000, 0x1_0000, 2, 0),
    (0x10_0000, 0x2f0_0000, 1, 7),
    (0x300_0000, 0x1_0000, 3, 9),
    (0x301_0000, 0xff_0000, 1, 4),
];

/// What memblock takes for RAM.
fn ram(entries: &[FirmwareRegion]) -> Vec<(u64, u64)> {
    let mut window = Window::none();
    let mut memblock = window.memblock();
    let params = Params::parse("", |error| panic!("{error}"));
    let policy = SetupPolicy {
        phys_bits: 40,
        low_memory: LowMemory::Reserve,
        params: &params,
    };
    add_firmware_map(&mut memblock, &window, entries, &policy, &mut |_| {}).unwrap();
    let ranges = memblock.memory().iter();
    let ranges = ranges.map(|region| (region.range.start().as_u64(), region.range.end().as_u64()));
    ranges.collect()
}

#[test]
fn maps_of_every_protocol_come_to_the_same_memory() {
    let pvh = MACHINE.map(|(addr, size, kind, _)| PvhEntry {
        addr,
        size,
        kind,
        reserved: 0,
    });
    let pvh = pvh.each_ref().map(from_pvh);

    let areas = MACHINE
        .map(|(start, size, kind, _)| MemoryArea::new(start, size, MemoryAreaType::from_val(kind)));
    let tag = MemoryMapTag::new(&areas);
    let multiboot2: Vec<_> = tag.memory_areas().iter().map(from_multiboot2).collect();

    let efi = MACHINE.map(|(start, size, _, kind)| EfiDescriptor {
        kind,
        padding: 0,
        physical_start: start,
        virtual_start: 0,
        pages: size / 4096,
        attribute: 0xf,
    });
    let efi = efi.each_ref().map(from_efi);

    // Page 0 is kept back; the ACPI tables are no RAM yet.
    let expected = [
        (0x1000, 0xa_0000),
        (0x10_0000, 0x300_0000),
        (0x301_0000, 0x400_0000),
    ];
    assert_eq!(ram(&pvh), expected);
    assert_eq!(multiboot2, pvh);
    assert_eq!(ram(&efi), expected);
}

#[test]
fn what_uefi_sets_aside_for_a_device_is_no_ram() {
    let mut descriptor = EfiDescriptor {
        kind: 7,
        padding: 0,
        physical_start: 0x10_0000,
        virtual_start: 0,
        pages: 256,
        // EFI_MEMORY_SP.
        attribute: 0x4_000f,
    };
    let other = FirmwareRegion {
        start: 0x40_0000,
        size: 0x10_0000,
        kind: FirmwareKind::Usable.as_e820(),
    };
    assert_eq!(
        ram(&[from_efi(&descriptor), other]),
        [(0x40_0000, 0x50_0000)]
    );
    descriptor.attribute = 0xf;
    assert_eq!(ram(&[from_efi(&descriptor)]), [(0x10_0000, 0x20_0000)]);
    descriptor.pages = u64::MAX;
    let region = from_efi(&descriptor);
    assert!(
        region.wraps(),
        "nonsense stays nonsense, for memblock to clip"
    );
    assert_eq!(ram(&[region]), [(0x10_0000, 1 << 40)]);
}
