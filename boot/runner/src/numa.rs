//! The guest's nodes: how `--numa`, `--numa-node` and `--numa-dist` split its memory and CPUs.

use core::str::FromStr;

use crate::machine::UnknownName;
use crate::size::MemorySize;

/// Where nobody says how far nodes are from each other.
const REMOTE: u8 = 20;

/// The guest's nodes; none on a machine without NUMA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numa {
    /// So many nodes, with as many CPUs and as much memory each.
    pub even: Option<NodeCount>,
    /// Or these.
    pub nodes: Vec<NumaNode>,
    /// How far they are from each other; what is not named is at 20.
    pub distances: Vec<NumaDistance>,
}

/// A number of nodes, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCount(u8);

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Its memory; there are nodes without.
    pub memory: Option<MemorySize>,
    /// Its first and last CPU; there are nodes without.
    pub cpus: Option<(u8, u8)>,
}

/// How far one node is from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumaDistance {
    from: u8,
    to: u8,
    distance: u8,
}

impl Numa {
    /// The memory of all nodes that are named; `None` if no node is, or none has any.
    #[must_use]
    pub fn memory(&self) -> Option<MemorySize> {
        let sizes = self.nodes.iter().filter_map(|node| node.memory);
        let bytes = sizes.map(MemorySize::bytes).fold(0, u64::saturating_add);
        MemorySize::of_pages_around(bytes)
    }

    /// How many nodes there are.
    pub(crate) fn count(&self) -> usize {
        match self.even {
            Some(NodeCount(count)) => count.into(),
            None => self.nodes.len(),
        }
    }

    /// A node that a distance names, and that there is not.
    pub(crate) fn node_that_is_not_there(&self) -> Option<u8> {
        let named = self.distances.iter();
        let mut named = named.flat_map(|named| [named.from, named.to]);
        named.find(|&node| usize::from(node) >= self.count())
    }

    /// The nodes of a machine with so much memory and so many CPUs.
    pub(crate) fn nodes_of(&self, memory: MemorySize, cpus: u8) -> Vec<NumaNode> {
        let Some(NodeCount(count)) = self.even else {
            return self.nodes.clone();
        };
        let cpus = u16::from(cpus);
        let border = |node: u16| {
            let part = cpus.saturating_mul(node).div_euclid(u16::from(count));
            u8::try_from(part).unwrap_or(u8::MAX)
        };
        let mut nodes = Vec::new();
        let mut rest = memory.bytes();
        for index in 0..u16::from(count) {
            let left = u64::from(count).saturating_sub(u64::from(index));
            // Whole MiB where that is possible; the last node has what is left.
            let has_mib = memory.bytes() >> 20 >= u64::from(count);
            let shift: u32 = if has_mib { 20 } else { 12 };
            let share = rest.div_euclid(left.max(1));
            let share = if left == 1 {
                share
            } else {
                (share >> shift) << shift
            };
            rest = rest.saturating_sub(share);
            let (first, end) = (border(index), border(index.saturating_add(1)));
            nodes.push(NumaNode {
                memory: MemorySize::of_pages_around(share),
                cpus: (first < end).then(|| (first, end.saturating_sub(1))),
            });
        }
        nodes
    }

    /// QEMU's options for the distances between `count` nodes: all of them, or none.
    pub(crate) fn distance_options(&self, count: usize) -> Vec<String> {
        let ids = 0..u8::try_from(count).unwrap_or(u8::MAX);
        if self.distances.is_empty() {
            return Vec::new();
        }
        let named = |from: u8, to: u8| {
            let mut all = self.distances.iter();
            all.find(|named| (named.from, named.to) == (from, to))
                .map(|named| named.distance)
        };
        let option = |from: u8, to: u8| {
            let distance = named(from, to).or_else(|| named(to, from));
            let distance = distance.unwrap_or(REMOTE);
            format!("dist,src={from},dst={to},val={distance}")
        };
        let pairs = ids.clone().flat_map(|from| {
            let others = ids.clone().filter(move |to| *to != from);
            others.map(move |to| (from, to))
        });
        pairs.map(|(from, to)| option(from, to)).collect()
    }
}

impl NumaNode {
    /// QEMU's option for the node with this number.
    pub(crate) fn option(&self, id: usize) -> String {
        let mut option = format!("node,nodeid={id}");
        if self.memory.is_some() {
            option.push_str(&format!(",memdev=ram{id}"));
        }
        if let Some((first, last)) = self.cpus {
            option.push_str(&format!(",cpus={first}-{last}"));
        }
        option
    }
}

