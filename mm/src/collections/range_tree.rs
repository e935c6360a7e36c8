//! Disjoint ranges in order of their addresses, and the lowest gap between them that is large enough.
//!
//! A balanced tree (AVL: Adelson-Velsky and Landis 1962) whose nodes say of everything below them where it begins, where
//! it ends, and how large the largest gap in it is. So a search for room looks at one node a level (Linux: the free
//! areas of `vmalloc.c`, and the maple tree of a `mm_struct`).
//!
//! The nodes are somebody else's, who finds them by number. All their fields are atomics that only the holder of the
//! tree writes: others may read a range that cannot change while they do.
#![forbid(unsafe_code)]

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests may add"
)]
mod tests;

use core::mem::offset_of;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The number of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Slot(u32);

impl Slot {
    /// By number, unless it stands for none.
    pub(crate) fn new(number: u32) -> Option<Self> {
        (number != NONE).then_some(Self(number))
    }

    /// Its number.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// A number for one or none.
    pub(crate) fn encode(slot: Option<Self>) -> u32 {
        slot.map_or(NONE, Self::number)
    }
}

const NONE: u32 = u32::MAX;

/// A half-open range of numbers, not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// The first one in it.
    pub(crate) start: u64,
    /// The first one behind it.
    pub(crate) end: u64,
}

impl Span {
    /// How many there are.
    pub(crate) const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Where something that is aligned can begin in it.
    fn place(self, size: u64, align: u64) -> Option<u64> {
        let start = self.start.checked_next_multiple_of(align)?;
        (start.checked_add(size)? <= self.end).then_some(start)
    }
}

/// A range in a tree, and what is below it.
#[derive(Debug)]
pub(crate) struct RangeNode {
    start: AtomicU64,
    end: AtomicU64,
    /// Where the lowest range below this starts, itself included, …
    lowest: AtomicU64,
    /// … where the highest one ends, …
    highest: AtomicU64,
    /// … and the largest gap between two of them.
    gap: AtomicU64,
    left: AtomicU32,
    right: AtomicU32,
    height: AtomicU32,
}

impl RangeNode {
    /// Where in it its start and its end are.
    pub(crate) const FIELDS: [usize; 2] = [offset_of!(Self, start), offset_of!(Self, end)];

    /// In no tree.
    pub(crate) const fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            lowest: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            gap: AtomicU64::new(0),
            left: AtomicU32::new(NONE),
            right: AtomicU32::new(NONE),
            height: AtomicU32::new(0),
        }
    }

    /// The range. Context: it is in the tree and stays there, or the tree is held.
    pub(crate) fn span(&self) -> Span {
        Span {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
        }
    }

    fn left(&self) -> Option<Slot> {
        Slot::new(self.left.load(Ordering::Relaxed))
    }

    fn right(&self) -> Option<Slot> {
        Slot::new(self.right.load(Ordering::Relaxed))
    }

    fn set_left(&self, slot: Option<Slot>) {
        self.left.store(Slot::encode(slot), Ordering::Relaxed);
    }

    fn set_right(&self, slot: Option<Slot>) {
        self.right.store(Slot::encode(slot), Ordering::Relaxed);
    }

    /// What is below it.
    fn below(&self) -> Below {
        Below {
            span: Span {
                start: self.lowest.load(Ordering::Relaxed),
                end: self.highest.load(Ordering::Relaxed),
            },
            gap: self.gap.load(Ordering::Relaxed),
            height: self.height.load(Ordering::Relaxed),
        }
    }

    fn set_below(&self, below: Below) {
        self.lowest.store(below.span.start, Ordering::Relaxed);
        self.highest.store(below.span.end, Ordering::Relaxed);
        self.gap.store(below.gap, Ordering::Relaxed);
        self.height.store(below.height, Ordering::Relaxed);
    }
}

/// What a node says of all ranges below it, itself included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Below {
    span: Span,
    gap: u64,
    height: u32,
}

/// Whoever has the nodes.
pub(crate) trait Nodes {
    /// The node with a number; the same every time.
    fn node(&self, slot: Slot) -> Option<&RangeNode>;
}

/// A range cannot be put in: it is empty, turned around or beyond the bounds, something is there already, or it has no
/// node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoPlace;

