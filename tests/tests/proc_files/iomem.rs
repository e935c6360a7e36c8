//! `/proc/iomem` of real machines: System RAM is where Linux has it.

use mm::memblock::params::Params;
use mm::memblock::sanitize::FirmwareMap;
use mm::proc;
use mm_tests::maps::{FirmwareMapFile, Hex, LinuxResults};

use super::parse::{self, Range};
use super::text;

/// Results that differ, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "qemu-hotplug-dimm-coldplug-numa-pc",
        "a DIMM that ACPI reports after boot: hotplug is later work",
    ),
    (
        "raw-wraparound-reserved",
        "one entry wraps: Linux throws the table away, we clip the entry",
    ),
    (
        "raw-wraparound-usable",
        "one entry wraps: Linux throws the table away, we drop the entry",
    ),
];

fn ours(map: &FirmwareMapFile, results: &LinuxResults) -> Vec<Range> {
    let params = Params::parse(&results.command_line(), |_| {});
    let entries = map.entries();
    let firmware = FirmwareMap::new(&entries, 46).edited(&params);
    parse::iomem(&text(|out| {
        proc::iomem(proc::firmware_resources(firmware), out)
    }))
}

#[test]
fn system_ram_of_every_firmware_map_is_where_linux_has_it() {
    let mut differing = Vec::new();
    let mut compared = 0;
    for map in FirmwareMapFile::all() {
        for (_, results) in map.results() {
            let ranges = ours(&map, results);
            let in_order = ranges.windows(2).all(|pair| pair[0].last < pair[1].start);
            assert!(in_order, "{}: {ranges:?}", map.name);
            assert!(ranges.iter().all(|range| range.depth == 0));
            if results.iomem_system_ram.is_empty() {
                continue;
            }
            compared += 1;
            let ram = ranges.iter().filter(|range| range.name == "System RAM");
            let ram: Vec<_> = ram
                .map(|range| (Hex(range.start), Hex(range.last + 1)))
                .collect();
            if ram != results.iomem_system_ram {
                differing.push(map.name.clone());
                println!(
                    "{}:\n  ours  {ram:x?}\n  linux {:x?}",
                    map.name, results.iomem_system_ram
                );
            }
        }
    }
    let expected: Vec<_> = EXCEPTIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(differing, expected);
    assert_eq!(compared, 147);
}
