//! Budgets: how many instructions each benchmark of the kernel may take, and what was measured.
//!
//! `tests/budgets.toml` has a table for each machine and a line for each result in it. The budget
//! is what fails a test; it is set a little above what was measured last. The target is where it
//! shall go, and Linux's figure is for comparison; both are written by hand and kept.

mod document;

pub use document::{Stale, with_table};

use core::cmp::Ordering;
use core::fmt::{self, Write};
use std::collections::BTreeMap;

use serde::Deserialize;

/// How far a budget is above the measurement it was made from.
const MARGIN: f64 = 1.02;
/// And at least so many instructions: the smallest figures move by one when code moves.
const LEAST_MARGIN: f64 = 1.0;

/// What stands above the tables in the file.
const HEADING: &str = "\
# Instructions per operation in the guest (bytes for `metadata_*`), by machine.
# A test fails when one is above its budget. To set `measured` and `budget` anew, and the tables in
# docs/benchmarks.md with them: MM_UPDATE_BUDGETS=1 cargo test -p mm-tests --test qemu budget
# `target` and `linux` are written by hand. A result that is gone is deleted by hand.
";

/// One result's line.
#[derive(Clone, Copy, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What was measured when the budget was set.
    pub measured: f64,
    /// More than this fails.
    pub budget: f64,
    /// Where it shall go.
    pub target: Option<f64>,
    /// What Linux 6.1 takes in the same emulator.
    pub linux: Option<f64>,
}

/// The budgets of one machine, by the result's name.
pub type Table = BTreeMap<Name, Budget>;

/// All budgets, by machine.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Budgets(pub BTreeMap<String, Table>);

/// The name of a result; names sort with their numbers as numbers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

/// What a kernel printed: figures by name.
pub type Results = BTreeMap<Name, f64>;

/// Something between results and budgets that fails a test.
#[derive(Clone, PartialEq, Debug)]
pub enum Violation {
    /// More than allowed.
    Exceeded {
        /// Which result.
        name: Name,
        /// What was measured now.
        measured: f64,
        /// What it may take.
        budget: Budget,
    },
    /// The kernel did not print it.
    Missing(Name),
    /// It has no line in the file.
    Unknown(Name),
}

/// Why there are no budgets.
#[derive(Debug)]
pub struct Unreadable(toml::de::Error);

/// Reads the `BENCH name operations figure` lines of a boot.
#[must_use]
pub fn results(serial: &str) -> Results {
    let line = |line: &str| {
        let mut words = line.trim().strip_prefix("BENCH ")?.split(' ');
        let (name, _operations, figure) = (words.next()?, words.next()?, words.next()?);
        Some((Name(name.to_owned()), figure.parse().ok()?))
    };
    serial.lines().filter_map(line).collect()
}

impl Budgets {
    /// Parses the file.
    ///
    /// # Errors
    /// [`Unreadable`] says where.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        toml::from_str(text).map_err(Unreadable)
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from(HEADING);
        for (machine, table) in &self.0 {
            write!(text, "\n[{machine}]\n").unwrap();
            let width = table.keys().map(|name| name.0.len()).max().unwrap_or(0);
            for (name, line) in table {
                let Budget {
                    measured, budget, ..
                } = line;
                write!(text, "{:width$} = {{ measured = {measured:.1}", name.0).unwrap();
                write!(text, ", budget = {budget:.1}").unwrap();
                for (key, value) in [("target", line.target), ("linux", line.linux)] {
                    if let Some(value) = value {
                        write!(text, ", {key} = {value}").unwrap();
                    }
                }
                text.push_str(" }\n");
            }
        }
        text
    }
}

/// Compares what was printed with what is allowed.
#[must_use]
pub fn violations(results: &Results, table: &Table) -> Vec<Violation> {
    let known = table.iter().filter_map(|(name, &budget)| {
        let name = name.clone();
        match results.get(&name) {
            None => Some(Violation::Missing(name)),
            Some(&measured) => (measured > budget.budget).then_some(Violation::Exceeded {
                name,
                measured,
                budget,
            }),
        }
    });
    let unknown = results.keys().filter(|name| !table.contains_key(name));
    known
        .chain(unknown.cloned().map(Violation::Unknown))
        .collect()
}

/// Sets measurements and budgets to what was printed, and keeps targets and Linux's figures.
///
/// # Errors
/// The names of lines whose result was not printed: they are deleted by hand, or measured again.
pub fn update(results: &Results, table: &mut Table) -> Result<(), Vec<Violation>> {
    let gone = table.keys().filter(|name| !results.contains_key(name));
    let gone: Vec<Violation> = gone.cloned().map(Violation::Missing).collect();
    if !gone.is_empty() {
        return Err(gone);
    }
    for (name, &measured) in results {
        let line = table.entry(name.clone()).or_default();
        line.measured = measured;
        line.budget = allowed(name, measured);
    }
    Ok(())
}

