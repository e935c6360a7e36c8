//! The book shows commands and what they print: they are run again, and print that.
//!
//! Numbers differ from machine to machine, so any number will do for any other; and `…` stands for lines that are not
//! shown.

use std::fs;

use boot_runner::host::workspace_root;
use libtest_mimic::{Failed, Trial};

use crate::guest;

/// Chapters whose commands are run. Others show parts of longer runs, or runs that take long.
const CHAPTERS: [&str; 7] = [
    "tour",
    "booting",
    "frames",
    "page-lists",
    "pressure",
    "slab",
    "debugging",
];

/// What a block of a chapter shows.
#[derive(Debug)]
struct Shown {
    /// What stands behind `cargo run --`.
    options: String,
    lines: Vec<String>,
}

/// The blocks of a page that show a run of the kernel, and something that it prints.
fn shown(page: &str) -> Vec<Shown> {
    let blocks = page.split("```console\n$ cargo run -- ").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    let blocks = blocks.filter_map(|block| block.split_once('\n'));
    let blocks = blocks.map(|(options, lines)| Shown {
        options: options.to_owned(),
        lines: lines
            .lines()
            .filter(|line| *line != "…")
            .map(same_numbers)
            .collect(),
    });
    blocks.filter(|shown| !shown.lines.is_empty()).collect()
}

/// A line with `#` for each number, `~` for what is drawn, and one blank where there are several.
fn same_numbers(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let is_drawn = word.len() >= 8 && word.chars().all(|c| c == '.' || c == '#');
        if is_drawn {
            "~".to_owned()
        } else {
            numbers(word)
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A word with `#` for each number in it, whether decimal or hexadecimal after `0x`.
fn numbers(word: &str) -> String {
    let mut result = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let (is_hex, digits) = match rest.strip_prefix("0x") {
            Some(digits) => (true, digits),
            None => (false, rest),
        };
        let end = digits.find(|c: char| !(c.is_ascii_digit() || is_hex && c.is_ascii_hexdigit()));
        let (number, behind) = digits.split_at(end.unwrap_or(digits.len()));
        if number.is_empty() {
            result.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            result.push('#');
            rest = behind;
        }
    }
    result
}

/// The first line that is shown and not printed, in this order.
fn missing<'a>(shown: &'a Shown, printed: &str) -> Option<&'a str> {
    let printed: Vec<_> = printed.lines().map(same_numbers).collect();
    let mut printed = printed.iter();
    let missing = shown
        .lines
        .iter()
        .find(|line| !printed.any(|other| &other == line));
    missing.map(String::as_str)
}

/// Runs what a chapter shows.
fn is_printed(chapter: &str) -> Result<(), Failed> {
    let page = workspace_root().join(format!("docs/{chapter}.md"));
    let shown = shown(&fs::read_to_string(page)?);
    if shown.is_empty() {
        return Err("nothing is shown".into());
    }
    for shown in shown {
        let options = guest::options(&shown.options)?;
        let recorded = guest::start(&options)?;
        if let Some(line) = missing(&shown, &recorded.serial) {
            let (options, serial) = (&shown.options, &recorded.serial);
            return Err(format!("{options}\ndoes not print\n{line}\nbut\n{serial}").into());
        }
    }
    Ok(())
}

/// Other numbers are the same, other words are not, and the order counts.
fn can_fail() -> Result<(), Failed> {
    let page =
        "```console\n$ cargo run -- --exec 'a'\n…\nframe 0x10af, order 3\n  drawn ..#.####.\n```\n";
    let shown = shown(page);
    let [shown] = shown.as_slice() else {
        return Err(format!("{shown:?}").into());
    };
    let answers = [
        ("x\r\nframe 0x1,   order 10\r\ndrawn ........\r\n", None),
        (
            "frame 0x1, order x\ndrawn ........",
            Some("frame #, order #"),
        ),
        ("drawn ........\nframe 0x1, order 10\n", Some("drawn ~")),
    ];
    for (printed, expected) in answers {
        let found = missing(shown, printed);
        if found != expected {
            return Err(format!("{printed}: {found:?}").into());
        }
    }
    Ok(())
}

/// A test for each chapter.
pub(crate) fn trials() -> Vec<Trial> {
    let chapters = CHAPTERS
        .map(|chapter| Trial::test(format!("shown::{chapter}"), move || is_printed(chapter)));
    let check = Trial::test("shown::can_fail", can_fail);
    chapters.into_iter().chain([check]).collect()
}
