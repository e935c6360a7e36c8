//! What the files say of nodes.

use std::collections::BTreeMap;

use expect_test::expect;
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::numa::NodeState;
use mm::platform::NodeId;
use mm::proc;
use mm_tests::sim::{Machine, Usual};

use super::{parse, text};

const MIB: u64 = 1 << 20;

/// Node 0 has memory below 4 GiB and CPU 0, node 1 has CPU 1 only, node 2 memory above 4 GiB and
/// CPU 2.
fn three() -> Machine<Usual> {
    Machine::new()
        .node(0, 0, 24 * MIB)
        .node(2, DMA32_LIMIT, 32 * MIB)
        .cpus_on(&[0, 1, 2])
        .distances(&[10, 20, 30, 20, 10, 15, 30, 15, 10])
        .boot()
}

/// Does something on a CPU other than this thread's.
fn on(machine: &Machine<Usual>, cpu: u32, run: impl FnOnce() + Send) {
    let there = || {
        let _running = machine.cpu(cpu);
        run();
    };
    std::thread::scope(|scope| scope.spawn(there).join().unwrap());
}

#[test]
fn vmstat_and_zoneinfo_have_the_counts_by_their_own_names() {
    let machine = three();
    drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    on(&machine, 1, || {
        drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    });
    let vmstat = parse::vmstat(&text(|out| proc::vmstat(&machine, out)));
    let zones = parse::zoneinfo(&text(|out| proc::zoneinfo(&machine, out)));
    let numa = |numbers: &BTreeMap<String, u64>| {
        [
            "numa_hit",
            "numa_miss",
            "numa_foreign",
            "numa_interleave",
            "numa_local",
            "numa_other",
        ]
        .map(|name| numbers[name])
    };
    assert_eq!(numa(&vmstat), [2, 0, 0, 0, 1, 1]);
    assert_eq!(numa(&zones[&(0, "DMA32".to_owned())]), [1, 0, 0, 0, 1, 0]);
    assert_eq!(numa(&zones[&(2, "Normal".to_owned())]), [1, 0, 0, 0, 0, 1]);
    machine.finish();
}

#[test]
fn files_of_nodes_read_as_linux_prints_them() {
    let machine = three();
    let states = [
        NodeState::Possible,
        NodeState::Online,
        NodeState::NormalMemory,
        NodeState::Memory,
        NodeState::Cpu,
    ];
    let lists = states.map(|state| text(|out| proc::node_list(&machine, state, out)));
    assert_eq!(lists, ["0-2\n", "0-2\n", "0,2\n", "0,2\n", "0-2\n"]);
    let distances = text(|out| proc::node_distance(&machine, NodeId(2), out));
    assert_eq!(distances, "30 15 10\n");

    let before = text(|out| proc::node_meminfo(&machine.nodes()[2], out));
    on(&machine, 2, || {
        let block = machine.alloc_block(Gfp::KERNEL, Order::new(3).unwrap());
        let now = text(|out| proc::node_meminfo(&machine.nodes()[2], out));
        let numbers = |text: &str| {
            let words = text.lines().map(|line| line.split_whitespace().nth(3));
            words
                .map(|word| word.unwrap().parse().unwrap())
                .collect::<Vec<u64>>()
        };
        let (then, now) = (numbers(&before), numbers(&now));
        assert_eq!(now, [then[0], then[1] - 32, then[2] + 32]);
        drop(block);
    });
    let names = before.lines().map(|line| line.split_at(22).0);
    let expected = [
        "Node 2 MemTotal:      ",
        "Node 2 MemFree:       ",
        "Node 2 MemUsed:       ",
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);

    let table = text(|out| proc::numastat(&machine, out));
    expect![[r#"
                                   node0           node1           node2
        numa_hit                       0               0               1
        numa_miss                      0               0               0
        numa_foreign                   0               0               0
        interleave_hit                 0               0               0
        local_node                     0               0               1
        other_node                     0               0               0
    "#]]
    .assert_eq(&table);
    let file = text(|out| proc::node_numastat(&machine.nodes()[2], out));
    expect![[r#"
        numa_hit 1
        numa_miss 0
        numa_foreign 0
        interleave_hit 0
        local_node 1
        other_node 0
    "#]]
    .assert_eq(&file);
    machine.finish();
}

#[test]
fn a_node_for_movable_pages_only_has_no_normal_memory() {
    let machine = Machine::<Usual>::new()
        .node(0, 0, 24 * MIB)
        .node(1, DMA32_LIMIT, 32 * MIB)
        .kernelcore(24 * MIB)
        .boot();
    let list = |state| machine.node_states(state).list().to_string();
    // The wish is met by what lies below the highest zone, all of it on node 0.
    assert_eq!(list(NodeState::NormalMemory), "0");
    assert_eq!(list(NodeState::Memory), "0-1");
    assert_eq!(list(NodeState::Cpu), "0");
    machine.finish();
}
