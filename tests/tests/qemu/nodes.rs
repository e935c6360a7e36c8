//! Machines with several nodes: the kernel comes up, knows them, and hands out all of their memory.

use libtest_mimic::Failed;

use crate::succeeds_and_says;

/// A machine and what `numactl -H` says of it.
pub(crate) struct Nodes {
    /// Name of the test, after `nodes::`.
    pub(crate) name: &'static str,
    /// How many CPUs there are.
    cpus: u8,
    /// The runner's other options.
    options: &'static str,
    /// What it runs beside what all of them do.
    commands: &'static str,
    /// Lines that must be printed.
    says: &'static [&'static str],
}

/// The machines.
pub(crate) const NODES: &[Nodes] = &[
    Nodes {
        name: "1",
        cpus: 2,
        options: "--numa 1",
        commands: "",
        says: &["available: 1 nodes (0)", "node 0 cpus: 0 1\n"],
    },
    Nodes {
        name: "2",
        cpus: 4,
        options: "--numa 2 --memory 2G",
        commands: "alloc 0; explain alloc 0; acpi; pcp drain",
        says: &[
            "order 0, node 0, zone ",
            " of node 0; it is free again now.",
            "numbers are the firmware's",
            " pages went back to their zones",
            "available: 2 nodes (0-1)",
            "node 0 cpus: 0 1\n",
            "node 1 cpus: 2 3\n",
            "node   0   1 \n  0:  10  20 \n  1:  20  10 \n",
            "Fallback order for Node 1: 1 0 \n",
        ],
    },
    Nodes {
        name: "4_at_distances",
        cpus: 4,
        options: "--numa 4 --memory 6G --numa-dist 0,1,31 --numa-dist 0,2,21 \
                  --numa-dist 3,1,15",
        commands: "",
        says: &[
            "available: 4 nodes (0-3)",
            "  0:  10  31  21  20 \n",
            "Fallback order for Node 0: 0 3 2 1 \n",
            "Fallback order for Node 1: 1 3 2 0 \n",
        ],
    },
    Nodes {
        name: "8_with_half_as_many_cpus",
        cpus: 4,
        options: "--numa 8",
        commands: "",
        // As in Linux, nodes with CPUs have the first numbers.
        says: &[
            "available: 8 nodes (0-7)",
            "node 3 cpus: 3\n",
            "node 4 cpus:\n",
        ],
    },
    Nodes {
        name: "uneven",
        cpus: 3,
        options: "--numa-node 128M,0 --numa-node 3G,1-2",
        commands: "",
        says: &["node 1 cpus: 1 2\n"],
    },
    Nodes {
        name: "without_memory",
        cpus: 3,
        options: "--numa-node 256M,0 --numa-node 0,1 --numa-node 256M,2",
        commands: "",
        says: &[
            "node 1 cpus: 1\nnode 1 size: 0 MB\nnode 1 free: 0 MB\n",
            "Fallback order for Node 1: 1 2 0 \n",
        ],
    },
    Nodes {
        name: "first_without_memory",
        cpus: 2,
        options: "--numa-node 0,0 --numa-node 512M,1",
        commands: "",
        says: &["node 0 cpus: 0\nnode 0 size: 0 MB\nnode 0 free: 0 MB\n"],
    },
    Nodes {
        name: "without_cpus",
        cpus: 2,
        options: "--numa-node 256M,0-1 --numa-node 256M",
        commands: "",
        says: &["node 0 cpus: 0 1\n", "node 1 cpus:\nnode 1 size: 2"],
    },
    Nodes {
        name: "policies",
        cpus: 4,
        options: "--numa 2 --memory 256M",
        commands: "numactl -s; numactl --interleave=all numactl --show; \
                   echo 3 > /sys/kernel/mm/mempolicy/weighted_interleave/node1; \
                   numactl -w 0,1 -- numactl -s; numactl --membind=1 numactl -s; \
                   numactl -P !0 numactl -s; numactl --preferred 1 numactl -s; \
                   numactl --membind=1 stress 3000; numactl --preferred=1 stress --cpus 4 3000; \
                   numactl -w all stress 3000; numactl -i 0-1 stress --cpus 4 3000; numactl -l echo here",
        says: &[
            "policy: default\npreferred node: current\nphyscpubind: 0 \ncpubind: 0 \n\
             nodebind: 0 \nmembind: 0 1 \npreferred: \n",
            "policy: interleave\npreferred node: 0 (interleave next)\ninterleavemask: 0 1 \n\
             interleavenode: 0\n",
            "policy: weighted-interleave\npreferred node: 0 (interleave next)\n\
             interleavemask: 0 1 \ninterleaveweights: 1 3\n",
            "policy: bind\npreferred node: 1\n",
            "membind: 1 \npreferred: \n",
            "policy: preferred-many\npreferred node: 1 (preferred-many)\n",
            "policy: preferred\npreferred node: 1\n",
            "membind: 0 1 \npreferred: 1 \n",
            "                           node0           node1\nnuma_hit  ",
        ],
    },
    Nodes {
        name: "files",
        cpus: 3,
        options: "--numa-node 128M,0 --numa-node 0,1 --numa-node 128M --numa-dist 0,2,31",
        commands: "cat /sys/devices/system/node/possible /sys/devices/system/node/online \
                   /sys/devices/system/node/has_cpu /sys/devices/system/node/has_memory \
                   /sys/devices/system/node/has_normal_memory; \
                   cat /sys/devices/system/node/node0/distance; \
                   cat /sys/devices/system/node/node2/meminfo; \
                   cat /sys/devices/system/node/node2/numastat",
        says: &[
            // CPU 2 is on no node, and counts as node 0's.
            "0-2\n0-2\n0-1\n0,2\n0,2\n10 20 31\nNode 2 MemTotal: ",
            "\nNode 2 MemUsed: ",
            "kB\nnuma_hit ",
        ],
    },
];

/// Every CPU allocates, and the machine says what it should.
pub(crate) fn come_up(case: &Nodes) -> Result<(), Failed> {
    let Nodes {
        cpus,
        options,
        commands,
        ..
    } = case;
    let commands = format!(
        "numactl -H; cat /proc/zoneinfo; stress --cpus {cpus} 4000; {commands}; numastat; echo still there"
    );
    let texts: Vec<&str> = case.says.iter().copied().chain(["\nstill there"]).collect();
    succeeds_and_says(&format!("--cpus {cpus} {options}"), &commands, &texts)
}
