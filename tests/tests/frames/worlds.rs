//! Small machines with awkward borders: corner states come thousands of times sooner there.

use mm_tests::sim::{Builder, Machine, SimConfig};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The worlds by number.
pub(crate) const WORLDS: usize = 6;

/// What each world is for.
pub(crate) fn world<C: SimConfig>(number: usize) -> Builder<C> {
    let machine = Machine::<C>::new();
    match number {
        // One zone, with a hole that starts and ends in mid-pageblock and reserved spots, one of them of odd size.
        0 => machine
            .ram(0, 5 * MIB + 36 * KIB)
            .ram(6 * MIB + 12 * KIB, 6 * MIB)
            .reserve(MIB, 4 * KIB)
            .reserve(3 * MIB + 100 * KIB + 17, 20 * KIB),
        // Two zones: the border at 16 MiB.
        1 => machine.ram(8 * MIB, 16 * MIB),
        // Three zones: Movable takes the top.
        2 => machine.ram(8 * MIB, 20 * MIB).kernelcore(13 * MIB),
        // Two nodes that meet in mid-pageblock.
        3 => machine
            .node(0, 0, 7 * MIB + 220 * KIB)
            .node(1, 7 * MIB + 220 * KIB, 8 * MIB),
        // Two nodes among each other.
        4 => machine
            .node(0, 0, 5 * MIB)
            .node(1, 5 * MIB, 4 * MIB)
            .node(0, 9 * MIB, 5 * MIB),
        // Across a section border, which no block may cross.
        _ => machine.ram(120 * MIB, 16 * MIB),
    }
}
