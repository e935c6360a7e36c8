//! Several nodes: each CPU gets memory near to it, and what is next when that is gone.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::platform::NodeId;
use mm::system::{AllocError, Block};
use mm_tests::sim::{Builder, Checked, Listed, Machine, Plain, SimConfig, Usual, Vmemmap};

const MIB: u64 = 1 << 20;
type Quick = (Plain, Vmemmap);

/// Four nodes in a line; only node 0 has memory below 4 GiB, and node 2 has none at all.
fn line<C: SimConfig>() -> Builder<C> {
    Machine::<C>::new()
        .node(0, 0, 24 * MIB)
        .node(1, DMA32_LIMIT, 8 * MIB)
        .node(3, DMA32_LIMIT + 128 * MIB, 8 * MIB)
        .distances(&[
            10, 20, 30, 40, //
            20, 10, 20, 30, //
            30, 20, 10, 25, //
            40, 30, 25, 10,
        ])
        .cpus_on(&[0, 1, 2, 3])
}

fn node_of<C: SimConfig>(machine: &Machine<C>, block: &Block<&Memory<C>>) -> u16 {
    machine.zone_of(block.pfn()).unwrap().id().node.0
}

type Memory<C> = mm::system::Memory<mm_tests::sim::SimPlatform<C>>;

/// Does something on a CPU. This thread is on CPU 0.
fn on<C: SimConfig>(machine: &Machine<C>, cpu: u16, run: impl FnOnce() + Send) {
    if cpu == 0 {
        return run();
    }
    let there = || {
        let _running = machine.cpu(cpu.into());
        run();
    };
    std::thread::scope(|scope| scope.spawn(there).join().unwrap());
}

/// Exhausts a request, the reserves too, and answers the nodes in the order in which they gave.
fn givers<C: SimConfig>(machine: &Machine<C>, near: Option<u16>, gfp: Gfp) -> Vec<u16> {
    let gfp = gfp | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut blocks = Vec::new();
    let mut nodes: Vec<u16> = Vec::new();
    loop {
        let block = match near {
            Some(node) => machine.alloc_block_node(NodeId(node), gfp, Order::ZERO),
            None => machine.alloc_block(gfp, Order::ZERO),
        };
        match block {
            Ok(block) => {
                let node = node_of(machine, &block);
                // In the last rounds, zones give down to their reserves, each in turn again.
                if !nodes.contains(&node) {
                    nodes.push(node);
                }
                blocks.push(block);
            }
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                return nodes;
            }
        }
    }
}

fn first_node<C: SimConfig>(machine: &Machine<C>, gfp: Gfp) -> u16 {
    let block = machine.alloc_block(gfp, Order::ZERO).unwrap();
    node_of(machine, &block)
}

fn each_cpu_asks_the_nearest_node_first_on<C: SimConfig>() {
    let machine = line::<C>().boot();
    // Node 2 has no memory: node 1 is nearer to it than node 3.
    for (cpu, nearest) in [(0, 0), (1, 1), (2, 1), (3, 3)] {
        on(&machine, cpu, || {
            for _ in 0..100 {
                assert_eq!(first_node(&machine, Gfp::KERNEL), nearest, "CPU {cpu}");
            }
            // Only node 0 has such memory.
            assert_eq!(first_node(&machine, Gfp::KERNEL | Gfp::DMA), 0);
        });
    }
    machine.finish();
}

#[test]
fn each_cpu_asks_the_nearest_node_first() {
    each_cpu_asks_the_nearest_node_first_on::<Quick>();
    each_cpu_asks_the_nearest_node_first_on::<Listed<Usual>>();
    each_cpu_asks_the_nearest_node_first_on::<Checked>();
}

#[test]
fn nodes_are_asked_by_distance() {
    let orders = [[0, 1, 3], [1, 0, 3], [1, 3, 0], [3, 1, 0]];
    for (cpu, order) in (0..).zip(orders) {
        let machine = line::<Quick>().boot();
        on(&machine, cpu, || {
            assert_eq!(givers(&machine, None, Gfp::KERNEL), order, "CPU {cpu}");
            assert_eq!(
                givers(&machine, Some(cpu), Gfp::KERNEL),
                order,
                "node {cpu}"
            );
        });
        machine.finish();
    }
}

#[test]
fn a_request_that_keeps_to_its_node_gets_nothing_else() {
    let machine = line::<Quick>().boot();
    let stay = Gfp::KERNEL | Gfp::THISNODE;
    for (cpu, nodes) in [(0, vec![0]), (1, vec![1]), (2, vec![]), (3, vec![3])] {
        on(&machine, cpu, || {
            assert_eq!(givers(&machine, None, stay), nodes, "CPU {cpu}");
            assert_eq!(givers(&machine, Some(cpu), stay), nodes, "node {cpu}");
            // There is such memory, but not here.
            let low = machine.alloc_block(stay | Gfp::DMA | Gfp::NOWARN, Order::ZERO);
            assert_eq!(low.is_ok(), cpu == 0);
            let mut pages = [None; 4];
            let count = machine.alloc_pages_bulk(stay | Gfp::NOWARN, &mut pages);
            assert_eq!(count.unwrap() > 0, cpu != 2, "CPU {cpu}");
            for pfn in pages.into_iter().flatten() {
                // SAFETY: allocated just now, freed once.
                unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
            }
        });
    }
    machine.finish();
}

#[test]
fn pages_of_any_node_can_be_asked_for_from_any_cpu() {
    let machine = line::<Listed<Usual>>().boot();
    for cpu in 0..4 {
        on(&machine, cpu, || {
            for node in [0, 1, 3].map(NodeId) {
                let gfp = Gfp::KERNEL | Gfp::THISNODE;
                let pfn = machine.alloc_pages_node(node, gfp, Order::ZERO).unwrap();
                assert_eq!(machine.zone_of(pfn).unwrap().id().node, node);
                // SAFETY: allocated just now, freed once.
                unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
            }
            let missing = machine.alloc_pages_node(NodeId(4), Gfp::KERNEL, Order::ZERO);
            assert_eq!(missing, Err(AllocError::NoSuchNode));
        });
    }
    machine.finish();
}

#[test]
fn what_was_found_out_about_nodes_can_be_asked_for() {
    let machine = line::<Quick>().boot();
    let others = |node: usize| machine.nodes()[node].others().to_vec();
    assert_eq!(others(2), [NodeId(1), NodeId(3), NodeId(0)]);
    assert_eq!(others(0), [NodeId(1), NodeId(3)]);
    assert_eq!(machine.distance(NodeId(2), NodeId(3)), Some(25));
    assert_eq!(machine.distance(NodeId(2), NodeId(4)), None);
    let nodes = (0..4).map(|cpu| machine.node_of(mm::platform::CpuId(cpu)).0);
    assert_eq!(nodes.collect::<Vec<_>>(), [0, 1, 2, 3]);
    machine.finish();
}
