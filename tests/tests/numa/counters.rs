//! Each number of `numastat` moves when it should, and no other.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::numa::Mode;
use mm::platform::NodeId;
use mm::zone::NumaStats;
use mm_tests::sim::{Builder, Listed, Machine, SimConfig, Usual};

use super::{MIB, Quick, even, on, policy, stats};

/// Node 0 has memory below 4 GiB and CPU 0, node 1 has CPU 1 only, node 2 memory above 4 GiB and
/// CPU 2.
fn three<C: SimConfig>() -> Builder<C> {
    Machine::<C>::new()
        .node(0, 0, 24 * MIB)
        .node(2, DMA32_LIMIT, 32 * MIB)
        .cpus_on(&[0, 1, 2])
        .distances(&[10, 20, 30, 20, 10, 15, 30, 15, 10])
}

/// What every node counted since `before`.
fn since<C: SimConfig>(machine: &Machine<C>, before: &[NumaStats]) -> Vec<[u64; 6]> {
    let now = stats(machine);
    let pairs = now.iter().zip(before);
    pairs
        .map(|(now, before)| {
            [
                now.numa_hit - before.numa_hit,
                now.numa_miss - before.numa_miss,
                now.numa_foreign - before.numa_foreign,
                now.interleave_hit - before.interleave_hit,
                now.local_node - before.local_node,
                now.other_node - before.other_node,
            ]
        })
        .collect()
}

const NONE: [u64; 6] = [0; 6];

/// Orders with lists of their own, and without.
const ORDERS: [u8; 6] = [0, 1, 3, 4, 5, 9];

fn a_block_from_where_it_was_wanted_is_a_hit_whoever_asks_on<C: SimConfig>() {
    let machine = three::<C>().boot();
    let blocks = u64::try_from(ORDERS.len()).unwrap();
    let take = |gfp| {
        for order in ORDERS {
            drop(
                machine
                    .alloc_block(gfp, Order::new(order).unwrap())
                    .unwrap(),
            );
        }
    };
    // Node 1 has no memory, so its CPUs want that of node 2, but do not have it near.
    for (cpu, gfp, node, is_local) in [
        (0, Gfp::KERNEL, 0, true),
        (1, Gfp::KERNEL, 2, false),
        (2, Gfp::KERNEL, 2, true),
        // Only node 0 has a zone for that, so it is what CPU 2 wants.
        (2, Gfp::DMA, 0, false),
    ] {
        let before = stats(&machine);
        on(&machine, cpu, || take(gfp));
        let mut expected = vec![NONE; 3];
        let (local, other) = if is_local { (blocks, 0) } else { (0, blocks) };
        expected[node] = [blocks, 0, 0, 0, local, other];
        assert_eq!(since(&machine, &before), expected, "CPU {cpu}, {gfp:?}");
    }
    machine.finish();
}

#[test]
fn a_block_from_where_it_was_wanted_is_a_hit_whoever_asks() {
    a_block_from_where_it_was_wanted_is_a_hit_whoever_asks_on::<Quick>();
    a_block_from_where_it_was_wanted_is_a_hit_whoever_asks_on::<Usual>();
    a_block_from_where_it_was_wanted_is_a_hit_whoever_asks_on::<Listed<Quick>>();
    a_block_from_where_it_was_wanted_is_a_hit_whoever_asks_on::<Listed<Usual>>();
}

fn a_block_from_elsewhere_is_a_miss_there_and_foreign_here_on<C: SimConfig>() {
    let machine = three::<C>().boot();
    let gfp = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN | Gfp::THISNODE;
    // All of node 0.
    let mut all = Vec::new();
    while let Ok(block) = machine.alloc_block(gfp, Order::ZERO) {
        all.push(block);
    }
    let before = stats(&machine);
    for order in ORDERS {
        let order = Order::new(order).unwrap();
        drop(machine.alloc_block(Gfp::KERNEL, order).unwrap());
    }
    let blocks = u64::try_from(ORDERS.len()).unwrap();
    let expected = |blocks| vec![[0, 0, blocks, 0, 0, 0], NONE, [0, blocks, 0, 0, 0, blocks]];
    assert_eq!(since(&machine, &before), expected(blocks));

    let before = stats(&machine);
    let mut pages = [None; 100];
    assert_eq!(machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages), Ok(100));
    assert_eq!(since(&machine, &before), expected(100));
    for pfn in pages.into_iter().flatten() {
        // SAFETY: allocated just now, freed once.
        unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    // Asked of node 2 by name, such a page is no miss.
    let before = stats(&machine);
    drop(
        machine
            .alloc_block_node(NodeId(2), Gfp::KERNEL, Order::ZERO)
            .unwrap(),
    );
    assert_eq!(since(&machine, &before), [NONE, NONE, [1, 0, 0, 0, 0, 1]]);
    drop(all);
    machine.finish();
}

#[test]
fn a_block_from_elsewhere_is_a_miss_there_and_foreign_here() {
    a_block_from_elsewhere_is_a_miss_there_and_foreign_here_on::<Quick>();
    a_block_from_elsewhere_is_a_miss_there_and_foreign_here_on::<Usual>();
    a_block_from_elsewhere_is_a_miss_there_and_foreign_here_on::<Listed<Usual>>();
}

#[test]
fn pages_in_bulk_count_one_by_one() {
    let machine = three::<Listed<Quick>>().boot();
    for count in [1, 7, 300] {
        let before = stats(&machine);
        let mut pages = vec![None; count];
        assert_eq!(machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages), Ok(count));
        let count = u64::try_from(count).unwrap();
        let expected = [[count, 0, 0, 0, count, 0], NONE, NONE];
        assert_eq!(since(&machine, &before), expected);
        for pfn in pages.into_iter().flatten() {
            // SAFETY: allocated just now, freed once.
            unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
        }
    }
    // What goes back to the zone or comes from it is nobody's.
    let before = stats(&machine);
    machine.drain_all_pages();
    assert_eq!(since(&machine, &before), [NONE; 3]);
    machine.finish();
}

#[test]
fn a_turn_counts_where_the_page_came_from_the_node_whose_turn_it_was() {
    for mode in [Mode::Interleave, Mode::WeightedInterleave] {
        let machine = even::<Listed<Usual>>(2).boot();
        let mut turns = policy(&machine, mode, "0-1");
        let mut take = |gfp: Gfp, count: u32| {
            let block = |_| machine.alloc_block_policy(&mut turns, gfp, Order::ZERO);
            (0..count)
                .map(block)
                .collect::<Result<Vec<_>, _>>()
                .unwrap()
        };
        let before = stats(&machine);
        let pages = take(Gfp::KERNEL, 10);
        let expected = [[5, 0, 0, 5, 5, 0], [5, 0, 0, 5, 0, 5]];
        assert_eq!(since(&machine, &before), expected);
        drop(pages);

        // Nothing on node 1: its turns go to node 0.
        let all = Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOWARN | Gfp::THISNODE;
        let mut taken = Vec::new();
        while let Ok(block) = machine.alloc_block_node(NodeId(1), all, Order::ZERO) {
            taken.push(block);
        }
        let before = stats(&machine);
        let pages = take(Gfp::KERNEL, 10);
        let expected = [[5, 5, 0, 5, 10, 0], [0, 0, 5, 0, 0, 0]];
        assert_eq!(since(&machine, &before), expected);
        drop((pages, taken));
        machine.finish();
    }
}
