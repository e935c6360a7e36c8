//! `/proc/iomem`: what lies where in physical memory.
//!
//! The library does not keep the firmware's map; the caller has it and says what to print.
//! [`firmware_resources`] names a map's ranges in Linux's words, [`with_inner`] puts things
//! inside them (the parts of the kernel image), and [`iomem`] prints the lot, each line indented
//! by how many others it lies in:
//!
//! ```
//! use mm::addr::{PhysAddr, PhysRange};
//! use mm::memblock::{firmware::FirmwareRegion, sanitize::FirmwareMap};
//! use mm::proc::{Resource, firmware_resources, iomem, with_inner};
//!
//! let ram = FirmwareRegion { start: 0x10_0000, size: 0x70_0000, kind: 1 };
//! let code = PhysRange::from_size(PhysAddr::new(0x20_0000), 0x8000);
//! let mut text = String::new();
//! iomem(
//!     with_inner(
//!         firmware_resources(FirmwareMap::new(&[ram], 46)),
//!         &[Resource::new(code, "Kernel code")],
//!     ),
//!     &mut text,
//! )?;
//! assert_eq!(text, "00100000-007fffff : System RAM\n  00200000-00207fff : Kernel code\n");
//! # Ok::<(), core::fmt::Error>(())
//! ```
#![forbid(unsafe_code)]

use core::cmp::Reverse;
use core::fmt::{self, Write};

use crate::addr::{PhysAddr, PhysRange};
use crate::memblock::firmware::FirmwareKind;
use crate::memblock::sanitize::{FirmwareMap, KindRange};
use crate::memblock::setup::{BIOS, PAGE_ZERO};

/// How deep lines are indented at most (Linux: `MAX_IORES_LEVEL`).
const LEVELS: usize = 8;

/// A range of physical addresses with a name (Linux: `struct resource`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resource<'a> {
    /// Which bytes.
    pub range: PhysRange,
    /// What they are.
    pub name: &'a str,
}

impl<'a> Resource<'a> {
    /// Names a range. Context: any.
    #[must_use]
    pub const fn new(range: PhysRange, name: &'a str) -> Self {
        Self { range, name }
    }

    /// Where it stands among others: by start, and the larger of two first.
    const fn key(&self) -> (PhysAddr, Reverse<PhysAddr>) {
        (self.range.start(), Reverse(self.range.end()))
    }
}

/// Prints `/proc/iomem`: resources by start, each after the one that it lies in. Empty ones are
/// left out; one that sticks out of another is printed beside it. Context: task.
///
/// # Errors
/// Those of `out`.
pub fn iomem<'a>(
    resources: impl IntoIterator<Item = Resource<'a>>,
    out: &mut dyn Write,
) -> fmt::Result {
    // The resources around the current line, outermost first.
    let mut around = [PhysRange::EMPTY; LEVELS];
    let mut depth: usize = 0;
    for Resource { range, name } in resources {
        if range.is_empty() {
            continue;
        }
        while let Some(parent) = depth.checked_sub(1)
            && !around[parent].covers(range)
        {
            depth = parent;
        }
        let indent = depth.saturating_mul(2);
        let (start, last) = (range.start().as_u64(), range.end().as_u64().wrapping_sub(1));
        writeln!(out, "{:indent$}{start:08x}-{last:08x} : {name}", "")?;
        if let Some(level) = around.get_mut(depth) {
            *level = range;
            depth = depth.saturating_add(1);
        }
    }
    Ok(())
}

/// A firmware map in Linux's words, lowest first: page 0 is reserved, and what is called usable
/// in the BIOS area is left out (`trim_bios_range`), as in the memory table. Context: any.
pub fn firmware_resources(map: FirmwareMap<'_>) -> impl Iterator<Item = Resource<'static>> {
    let mut pieces = map.ranges().flat_map(trimmed).peekable();
    core::iter::from_fn(move || {
        let KindRange { mut range, kind } = pieces.next()?;
        // Page 0 may have become a neighbour of its own kind.
        while let Some(next) = pieces.next_if(|next| {
            next.kind == kind && next.range.start() == range.end() && !kind.keeps_borders()
        }) {
            range = PhysRange::new(range.start(), next.range.end()).unwrap_or(range);
        }
        Some(Resource::new(range, resource_name(kind)))
    })
}

/// What becomes of a range of the map.
fn trimmed(entry: KindRange) -> impl Iterator<Item = KindRange> {
    let KindRange { range, kind } = entry;
    let part = |start, end, kind| {
        let range = PhysRange::new(start, end)?.intersect(range);
        (!range.is_empty()).then_some(KindRange { range, kind })
    };
    let parts = if kind == FirmwareKind::Usable {
        [
            part(PAGE_ZERO.start(), PAGE_ZERO.end(), FirmwareKind::Reserved),
            part(PAGE_ZERO.end(), BIOS.start(), kind),
            part(BIOS.end(), PhysAddr::MAX, kind),
        ]
    } else {
        [Some(entry), None, None]
    };
    parts.into_iter().flatten()
}

/// The name of a kind of memory (Linux: `e820_type_to_string`).
const fn resource_name(kind: FirmwareKind) -> &'static str {
    match kind {
        FirmwareKind::Usable => "System RAM",
        FirmwareKind::Reserved => "Reserved",
        FirmwareKind::AcpiReclaimable => "ACPI Tables",
        FirmwareKind::AcpiNvs => "ACPI Non-volatile Storage",
        FirmwareKind::Unusable => "Unusable memory",
        FirmwareKind::Persistent => "Persistent Memory",
        FirmwareKind::PersistentRam => "Persistent Memory (legacy)",
        FirmwareKind::SoftReserved => "Soft Reserved",
        FirmwareKind::Other(_) => "Unknown E820 type",
    }
}

