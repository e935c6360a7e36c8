//! R14: a bound request never gets memory of another node; and when there is none left on its own,
//! nobody else is troubled.

use std::sync::Mutex;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::buddy::relief::{Freed, OomNotifier, OutOfMemory, Relief, ShrinkControl, Shrinker};
use mm::numa::{Mode, NodeMask};
use mm::platform::NodeId;
use mm::system::{AllocError, Block, Memory};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, SimPlatform, Usual};

use super::{even, mask, node_of, policy};

/// Who was called, for which nodes.
#[derive(Default)]
struct Calls {
    shrunk: Mutex<Vec<NodeId>>,
    told: Mutex<Vec<Option<NodeMask>>>,
}

impl Relief for Calls {
    fn count_objects(&self, control: &ShrinkControl) -> u64 {
        let mut shrunk = self.shrunk.lock().unwrap();
        if !shrunk.contains(&control.node) {
            shrunk.push(control.node);
        }
        0
    }

    fn scan_objects(&self, _: &ShrinkControl, _: u64) -> Option<Freed> {
        None
    }
}

impl OutOfMemory for Calls {
    fn out_of_memory(&self, _: Order) -> u64 {
        self.told.lock().unwrap().push(None);
        0
    }

    fn out_of_memory_on(&self, _: Order, nodes: &NodeMask) -> u64 {
        self.told.lock().unwrap().push(Some(*nodes));
        0
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[test]
fn the_end_of_memory_on_some_nodes_is_theirs_alone() {
    let machine = leak(even::<Usual>(4).boot());
    let calls: &'static Calls = leak(Calls::default());
    machine
        .register_shrinker(leak(Shrinker::new("calls", calls).numa_aware()))
        .unwrap();
    machine
        .register_oom_notifier(leak(OomNotifier::new(calls)))
        .unwrap();
    machine.hardware().has_kswapd();

    let mut bound = policy(machine, Mode::Bind, "1,3");
    let mut taken = Vec::new();
    let error = loop {
        match machine.alloc_block_policy(&mut bound, Gfp::KERNEL, Order::ZERO) {
            Ok(block) => {
                assert!([1, 3].contains(&node_of(machine, &block)));
                taken.push(block);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, AllocError::OutOfMemory);
    let untouched = |node: usize| {
        let zones = machine.nodes()[node].zones();
        zones
            .iter()
            .all(|zone| zone.free_frames() == zone.managed())
    };
    assert!(untouched(0) && untouched(2));
    let mut shrunk = calls.shrunk.lock().unwrap().clone();
    shrunk.sort_unstable();
    assert_eq!(shrunk, [NodeId(1), NodeId(3)]);
    let told = calls.told.lock().unwrap().clone();
    assert!(
        !told.is_empty() && told.iter().all(|nodes| *nodes == Some(mask("1,3"))),
        "{told:?}"
    );
    let mut woken = machine.hardware().woken();
    woken.sort_unstable();
    woken.dedup();
    assert_eq!(woken, [NodeId(1), NodeId(3)]);
    let (count, failure) = machine.hardware().take_failures();
    assert_eq!(count, 1);
    assert!(
        failure.contains("(GFP_KERNEL), nodemask=1,3\nNode 1 Normal"),
        "{failure}"
    );
    assert!(
        !failure.contains("Node 0") && !failure.contains("Node 2"),
        "{failure}"
    );

    // Others have enough.
    drop(
        machine
            .alloc_block(Gfp::KERNEL, Order::new(9).unwrap())
            .unwrap(),
    );
    let mut preferred = policy(machine, Mode::PreferredMany, "1,3");
    let block = machine.alloc_block_policy(&mut preferred, Gfp::KERNEL, Order::ZERO);
    assert_eq!(node_of(machine, &block.unwrap()), 0);
    assert_eq!(machine.hardware().take_failures().0, 0, "nothing failed");
}

/// A cache that knows nothing of nodes.
struct Cache {
    pages: Mutex<Vec<Block<&'static Memory<SimPlatform<Usual>>>>>,
}

impl Relief for Cache {
    fn count_objects(&self, control: &ShrinkControl) -> u64 {
        assert_eq!(control.node, NodeId(0));
        self.pages.lock().unwrap().len() as u64
    }

    fn scan_objects(&self, _: &ShrinkControl, objects: u64) -> Option<Freed> {
        let mut pages = self.pages.lock().unwrap();
        let left = pages.len().saturating_sub(objects as usize);
        let given = pages.split_off(left).len() as u64;
        Some(Freed {
            objects: given,
            pages: given,
        })
    }
}

#[test]
fn a_bound_request_gets_memory_of_caches_that_know_nothing_of_nodes() {
    let machine = leak(even::<Usual>(2).boot());
    let mut bound = policy(machine, Mode::Bind, "1");
    let memory: &'static Memory<_> = machine;
    let mut pages = Vec::new();
    let gfp = Gfp::NOWAIT;
    while let Ok(page) = memory.alloc_block_policy(&mut bound, gfp, Order::ZERO) {
        pages.push(page);
    }
    assert!(pages.len() > 1000);
    let cache: &'static Cache = leak(Cache {
        pages: Mutex::new(pages),
    });
    let shrinker = leak(Shrinker::new("cache", cache));
    machine.register_shrinker(shrinker).unwrap();
    machine.hardware().has_kswapd();
    let block = memory.alloc_block_policy(&mut bound, Gfp::KERNEL, Order::ZERO);
    assert_eq!(node_of(machine, &block.unwrap()), 1);
    assert!(machine.reclaim_stats().pgscan_direct > 0);
}

/// Requests of the test below, on all CPUs together.
const REQUESTS: u64 = 400_000;

#[test]
fn no_page_comes_from_a_node_that_its_task_is_not_bound_to() {
    let machine = even::<Listed<Usual>>(4).boot();
    let seed = seed("bound");
    std::thread::scope(|scope| {
        for cpu in 1..4 {
            let machine = &machine;
            scope.spawn(move || {
                let _running = machine.cpu(cpu);
                let mut random = Random::new(seed ^ u64::from(cpu));
                let mut nodes = mask("0-3");
                let mut blocks = Vec::new();
                for turn in 0..REQUESTS / 3 {
                    if turn.is_multiple_of(1024) {
                        let all = (0..4).map(NodeId);
                        let chosen = all.filter(|_| random.below(2) == 0);
                        nodes = NodeMask::of(chosen).unwrap();
                        if nodes.is_empty() {
                            nodes = mask("2");
                        }
                        let bound = machine.policy(Mode::Bind, &nodes).unwrap();
                        machine.hardware().set_policy(Some(bound));
                    }
                    if random.below(2) == 0 && !blocks.is_empty() {
                        drop(blocks.swap_remove(random.below_index(blocks.len())));
                        continue;
                    }
                    let order = Order::new(u8::try_from(random.below(5)).unwrap()).unwrap();
                    let gfp = Gfp::KERNEL | Gfp::NOWARN;
                    let Ok(block) = machine.alloc_block(gfp, order) else {
                        blocks.clear();
                        continue;
                    };
                    let node = NodeId(node_of(machine, &block));
                    assert!(nodes.contains(node), "{node} is not in {nodes:?}");
                    blocks.push(block);
                }
                machine.hardware().set_policy(None);
            });
        }
    });
    machine.finish();
}