impl FromStr for NodeCount {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let count = text.parse().ok().filter(|count| (1..=64).contains(count));
        count.map(Self).ok_or_else(|| UnknownName {
            given: text.to_owned(),
            known: "a number from 1 to 64",
        })
    }
}

impl FromStr for NumaNode {
    type Err = UnknownName;

    /// `512M,0-1`, `1G` (no CPUs), `0,2` (no memory).
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName {
            given: text.to_owned(),
            known: "memory and CPUs of a node, as in `512M,0-1`, `1G` or `0,2`",
        };
        let (memory, cpus) = match text.split_once(',') {
            Some((memory, cpus)) => (memory, Some(cpus)),
            None => (text, None),
        };
        let memory = match memory {
            "0" => None,
            size => Some(size.parse().map_err(|_| unknown())?),
        };
        let range = |cpus: &str| {
            let (first, last) = cpus.split_once('-').unwrap_or((cpus, cpus));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let cpus = match cpus {
            Some(cpus) => Some(range(cpus).ok_or_else(unknown)?),
            None => None,
        };
        Ok(Self { memory, cpus })
    }
}

impl FromStr for NumaDistance {
    type Err = UnknownName;

    /// `0,1,31`
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let mut numbers = text.split(',').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let parsed = (next(), next(), next());
        match (parsed, numbers.next()) {
            ((Some(from), Some(to), Some(distance @ 11..)), None) if from != to => {
                Ok(Self { from, to, distance })
            }
            _ => Err(UnknownName {
                given: text.to_owned(),
                known: "two nodes and a distance from 11 to 255, as in `0,1,31`",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(count: u8, memory: &str, cpus: u8) -> Vec<String> {
        let numa = Numa {
            even: Some(NodeCount(count)),
            ..Numa::default()
        };
        let nodes = numa.nodes_of(memory.parse().unwrap(), cpus);
        let sizes = nodes.iter().map(|node| node.memory.unwrap());
        let total: u64 = sizes.map(MemorySize::bytes).sum();
        assert_eq!(total, memory.parse::<MemorySize>().unwrap().bytes());
        let text = |(id, node): (usize, &NumaNode)| {
            format!("{} {}", node.memory.unwrap(), node.option(id))
        };
        nodes.iter().enumerate().map(text).collect()
    }

    #[test]
    fn memory_and_cpus_are_split_evenly() {
        assert_eq!(
            even(2, "2G", 4),
            [
                "1G node,nodeid=0,memdev=ram0,cpus=0-1",
                "1G node,nodeid=1,memdev=ram1,cpus=2-3"
            ]
        );
        assert_eq!(
            even(3, "512M", 2),
            [
                "170M node,nodeid=0,memdev=ram0",
                "171M node,nodeid=1,memdev=ram1,cpus=0-0",
                "171M node,nodeid=2,memdev=ram2,cpus=1-1"
            ]
        );
    }

    #[test]
    fn nodes_are_read_as_they_are_written() {
        let node = |text: &str| text.parse::<NumaNode>().map(|node| node.option(0));
        assert_eq!(
            node("1G,0-1").unwrap(),
            "node,nodeid=0,memdev=ram0,cpus=0-1"
        );
        assert_eq!(node("0,2").unwrap(), "node,nodeid=0,cpus=2-2");
        assert_eq!(node("64M").unwrap(), "node,nodeid=0,memdev=ram0");
        for text in ["", "lots", "1G,", "1G,x", "1G,3-1", "1G,0-1-2"] {
            assert!(node(text).is_err(), "{text}");
        }
    }

    #[test]
    fn distances_that_are_not_named_are_filled_in() {
        let numa = Numa {
            distances: vec!["0,1,31".parse().unwrap(), "1,0,32".parse().unwrap()],
            ..Numa::default()
        };
        let options = numa.distance_options(3);
        assert_eq!(options.len(), 6);
        for expected in [
            "dist,src=0,dst=1,val=31",
            "dist,src=1,dst=0,val=32",
            "dist,src=2,dst=0,val=20",
        ] {
            assert!(
                options.iter().any(|option| option == expected),
                "{options:?}"
            );
        }
        for text in ["0,1", "0,1,10", "0,0,20", "0,1,20,3", "a,b,c"] {
            assert!(text.parse::<NumaDistance>().is_err(), "{text}");
        }
    }
}
