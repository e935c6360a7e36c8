//! Every firmware map, through sanitising, memblock and the zone plan, against Linux's results.
//!
//! Each result in a file is compared twice: with all memory on one node, where Linux's numbers
//! are merged first, and with the nodes that the firmware's own table names.

use core::fmt::Debug;
use std::collections::{BTreeMap, BTreeSet};

use mm::addr::{PfnRange, PhysAddr, PhysRange};
use mm::memblock::Memblock;
use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::nodes;
use mm::memblock::params::Params;
use mm::memblock::sanitize::KindRange;
use mm::memblock::setup::{self, LowMemory, SetupError, SetupLine, SetupPolicy};
use mm::platform::NodeId;
use mm::zone::ZoneKind;
use mm::zone::plan::{CoreWish, NodePlan, Plan, PlanLine};
use mm_tests::maps::{FirmwareMapFile, Hex, LinuxResults, MapRegion, NodeRange, Origin, ZoneInfo};
use mm_tests::window::Window;

/// Results that differ from ours, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "pub-bios-88-fallback-49m",
        "that kernel was built without ZONE_DMA",
    ),
    (
        "raw-wraparound-reserved",
        "one entry wraps: Linux throws the table away, we drop the entry (rule 6)",
    ),
    (
        "raw-wraparound-usable",
        "one entry wraps: Linux throws the table away, we drop the entry (rule 6)",
    ),
    (
        "srat-undercover-512k",
        "512 KiB of RAM without a node: Linux crashes, for us they are node 0's (rule 9)",
    ),
];

/// Results that differ only while all memory is on one node.
const ONE_NODE_EXCEPTIONS: &[(&str, &str)] = &[(
    "srat-boundary-mid-page",
    "Linux loses the page that has two nodes; on one node there is no such page",
)];

/// How memory is spread over nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nodes {
    /// All on node 0.
    One,
    /// As the firmware's table says.
    Firmware,
}

/// What we computed, in the shape of the files.
#[derive(Debug, Default)]
struct Ours {
    firmware: Vec<KindRange>,
    user: Vec<KindRange>,
    results: LinuxResults,
}

fn compute(
    map: &FirmwareMapFile,
    entries: &[FirmwareRegion],
    linux: &LinuxResults,
    spread: Nodes,
) -> Result<Ours, SetupError> {
    let mut window = Window::none();
    let mut memblock = window.memblock();
    let line = linux.command_line();
    let params = Params::parse(&line, |error| panic!("{}: {error}", map.name));
    let policy = SetupPolicy {
        phys_bits: 52,
        low_memory: LowMemory::Reserve,
        params: &params,
    };
    let mut ours = Ours::default();
    let mut log = |line: &SetupLine| match line {
        SetupLine::Firmware(range) => ours.firmware.push(*range),
        SetupLine::User(range) => ours.user.push(*range),
        SetupLine::LastPfn(pfn) => ours.results.last_pfn.push(Hex(pfn.as_u64())),
        _ => {}
    };
    setup::add_firmware_map(&mut memblock, &window, entries, &policy, &mut log)?;
    if spread == Nodes::Firmware {
        // An entry that wraps is the table reader's business.
        let claim = |part: &NodeRange| {
            let (range, node) = (range(part.start, part.end)?, NodeId(part.node));
            Some(nodes::NodeRange { range, node })
        };
        let claims: Vec<_> = map.numa.iter().filter_map(claim).collect();
        if let Err(error) = memblock.set_nodes(&window, &claims) {
            println!("{}: {error}", map.name);
        } else if params.movable_node {
            // Where nodes were found in the log only, any may be unplugged that Linux let.
            let of_log = map.numa_source.is_some();
            let pluggable = map.numa.iter().filter(|part| part.hotplug || of_log);
            let ranges: Vec<_> = pluggable
                .filter_map(|part| range(part.start, part.end))
                .collect();
            memblock.spare_hotplug(&window, &ranges).unwrap();
        }
    }
    memblock.validate().unwrap();
    plan(&memblock, CoreWish::from(&params), &mut ours.results);
    Ok(ours)
}

fn range(start: Hex, end: Hex) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(start.0), PhysAddr::new(end.0))
}