/// The tree does not say what its nodes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadTree {
    /// The node that is wrong; none if it is their number.
    pub(crate) at: Option<Slot>,
    /// What is recorded there: the number of nodes, or a height.
    pub(crate) recorded: u64,
    /// What it should be.
    pub(crate) counted: u64,
}

/// Ranges within bounds.
///
/// # Invariants
/// The nodes that are reached from `root` are `count` many; their ranges are disjoint, in order and within `bounds`, and
/// each says of those below it what is so.
#[derive(Debug)]
pub(crate) struct RangeTree {
    bounds: Span,
    /// All addresses are multiples of it.
    unit: u64,
    root: Option<Slot>,
    count: u32,
}

impl RangeTree {
    /// Without ranges. Whoever puts some in sees to it that they start and end at multiples of `unit`.
    pub(crate) const fn new(bounds: Span, unit: u64) -> Self {
        Self {
            bounds,
            unit,
            root: None,
            count: 0,
        }
    }

    /// How many ranges there are.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// The lowest place for `size`, at a multiple of `align`, which is one of the unit. One look a level; only where
    /// every gap is too small to hold that wherever it begins, all gaps are looked at that are as large.
    pub(crate) fn find_gap(&self, nodes: &impl Nodes, size: u64, align: u64) -> Option<u64> {
        let slack = align.saturating_sub(self.unit);
        let roomy = size
            .checked_add(slack)
            .and_then(|size| self.lowest_gap(nodes, size));
        match roomy {
            Some(gap) => gap.place(size, align),
            None if slack > 0 => self.tight_gap(nodes, size, align),
            None => None,
        }
    }

    /// The lowest gap of at least `size`.
    fn lowest_gap(&self, nodes: &impl Nodes, size: u64) -> Option<Span> {
        let Some(all) = self.root.and_then(|root| nodes.node(root)) else {
            return Some(self.bounds).filter(|gap| gap.size() >= size);
        };
        let Below { span, gap, .. } = all.below();
        let (before, behind) = self.around(span);
        if before.size() >= size {
            return Some(before);
        }
        if gap < size {
            return Some(behind).filter(|gap| gap.size() >= size);
        }
        let mut top = all;
        loop {
            let (left, right) = children(nodes, top);
            let (before, behind) = gaps(top, left, right);
            match (left, right) {
                (Some(left), _) if left.below().gap >= size => top = left,
                _ if before >= size => return gap_before(top, left),
                _ if behind >= size => return gap_behind(top, right),
                (_, Some(right)) if right.below().gap >= size => top = right,
                _ => return None,
            }
        }
    }

    /// What is free before and behind everything.
    const fn around(&self, all: Span) -> (Span, Span) {
        let before = Span {
            start: self.bounds.start,
            end: all.start,
        };
        let behind = Span {
            start: all.end,
            end: self.bounds.end,
        };
        (before, behind)
    }

    /// The lowest gap in which `size` has a place that is aligned, by a look at every gap that is as large.
    fn tight_gap(&self, nodes: &impl Nodes, size: u64, align: u64) -> Option<u64> {
        let mut from = self.bounds.start;
        loop {
            let next = self.first_from(nodes, from);
            let next = next.and_then(|slot| nodes.node(slot)).map(RangeNode::span);
            let gap = Span {
                start: from,
                end: next.map_or(self.bounds.end, |next| next.start),
            };
            match (gap.place(size, align), next) {
                (Some(place), _) => return Some(place),
                (None, Some(next)) => from = next.end,
                (None, None) => return None,
            }
        }
    }

