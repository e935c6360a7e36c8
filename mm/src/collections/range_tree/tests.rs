//! The tree against a list that is looked through.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const UNIT: u64 = 4096;

struct Arena(Vec<RangeNode>);

impl Nodes for Arena {
    fn node(&self, slot: Slot) -> Option<&RangeNode> {
        self.0.get(slot.number() as usize)
    }
}

fn arena(nodes: u32) -> Arena {
    Arena((0..nodes).map(|_| RangeNode::new()).collect())
}

fn span(start: u64, end: u64) -> Span {
    Span {
        start: start * UNIT,
        end: end * UNIT,
    }
}

/// Ranges by where they start, looked at one by one.
#[derive(Default)]
struct List(BTreeMap<u64, (u64, Slot)>);

impl List {
    /// The gaps, lowest first.
    fn gaps(&self, bounds: Span) -> Vec<Span> {
        let mut found = Vec::new();
        let mut start = bounds.start;
        for (&next, &(end, _)) in &self.0 {
            found.push(Span { start, end: next });
            start = end;
        }
        let end = bounds.end;
        found.push(Span { start, end });
        found
    }

    fn find_gap(&self, bounds: Span, size: u64, align: u64) -> Option<u64> {
        let gaps = self.gaps(bounds);
        let mut roomy = gaps
            .iter()
            .filter(|gap| gap.size() >= size + (align - UNIT));
        match roomy.next() {
            Some(gap) => gap.place(size, align),
            None => gaps.iter().find_map(|gap| gap.place(size, align)),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Where there is room, at a multiple of the power of two.
    Fit(u64, u32),
    /// At a given place.
    At(u64, u64),
    /// One of those that are there.
    Remove(usize),
    /// What is at a place.
    Look(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..20_u64, 0..6_u32).prop_map(|(size, align)| Step::Fit(size, align)),
        2 => (0..420_u64, 0..12_u64).prop_map(|(at, size)| Step::At(at, size)),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => (0..420_u64).prop_map(Step::Look),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn the_tree_does_what_a_list_does(steps in steps()) {
        let arena = arena(200);
        let bounds = span(10, 400);
        let mut tree = RangeTree::new(bounds, UNIT);
        let mut list = List::default();
        let mut unused: Vec<u32> = (0..200).collect();
        for step in steps {
            match step {
                Step::Fit(size, align) => {
                    let (size, align) = (size * UNIT, UNIT << align);
                    let place = tree.find_gap(&arena, size, align);
                    prop_assert_eq!(place, list.find_gap(bounds, size, align));
                    if let Some(start) = place {
                        let slot = Slot::new(unused.pop().unwrap()).unwrap();
                        let span = Span { start, end: start + size };
                        prop_assert_eq!(tree.insert(&arena, slot, span), Ok(()));
                        list.0.insert(start, (span.end, slot));
                    }
                }
                Step::At(at, size) => {
                    let span = span(at, at + size);
                    let mut others = list.0.iter();
                    let is_free = others.all(|(&start, &(end, _))| end <= span.start || span.end <= start);
                    let is_inside = size > 0 && bounds.start <= span.start && span.end <= bounds.end;
                    let slot = Slot::new(unused.pop().unwrap()).unwrap();
                    let outcome = tree.insert(&arena, slot, span);
                    prop_assert_eq!(outcome.is_ok(), is_free && is_inside);
                    if outcome.is_ok() {
                        list.0.insert(span.start, (span.end, slot));
                    } else {
                        prop_assert!(!tree.remove(&arena, slot));
                        unused.push(slot.number());
                    }
                }
                Step::Remove(which) => {
                    let keys: Vec<u64> = list.0.keys().copied().collect();
                    if let Some(&start) = keys.get(which.checked_rem(keys.len()).unwrap_or(0)) {
                        let (_, slot) = list.0.remove(&start).unwrap();
                        prop_assert!(tree.remove(&arena, slot));
                        prop_assert!(!tree.remove(&arena, slot), "a second time");
                        unused.push(slot.number());
                    }
                }
                Step::Look(at) => {
                    let at = at * UNIT + 1;
                    let found = list.0.iter().find(|&(&start, &(end, _))| start <= at && at < end);
                    let found = found.map(|(_, &(_, slot))| slot);
                    prop_assert_eq!(tree.containing(&arena, at), found);
                }
            }
            prop_assert_eq!(tree.validate(&arena), Ok(()));
            prop_assert_eq!(tree.count() as usize, list.0.len());
        }
    }
}

/// A tree with ranges of one unit, and as much between them.
fn comb(nodes: u32) -> (Arena, RangeTree) {
    let arena = arena(nodes);
    let mut tree = RangeTree::new(span(0, u64::from(nodes) * 2), UNIT);
    for number in 0..nodes {
        let at = u64::from(number) * 2;
        let slot = Slot::new(number).unwrap();
        assert_eq!(tree.insert(&arena, slot, span(at, at + 1)), Ok(()));
    }
    (arena, tree)
}

#[test]
fn ten_thousand_ranges_in_order_make_a_tree_of_fourteen_levels() {
    let (arena, tree) = comb(10_000);
    assert_eq!(tree.validate(&arena), Ok(()));
    assert_eq!(height(&arena, tree.root), 14);
    assert_eq!(tree.find_gap(&arena, 1, 1), Some(UNIT));
    assert_eq!(tree.find_gap(&arena, 2 * UNIT, UNIT), None);
}

#[test]
fn the_end_of_the_numbers_is_no_gap() {
    let nodes = arena(2);
    let mut tree = RangeTree::new(
        Span {
            start: u64::MAX - 8 * UNIT + 1,
            end: u64::MAX - UNIT + 1,
        },
        UNIT,
    );
    assert_eq!(tree.find_gap(&nodes, 8 * UNIT, UNIT), None);
    assert_eq!(tree.find_gap(&nodes, u64::MAX, UNIT), None);
    assert_eq!(tree.find_gap(&nodes, UNIT, 1 << 63), None);
    let place = tree.find_gap(&nodes, 7 * UNIT, UNIT).unwrap();
    let all = Span {
        start: place,
        end: place + 7 * UNIT,
    };
    let slot = Slot::new(0).unwrap();
    let turned = Span {
        start: all.end,
        end: all.start,
    };
    assert_eq!(tree.insert(&nodes, slot, turned), Err(NoPlace));
    assert_eq!(tree.insert(&nodes, slot, all), Ok(()));
    assert_eq!(tree.find_gap(&nodes, UNIT, UNIT), None);
    assert_eq!(
        tree.insert(&nodes, Slot::new(2).unwrap(), all),
        Err(NoPlace)
    );
    assert_eq!(tree.validate(&nodes), Ok(()));
}

#[test]
fn wrong_notes_are_found() {
    let notes: [fn(&RangeNode); 4] = [
        |node| node.gap.store(77, Ordering::Relaxed),
        |node| node.lowest.store(1, Ordering::Relaxed),
        |node| node.height.store(9, Ordering::Relaxed),
        |node| node.end.store(500 * UNIT, Ordering::Relaxed),
    ];
    for note in notes {
        let (arena, tree) = comb(100);
        note(&arena.0[40]);
        assert!(tree.validate(&arena).is_err());
    }
    let (arena, mut tree) = comb(100);
    tree.count = 99;
    let error = tree.validate(&arena).unwrap_err();
    assert_eq!((error.at, error.recorded, error.counted), (None, 99, 100));
}
