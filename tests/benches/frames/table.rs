//! Tables in Markdown, as `docs/benchmarks.md` shows them.

use crate::race::{Row, Runner};

/// The middle one of the samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Prints the first two lines: `first`, then a column for each contestant.
pub(crate) fn heading(first: &str, runners: &[Box<dyn Runner>]) {
    let names: Vec<&str> = runners.iter().map(|runner| runner.name()).collect();
    println!("| {first} | {} |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(names.len()));
}

/// Prints a row of cells.
pub(crate) fn line(name: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    println!("| {name} | {} |", cells.join(" | "));
}

/// Prints medians, and their ratios to those of contestants `floor` and `ours`.
pub(crate) fn times(row: Row, samples: &[Vec<f64>], floor: usize, ours: usize) {
    let medians: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let cell = |&ns: &f64| {
        let (to_floor, to_ours) = (ns / medians[floor], ns / medians[ours]);
        format!("{ns:.1} ns, {to_floor:.2}×, {to_ours:.2}×")
    };
    line(row.name(), medians.iter().map(cell));
}
