//! Random requests with random policies agree with a naive model, page by page and count by count.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::numa::{Mode, NodeMask, Policy, PolicyError};
use mm::platform::NodeId;
use mm::system::{AllocError, Block, Memory};
use mm::zone::NumaStats;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, SimPlatform};

use super::{MIB, Quick, node_of, on, stats};

const MODES: [Mode; 7] = [
    Mode::Default,
    Mode::Preferred,
    Mode::Bind,
    Mode::Interleave,
    Mode::Local,
    Mode::PreferredMany,
    Mode::WeightedInterleave,
];

/// A policy, as simple as it can be.
#[derive(Clone, Debug)]
struct Wish {
    mode: Mode,
    /// Nodes with memory, lowest first.
    nodes: Vec<u16>,
    /// Where in `nodes` the turn is, and how many more it has.
    turn: usize,
    rest: u8,
}

impl Wish {
    fn default() -> Self {
        Self {
            mode: Mode::Default,
            nodes: Vec::new(),
            turn: 0,
            rest: 0,
        }
    }
}

/// What is free where, and what was counted.
struct Model {
    free: Vec<u64>,
    has_memory: Vec<bool>,
    /// Whom each node asks, itself first.
    orders: Vec<Vec<u16>>,
    weights: Vec<u8>,
    counts: Vec<NumaStats>,
}

impl Model {
    fn of(machine: &Machine<Quick>) -> Self {
        let nodes = machine.nodes();
        let has_memory: Vec<bool> = nodes.iter().map(|node| node.present() > 0).collect();
        // A small node may have nothing left beside the library's tables: nobody asks it.
        let is_asked = |node: &NodeId| {
            let zones = nodes[usize::from(node.0)].zones();
            zones.iter().any(|zone| zone.managed() > 0)
        };
        let order = |node: &mm::zone::Node| {
            let all = std::iter::once(node.id()).chain(node.others().iter().copied());
            all.filter(is_asked).map(|node| node.0).collect()
        };
        let free = |node: &mm::zone::Node| node.zones().iter().map(|zone| zone.free_frames()).sum();
        Self {
            free: nodes.iter().map(free).collect(),
            orders: nodes.iter().map(order).collect(),
            has_memory,
            weights: vec![1; nodes.len()],
            counts: vec![NumaStats::default(); nodes.len()],
        }
    }

    /// What a wish for these nodes comes to.
    fn wish(&self, mode: Mode, nodes: &[u16]) -> Result<Wish, PolicyError> {
        let takes_nodes = ![Mode::Default, Mode::Local].contains(&mode);
        let mode = match (nodes.is_empty(), takes_nodes) {
            (true, true) if mode == Mode::Preferred => Mode::Local,
            (true, true) => return Err(PolicyError::NoNodes(mode)),
            (false, false) => return Err(PolicyError::TakesNoNodes(mode)),
            _ => mode,
        };
        if let Some(node) = nodes
            .iter()
            .find(|node| usize::from(**node) >= self.free.len())
        {
            return Err(PolicyError::NoSuchNode(NodeId(*node)));
        }
        let mut kept = nodes.to_vec();
        kept.retain(|node| self.has_memory[usize::from(*node)]);
        if kept.is_empty() && !nodes.is_empty() {
            return Err(PolicyError::NoMemory);
        }
        if mode == Mode::Preferred {
            kept.truncate(1);
        }
        Ok(Wish {
            mode,
            nodes: kept,
            ..Wish::default()
        })
    }

    /// Takes a page from the first node of a list that has one, for a CPU.
    fn take(&mut self, cpu: u16, list: &[u16]) -> Option<u16> {
        let found = *list
            .iter()
            .find(|node| self.free[usize::from(**node)] > 0)?;
        let (wanted, given) = (usize::from(list[0]), usize::from(found));
        self.free[given] -= 1;
        match found == list[0] {
            true => self.counts[given].numa_hit += 1,
            false => {
                self.counts[given].numa_miss += 1;
                self.counts[wanted].numa_foreign += 1;
            }
        }
        match found == cpu {
            true => self.counts[given].local_node += 1,
            false => self.counts[given].other_node += 1,
        }
        Some(found)
    }

    /// A page for a task on a CPU, which is on the node of the same number.
    fn request(&mut self, cpu: u16, wish: &mut Wish) -> Option<u16> {
        let near = self.orders[usize::from(cpu)].clone();
        let among = |wish: &Wish| {
            let mut nodes = near.clone();
            nodes.retain(|node| wish.nodes.contains(node));
            nodes
        };
        match wish.mode {
            Mode::Default | Mode::Local => self.take(cpu, &near),
            Mode::Preferred => {
                let list = self.orders[usize::from(wish.nodes[0])].clone();
                self.take(cpu, &list)
            }
            Mode::Bind => self.take(cpu, &among(wish)),
            Mode::PreferredMany => {
                let first = among(wish);
                self.take(cpu, &first).or_else(|| self.take(cpu, &near))
            }
            Mode::Interleave | Mode::WeightedInterleave => {
                let node = wish.nodes[wish.turn];
                let weight = match wish.mode {
                    Mode::Interleave => 1,
                    _ => self.weights[usize::from(node)],
                };
                if wish.rest == 0 {
                    wish.rest = weight;
                }
                wish.rest -= 1;
                if wish.rest == 0 {
                    wish.turn = (wish.turn + 1) % wish.nodes.len();
                }
                let list = self.orders[usize::from(node)].clone();
                let found = self.take(cpu, &list);
                if found == Some(node) {
                    self.counts[usize::from(node)].interleave_hit += 1;
                }
                found
            }
        }
    }
}

