//! The system locality information table: distances between nodes (5.2.17).

use crate::error::{AcpiError, Signature};
use crate::memory::{PhysMemory, u8_at, u64_at};
use crate::tables::{Table, Tables};

/// Where the matrix starts.
const MATRIX: usize = 44;
/// The distance of a node to itself.
pub const LOCAL_DISTANCE: u8 = 10;

/// The table: a square matrix that Linux, too, would believe.
///
/// # Invariants
/// `matrix` holds `nodes` × `nodes` distances: 10 on the diagonal, more elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Slit<'a> {
    nodes: usize,
    matrix: &'a [u8],
}

impl<'a> Slit<'a> {
    /// Finds the table.
    ///
    /// # Errors
    /// There is no whole one that can be believed.
    pub fn find<M: PhysMemory + ?Sized>(tables: &Tables<'a, M>) -> Result<Self, AcpiError> {
        Self::new(tables.find(Signature::SLIT)?)
    }

    /// Checks a table by Linux's rule (`slit_valid`): the distance is 10 from each node to itself
    /// and more to every other. It need not be the same in both directions.
    ///
    /// # Errors
    /// It is another table, shorter than its matrix, or says what cannot be.
    pub fn new(table: Table<'a>) -> Result<Self, AcpiError> {
        let table = table.named(Signature::SLIT)?.at_least(MATRIX)?;
        let count = u64_at(table.bytes(), HEADER_COUNT).unwrap_or_default();
        // Tables are short, so a count whose square overflows does not fit either.
        let nodes = usize::try_from(count).unwrap_or(usize::MAX);
        let size = nodes.saturating_mul(nodes);
        let table = table.at_least(MATRIX.saturating_add(size))?;
        let matrix = table.bytes().get(MATRIX..).unwrap_or_default();
        let slit = Self { nodes, matrix };
        slit.check()?;
        Ok(slit)
    }

    fn check(&self) -> Result<(), AcpiError> {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let distance = self.distance(from, to).unwrap_or_default();
                let is_good = if from == to {
                    distance == LOCAL_DISTANCE
                } else {
                    distance > LOCAL_DISTANCE
                };
                if !is_good {
                    return Err(AcpiError::BadDistance {
                        from: u64::try_from(from).unwrap_or(u64::MAX),
                        to: u64::try_from(to).unwrap_or(u64::MAX),
                        distance,
                    });
                }
            }
        }
        Ok(())
    }

    /// How many nodes it knows; they are numbered by proximity domain, from 0.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// The distance between two nodes; `None` for a node that it does not know. 255 is a node
    /// that cannot be reached.
    #[must_use]
    pub fn distance(&self, from: usize, to: usize) -> Option<u8> {
        if from >= self.nodes || to >= self.nodes {
            return None;
        }
        let index = from.checked_mul(self.nodes)?.checked_add(to)?;
        u8_at(self.matrix, index)
    }
}

/// Where the number of nodes stands.
const HEADER_COUNT: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::table;
    use crate::memory::SliceMemory;
    use std::vec::Vec;

    fn slit(count: u64, matrix: &[u8]) -> Vec<u8> {
        let mut body = Vec::from(count.to_le_bytes());
        body.extend(matrix);
        table(b"SLIT", 1, &body)
    }

    fn checked(bytes: &[u8]) -> Result<(usize, Option<u8>), AcpiError> {
        let memory = SliceMemory::new(0, bytes);
        let slit = Slit::new(Table::read(&memory, 0).unwrap())?;
        assert_eq!(slit.distance(slit.nodes(), 0), None);
        assert_eq!(slit.distance(0, slit.nodes()), None);
        Ok((slit.nodes(), slit.distance(0, 1)))
    }

    #[test]
    fn a_matrix_need_not_be_symmetric_and_may_be_empty() {
        assert_eq!(checked(&slit(2, &[10, 20, 21, 10])), Ok((2, Some(20))));
        assert_eq!(checked(&slit(1, &[10, 99])), Ok((1, None)));
        assert_eq!(checked(&slit(0, &[])), Ok((0, None)));
    }

    #[test]
    fn linux_rules_decide_what_is_believed() {
        for (matrix, from, to, distance) in [
            ([11, 20, 20, 10], 0, 0, 11),
            ([10, 20, 20, 9], 1, 1, 9),
            ([10, 10, 20, 10], 0, 1, 10),
            ([10, 20, 0, 10], 1, 0, 0),
        ] {
            let error = AcpiError::BadDistance { from, to, distance };
            assert_eq!(checked(&slit(2, &matrix)), Err(error));
        }
    }

    #[test]
    fn a_count_that_lies_is_refused() {
        for count in [3, 1 << 20, 1 << 32, u64::MAX] {
            let error = checked(&slit(count, &[10, 20, 20, 10])).unwrap_err();
            assert!(matches!(error, AcpiError::BadLength { .. }), "{count}");
        }
    }
}
