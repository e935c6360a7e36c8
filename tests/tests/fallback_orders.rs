//! R57: the order in which nodes are asked, against an oracle and against what Linux printed.

use std::collections::BTreeSet;

use mm::platform::NodeId;
use mm::zone::distance::{Distances, sort_by_nearness};
use mm_tests::maps::FirmwareMapFile;
use mm_tests::seed::{Random, seed};

/// Every node's order, itself first, as the library finds it.
fn orders(nodes: u16, with_memory: &[u16], distances: &Distances<'_>) -> Vec<Vec<u16>> {
    let mut load = vec![0; usize::from(nodes)];
    let order = |from: u16| {
        let others = with_memory.iter().filter(|node| **node != from);
        let mut others: Vec<NodeId> = others.copied().map(NodeId).collect();
        sort_by_nearness(NodeId(from), distances, &mut load, &mut others);
        let others = others.iter().map(|node| node.0);
        std::iter::once(from).chain(others).collect()
    };
    (0..nodes).map(order).collect()
}

/// The same by the sum that Linux minimises, node by node from a set of those not taken yet.
fn oracle(nodes: u16, with_memory: &[u16], distance: impl Fn(u16, u16) -> u64) -> Vec<Vec<u16>> {
    let mut load = vec![0_u64; usize::from(nodes)];
    let mut all = Vec::new();
    for from in 0..nodes {
        let mut order = vec![from];
        let mut left: BTreeSet<u16> = with_memory.iter().copied().collect();
        left.remove(&from);
        let mut before = from;
        while !left.is_empty() {
            let sum = |node: &u16| {
                let distance = distance(from, *node) + u64::from(*node < from);
                distance * 1024 + load[usize::from(*node)]
            };
            let best = *left.iter().min_by_key(|node| sum(node)).unwrap();
            if distance(from, best) != distance(from, before) {
                load[usize::from(best)] += 1;
            }
            left.remove(&best);
            order.push(best);
            before = best;
        }
        all.push(order);
    }
    all
}

#[test]
fn a_thousand_random_matrices_give_the_oracles_orders() {
    let mut random = Random::new(seed("distances"));
    for _ in 0..1_000 {
        let nodes = 1 + random.below_index(24);
        // Few different distances make many ties.
        let kinds = 1 + random.below_index(12);
        let mut matrix = vec![10_u8; nodes * nodes];
        for (place, distance) in matrix.iter_mut().enumerate() {
            if place / nodes != place % nodes {
                *distance = 11 + u8::try_from(random.below_index(kinds) * 20).unwrap();
            }
        }
        let distances = Distances::new(nodes, &matrix).unwrap();
        let count = u16::try_from(nodes).unwrap();
        let with_memory: Vec<u16> = (0..count).filter(|_| random.below(5) != 0).collect();
        let distance =
            |from: u16, to: u16| u64::from(matrix[usize::from(from) * nodes + usize::from(to)]);
        let expected = oracle(count, &with_memory, distance);
        let found = orders(count, &with_memory, &distances);
        assert_eq!(found, expected, "{with_memory:?} {matrix:?}");
        for (from, order) in found.iter().enumerate() {
            let far = |node: &u16| distance(u16::try_from(from).unwrap(), *node);
            assert!(order.iter().map(far).is_sorted(), "{order:?}");
        }
    }
}

#[test]
fn numa_machines_fall_back_as_linux_printed_it() {
    let mut compared = 0;
    for map in FirmwareMapFile::all() {
        let printed = &map.linux.fallback_order;
        if printed.len() < 2 {
            continue;
        }
        let rows = map.distances.clone().unwrap_or_default();
        let matrix: Vec<u8> = rows.concat();
        let distances = match rows.len() {
            0 => Distances::UNKNOWN,
            nodes => Distances::new(nodes, &matrix).unwrap(),
        };
        let mut with_memory: Vec<u16> = map
            .linux
            .initmem
            .iter()
            .filter(|span| span.start != span.end)
            .map(|span| span.node)
            .collect();
        with_memory.sort_unstable();
        let nodes = printed.keys().max().unwrap() + 1;
        for (node, order) in (0..).zip(orders(nodes, &with_memory, &distances)) {
            assert_eq!(
                Some(&order),
                printed.get(&node),
                "{}, node {node}",
                map.name
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 41);
}