/// A machine with up to six nodes, some of them without memory, each with a CPU.
fn machine(random: &mut Random) -> Machine<Quick> {
    let nodes = 1 + u16::try_from(random.below(6)).unwrap();
    let all: Vec<u16> = (0..nodes).collect();
    let mut builder = Machine::<Quick>::new().cpus_on(&all);
    for node in &all {
        // The first has what the library's tables take.
        if *node == 0 || random.below(4) != 0 {
            let start = DMA32_LIMIT + u64::from(*node) * 128 * MIB;
            let pages = if *node == 0 {
                2048
            } else {
                256 + random.below(512)
            };
            builder = builder.node(*node, start, pages * 4096);
        }
    }
    let distances: Vec<u8> = all
        .iter()
        .flat_map(|from| all.iter().map(move |to| (from, to)))
        .map(|(from, to)| match from == to {
            true => 10,
            false => 11 + u8::try_from(random.below(4)).unwrap(),
        })
        .collect();
    let machine = builder.distances(&distances).boot();
    machine.set_min_free_kbytes(0).unwrap();
    machine.set_watermark_scale_factor(1).unwrap();
    machine.set_lowmem_reserve_ratio([0; 5]).unwrap();
    machine
}

type Blocks<'a> = Vec<(u16, Block<&'a Memory<SimPlatform<Quick>>>)>;

/// One task on one CPU.
fn play<'a>(
    machine: &'a Machine<Quick>,
    model: &mut Model,
    blocks: &mut Blocks<'a>,
    cpu: u16,
    random: &mut Random,
) {
    let hardware = machine.hardware();
    let nodes = u64::try_from(model.free.len()).unwrap();
    let mut wish = Wish::default();
    hardware.set_policy(None);
    // Filling and emptying by turns.
    let mut filling = true;
    for _ in 0..3_000 {
        filling = match random.below(600) {
            0 => !filling,
            _ => filling,
        };
        match random.below(100) {
            0..=2 => {
                let mode = MODES[random.below_index(MODES.len())];
                // Now and then a node that does not exist.
                let numbers = 0..u16::try_from(nodes).unwrap() + u16::from(random.below(8) == 0);
                let chosen: Vec<u16> = numbers.filter(|_| random.below(2) == 0).collect();
                let set = NodeMask::of(chosen.iter().copied().map(NodeId)).unwrap();
                let (made, expected) = (machine.policy(mode, &set), model.wish(mode, &chosen));
                let same = expected
                    .as_ref()
                    .map(|wish| (wish.mode, wish.nodes.clone()));
                let parts = |policy: &Policy| {
                    let nodes = policy.nodes().iter().map(|node| node.0);
                    (policy.mode(), nodes.collect::<Vec<_>>())
                };
                assert_eq!(made.as_ref().map(parts), same);
                if let (Ok(policy), Ok(expected)) = (made, expected) {
                    hardware.set_policy(Some(policy));
                    wish = expected;
                }
            }
            // Weights change while nobody is in the midst of a turn.
            3 if wish.rest == 0 => {
                let (node, weight) = (random.below(nodes), 1 + random.below(5));
                let node = u16::try_from(node).unwrap();
                let weight = u8::try_from(weight).unwrap();
                machine.set_interleave_weight(NodeId(node), weight).unwrap();
                model.weights[usize::from(node)] = weight;
            }
            4..=9 => {
                // By name, and only from there.
                let node = u16::try_from(random.below(nodes)).unwrap();
                let gfp = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN;
                let found = machine.alloc_block_node(NodeId(node), gfp, Order::ZERO);
                let mut list = model.orders[usize::from(node)].clone();
                list.retain(|asked| *asked == node);
                let expected = model.take(cpu, &list);
                keep(machine, blocks, found, expected);
            }
            step if (step < 70) == filling => {
                let expected = model.request(cpu, &mut wish);
                let found = machine.alloc_block(Gfp::KERNEL | Gfp::NOWARN, Order::ZERO);
                keep(machine, blocks, found, expected);
            }
            _ if !blocks.is_empty() => {
                let (node, block) = blocks.swap_remove(random.below_index(blocks.len()));
                drop(block);
                model.free[usize::from(node)] += 1;
            }
            _ => {}
        }
    }
    hardware.set_policy(None);
}

fn keep<'a>(
    machine: &Machine<Quick>,
    blocks: &mut Blocks<'a>,
    found: Result<Block<&'a Memory<SimPlatform<Quick>>>, AllocError>,
    expected: Option<u16>,
) {
    let found = match found {
        Ok(block) => Some((node_of(machine, &block), block)),
        Err(AllocError::OutOfMemory) => None,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(found.as_ref().map(|(node, _)| *node), expected);
    blocks.extend(found);
}

#[test]
fn random_policies_agree_with_a_naive_model() {
    let mut random = Random::new(seed("policies"));
    for _ in 0..24 {
        let machine = machine(&mut random);
        let mut model = Model::of(&machine);
        let before = stats(&machine);
        assert!(before.iter().all(|stats| *stats == NumaStats::default()));
        let mut blocks = Vec::new();
        for cpu in 0..u16::try_from(machine.nodes().len()).unwrap() {
            on(&machine, u32::from(cpu), || {
                play(&machine, &mut model, &mut blocks, cpu, &mut random);
            });
        }
        assert_eq!(stats(&machine), model.counts);
        drop(blocks);
        machine.finish();
    }
}