    /// Puts a range in, by its node, which is in no tree.
    pub(crate) fn insert(
        &mut self,
        nodes: &impl Nodes,
        slot: Slot,
        span: Span,
    ) -> Result<(), NoPlace> {
        let is_inside = self.bounds.start <= span.start && span.end <= self.bounds.end;
        let is_taken = || {
            let next = self.first_from(nodes, span.start);
            let next = next.and_then(|slot| nodes.node(slot)).map(RangeNode::span);
            next.is_some_and(|next| next.start < span.end)
        };
        if span.start >= span.end || !is_inside || is_taken() {
            return Err(NoPlace);
        }
        let node = nodes.node(slot).ok_or(NoPlace)?;
        node.start.store(span.start, Ordering::Relaxed);
        node.end.store(span.end, Ordering::Relaxed);
        node.set_left(None);
        node.set_right(None);
        self.root = insert_below(nodes, self.root, (slot, node));
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Takes a range out, by its node. `false` if that is not in the tree.
    pub(crate) fn remove(&mut self, nodes: &impl Nodes, slot: Slot) -> bool {
        let Some(node) = nodes.node(slot) else {
            return false;
        };
        let start = node.span().start;
        if self.containing(nodes, start) != Some(slot) {
            return false;
        }
        self.root = remove_below(nodes, self.root, start);
        node.height.store(0, Ordering::Relaxed);
        self.count = self.count.saturating_sub(1);
        true
    }

    /// The range that something is in.
    pub(crate) fn containing(&self, nodes: &impl Nodes, at: u64) -> Option<Slot> {
        let slot = self.first_from(nodes, at)?;
        (nodes.node(slot)?.span().start <= at).then_some(slot)
    }

    /// The lowest range that ends above `at`.
    pub(crate) fn first_from(&self, nodes: &impl Nodes, at: u64) -> Option<Slot> {
        let mut next = self.root;
        let mut found = None;
        while let Some((slot, node)) = next.and_then(|slot| Some((slot, nodes.node(slot)?))) {
            if node.span().end > at {
                found = Some(slot);
                next = node.left();
            } else {
                next = node.right();
            }
        }
        found
    }

    /// Recounts everything.
    ///
    /// # Errors
    /// The first [`BadTree`] found.
    pub(crate) fn validate(&self, nodes: &impl Nodes) -> Result<(), BadTree> {
        let mut before = self.bounds.start;
        let mut count: u64 = 0;
        recount(nodes, self.root, &mut |slot, span: Span| {
            let is_good = before <= span.start && span.start < span.end;
            before = span.end;
            count = count.saturating_add(1);
            match is_good && span.end <= self.bounds.end {
                true => Ok(()),
                false => Err(bad(slot, span.start, before)),
            }
        })?;
        match count == u64::from(self.count) {
            true => Ok(()),
            false => Err(BadTree {
                at: None,
                recorded: self.count.into(),
                counted: count,
            }),
        }
    }
}

fn children<'a, N: Nodes>(
    nodes: &'a N,
    top: &RangeNode,
) -> (Option<&'a RangeNode>, Option<&'a RangeNode>) {
    let node = |slot: Option<Slot>| slot.and_then(|slot| nodes.node(slot));
    (node(top.left()), node(top.right()))
}

fn gap_before(top: &RangeNode, left: Option<&RangeNode>) -> Option<Span> {
    Some(Span {
        start: left?.below().span.end,
        end: top.span().start,
    })
}

fn gap_behind(top: &RangeNode, right: Option<&RangeNode>) -> Option<Span> {
    Some(Span {
        start: top.span().end,
        end: right?.below().span.start,
    })
}

/// The gaps on both sides of a node, to the next ones below it.
fn gaps(top: &RangeNode, left: Option<&RangeNode>, right: Option<&RangeNode>) -> (u64, u64) {
    let size = |gap: Option<Span>| gap.map_or(0, Span::size);
    (size(gap_before(top, left)), size(gap_behind(top, right)))
}

/// What a node has to say of what is below it.
fn seen(nodes: &impl Nodes, top: &RangeNode) -> Below {
    let (left, right) = children(nodes, top);
    let (before, behind) = gaps(top, left, right);
    let [low, high] = [left, right].map(|side| side.map(RangeNode::below));
    let gap_of = |side: Option<Below>| side.map_or(0, |side| side.gap);
    let height_of = |side: Option<Below>| side.map_or(0, |side| side.height);
    let span = top.span();
    Below {
        span: Span {
            start: low.map_or(span.start, |low| low.span.start),
            end: high.map_or(span.end, |high| high.span.end),
        },
        gap: before.max(behind).max(gap_of(low)).max(gap_of(high)),
        height: height_of(low).max(height_of(high)).saturating_add(1),
    }
}

fn height(nodes: &impl Nodes, slot: Option<Slot>) -> u32 {
    let node = slot.and_then(|slot| nodes.node(slot));
    node.map_or(0, |node| node.height.load(Ordering::Relaxed))
}

/// How much higher the left side is.
fn lean(nodes: &impl Nodes, node: &RangeNode) -> i64 {
    let left = i64::from(height(nodes, node.left()));
    left.wrapping_sub(height(nodes, node.right()).into())
}

