//! Firmware that says which memory belongs to which node, and says it well, badly or not at all: the
//! machine comes up, and all memory is there.
//!
//! QEMU writes no SRAT and no SLIT of its own for a machine without `-numa`, so these are the only ones.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use libtest_mimic::Failed;

use crate::succeeds_and_says;

const MIB: u64 = 1 << 20;
const ENABLED: u8 = 1;
const HOT: u8 = 3;

/// Memory of a node: the node, first byte, bytes, flags.
type Memory = (u32, u64, u64, u8);

/// Tables, and what is made of them. The machine has 512 MiB and four CPUs, two on each of two nodes.
pub(crate) struct Tables {
    /// Name of the test, after `tables::`.
    pub(crate) name: &'static str,
    memory: &'static [Memory],
    /// The distances, of as many nodes as the root of their number.
    distances: &'static [u8],
    /// Bytes behind the last record of the SRAT.
    noise: &'static [u8],
    /// The kernel's command line.
    line: &'static str,
    /// Lines that must be printed.
    says: &'static [&'static str],
}

const LOW: Memory = (0, 0, 256 * MIB, ENABLED);
const HIGH: Memory = (1, 256 * MIB, 256 * MIB, ENABLED);
const HIGH_HOT: Memory = (1, 256 * MIB, 256 * MIB, HOT);
const ONE_NODE: &[&str] = &[
    "one node, as the SRAT cannot be right: ",
    "available: 1 nodes (0)\n",
];
const TWO_NODES: &[&str] = &["available: 2 nodes (0-1)\n"];
const USUAL_DISTANCES: &str = "  0:  10  20 \n  1:  20  10 \n";

/// A machine with two nodes, and nothing wrong.
const GOOD: Tables = Tables {
    name: "good",
    memory: &[LOW, HIGH],
    distances: &[10, 31, 32, 10],
    noise: &[],
    line: "",
    says: &[
        "available: 2 nodes (0-1)\n",
        "node 1 cpus: 2 3\n",
        "  0:  10  31 \n  1:  32  10 \n",
        "SRAT: Node 1 [mem 0x0000000010000000-0x000000001fffffff]\n",
    ],
};

