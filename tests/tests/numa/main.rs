//! Nodes: whose memory requests get, by policies of tasks and of calls, and how it is counted.

mod confined;
mod counters;
mod interleaving;
mod model;
mod movable;
mod policies;

use mm::config::DMA32_LIMIT;
use mm::numa::{Mode, NodeMask, Policy};
use mm::platform::NodeId;
use mm::system::{Block, Memory};
use mm::zone::NumaStats;
use mm_tests::sim::{Builder, Machine, Plain, SimConfig, SimPlatform, Vmemmap};

const MIB: u64 = 1 << 20;
type Quick = (Plain, Vmemmap);

/// Does something on a CPU. This thread is on CPU 0.
fn on<C: SimConfig>(machine: &Machine<C>, cpu: u32, run: impl FnOnce() + Send) {
    if cpu == 0 {
        return run();
    }
    let there = || {
        let _running = machine.cpu(cpu);
        run();
    };
    std::thread::scope(|scope| scope.spawn(there).join().unwrap());
}

/// So many nodes with memory above 4 GiB, and as many CPUs.
fn even<C: SimConfig>(nodes: u16) -> Builder<C> {
    let start = |node: u16| DMA32_LIMIT + u64::from(node) * 128 * MIB;
    let empty = Machine::<C>::new();
    let all: Vec<u16> = (0..nodes).collect();
    let nodes = all.iter();
    nodes
        .fold(empty, |machine, node| {
            machine.node(*node, start(*node), 8 * MIB)
        })
        .cpus_on(&all)
}

/// The node of a block.
fn node_of<C: SimConfig>(machine: &Machine<C>, block: &Block<&Memory<SimPlatform<C>>>) -> u16 {
    machine.zone_of(block.pfn()).unwrap().id().node.0
}

fn mask(list: &str) -> NodeMask {
    list.parse().unwrap()
}

fn policy<C: SimConfig>(machine: &Machine<C>, mode: Mode, list: &str) -> Policy {
    machine.policy(mode, &mask(list)).unwrap()
}

/// What every node counted.
fn stats<C: SimConfig>(machine: &Machine<C>) -> Vec<NumaStats> {
    let nodes = machine.nodes().iter();
    nodes.map(|node| node.numa_stats()).collect()
}

/// The distances of nodes in a line.
fn in_a_line(nodes: u16) -> Vec<u8> {
    let ids = || (0..nodes).map(NodeId);
    let apart = |from: NodeId, to: NodeId| 10 + 10 * u8::try_from(from.0.abs_diff(to.0)).unwrap();
    ids()
        .flat_map(|from| ids().map(move |to| apart(from, to)))
        .collect()
}