/// The budget for a measurement. Bytes do not move with the code, and nothing is nothing.
fn allowed(name: &Name, measured: f64) -> f64 {
    if measured == 0.0 || name.0.starts_with("metadata") {
        return measured;
    }
    let wide = (measured * MARGIN).max(measured + LEAST_MARGIN);
    (wide * 10.0).ceil() / 10.0
}

/// The printed figures beside budget and target, a line each.
#[must_use]
pub fn report(results: &Results, table: &Table) -> String {
    let mut text = format!(
        "{:<28} {:>12} {:>12} {:>12}\n",
        "result", "measured", "budget", "target"
    );
    for (name, measured) in results {
        let line = table.get(name);
        let cell = |value: Option<f64>| value.map_or(String::from("-"), |value| value.to_string());
        let budget = cell(line.map(|line| line.budget));
        let target = cell(line.and_then(|line| line.target));
        writeln!(
            text,
            "{:<28} {measured:>12.1} {budget:>12} {target:>12}",
            name.0
        )
        .unwrap();
    }
    text
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (pieces(&self.0), pieces(&other.0));
        ours.cmp(&theirs).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A name as letters and numbers in turns.
fn pieces(name: &str) -> Vec<(&str, u64)> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let letters = rest.find(|c: char| c.is_ascii_digit());
        let (word, after) = rest.split_at(letters.unwrap_or(rest.len()));
        let digits = after.find(|c: char| !c.is_ascii_digit());
        let (number, after) = after.split_at(digits.unwrap_or(after.len()));
        pieces.push((word, number.parse().unwrap_or(0)));
        rest = after;
    }
    pieces
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exceeded {
                name,
                measured,
                budget,
            } => {
                let Budget { budget, target, .. } = budget;
                write!(f, "{}: {measured} is more than {budget}", name.0)?;
                target.map_or(Ok(()), |target| write!(f, " (target {target})"))
            }
            Self::Missing(name) => write!(f, "{}: the kernel did not print it", name.0),
            Self::Unknown(name) => write!(f, "{}: it has no budget", name.0),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "budgets: {}", self.0)
    }
}

impl core::error::Error for Unreadable {}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
[plain]
page_o0 = { measured = 50.0, budget = 51.0, target = 60, linux = 694 }
page_o10 = { measured = 200.0, budget = 204.0 }
";
    const SERIAL: &str = "noise\r\nBENCH page_o0 1000 51.1\r\nBENCH page_o2 1000 9.0\r\n";

    fn name(name: &str) -> Name {
        Name(name.to_owned())
    }

    #[test]
    fn what_is_exceeded_missing_and_unknown_is_named() {
        let budgets = Budgets::parse(FILE).unwrap();
        let found = violations(&results(SERIAL), &budgets.0["plain"]);
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "page_o0: 51.1 is more than 51 (target 60)",
                "page_o10: the kernel did not print it",
                "page_o2: it has no budget",
            ]
        );
    }

    #[test]
    fn a_result_within_its_budget_is_no_violation() {
        let budgets = Budgets::parse(FILE).unwrap();
        let results = results("BENCH page_o0 1 51.0\nBENCH page_o10 1 1.0\n");
        assert_eq!(violations(&results, &budgets.0["plain"]), []);
    }

    #[test]
    fn an_update_keeps_targets_and_refuses_to_lose_a_line() {
        let mut table = Budgets::parse(FILE).unwrap().0.remove("plain").unwrap();
        let gone = update(&results(SERIAL), &mut table);
        assert_eq!(gone, Err(vec![Violation::Missing(name("page_o10"))]));

        let printed = results("BENCH page_o0 1 40.0\nBENCH page_o10 1 100.0\nBENCH new 1 0.0\n");
        update(&printed, &mut table).unwrap();
        let line = |measured, budget, target, linux| Budget {
            measured,
            budget,
            target,
            linux,
        };
        let expected = [
            (name("new"), line(0.0, 0.0, None, None)),
            (name("page_o0"), line(40.0, 41.0, Some(60.0), Some(694.0))),
            (name("page_o10"), line(100.0, 102.0, None, None)),
        ];
        assert_eq!(table, Table::from(expected));
    }

    #[test]
    fn what_is_rendered_parses_back() {
        let budgets = Budgets::parse(FILE).unwrap();
        assert_eq!(Budgets::parse(&budgets.render()).unwrap(), budgets);
    }

    #[test]
    fn numbers_in_names_sort_as_numbers() {
        let mut names = ["page_o10", "page_o2", "page_o2_x", "page_o1", "boot"].map(name);
        names.sort();
        let sorted = names.map(|name| name.0);
        assert_eq!(
            sorted,
            ["boot", "page_o1", "page_o2", "page_o2_x", "page_o10"]
        );
    }
}