/// The machines.
pub(crate) const TABLES: &[Tables] = &[
    GOOD,
    Tables {
        name: "movable_node",
        memory: &[LOW, HIGH_HOT],
        line: "movable_node",
        says: &[
            "SRAT: Node 1 [mem 0x0000000010000000-0x000000001fffffff] hotplug\n",
            "movable_node: memory of nodes 1 is movable\n",
            "  Node 1: 0x0000000010000000\n",
            // All of it, with its own records.
            "        present  65504\n",
        ],
        ..GOOD
    },
    Tables {
        name: "movable_node_that_holds_the_kernel",
        memory: &[(0, 0, 256 * MIB, HOT), HIGH_HOT],
        line: "movable_node kernelcore=16M",
        says: &["movable_node: memory of nodes 1 is movable\n"],
        ..GOOD
    },
    Tables {
        name: "movable_node_without_any",
        line: "movable_node",
        says: &["movable_node: no node may be unplugged\n"],
        ..GOOD
    },
    Tables {
        name: "hot_pluggable_memory_without_movable_node",
        memory: &[LOW, HIGH_HOT],
        says: &[
            "Node 1, zone    DMA32\n  pages free     6",
            "available: 2 nodes (0-1)\n",
        ],
        ..GOOD
    },
    Tables {
        name: "nodes_overlap",
        memory: &[(0, 0, 257 * MIB, ENABLED), HIGH],
        says: ONE_NODE,
        ..GOOD
    },
    Tables {
        name: "nodes_overlap_with_movable_node",
        memory: &[(0, 0, 257 * MIB, ENABLED), HIGH_HOT],
        line: "movable_node",
        says: ONE_NODE,
        ..GOOD
    },
    Tables {
        name: "too_much_is_left_out",
        memory: &[LOW, (1, 256 * MIB, 240 * MIB, ENABLED)],
        says: ONE_NODE,
        ..GOOD
    },
    Tables {
        name: "a_little_is_left_out",
        memory: &[LOW, (1, 256 * MIB, 256 * MIB - (640 << 10), ENABLED)],
        says: TWO_NODES,
        ..GOOD
    },
    Tables {
        name: "a_node_is_disabled",
        memory: &[LOW, (1, 256 * MIB, 256 * MIB, 0)],
        says: ONE_NODE,
        ..GOOD
    },
    Tables {
        name: "memory_wraps",
        memory: &[
            LOW,
            HIGH,
            (2, 512 * MIB, u64::MAX, ENABLED),
            (3, 512 * MIB, 0, ENABLED),
        ],
        says: TWO_NODES,
        ..GOOD
    },
    Tables {
        name: "numbers_with_gaps",
        memory: &[LOW, (0xffff_ffff, 256 * MIB, 256 * MIB, ENABLED)],
        // Node 1 is that of the CPUs, and has no memory.
        says: &[
            "available: 3 nodes (0-2)\n",
            "node 1 size: 0 MB\n",
            "node 2 cpus:\n",
        ],
        ..GOOD
    },
    Tables {
        name: "no_memory_at_all",
        memory: &[],
        says: &["available: 1 nodes (0)\n"],
        ..GOOD
    },
    Tables {
        name: "a_record_without_length",
        noise: &[1, 0, 0, 0],
        says: &["ACPI: SRAT: ", "available: 2 nodes (0-1)\n"],
        ..GOOD
    },
    Tables {
        name: "a_record_cut_off",
        noise: &[1, 40, 0, 0, 0, 0],
        says: &["ACPI: SRAT: ", "available: 2 nodes (0-1)\n"],
        ..GOOD
    },
    Tables {
        name: "a_local_distance_of_11",
        distances: &[11, 20, 31, 10],
        says: &["warning: ACPI: the SLIT says 1", USUAL_DISTANCES],
        ..GOOD
    },
    Tables {
        name: "a_remote_distance_of_10",
        distances: &[10, 31, 10, 10],
        says: &["warning: ACPI: the SLIT says 1", USUAL_DISTANCES],
        ..GOOD
    },
    Tables {
        name: "distances_of_fewer_nodes",
        distances: &[10],
        says: &[USUAL_DISTANCES],
        ..GOOD
    },
    Tables {
        name: "distances_of_more_nodes",
        distances: &[10, 31, 41, 32, 10, 42, 33, 43, 10],
        says: &["  0:  10  31 \n  1:  32  10 \n"],
        ..GOOD
    },
];

/// A system resource affinity table behind its header (ACPI 5.2.16).
fn srat(case: &Tables) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for cpu in 0..4_u8 {
        let node = cpu / 2;
        bytes.extend([0, 16, node, cpu, ENABLED]);
        bytes.extend([0; 11]);
    }
    for (node, base, length, flags) in case.memory {
        bytes.extend([1, 40]);
        bytes.extend(node.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(base.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend([*flags, 0, 0, 0]);
        bytes.extend([0; 8]);
    }
    bytes.extend(case.noise);
    bytes
}

/// A system locality information table behind its header (ACPI 5.2.17).
fn slit(distances: &[u8]) -> Vec<u8> {
    let nodes = u64::try_from(distances.len().isqrt()).unwrap();
    [nodes.to_le_bytes().as_slice(), distances].concat()
}

/// Every CPU allocates, the machine says what it should, and no memory is missing.
pub(crate) fn come_up(case: &Tables) -> Result<(), Failed> {
    let mut options = String::from("--cpus 4 --memory 512M");
    if !case.line.is_empty() {
        write!(options, " --cmdline '{}'", case.line)?;
    }
    for (name, bytes) in [("SRAT", srat(case)), ("SLIT", slit(case.distances))] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("{}-{name}", case.name));
        fs::write(&path, bytes)?;
        let path = path.display();
        write!(
            options,
            " --qemu-arg -acpitable --qemu-arg sig={name},rev=3,data={path}"
        )?;
    }
    let commands = "dmesg; numactl -H; cat /proc/zoneinfo; stress --cpus 4 4000; \
                    numactl -i all stress 1000; numastat; echo still there";
    // All RAM of the machine is present, on whatever node.
    let always = ["/523768K available", "\nstill there"];
    let texts: Vec<&str> = case.says.iter().copied().chain(always).collect();
    succeeds_and_says(&options, commands, &texts)
}
