//! Tables in Markdown, as `docs/benchmarks.md` shows them.

use mm_tests::race::{line, median};

use crate::race::Row;

/// Prints medians, and their ratios to those of contestants `floor` and `ours`.
pub(crate) fn times(row: Row, samples: &[Vec<f64>], floor: usize, ours: usize) {
    let medians: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let cell = |&ns: &f64| {
        let (to_floor, to_ours) = (ns / medians[floor], ns / medians[ours]);
        format!("{ns:.1} ns, {to_floor:.2}×, {to_ours:.2}×")
    };
    line(row.name(), medians.iter().map(cell));
}
