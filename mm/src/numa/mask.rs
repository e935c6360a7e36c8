//! Sets of nodes.
#![forbid(unsafe_code)]

use core::fmt;
use core::str::FromStr;

use crate::platform::NodeId;

/// Nodes that a frame's state word has room for (Linux: `MAX_NUMNODES`).
pub const MAX_NODES: usize = 1 << 10;

const WORDS: usize = MAX_NODES / 64;

/// A set of nodes (Linux: `nodemask_t`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeMask {
    /// Node `n` is bit `n % 64` of word `n / 64`.
    words: [u64; WORDS],
}

/// A node's number is [`MAX_NODES`] or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeOutOfRange(pub NodeId);

impl NodeMask {
    /// No node.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// One node.
    ///
    /// # Errors
    /// [`NodeOutOfRange`].
    pub fn one(node: NodeId) -> Result<Self, NodeOutOfRange> {
        let mut mask = Self::EMPTY;
        mask.insert(node)?;
        Ok(mask)
    }

    /// The nodes of a list.
    ///
    /// # Errors
    /// The first [`NodeOutOfRange`].
    pub fn of(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, NodeOutOfRange> {
        let mut mask = Self::EMPTY;
        nodes.into_iter().try_for_each(|node| mask.insert(node))?;
        Ok(mask)
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`NodeOutOfRange`]; nothing changes then.
    pub fn insert(&mut self, node: NodeId) -> Result<(), NodeOutOfRange> {
        let (word, bit) = place(node);
        let word = self.words.get_mut(word).ok_or(NodeOutOfRange(node))?;
        *word |= bit;
        Ok(())
    }

    /// Takes a node out.
    pub fn remove(&mut self, node: NodeId) {
        let (word, bit) = place(node);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Whether a node is in it.
    #[inline]
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        let (word, bit) = place(node);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether no node is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many nodes are in it (Linux: `nodes_weight`).
    #[must_use]
    pub fn len(&self) -> u32 {
        let ones = self.words.iter().map(|word| word.count_ones());
        ones.fold(0, u32::saturating_add)
    }

    /// The nodes in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = *self;
        for (word, other) in both.words.iter_mut().zip(other.words) {
            *word &= other;
        }
        both
    }

    /// The nodes of this one that are not in the other (Linux: `nodes_andnot`).
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = *self;
        for (word, other) in rest.words.iter_mut().zip(other.words) {
            *word &= !other;
        }
        rest
    }

    /// Whether a node is in both.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        let mut pairs = self.words.iter().zip(&other.words);
        pairs.any(|(one, other)| one & other != 0)
    }

    /// The lowest node.
    #[must_use]
    pub fn first(&self) -> Option<NodeId> {
        self.iter().next()
    }

    /// The next higher node than this one, or else the lowest (Linux: `next_node_in`).
    #[must_use]
    pub fn after(&self, node: NodeId) -> Option<NodeId> {
        let above = self.from(node.0.saturating_add(1));
        above.or_else(|| self.first())
    }

    /// Its nodes, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        core::iter::successors(self.from(0), |node| self.from(node.0.checked_add(1)?))
    }

    /// The lowest node from a number on.
    fn from(&self, number: u16) -> Option<NodeId> {
        let (first, bit) = place(NodeId(number));
        // Bits below the one to begin with do not count.
        let mut below = bit.wrapping_sub(1);
        for (base, word) in (0_u16..).step_by(64).zip(&self.words).skip(first) {
            let rest = word & !below;
            below = 0;
            if rest != 0 {
                let bit = u16::try_from(rest.trailing_zeros()).unwrap_or_default();
                return Some(NodeId(base.saturating_add(bit)));
            }
        }
        None
    }

    /// The set as Linux prints and reads it: `0-3,5`.
    #[must_use]
    pub const fn list(&self) -> NodeList<'_> {
        NodeList(self)
    }
}

fn place(node: NodeId) -> (usize, u64) {
    (usize::from(node.0 >> 6), 1 << (node.0 & 63))
}

impl fmt::Debug for NodeMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeMask({})", self.list())
    }
}

