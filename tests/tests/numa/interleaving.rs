//! Nodes that take turns.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::numa::{Mode, PolicyError};
use mm::platform::NodeId;
use mm_tests::sim::{Listed, Usual};

use super::{even, node_of, policy};

#[test]
fn pages_come_by_turns_whoever_asks() {
    let machine = even::<Listed<Usual>>(4).boot();
    machine
        .hardware()
        .set_policy(Some(policy(&machine, Mode::Interleave, "0,2-3")));
    let blocks: Vec<_> = (0..30)
        .map(|_| machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap())
        .collect();
    let nodes = blocks.iter().map(|block| node_of(&machine, block));
    assert!(nodes.eq([0, 2, 3].into_iter().cycle().take(30)));
    // The turns go on where they were, in bulk too.
    let mut pages = [None; 5];
    machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages).unwrap();
    for (pfn, node) in pages.into_iter().flatten().zip([0, 2, 3, 0, 2]) {
        assert_eq!(machine.zone_of(pfn).unwrap().id().node, NodeId(node));
        // SAFETY: allocated just now, freed once.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    // A request that has no use for the policy does not take a turn.
    drop(machine.alloc_block(Gfp::KERNEL | Gfp::THISNODE, Order::ZERO));
    let next = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert_eq!(node_of(&machine, &next), 3);
    machine.hardware().set_policy(None);
    drop((blocks, next));
    machine.finish();
}

#[test]
fn weights_say_how_many_pages_in_a_row() {
    let machine = even::<Listed<Usual>>(3).boot();
    assert_eq!(machine.interleave_weight(NodeId(1)), Some(1));
    assert_eq!(machine.interleave_weight(NodeId(3)), None);
    for (node, weight, refused) in [
        (1, 0, PolicyError::NoWeight),
        (3, 1, PolicyError::NoSuchNode(NodeId(3))),
    ] {
        let set = machine.set_interleave_weight(NodeId(node), weight);
        assert_eq!(set, Err(refused));
    }
    machine.set_interleave_weight(NodeId(0), 3).unwrap();
    machine.set_interleave_weight(NodeId(2), 2).unwrap();
    assert_eq!(machine.interleave_weight(NodeId(2)), Some(2));
    let mut turns = policy(&machine, Mode::WeightedInterleave, "0-2");
    let mut take = |count: usize| {
        let block = |_| {
            let block = machine.alloc_block_policy(&mut turns, Gfp::KERNEL, Order::ZERO);
            node_of(&machine, &block.unwrap())
        };
        (0..count).map(block).collect::<Vec<_>>()
    };
    assert_eq!(take(9), [0, 0, 0, 1, 2, 2, 0, 0, 0]);
    machine.set_interleave_weight(NodeId(1), 2).unwrap();
    assert_eq!(take(4), [1, 1, 2, 2]);
    machine.finish();
}