/// Plans nodes and zones and writes down what the boot log would say.
fn plan(memblock: &Memblock, wish: CoreWish, results: &mut LinuxResults) {
    let mut nodes = vec![NodePlan::EMPTY; 64];
    let plan = Plan::compute(memblock, wish, &mut nodes).unwrap();
    let on_node = |node: NodeId, frames: PfnRange| {
        let range = frames.addrs();
        let (start, end) = (Hex(range.start().as_u64()), Hex(range.end().as_u64()));
        let node = node.0;
        NodeRange {
            node,
            start,
            end,
            hotplug: false,
        }
    };
    let mut unavailable: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    plan.lines(memblock, &mut |line| match *line {
        PlanLine::Zone(kind, frames) if frames.is_empty() => {
            results.empty_zones.push(kind.to_string());
        }
        PlanLine::Zone(kind, frames) => {
            let NodeRange { start, end, .. } = on_node(NodeId(0), frames);
            let last = Hex(end.0 - 1);
            results.zones.insert(kind.to_string(), (start, last));
        }
        PlanLine::MovableStart(node, pfn) => {
            let start = Hex(pfn.addr().as_u64());
            results.movable_start.insert(node.0, start);
        }
        PlanLine::NodeRange(node, frames) => results.node_ranges.push(on_node(node, frames)),
        PlanLine::NodeSpan(node, frames) => results.initmem.push(on_node(node, frames)),
        PlanLine::Unavailable(found) => {
            let place = format!("node{}/{}", found.node, found.zone);
            unavailable.entry(place).or_default().push(found.frames);
        }
        PlanLine::ZonesHeading | PlanLine::MovableHeading | PlanLine::RangesHeading => {}
    });
    results.unavailable = Some(unavailable);
    for (id, node) in plan.with_memory() {
        results.node_totalpages.insert(id.0, node.present);
        for kind in ZoneKind::ALL {
            let zone = node.zone(kind);
            let start = zone.frames.first().as_u64();
            if !zone.frames.is_empty() {
                let info = ZoneInfo {
                    start_pfn: (zone.present > 0).then_some(start),
                    spanned: zone.frames.frames(),
                    present: zone.present,
                };
                results.zoneinfo.insert(format!("node{id}/{kind}"), info);
            }
        }
    }
}

/// Linux's numbers as they would be if all its nodes were one.
fn on_one_node(many: &LinuxResults) -> LinuxResults {
    let mut one = many.clone();
    one.node_ranges.clear();
    for range in many.node_ranges.iter().map(|r| NodeRange { node: 0, ..*r }) {
        match one.node_ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => one.node_ranges.push(range),
        }
    }
    let start = many.initmem.iter().map(|span| span.start).min();
    let end = many.initmem.iter().map(|span| span.end).max();
    let span = start.zip(end);
    one.initmem = span
        .map(|(start, end)| {
            vec![NodeRange {
                node: 0,
                start,
                end,
                hotplug: false,
            }]
        })
        .unwrap_or_default();
    let pages = many.node_totalpages.values().copied().reduce(|a, b| a + b);
    one.node_totalpages = pages.map(|pages| (0, pages)).into_iter().collect();

    one.zoneinfo.clear();
    // Where Movable zones start depends on nodes, so then nothing can be said.
    let comparable = |info: &ZoneInfo| info.present > 0 && many.movable_start.is_empty();
    for (place, info) in many.zoneinfo.iter().filter(|(_, info)| comparable(info)) {
        let zone = place.split_once('/').unwrap().1;
        // One node spans all that the zone's limits leave of it.
        let (first, last) = many.zones[zone];
        let (start, end) = (first.0 >> 12, (last.0 + 1) >> 12);
        let empty = ZoneInfo {
            start_pfn: Some(start),
            spanned: end - start,
            present: 0,
        };
        let sum = one.zoneinfo.entry(format!("node0/{zone}")).or_insert(empty);
        sum.present += info.present;
    }
    one.unavailable = summed(many);
    one.movable_start.clear();
    one
}

/// Which zone a hole is charged to depends on nodes; their sum does not.
fn summed(results: &LinuxResults) -> Option<BTreeMap<String, Vec<u64>>> {
    let holes = results.unavailable.as_ref()?;
    let sum = holes.values().flatten().sum();
    Some(BTreeMap::from([("all".to_owned(), vec![sum])]))
}

