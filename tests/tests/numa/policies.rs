//! Each policy, worked out by hand.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::numa::{Mode, NodeMask, Policy, PolicyError};
use mm::platform::NodeId;
use mm::system::AllocError;
use mm_tests::sim::{Latent, Listed, Machine, SimConfig, Usual};

use super::{MIB, Quick, even, in_a_line, mask, node_of, on, policy};

/// The nodes that give, in the order in which they begin to, until there is nothing left. Requests
/// may use all reserves, so that no node is visited twice for them.
fn givers<C: SimConfig>(machine: &Machine<C>, policy: &Policy, gfp: Gfp) -> Vec<u16> {
    let gfp = gfp | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut policy = *policy;
    let mut blocks = Vec::new();
    let mut nodes: Vec<u16> = Vec::new();
    while let Ok(block) = machine.alloc_block_policy(&mut policy, gfp, Order::ZERO) {
        let node = node_of(machine, &block);
        if !nodes.contains(&node) {
            nodes.push(node);
        }
        blocks.push(block);
    }
    nodes
}

#[test]
fn each_mode_asks_nodes_in_its_order() {
    let machine = even::<Quick>(4).distances(&in_a_line(4)).boot();
    for (cpu, mode, nodes, order) in [
        (3, Mode::Default, "", vec![3, 2, 1, 0]),
        (3, Mode::Local, "", vec![3, 2, 1, 0]),
        (3, Mode::Preferred, "0", vec![0, 1, 2, 3]),
        // Of several, the first counts.
        (0, Mode::Preferred, "2-3", vec![2, 3, 1, 0]),
        (0, Mode::Bind, "2-3", vec![2, 3]),
        (3, Mode::Bind, "0,2", vec![2, 0]),
        (1, Mode::Bind, "0-3", vec![1, 2, 0, 3]),
        (0, Mode::PreferredMany, "2-3", vec![2, 3, 0, 1]),
        (3, Mode::PreferredMany, "0-1", vec![1, 0, 3, 2]),
    ] {
        let nodes = match nodes {
            "" => NodeMask::EMPTY,
            nodes => mask(nodes),
        };
        let policy = machine.policy(mode, &nodes).unwrap();
        on(&machine, cpu, || {
            let found = givers(&machine, &policy, Gfp::KERNEL);
            assert_eq!(found, order, "{mode} {nodes:?} on CPU {cpu}");
        });
    }
    machine.finish();
}

#[test]
fn preferred_nodes_are_populated_before_others_are_asked() {
    let machine = Machine::<Latent<Quick>>::new()
        .node(0, DMA32_LIMIT, 1024 * MIB)
        .node(1, DMA32_LIMIT + 1024 * MIB, 1024 * MIB)
        .cpus_on(&[0, 1])
        .boot();
    let mut first = policy(&machine, Mode::PreferredMany, "1");
    let order = Order::new(9).unwrap();
    let mut blocks = Vec::new();
    // 800 of 1,024 MiB; at first one section of it, 128 MiB, is populated.
    for _ in 0..400 {
        let block = machine.alloc_block_policy(&mut first, Gfp::KERNEL, order);
        let block = block.unwrap();
        assert_eq!(node_of(&machine, &block), 1, "block {}", blocks.len());
        blocks.push(block);
    }
    drop(blocks);
    machine.finish();
}

#[test]
fn a_bound_request_for_low_memory_gets_it_wherever_it_is() {
    let machine = Machine::<Quick>::new()
        .node(0, 0, 24 * MIB)
        .node(1, DMA32_LIMIT, 8 * MIB)
        .boot();
    let mut bound = policy(&machine, Mode::Bind, "1");
    // Only node 0 has such memory. The machine's highest zone is Normal, and it is what is bound.
    for gfp in [Gfp::KERNEL | Gfp::DMA, Gfp::KERNEL | Gfp::DMA32] {
        let block = machine.alloc_block_policy(&mut bound, gfp, Order::ZERO);
        assert_eq!(node_of(&machine, &block.unwrap()), 0);
    }
    assert_eq!(givers(&machine, &bound, Gfp::KERNEL), [1]);
    assert_eq!(givers(&machine, &bound, Gfp::HIGHUSER_MOVABLE), [1]);
    machine.finish();

    // Where DMA32 is the highest zone, that is what is bound.
    let machine = Machine::<Quick>::new()
        .node(0, 0, 24 * MIB)
        .node(1, 128 * MIB, 8 * MIB)
        .boot();
    let mut bound = policy(&machine, Mode::Bind, "1");
    assert_eq!(givers(&machine, &bound, Gfp::KERNEL | Gfp::DMA32), [1]);
    let dma = machine.alloc_block_policy(&mut bound, Gfp::DMA, Order::ZERO);
    assert_eq!(node_of(&machine, &dma.unwrap()), 0);
    machine.finish();
}

#[test]
fn what_must_not_move_is_not_bound_to_nodes_for_movable_pages_only() {
    let machine = Machine::<Quick>::new()
        .node(0, 0, 24 * MIB)
        .node(1, DMA32_LIMIT, 8 * MIB)
        .kernelcore(24 * MIB)
        .boot();
    let bound = policy(&machine, Mode::Bind, "1");
    assert_eq!(givers(&machine, &bound, Gfp::HIGHUSER_MOVABLE), [1]);
    assert_eq!(givers(&machine, &bound, Gfp::KERNEL), [0]);
    machine.finish();
}