/// Puts `inner`, in any order, between the resources of `outer`, which come lowest first, so
/// that each stands after the one it lies in. Context: any.
pub fn with_inner<'a, 'o: 'a>(
    outer: impl IntoIterator<Item = Resource<'o>>,
    inner: &'a [Resource<'a>],
) -> impl Iterator<Item = Resource<'a>> {
    let mut outer = outer.into_iter().peekable();
    let mut ahead = lowest_after(inner, None);
    core::iter::from_fn(move || {
        let Some((place, resource)) = ahead else {
            return outer.next();
        };
        if let Some(around) = outer.next_if(|around| around.key() <= resource.key()) {
            return Some(around);
        }
        ahead = lowest_after(inner, Some((resource.key(), place)));
        Some(resource)
    })
}

/// The resource that follows `last` in order, with its place. They are few, so each look-up
/// reads them all.
fn lowest_after<'a>(
    resources: &[Resource<'a>],
    last: Option<((PhysAddr, Reverse<PhysAddr>), usize)>,
) -> Option<(usize, Resource<'a>)> {
    let ahead = resources.iter().copied().enumerate();
    ahead
        .filter(|(place, resource)| Some((resource.key(), *place)) > last)
        .min_by_key(|(place, resource)| (resource.key(), *place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memblock::firmware::FirmwareRegion;

    fn range(start: u64, last: u64) -> PhysRange {
        let end = PhysAddr::new(last).saturating_add(1);
        PhysRange::new(PhysAddr::new(start), end).unwrap()
    }

    fn text<'a>(resources: impl IntoIterator<Item = Resource<'a>>) -> String {
        let mut text = String::new();
        iomem(resources, &mut text).unwrap();
        text
    }

    fn region(start: u64, last: u64, kind: u32) -> FirmwareRegion {
        let size = range(start, last).size();
        FirmwareRegion { start, size, kind }
    }

    /// As Linux 6.18 printed it on a virtual machine.
    #[test]
    fn a_machine_is_what_linux_prints_for_it() {
        let entries = [
            region(0, 0x9fbff, 1),
            region(0x9fc00, 0xfffff, 2),
            region(0x10_0000, 0xbfff_ffff, 1),
            region(0xeec0_0000, 0xfebf_ffff, 2),
            region(0x1_0000_0000, 0x6_3fff_ffff, 1),
        ];
        let inner = [
            Resource::new(range(0x300_0000, 0x327_c13f), "Kernel data"),
            Resource::new(range(0x100_0000, 0x220_bb07), "Kernel code"),
            Resource::new(range(0xeec0_0000, 0xeecf_ffff), "PCI ECAM 0000 [bus 00-00]"),
            Resource::new(range(0xeec0_0000, 0xeecf_ffff), "PCI Bus 0000:00"),
        ];
        let map = firmware_resources(FirmwareMap::new(&entries, 46));
        let expected = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-000fffff : Reserved
00100000-bfffffff : System RAM
  01000000-0220bb07 : Kernel code
  03000000-0327c13f : Kernel data
eec00000-febfffff : Reserved
  eec00000-eecfffff : PCI ECAM 0000 [bus 00-00]
    eec00000-eecfffff : PCI Bus 0000:00
100000000-63fffffff : System RAM
";
        assert_eq!(text(with_inner(map, &inner)), expected);
    }

    #[test]
    fn every_kind_has_its_name() {
        let kinds = [1, 2, 3, 4, 5, 7, 12, 0xefff_ffff, 20];
        let entries: Vec<_> = (0x10_u64..)
            .zip(kinds)
            .map(|(mib, kind)| region(mib << 20, (mib << 20) | 0xf_ffff, kind))
            .collect();
        let expected = "\
01000000-010fffff : System RAM
01100000-011fffff : Reserved
01200000-012fffff : ACPI Tables
01300000-013fffff : ACPI Non-volatile Storage
01400000-014fffff : Unusable memory
01500000-015fffff : Persistent Memory
01600000-016fffff : Persistent Memory (legacy)
01700000-017fffff : Soft Reserved
01800000-018fffff : Unknown E820 type
";
        assert_eq!(
            text(firmware_resources(FirmwareMap::new(&entries, 46))),
            expected
        );
    }

    #[test]
    fn page_0_joins_a_reserved_neighbour_and_the_bios_area_loses_usable_memory() {
        let entries = [
            region(0, 0xfff, 1),
            region(0x1000, 0x1fff, 2),
            region(0x2000, 0x1f_ffff, 1),
        ];
        let expected = "\
00000000-00001fff : Reserved
00002000-0009ffff : System RAM
00100000-001fffff : System RAM
";
        assert_eq!(
            text(firmware_resources(FirmwareMap::new(&entries, 46))),
            expected
        );
    }

    #[test]
    fn a_resource_that_sticks_out_of_another_stands_beside_it() {
        let resources = [
            Resource::new(range(0x1000, 0x4fff), "around"),
            Resource::new(range(0x2000, 0x3fff), "inside"),
            Resource::new(PhysRange::EMPTY, "nothing"),
            Resource::new(range(0x3000, 0x5fff), "across"),
        ];
        let expected = "\
00001000-00004fff : around
  00002000-00003fff : inside
00003000-00005fff : across
";
        assert_eq!(text(resources), expected);
    }

    #[test]
    fn nesting_has_a_limit() {
        let resources = (0..12_u64).map(|n| Resource::new(range(n, 0xff), "level"));
        let text = text(resources);
        let indents = text
            .lines()
            .map(|line| line.len() - line.trim_start().len());
        assert!(indents.eq((0..12).map(|level: usize| 2 * level.min(8))));
    }
}
