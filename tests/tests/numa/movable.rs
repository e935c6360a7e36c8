//! `movable_node`: nodes that may be unplugged hold movable pages only.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::numa::{Mode, NodeState};
use mm::platform::NodeId;
use mm::zone::ZoneKind;
use mm_tests::sim::{Builder, Listed, Machine, SimConfig, Usual};

use super::{MIB, Quick, node_of, on, policy};

fn three<C: SimConfig>() -> Builder<C> {
    Machine::<C>::new()
        .node(0, 0, 32 * MIB)
        .node(1, 128 * MIB, 16 * MIB)
        .node(2, DMA32_LIMIT, 16 * MIB)
        .cpus_on(&[0, 1, 2])
}

fn nodes_that_may_go_hold_nothing_else_on<C: SimConfig>() {
    let machine = three::<C>().movable_nodes(&[1, 2]).boot();
    let list = |state| machine.node_states(state).list().to_string();
    assert_eq!(list(NodeState::NormalMemory), "0");
    assert_eq!(list(NodeState::Memory), "0-2");
    for node in &machine.nodes()[1..] {
        let movable = node.zone(ZoneKind::Movable);
        // All of it: not even the library's own tables are there.
        assert_eq!(movable.managed(), node.present());
        assert_eq!(movable.present(), node.present());
    }
    for cpu in 1..3 {
        on(&machine, cpu, || {
            let node = |gfp| {
                let block = machine.alloc_block(gfp, Order::ZERO).unwrap();
                node_of(&machine, &block)
            };
            assert_eq!(node(Gfp::KERNEL), 0);
            assert_eq!(node(Gfp::KERNEL | Gfp::MOVABLE), 0, "not for HIGHMEM");
            assert_eq!(u32::from(node(Gfp::HIGHUSER_MOVABLE)), cpu);
            let stays = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN;
            assert!(machine.alloc_block(stays, Order::ZERO).is_err());
        });
    }
    // Bound there, what must not move goes elsewhere, as in Linux.
    let mut bound = policy(&machine, Mode::Bind, "2");
    for (gfp, expected) in [(Gfp::KERNEL, 0), (Gfp::HIGHUSER_MOVABLE, 2)] {
        let block = machine.alloc_block_policy(&mut bound, gfp, Order::ZERO);
        assert_eq!(node_of(&machine, &block.unwrap()), expected);
    }
    machine.finish();
}

#[test]
fn nodes_that_may_go_hold_nothing_else() {
    nodes_that_may_go_hold_nothing_else_on::<Quick>();
    nodes_that_may_go_hold_nothing_else_on::<Listed<Usual>>();
}

#[test]
fn a_node_in_use_cannot_go_and_sizes_on_the_command_line_do_not_count() {
    let machine = three::<Quick>()
        .reserve(0, 4096)
        .reserve(128 * MIB, 4096)
        .kernelcore(8 * MIB)
        .movable_nodes(&[0, 1, 2])
        .boot();
    let movable = |node: usize| machine.nodes()[node].zone(ZoneKind::Movable).present();
    assert_eq!([0, 1, 2].map(movable), [0, 0, 4096]);
    machine.finish();
}

#[test]
fn where_nothing_else_is_left_boot_takes_what_may_go() {
    // The records of two sections take 2 MiB.
    let machine = Machine::<Quick>::new()
        .node(0, 16 * MIB, MIB + MIB / 2)
        .node(1, DMA32_LIMIT, 32 * MIB)
        .reserve(16 * MIB, 4096)
        .movable_nodes(&[1])
        .boot();
    let movable = machine.nodes()[1].zone(ZoneKind::Movable);
    assert!(movable.managed() < movable.present());
    let stays = Gfp::HIGHUSER_MOVABLE | Gfp::THISNODE;
    let block = machine.alloc_block_node(NodeId(1), stays, Order::ZERO);
    assert_eq!(node_of(&machine, &block.unwrap()), 1);
    machine.finish();
}