/// Everything in which we differ from what a file says Linux computed.
fn differences(map: &FirmwareMapFile, linux: &LinuxResults, nodes: Nodes) -> Vec<String> {
    let Ours {
        firmware,
        user,
        results: mut ours,
    } = match compute(map, &map.entries(), linux, nodes) {
        Ok(ours) => ours,
        Err(error) => return vec![format!("{error}")],
    };
    let mut linux = linux.clone();
    let present = |span: &NodeRange| span.start != span.end;
    linux.initmem.retain(present);
    let of_many = linux.node_ranges.iter().any(|range| range.node != 0);
    if nodes == Nodes::One && of_many {
        linux = on_one_node(&linux);
        ours.unavailable = summed(&ours);
        ours.movable_start.clear();
    }

    let mut found = Vec::new();
    let mut same = |what: &str, ours: &dyn Debug, linux: &dyn Debug| {
        let (ours, linux) = (format!("{ours:?}"), format!("{linux:?}"));
        if ours != linux {
            found.push(format!("{what}:\n    ours  {ours}\n    Linux {linux}"));
        }
    };
    same("movable_start", &ours.movable_start, &linux.movable_start);
    if !linux.zones.is_empty() {
        same("zones", &ours.zones, &linux.zones);
    }
    if !linux.node_ranges.is_empty() {
        same("node_ranges", &ours.node_ranges, &linux.node_ranges);
    }
    if !linux.initmem.is_empty() {
        same("initmem", &ours.initmem, &linux.initmem);
    }
    if linux.unavailable.is_some() {
        same("unavailable", &ours.unavailable, &linux.unavailable);
    }
    if !linux.zoneinfo.is_empty() {
        same("zoneinfo", &ours.zoneinfo, &linux.zoneinfo);
    }
    if !linux.node_totalpages.is_empty() {
        same("totals", &ours.node_totalpages, &linux.node_totalpages);
    }
    if let Some(last) = linux.last_pfn.iter().max() {
        same("last_pfn", &ours.last_pfn, &[last]);
    }
    // Whether there is a Device zone to be empty is up to the kernel's configuration.
    linux.empty_zones.retain(|zone| zone != "Device");
    ours.empty_zones.retain(|zone| zone != "Device");
    if !linux.empty_zones.is_empty() {
        same("empty_zones", &ours.empty_zones, &linux.empty_zones);
    }
    if !linux.sanitized_map.is_empty() {
        same(
            "sanitized_map",
            &plain(&firmware),
            &raw(&linux.sanitized_map),
        );
    }
    if !linux.user_map.is_empty() {
        same("user_map", &plain(&user), &raw(&linux.user_map));
    }
    found
}

fn plain(map: &[KindRange]) -> Vec<(Hex, Hex, u32)> {
    let entry = |entry: &KindRange| {
        let (start, end) = (entry.range.start(), entry.range.end());
        (Hex(start.as_u64()), Hex(end.as_u64()), entry.kind.as_e820())
    };
    map.iter().map(entry).collect()
}

fn raw(map: &[MapRegion]) -> Vec<(Hex, Hex, u32)> {
    let entry = |entry: &MapRegion| (entry.start, entry.end, entry.entry().kind);
    map.iter().map(entry).collect()
}

/// Compares every result with ours; those that differ must be exactly the ones listed.
fn compare_all(nodes: Nodes, exceptions: &[(&str, &str)]) {
    let mut compared = 0;
    let mut equal = 0;
    let mut differing: BTreeMap<String, String> = BTreeMap::new();
    for map in FirmwareMapFile::all() {
        for (origin, linux) in map.results() {
            let nodes = match origin {
                Origin::Log => nodes,
                Origin::Replay => Nodes::One,
            };
            compared += 1;
            let found = differences(&map, linux, nodes);
            if found.is_empty() {
                equal += 1;
            } else {
                let text = format!("{origin:?} ({}): {}", linux.version, found.join("\n  "));
                differing.insert(map.name.clone(), text);
            }
        }
    }
    println!("{nodes:?}: {equal} of {compared} results equal");
    let listed: BTreeSet<String> = exceptions
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    for (name, text) in differing.iter().filter(|(name, _)| !listed.contains(*name)) {
        eprintln!("{name}\n  {text}");
    }
    let names: BTreeSet<String> = differing.into_keys().collect();
    assert_eq!(names, listed, "differing (left) against listed (right)");
}

#[test]
fn on_one_node_every_map_gives_what_linux_computed() {
    compare_all(Nodes::One, &[EXCEPTIONS, ONE_NODE_EXCEPTIONS].concat());
}

#[test]
fn with_the_firmwares_nodes_every_map_gives_what_linux_computed() {
    compare_all(Nodes::Firmware, EXCEPTIONS);
}

#[test]
fn every_map_is_there_and_only_the_partial_one_has_no_usable_memory() {
    let maps = FirmwareMapFile::all();
    assert_eq!(maps.len(), 162);
    for map in maps {
        let ours = compute(&map, &map.entries(), &map.linux, Nodes::One);
        let without = map.name == "pub-amd-cxl-soft-reserved-split-at-1t";
        assert_eq!(ours.is_err(), without, "{}", map.name);
        assert_eq!(map.results().is_empty(), without, "{}", map.name);
    }
}

#[test]
fn efi_descriptors_give_the_memory_that_the_loaders_list_gives() {
    for map in FirmwareMapFile::all() {
        if map.kind == "efi" {
            let direct = compute(&map, &map.firmware_entries(), &map.linux, Nodes::One).unwrap();
            let loaders = compute(&map, &map.entries(), &map.linux, Nodes::One).unwrap();
            assert_eq!(
                direct.results.node_ranges, loaders.results.node_ranges,
                "{}",
                map.name
            );
        }
    }
}

#[test]
fn maps_that_linux_had_sanitised_stay_as_they_are() {
    for map in FirmwareMapFile::all() {
        if map.kind != "efi" && map.linux.sanitized_map.is_empty() {
            let Ok(ours) = compute(&map, &map.entries(), &map.linux, Nodes::One) else {
                continue;
            };
            assert_eq!(plain(&ours.firmware), raw(&map.regions), "{}", map.name);
        }
    }
}
