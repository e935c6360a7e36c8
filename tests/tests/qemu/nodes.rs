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
    /// Lines that must be printed.
    says: &'static [&'static str],
}

/// The machines.
pub(crate) const NODES: &[Nodes] = &[
    Nodes {
        name: "1",
        cpus: 2,
        options: "--numa 1",
        says: &["available: 1 nodes (0)", "node 0 cpus: 0 1\n"],
    },
    Nodes {
        name: "2",
        cpus: 4,
        options: "--numa 2 --memory 2G",
        says: &[
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
        says: &["node 1 cpus: 1 2\n"],
    },
    Nodes {
        name: "without_memory",
        cpus: 3,
        options: "--numa-node 256M,0 --numa-node 0,1 --numa-node 256M,2",
        says: &[
            "node 1 cpus: 1\nnode 1 size: 0 MB\nnode 1 free: 0 MB\n",
            "Fallback order for Node 1: 1 2 0 \n",
        ],
    },
    Nodes {
        name: "first_without_memory",
        cpus: 2,
        options: "--numa-node 0,0 --numa-node 512M,1",
        says: &["node 0 cpus: 0\nnode 0 size: 0 MB\nnode 0 free: 0 MB\n"],
    },
    Nodes {
        name: "without_cpus",
        cpus: 2,
        options: "--numa-node 256M,0-1 --numa-node 256M",
        says: &["node 0 cpus: 0 1\n", "node 1 cpus:\nnode 1 size: 2"],
    },
];

/// Every CPU allocates, and the machine says what it should.
pub(crate) fn come_up(case: &Nodes) -> Result<(), Failed> {
    let Nodes { cpus, options, .. } = case;
    let commands =
        format!("numactl -H; cat /proc/zoneinfo; stress --cpus {cpus} 4000; echo still there");
    let texts: Vec<&str> = case.says.iter().copied().chain(["\nstill there"]).collect();
    succeeds_and_says(&format!("--cpus {cpus} {options}"), &commands, &texts)
}
