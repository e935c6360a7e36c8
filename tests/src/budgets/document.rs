//! The budgets as tables in a document, between marks.

use super::{Budget, Table};

/// Why a document has no place for a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stale(String);

/// The document with `machine`'s table put between its marks, `<!-- budgets: machine -->` and
/// `<!-- end -->`, in place of what is there.
///
/// # Errors
/// The mark that is missing.
pub fn with_table(document: &str, machine: &str, table: &Table) -> Result<String, Stale> {
    let begin = format!("<!-- budgets: {machine} -->\n");
    let end = "<!-- end -->";
    let (before, rest) = document
        .split_once(&begin)
        .ok_or_else(|| Stale(begin.trim().to_owned()))?;
    let (_, after) = rest.split_once(end).ok_or_else(|| Stale(end.to_owned()))?;
    Ok([before, &begin, &markdown(table), end, after].concat())
}

fn markdown(table: &Table) -> String {
    let mut text = String::from(
        "| result | measured | target | Linux 6.1 | of Linux |\n|---|--:|--:|--:|--:|\n",
    );
    for (name, line) in table {
        let Budget {
            measured,
            target,
            linux,
            ..
        } = *line;
        let target = target.map_or(String::new(), figure);
        let share = linux.map_or(String::new(), |linux| {
            format!("{:.0} %", 100.0 * measured / linux)
        });
        let linux = linux.map_or(String::new(), figure);
        let measured = figure(measured);
        text += &format!(
            "| `{}` | {measured} | {target} | {linux} | {share} |\n",
            name.0
        );
    }
    text
}

/// A figure with commas, and with its tenths where they matter.
fn figure(value: f64) -> String {
    if value < 100.0 && value.fract() != 0.0 {
        return value.to_string();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl core::fmt::Display for Stale {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the document has no `{}`", self.0)
    }
}

impl core::error::Error for Stale {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets::Name;

    #[test]
    fn a_table_replaces_what_is_between_its_marks() {
        let line = Budget {
            measured: 1_234.6,
            budget: 2_000.0,
            target: Some(32.25),
            linux: Some(2_469.0),
        };
        let table = Table::from([(Name(String::from("page_o0")), line)]);
        let document = "a\n<!-- budgets: x -->\nold\n<!-- end -->\nb";
        let shown = with_table(document, "x", &table).unwrap();
        let row = "| `page_o0` | 1,235 | 32.25 | 2,469 | 50 % |\n<!-- end -->\nb";
        assert!(shown.starts_with("a\n<!-- budgets: x -->\n| result |"));
        assert!(shown.ends_with(row), "{shown}");
        assert!(with_table(document, "y", &table).is_err());
    }
}
