//! What the boot log says about memory: Linux's words, our repairs.

use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::params::Params;
use mm::memblock::setup::{LowMemory, SetupError, SetupPolicy, add_firmware_map};
use mm::platform::NodeId;
use mm::zone::plan::{CoreWish, NodePlan, Plan};
use mm_tests::maps::FirmwareMapFile;
use mm_tests::window::Window;

/// Boots a map and gives every line.
fn log(
    entries: &[FirmwareRegion],
    nodes: &[(u16, u64, u64)],
    line: &str,
    phys_bits: u32,
) -> Result<String, SetupError> {
    let mut text = String::new();
    let params = Params::parse(line, |error| panic!("{error}"));
    let mut window = Window::none();
    let mut memblock = window.memblock();
    let policy = SetupPolicy {
        phys_bits,
        low_memory: LowMemory::Reserve,
        params: &params,
    };
    let mut say = |line: &dyn core::fmt::Display| text.push_str(&format!("{line}\n"));
    add_firmware_map(&mut memblock, &window, entries, &policy, &mut |line| {
        say(line)
    })?;
    for (node, start, end) in nodes {
        let range = mm::addr::PhysRange::from_size(mm::addr::PhysAddr::new(*start), end - start);
        memblock.set_node(&window, range, NodeId(*node)).unwrap();
    }
    let mut plans = [NodePlan::EMPTY; 4];
    let plan = Plan::compute(&memblock, CoreWish::from(&params), &mut plans).unwrap();
    plan.lines(&memblock, &mut |line| say(line));
    Ok(text)
}