/// Has a node tell of what is below it, and the higher side's top take its place if that is two levels higher. Answers
/// who is on top.
fn balance(nodes: &impl Nodes, top: Slot) -> Option<Slot> {
    let node = nodes.node(top)?;
    match lean(nodes, node) {
        2.. => {
            let left = node.left()?;
            if lean(nodes, nodes.node(left)?) < 0 {
                node.set_left(turn_left(nodes, left));
            }
            turn_right(nodes, top)
        }
        ..=-2 => {
            let right = node.right()?;
            if lean(nodes, nodes.node(right)?) > 0 {
                node.set_right(turn_right(nodes, right));
            }
            turn_left(nodes, top)
        }
        _ => {
            node.set_below(seen(nodes, node));
            Some(top)
        }
    }
}

/// The left child comes to the top.
fn turn_right(nodes: &impl Nodes, top: Slot) -> Option<Slot> {
    let node = nodes.node(top)?;
    let riser = node.left()?;
    let rising = nodes.node(riser)?;
    node.set_left(rising.right());
    rising.set_right(Some(top));
    node.set_below(seen(nodes, node));
    rising.set_below(seen(nodes, rising));
    Some(riser)
}

/// The right child comes to the top.
fn turn_left(nodes: &impl Nodes, top: Slot) -> Option<Slot> {
    let node = nodes.node(top)?;
    let riser = node.right()?;
    let rising = nodes.node(riser)?;
    node.set_right(rising.left());
    rising.set_left(Some(top));
    node.set_below(seen(nodes, node));
    rising.set_below(seen(nodes, rising));
    Some(riser)
}

/// As deep as the tree is high: 45 levels with four thousand million nodes.
fn insert_below(
    nodes: &impl Nodes,
    top: Option<Slot>,
    (new, leaf): (Slot, &RangeNode),
) -> Option<Slot> {
    let Some((slot, node)) = top.and_then(|slot| Some((slot, nodes.node(slot)?))) else {
        leaf.set_below(seen(nodes, leaf));
        return Some(new);
    };
    if leaf.span().start < node.span().start {
        node.set_left(insert_below(nodes, node.left(), (new, leaf)));
    } else {
        node.set_right(insert_below(nodes, node.right(), (new, leaf)));
    }
    balance(nodes, slot)
}

fn remove_below(nodes: &impl Nodes, top: Option<Slot>, start: u64) -> Option<Slot> {
    let slot = top?;
    let node = nodes.node(slot)?;
    let here = node.span().start;
    if start < here {
        node.set_left(remove_below(nodes, node.left(), start));
        return balance(nodes, slot);
    }
    if start > here {
        node.set_right(remove_below(nodes, node.right(), start));
        return balance(nodes, slot);
    }
    match (node.left(), node.right()) {
        (left, None) => left,
        (None, right) => right,
        (left, Some(right)) => {
            let (rest, heir) = take_lowest(nodes, right)?;
            let next = nodes.node(heir)?;
            next.set_left(left);
            next.set_right(rest);
            balance(nodes, heir)
        }
    }
}

/// Takes the lowest node off; what is left is the first answer.
fn take_lowest(nodes: &impl Nodes, top: Slot) -> Option<(Option<Slot>, Slot)> {
    let node = nodes.node(top)?;
    let Some(left) = node.left() else {
        return Some((node.right(), top));
    };
    let (rest, lowest) = take_lowest(nodes, left)?;
    node.set_left(rest);
    Some((balance(nodes, top), lowest))
}

const fn bad(at: Slot, recorded: u64, counted: u64) -> BadTree {
    BadTree {
        at: Some(at),
        recorded,
        counted,
    }
}

/// Shows every node's range, lowest first, and checks what it says of those below it.
fn recount(
    nodes: &impl Nodes,
    top: Option<Slot>,
    each: &mut impl FnMut(Slot, Span) -> Result<(), BadTree>,
) -> Result<(), BadTree> {
    let Some(slot) = top else { return Ok(()) };
    let node = nodes.node(slot).ok_or(bad(slot, 0, 1))?;
    recount(nodes, node.left(), each)?;
    each(slot, node.span())?;
    recount(nodes, node.right(), each)?;
    let (recorded, counted) = (node.below(), seen(nodes, node));
    if lean(nodes, node).abs() > 1 {
        return Err(bad(slot, 2, 1));
    }
    match recorded == counted {
        true => Ok(()),
        false => Err(bad(slot, recorded.gap, counted.gap)),
    }
}