fn a_tasks_policy_holds_for_requests_that_name_no_node_on<C: SimConfig>() {
    let machine = even::<C>(3).boot();
    let here = |block: Result<_, AllocError>| node_of(&machine, &block.unwrap());
    let bound = policy(&machine, Mode::Bind, "2");
    // Something to be had from the lists of CPU 0.
    drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO));
    assert_eq!(machine.hardware().set_policy(Some(bound)), None);
    for order in [0, 1, 3, 4].map(|order| Order::new(order).unwrap()) {
        assert_eq!(here(machine.alloc_block(Gfp::KERNEL, order)), 2);
        let pfn = machine.alloc_pages(Gfp::KERNEL | Gfp::ZERO, order).unwrap();
        assert_eq!(machine.zone_of(pfn).unwrap().id().node, NodeId(2));
        // SAFETY: allocated just now, freed once.
        unsafe { machine.free_pages(pfn, order) }.unwrap();
        // Whoever names a node means it; and a call's own policy comes first.
        let named = machine.alloc_block_node(NodeId(1), Gfp::KERNEL, order);
        assert_eq!(here(named), 1);
        let stays = machine.alloc_block(Gfp::KERNEL | Gfp::THISNODE, order);
        assert_eq!(here(stays), 0);
        let mut other = policy(&machine, Mode::Preferred, "1");
        let other = machine.alloc_block_policy(&mut other, Gfp::KERNEL, order);
        assert_eq!(here(other), 1);
        let local = machine.alloc_block_policy(&mut Policy::default(), Gfp::KERNEL, order);
        assert_eq!(here(local), 0);
    }
    let mut pages = [None; 70];
    assert_eq!(machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages), Ok(70));
    for pfn in pages.into_iter().flatten() {
        assert_eq!(machine.zone_of(pfn).unwrap().id().node, NodeId(2));
        // SAFETY: allocated just now, freed once.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    // Another task has none.
    on(&machine, 1, || {
        let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO);
        assert_eq!(here(block), 1);
    });
    assert_eq!(
        machine.hardware().set_policy(Some(Policy::DEFAULT)),
        Some(bound)
    );
    assert_eq!(here(machine.alloc_block(Gfp::KERNEL, Order::ZERO)), 0);
    machine.hardware().set_policy(None);
    assert_eq!(here(machine.alloc_block(Gfp::KERNEL, Order::ZERO)), 0);
    machine.finish();
}

#[test]
fn a_tasks_policy_holds_for_requests_that_name_no_node() {
    a_tasks_policy_holds_for_requests_that_name_no_node_on::<Quick>();
    a_tasks_policy_holds_for_requests_that_name_no_node_on::<Listed<Quick>>();
    a_tasks_policy_holds_for_requests_that_name_no_node_on::<Listed<Usual>>();
}

#[test]
fn nodes_that_make_no_policy_are_refused_by_their_reason() {
    // Node 1 has CPU 1, and no memory.
    let machine = Machine::<Quick>::new()
        .node(0, 0, 24 * MIB)
        .node(2, DMA32_LIMIT, 8 * MIB)
        .cpus_on(&[0, 1])
        .boot();
    let policy = |mode, nodes: &str| machine.policy(mode, &mask(nodes));
    let none = |mode| machine.policy(mode, &NodeMask::EMPTY);
    for mode in [
        Mode::Bind,
        Mode::Interleave,
        Mode::PreferredMany,
        Mode::WeightedInterleave,
    ] {
        assert_eq!(none(mode), Err(PolicyError::NoNodes(mode)));
        assert_eq!(policy(mode, "1"), Err(PolicyError::NoMemory));
        let missing = Err(PolicyError::NoSuchNode(NodeId(3)));
        assert_eq!(policy(mode, "0-5"), missing);
        assert_eq!(*policy(mode, "0-2").unwrap().nodes(), mask("0,2"));
    }
    assert_eq!(none(Mode::Preferred).unwrap().mode(), Mode::Local);
    // Of those with memory, the first.
    assert_eq!(*policy(Mode::Preferred, "1-2").unwrap().nodes(), mask("2"));
    for mode in [Mode::Default, Mode::Local] {
        assert_eq!(policy(mode, "0"), Err(PolicyError::TakesNoNodes(mode)));
    }

    // One that was made for another machine.
    let strange = |mode| Policy::new(mode, &mask("7")).unwrap();
    for mode in [Mode::Bind, Mode::Preferred, Mode::Interleave] {
        let block = machine.alloc_block_policy(&mut strange(mode), Gfp::KERNEL, Order::ZERO);
        assert_eq!(block.map(drop), Err(AllocError::NoSuchNode), "{mode}");
    }
    let wanted =
        machine.alloc_block_policy(&mut strange(Mode::PreferredMany), Gfp::KERNEL, Order::ZERO);
    assert_eq!(node_of(&machine, &wanted.unwrap()), 0);
    machine.finish();
}

#[test]
fn before_memory_is_up_there_are_no_policies() {
    let memory = mm::system::Memory::new(mm_tests::window::Window::none());
    let nodes = mask("0");
    assert_eq!(memory.policy(Mode::Bind, &nodes), Err(PolicyError::NotUp));
    assert_eq!(
        memory.set_interleave_weight(NodeId(0), 1),
        Err(PolicyError::NotUp)
    );
    let pages = memory.alloc_pages_policy(&mut Policy::default(), Gfp::KERNEL, Order::ZERO);
    assert_eq!(pages, Err(AllocError::NotUp));
}
