//! Many frames as few cells.

use alloc::vec::Vec;

use mm::inspect::Owner;

/// Frames in cells: each stands for as many frames in a row, a power of two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    /// What most frames of each cell are used for.
    pub cells: Vec<Owner>,
    /// log2 of the frames of a cell.
    pub log: u32,
}

/// log2 of the frames for each of at most so many cells that they show all of `frames`.
#[must_use]
pub fn log_for(frames: u64, cells: u64) -> u32 {
    let per_cell = frames.div_ceil(cells.max(1)).max(1);
    per_cell.next_power_of_two().trailing_zeros()
}

impl Grid {
    /// The frames of `owners` from `first` on, in at most `count` cells.
    #[must_use]
    pub fn new(owners: &[Owner], first: u64, log: u32, count: usize) -> Self {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let rest = owners.get(first..).unwrap_or_default();
        let cells = cells(rest, log).take(count).collect();
        Self { cells, log }
    }
}

/// The cells of `owners`, one after the other.
pub(crate) fn cells(owners: &[Owner], log: u32) -> impl Iterator<Item = Owner> {
    owners.chunks(1 << log).map(most)
}

/// What most of a cell's frames are used for; of those with as many, what is rarer in a machine: what is used before what is
/// free, and that before nothing.
fn most(frames: &[Owner]) -> Owner {
    let mut counts = [0_u32; Owner::COUNT];
    for owner in frames {
        counts[owner.index()] += 1;
    }
    let all = Owner::ALL.into_iter().zip(counts);
    let best = all.max_by_key(|&(owner, count)| (count, owner != Owner::Hole, owner.index()));
    best.map_or(Owner::Hole, |(owner, _)| owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm::buddy::MigrateType;

    #[test]
    fn a_cell_shows_what_most_of_it_is() {
        let free = Owner::Free(MigrateType::Movable);
        let owners = [
            free,
            free,
            Owner::Slab,
            Owner::Slab,
            Owner::Slab,
            Owner::Hole,
            free,
            free,
        ];
        let grid = Grid::new(&owners, 0, 2, 10);
        assert_eq!(grid.cells, [Owner::Slab, free]);
        let grid = Grid::new(&owners, 0, 0, 3);
        assert_eq!(grid.cells, owners[..3]);
        assert!(Grid::new(&owners, 8, 0, 3).cells.is_empty());
        assert!(Grid::new(&owners, u64::MAX, 0, 3).cells.is_empty());
    }

    #[test]
    fn all_frames_fit() {
        for (frames, cells, log) in [
            (1, 1, 0),
            (1000, 1000, 0),
            (1001, 1000, 1),
            (1 << 20, 1000, 11),
            (5, 0, 3),
        ] {
            assert_eq!(log_for(frames, cells), log, "{frames} in {cells}");
        }
    }
}