/// Prints a set of nodes as ranges; nothing for none.
#[derive(Clone, Copy, Debug)]
pub struct NodeList<'a>(&'a NodeMask);

impl fmt::Display for NodeList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nodes = self.0.iter().map(|node| node.0).peekable();
        let mut separator = "";
        while let Some(first) = nodes.next() {
            let mut last = first;
            while let Some(next) = nodes.next_if(|next| *next == last.saturating_add(1)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Why a text is no list of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeListError {
    /// Something between commas is neither a number nor two with a dash between.
    NotANumber,
    /// A range ends before it starts.
    Backwards,
    /// A node's number is too large.
    OutOfRange(NodeOutOfRange),
}

/// Reads `0-3,5`. At least one node must be named.
impl FromStr for NodeMask {
    type Err = NodeListError;

    fn from_str(text: &str) -> Result<Self, NodeListError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse::<u16>());
            let number = number.ok_or(NodeListError::NotANumber)?;
            // Digits only, so it is too large.
            number.map_err(|_| NodeListError::OutOfRange(NodeOutOfRange(NodeId(u16::MAX))))
        };
        let mut mask = Self::EMPTY;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(NodeListError::Backwards);
            }
            for node in first..=last {
                let inserted = mask.insert(NodeId(node));
                inserted.map_err(NodeListError::OutOfRange)?;
            }
        }
        Ok(mask)
    }
}

impl fmt::Display for NodeOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} is out of range", self.0)
    }
}

impl core::error::Error for NodeOutOfRange {}

impl fmt::Display for NodeListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber => f.write_str("expected nodes as in `0-3,5`"),
            Self::Backwards => f.write_str("a range ends before it starts"),
            Self::OutOfRange(node) => node.fmt(f),
        }
    }
}

impl core::error::Error for NodeListError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> NodeMask {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_printed_as_they_are_read() {
        for text in ["0", "0-3,5", "1,3,63-65", "1023", "0-1023", "7-8"] {
            assert_eq!(mask(text).list().to_string(), text);
        }
        assert_eq!(mask("3,1-2,2").list().to_string(), "1-3");
        assert_eq!(NodeMask::EMPTY.list().to_string(), "");
    }

    #[test]
    fn what_is_no_list_of_nodes_is_refused_by_its_reason() {
        let error = |text: &str| text.parse::<NodeMask>().unwrap_err();
        for text in ["", ",", "0,", "x", "1-", "-1", "1-2-3", "+1", " 1"] {
            assert_eq!(error(text), NodeListError::NotANumber, "{text}");
        }
        assert_eq!(error("3-1"), NodeListError::Backwards);
        for (text, node) in [("1024", 1024), ("0-1024", 1024), ("65536", u16::MAX)] {
            let node = NodeOutOfRange(NodeId(node));
            assert_eq!(error(text), NodeListError::OutOfRange(node), "{text}");
        }
        let mut mask = NodeMask::EMPTY;
        assert!(mask.insert(NodeId(u16::MAX)).is_err() && mask.is_empty());
        assert!(!mask.contains(NodeId(u16::MAX)));
    }

    #[test]
    fn the_next_node_comes_round_again() {
        let nodes = mask("2,64,1000");
        let next = |node| nodes.after(NodeId(node)).map(|node| node.0);
        assert_eq!(
            [0, 2, 63, 64, 999, 1000, 1023, u16::MAX].map(next),
            [2, 64, 64, 1000, 1000, 2, 2, 2].map(Some)
        );
        assert_eq!(NodeMask::EMPTY.after(NodeId(3)), None);
        assert_eq!((nodes.len(), nodes.first()), (3, Some(NodeId(2))));
    }

    #[test]
    fn sets_meet_and_part() {
        let (one, other) = (mask("0-70"), mask("64,100"));
        assert_eq!(one.and(&other), mask("64"));
        assert_eq!(other.without(&one), mask("100"));
        assert!(one.intersects(&other) && !mask("1").intersects(&mask("65")));
        let mut rest = mask("1,64");
        rest.remove(NodeId(1));
        assert_eq!(rest, NodeMask::one(NodeId(64)).unwrap());
    }
}
