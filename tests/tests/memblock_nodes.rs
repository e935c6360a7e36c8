//! Which node RAM belongs to, when the firmware says it well and when it does not.

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::nodes::{NodeRange, NodesError};
use mm::platform::NodeId;
use mm_tests::window::Window;

const MIB: u64 = 1 << 20;

fn claim(node: u16, start: u64, end: u64) -> NodeRange {
    let range = PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap();
    NodeRange {
        range,
        node: NodeId(node),
    }
}

/// Start and end of a piece of RAM, in MiB, and its node.
type Piece = (u64, u64, Option<u16>);

/// What becomes of RAM at 0 to 16 MiB and 32 to 48 MiB: the outcome, and the pieces.
fn given(claims: &[NodeRange]) -> (Result<(), NodesError>, Vec<Piece>) {
    let mut window = Window::none();
    let mut memblock = window.memblock();
    for start in [0, 32 * MIB] {
        let ram = PhysRange::from_size(PhysAddr::new(start), 16 * MIB);
        memblock.add(&window, ram).unwrap();
    }
    let outcome = memblock.set_nodes(&window, claims);
    memblock.validate().unwrap();
    let mib = |addr: PhysAddr| addr.as_u64() / MIB;
    let pieces = memblock.memory().iter().map(|region| {
        let node = region.node.map(|node| node.0);
        (mib(region.base()), mib(region.end()), node)
    });
    (outcome, pieces.collect())
}

#[test]
fn nodes_cannot_be_named_before_there_is_ram() {
    let mut window = Window::none();
    let mut memblock = window.memblock();
    let early = memblock.set_nodes(&window, &[claim(1, 0, 16 * MIB)]);
    assert_eq!(early, Err(NodesError::NoRam));
    // Without nodes, there is nothing to lose.
    assert_eq!(memblock.set_nodes(&window, &[]), Ok(()));
}

const ALL_ON_NODE_0: [Piece; 2] = [(0, 16, Some(0)), (32, 48, Some(0))];

#[test]
fn ranges_in_any_order_name_the_nodes() {
    let claims = [claim(1, 8 * MIB, 64 * MIB), claim(0, 0, 8 * MIB)];
    let pieces = vec![(0, 8, Some(0)), (8, 16, Some(1)), (32, 48, Some(1))];
    assert_eq!(given(&claims), (Ok(()), pieces));
}

#[test]
fn what_lies_between_ranges_of_a_node_is_that_nodes_unless_another_is_in_between() {
    let apart = [claim(0, 0, 4 * MIB), claim(0, 8 * MIB, 16 * MIB)];
    let rest = claim(1, 32 * MIB, 48 * MIB);
    let pieces = vec![(0, 16, Some(0)), (32, 48, Some(1))];
    assert_eq!(given(&[apart[1], rest, apart[0]]), (Ok(()), pieces));

    let between = claim(2, 4 * MIB, 5 * MIB);
    let (outcome, pieces) = given(&[apart[0], between, apart[1], rest]);
    assert_eq!(outcome, Err(NodesError::Uncovered(3 * MIB)));
    assert_eq!(pieces, ALL_ON_NODE_0);
}

#[test]
fn a_little_without_a_node_stays_and_a_megabyte_is_too_much() {
    let rest = claim(1, 32 * MIB, 48 * MIB);
    let (outcome, pieces) = given(&[claim(0, 0, 16 * MIB - 4096), rest]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(pieces.len(), 3, "{pieces:?}");
    let (outcome, pieces) = given(&[claim(0, 0, 15 * MIB), rest]);
    assert_eq!(outcome, Err(NodesError::Uncovered(MIB)));
    assert_eq!(pieces, ALL_ON_NODE_0);
}

#[test]
fn nodes_that_overlap_are_not_believed_unless_it_is_above_all_ram() {
    let (low, high) = (claim(0, 0, 32 * MIB), claim(1, 32 * MIB, 96 * MIB));
    let pieces = vec![(0, 16, Some(0)), (32, 48, Some(1))];
    let above = claim(2, 64 * MIB, 128 * MIB);
    assert_eq!(given(&[low, high, above]), (Ok(()), pieces.clone()));
    // A node's own ranges may overlap.
    let again = claim(1, 40 * MIB, 128 * MIB);
    assert_eq!(given(&[low, high, again]), (Ok(()), pieces));

    let wrong = claim(2, 16 * MIB, 17 * MIB);
    let (outcome, pieces) = given(&[wrong, low, high]);
    assert_eq!(outcome, Err(NodesError::Overlap(wrong, low)));
    assert_eq!(pieces, ALL_ON_NODE_0);
}

#[test]
fn without_a_word_from_the_firmware_there_is_one_node() {
    let (outcome, pieces) = given(&[]);
    assert_eq!(outcome, Err(NodesError::Uncovered(32 * MIB)));
    assert_eq!(pieces, ALL_ON_NODE_0);
}