#[test]
fn nodes_and_zones_are_described_as_linux_does() {
    let maps = FirmwareMapFile::all();
    let name = "qemu-par-kernelcore-50pct-numa-pc";
    let map = maps.iter().find(|map| map.name == name).unwrap();
    let nodes: Vec<_> = map
        .numa
        .iter()
        .map(|n| (n.node, n.start.0, n.end.0))
        .collect();
    let text = log(&map.entries(), &nodes, "kernelcore=50%", 46).unwrap();
    expect_test::expect![[r#"
        BIOS-provided physical RAM map:
        BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
        BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
        BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved
        BIOS-e820: [mem 0x0000000000100000-0x00000000bffdffff] usable
        BIOS-e820: [mem 0x00000000bffe0000-0x00000000bfffffff] reserved
        BIOS-e820: [mem 0x00000000fffc0000-0x00000000ffffffff] reserved
        BIOS-e820: [mem 0x0000000100000000-0x000000013fffffff] usable
        BIOS-e820: [mem 0x000000fd00000000-0x000000ffffffffff] reserved
        e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
        last_pfn = 0x140000 max_arch_pfn = 0x10000000000
        Zone ranges:
          DMA      [mem 0x0000000000001000-0x0000000000ffffff]
          DMA32    [mem 0x0000000001000000-0x00000000ffffffff]
          Normal   [mem 0x0000000100000000-0x000000013fffffff]
          Device   empty
        Movable zone start for each node
          Node 1: 0x0000000100000000
        Early memory node ranges
          node   0: [mem 0x0000000000001000-0x000000000009efff]
          node   0: [mem 0x0000000000100000-0x000000007fffffff]
          node   1: [mem 0x0000000080000000-0x00000000bffdffff]
          node   1: [mem 0x0000000100000000-0x000000013fffffff]
        Initmem setup node 0 [mem 0x0000000000001000-0x000000007fffffff]
        Initmem setup node 1 [mem 0x0000000080000000-0x000000013fffffff]
        On node 0, zone DMA: 1 pages in unavailable ranges
        On node 0, zone DMA: 97 pages in unavailable ranges
        On node 1, zone Movable: 32 pages in unavailable ranges
    "#]]
    .assert_eq(&text);
}

#[test]
fn every_repair_is_told_once() {
    let entry = |start, size, kind| FirmwareRegion { start, size, kind };
    let entries = [
        entry(0x10_0000, 0x10_0000, 1),
        entry(0, 0x9_fc00, 1),
        entry(0x18_0000, 0x1000, 2),
        entry(0x20_0000, 0, 1),
        entry(0x30_0000, 0x1000, 0),
        entry(1 << 50, 0x1000, 1),
        entry((1 << 36) - 0x1000, 0x2000, 2),
        entry(u64::MAX - 0xfff, 0x2000, 2),
    ];
    let text = log(&entries, &[], "mem=1536K memmap=4K!0x140000", 36).unwrap();
    expect_test::expect![[r#"
        firmware map entry 0 (0x100000 + 0x100000, usable): overlaps entry 2, which stays reserved
        firmware map entry 1 (0x0 + 0x9fc00, usable): out of order, sorted
        firmware map entry 3 (0x200000 + 0x0, usable): empty, dropped
        firmware map entry 4 (0x300000 + 0x1000, type 0): no type, dropped
        firmware map entry 5 (0x4000000000000 + 0x1000, usable): beyond the CPU's physical addresses, dropped
        firmware map entry 6 (0xffffff000 + 0x2000, reserved): ends past the CPU's physical addresses, cut to [mem 0x0000000ffffff000-0x0000000fffffffff]
        firmware map entry 6 (0xffffff000 + 0x2000, reserved): out of order, sorted
        firmware map entry 7 (0xfffffffffffff000 + 0x2000, reserved): beyond the CPU's physical addresses, dropped
        BIOS-provided physical RAM map:
        BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
        BIOS-e820: [mem 0x0000000000100000-0x000000000017ffff] usable
        BIOS-e820: [mem 0x0000000000180000-0x0000000000180fff] reserved
        BIOS-e820: [mem 0x0000000000181000-0x00000000001fffff] usable
        BIOS-e820: [mem 0x0000000ffffff000-0x0000000fffffffff] reserved
        user-defined physical RAM map:
        user: [mem 0x0000000000000000-0x000000000009fbff] usable
        user: [mem 0x0000000000100000-0x000000000013ffff] usable
        user: [mem 0x0000000000140000-0x0000000000140fff] persistent (type 12)
        user: [mem 0x0000000000141000-0x000000000017ffff] usable
        user: [mem 0x0000000000180000-0x0000000000180fff] reserved
        user: [mem 0x0000000ffffff000-0x0000000fffffffff] reserved
        e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
        last_pfn = 0x180 max_arch_pfn = 0x10000000000
        Zone ranges:
          DMA      [mem 0x0000000000001000-0x000000000017ffff]
          DMA32    empty
          Normal   empty
          Device   empty
        Movable zone start for each node
        Early memory node ranges
          node   0: [mem 0x0000000000001000-0x000000000009efff]
          node   0: [mem 0x0000000000100000-0x000000000013ffff]
          node   0: [mem 0x0000000000141000-0x000000000017ffff]
        Initmem setup node 0 [mem 0x0000000000001000-0x000000000017ffff]
        On node 0, zone DMA: 1 pages in unavailable ranges
        On node 0, zone DMA: 97 pages in unavailable ranges
        On node 0, zone DMA: 1 pages in unavailable ranges
        On node 0, zone DMA: 32384 pages in unavailable ranges
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_map_without_a_usable_page_is_an_error() {
    let entry = |start, size, kind| FirmwareRegion { start, size, kind };
    for entries in [
        &[][..],
        &[entry(0, 0x1000, 1)],
        &[entry(0xa_0000, 0x6_0000, 1)],
        &[entry(0x10_0800, 0x1000, 1)],
        &[entry(0x10_0000, 0x1000, 1), entry(0x10_0000, 0x1000, 2)],
        &[entry(1 << 40, 0x1000, 1)],
    ] {
        let error = log(entries, &[], "", 36).unwrap_err();
        let expected = SetupError::NoUsableMemory {
            entries: entries.len(),
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_command_line_that_leaves_nothing_is_an_error_of_its_own() {
    let entries = [FirmwareRegion {
        start: 0x10_0000,
        size: 0x10_0000,
        kind: 1,
    }];
    for line in [
        "memmap=exactmap",
        "mem=1M",
        "memmap=1M$1M",
        "memmap=exactmap memmap=4K@0",
    ] {
        let error = log(&entries, &[], line, 36).unwrap_err();
        assert_eq!(error, SetupError::NothingLeft, "{line}");
    }
}

#[test]
fn additions_past_the_cpus_width_are_cut_and_told() {
    let entries = [FirmwareRegion {
        start: 0x10_0000,
        size: 0x10_0000,
        kind: 1,
    }];
    let line = "memmap=1M@0x4000000000,8K$0xffffff000";
    let text = log(&entries, &[], line, 36).unwrap();
    let told: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("memmap:"))
        .collect();
    expect_test::expect![[r#"
        memmap: [mem 0x0000004000000000-0x00000040000fffff]: beyond the CPU's physical addresses, dropped
        memmap: [mem 0x0000000ffffff000-0x0000001000000fff]: ends past the CPU's physical addresses, cut to [mem 0x0000000ffffff000-0x0000000fffffffff]"#]].assert_eq(&told.join("\n"));
}

#[test]
fn the_first_mib_is_handed_out_only_where_the_policy_says_so() {
    let entry = |start, size, kind| FirmwareRegion { start, size, kind };
    let entries = [entry(0, 0xa_0000, 1), entry(0x10_0000, 0x10_0000, 1)];
    for (low_memory, frames) in [
        (LowMemory::Reserve, vec![(0x100, 0x100)]),
        (LowMemory::HandOut, vec![(0x10, 0x90), (0x100, 0x100)]),
    ] {
        let mut window = Window::none();
        let mut memblock = window.memblock();
        let policy = SetupPolicy {
            phys_bits: 36,
            low_memory,
            params: &Params::NONE,
        };
        add_firmware_map(&mut memblock, &window, &entries, &policy, &mut |_| {}).unwrap();
        // Present it is in either case.
        assert_eq!(memblock.memory_bytes(), 0x9_f000 + 0x10_0000);
        let mut found = Vec::new();
        memblock.hand_over(&mut |run, _| {
            found.push((run.frames.first().as_u64(), run.frames.frames()));
        });
        assert_eq!(found, frames, "{low_memory:?}");
    }
}
