//! What the documents say of the code: samples that are compiled, names that exist, a glossary
//! that is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::sources::{root, sources};

/// Folders whose names a document may use.
const CODE: [&str; 7] = [
    "mm/src",
    "kernel/src",
    "boot",
    "examples",
    "tests/src",
    "tests/workload/src",
    "tests/tests",
];

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts of all files of a kind below a folder.
fn below(folder: &Path, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path, ending));
        } else if path.extension().is_some_and(|its| its == ending) {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// The fenced blocks of a document, by the language that they name, and what is left.
pub(crate) fn blocks(text: &str) -> (Vec<(&str, String)>, String) {
    let (mut found, mut prose): (Vec<(&str, String)>, _) = (Vec::new(), String::new());
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) => {
                inside = !inside;
                if inside {
                    found.push((language, String::new()));
                }
            }
            None => {
                let into = found.last_mut().filter(|_| inside);
                let into = into.map_or(&mut prose, |(_, block)| block);
                into.push_str(line);
                into.push('\n');
            }
        }
    }
    (found, prose)
}

#[test]
fn the_page_on_caches_shows_code_of_a_test() {
    let test = read("tests/tests/objects/documented.rs");
    let page = read("docs/caches.md");
    let (blocks, _) = blocks(&page);
    let samples: Vec<_> = blocks
        .iter()
        .filter(|(language, _)| language.starts_with("rust"))
        .collect();
    assert!(samples.len() >= 6, "the samples are gone");
    for (_, sample) in samples {
        assert!(test.contains(sample), "not in the test:\n{sample}");
    }
}

#[test]
fn the_page_on_virtual_memory_shows_code_that_is_compiled() {
    let compiled = read("mm/src/kspace/in_your_kernel.md");
    let page = read("docs/virtual-memory.md");
    let (blocks, _) = blocks(&page);
    let samples: Vec<_> = blocks
        .iter()
        .filter(|(language, _)| language.starts_with("rust"))
        .collect();
    assert!(!samples.is_empty(), "the sample is gone");
    for (_, sample) in samples {
        assert!(compiled.contains(sample), "not compiled:\n{sample}");
    }
}

/// What benchmarks came to in the run that the documents show.
fn measured(name: &str) -> f64 {
    let benchmarks = read("docs/benchmarks.md");
    let table = benchmarks.split("<!-- budgets: plain-4G -->").nth(1);
    let table = table.and_then(|rest| rest.split("<!-- end -->").next());
    let table = table.expect("the table of the run that the documents show");
    let row = format!("| `{name}` | ");
    let cell = table
        .split(&row)
        .nth(1)
        .and_then(|row| row.split(' ').next());
    let cell = cell.unwrap_or_else(|| panic!("no figure for {name}"));
    cell.replace(',', "").parse().unwrap()
}

/// Fails if a figure is none that was measured.
fn compare(quoted: &str, name: &str) {
    let quoted: f64 = quoted.trim().replace(',', "").parse().unwrap();
    let apart = (quoted - measured(name)).abs() / measured(name);
    assert!(
        apart < 0.05,
        "{name}: {quoted}, measured was {}",
        measured(name)
    );
}

#[test]
fn the_readme_quotes_the_figures_that_were_measured() {
    let readme = read("README.md");
    let run = readme.split("--exec bench\n").nth(1).unwrap();
    let run = run.split("```").next().unwrap();
    let mut figures = 0;
    for line in run.lines().filter_map(|line| line.strip_prefix("BENCH ")) {
        let words: Vec<_> = line.split(' ').collect();
        compare(words[2], words[0]);
        figures += 1;
    }
    assert!(figures > 5, "only {figures} figures are quoted");
}

/// Rows of its table: what, with the names of benchmarks, and a figure of each.
#[test]
fn the_page_on_virtual_memory_quotes_the_figures_that_were_measured() {
    let page = read("docs/virtual-memory.md");
    let costs = page.split("## What it costs").nth(1).unwrap();
    let costs = costs.split("\n## ").next().unwrap();
    let mut figures = 0;
    for row in costs.lines().filter(|line| line.contains("_64M`")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let names: Vec<_> = cells[0].split('`').skip(1).step_by(2).collect();
        assert_eq!(names.len(), cells.len() - 1, "{row}");
        for (name, quoted) in names.iter().zip(&cells[1..]) {
            compare(quoted, name);
            figures += 1;
        }
    }
    assert_eq!(figures, 4, "figures are gone");
}

/// Names of types and of what they have, from code: `Zone` and its `free`, `FrameState` and its
/// `Free`. Impl blocks of one name in several crates are one.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in CODE
        .iter()
        .flat_map(|folder| below(&root().join(folder), "rs"))
    {
        let mut owner = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            // Those of `bitflags!` do not start at the margin.
            let opens = line.trim_start().starts_with("pub struct ");
            if opens || !line.starts_with([' ', '}', ')', '/', '#']) {
                owner = owner_of(line);
            }
            let Some(owner) = &owner else { continue };
            let known = members.entry(owner.clone()).or_default();
            let code = line.split("//").next().unwrap_or_default();
            known.extend(names(code).map(str::to_owned));
        }
    }
    members
}

/// The identifiers of a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(move |letter| !is_part(letter))
        .filter(|word| !word.is_empty())
}

/// The type or trait whose body a line at the margin opens.
fn owner_of(line: &str) -> Option<String> {
    let head = line.split(" where ").next()?;
    let kinds = ["struct", "enum", "trait", "impl"];
    let words: Vec<_> = names(head).collect();
    let kind = words.iter().find(|word| kinds.contains(word))?;
    let name = if *kind == "impl" {
        let subject = head.split_once(" for ").map(|(_, subject)| subject);
        let subject = subject.or_else(|| head.split_once("impl").map(|(_, rest)| rest))?;
        let subject = match subject.trim_start().strip_prefix('<') {
            Some(generic) => generic.split_once("> ")?.1,
            None => subject,
        };
        names(subject).next()?
    } else {
        let at = words.iter().position(|word| word == kind)?;
        words.get(at + 1)?
    };
    Some(name.to_owned())
}

/// Pairs `Type::member` in the code spans of a document.
fn paths(prose: &str) -> Vec<(String, String)> {
    let spans = prose.split('`').skip(1).step_by(2);
    let mut found = Vec::new();
    for span in spans {
        for path in span.split(|letter: char| " (),;&|".contains(letter)) {
            let parts: Vec<_> = path.split("::").collect();
            for pair in parts.windows(2) {
                let (Some(owner), Some(member)) = (names(pair[0]).last(), names(pair[1]).next())
                else {
                    continue;
                };
                // `Gfp::X` stands for any.
                let is_type = owner.starts_with(|letter: char| letter.is_ascii_uppercase());
                if is_type && member.len() > 1 {
                    found.push((owner.to_owned(), member.to_owned()));
                }
            }
        }
    }
    found
}

#[test]
fn what_the_documents_name_exists() {
    let members = members();
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    let mut documents = vec![("README.md".to_owned(), read("README.md"))];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        // Pictures are in a folder of their own.
        if path.is_dir() {
            continue;
        }
        documents.push((
            path.display().to_string(),
            fs::read_to_string(&path).unwrap(),
        ));
    }
    for (name, text) in &documents {
        for (owner, member) in paths(&blocks(text).1) {
            // Types of other crates are not ours to know.
            if let Some(known) = members.get(&owner) {
                looked_at += 1;
                if !known.contains(&member) {
                    wrong.push(format!("{name}: {owner}::{member}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(looked_at > 100, "only {looked_at} names were found");
}

#[test]
fn the_check_of_names_can_fail() {
    let found = paths("`FrameState::after` and `mm::buddy::FreeAreas::best`, `x::y`");
    let pair = |owner: &str, member: &str| (owner.to_owned(), member.to_owned());
    let expected = [pair("FrameState", "after"), pair("FreeAreas", "best")];
    assert_eq!(found, expected);
    let members = members();
    assert!(members["FrameState"].contains("after"));
    assert!(!members["FreeAreas"].contains("best"));
}

#[test]
fn the_glossary_names_every_public_type() {
    let glossary = read("docs/glossary.md");
    let known: BTreeSet<_> = names(&glossary).collect();
    let mut missing = Vec::new();
    for source in sources() {
        for line in source.code() {
            let Some(rest) = line.strip_prefix("pub ") else {
                continue;
            };
            let mut words = names(rest).skip_while(|word| *word == "unsafe");
            let is_type = matches!(words.next(), Some("struct" | "enum" | "trait"));
            if let Some(name) = words.next().filter(|name| is_type && !known.contains(name)) {
                missing.push(format!("{}: {name}", source.name));
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/glossary.md: {missing:#?}");
}

/// `docs/architecture.md` lists the locks that `mm/src/sync/rank.rs` declares, in their order.
#[test]
fn the_table_of_locks_is_that_of_the_code() {
    let code = read("mm/src/sync/rank.rs");
    let after = |line: &str, word: &str| {
        let (_, rest) = line.split_once(word)?;
        Some(rest.trim_matches(|c: char| " \",".contains(c)).to_owned())
    };
    let names = code.lines().filter_map(|line| after(line, "name: "));
    let ranks = code.lines().filter_map(|line| after(line, "rank: "));
    let declared: BTreeSet<(String, String)> = ranks.zip(names).collect();
    assert!(declared.len() >= 4, "{declared:?}");
    let document = read("docs/architecture.md");
    let (_, locks) = document.split_once("\n## Locks\n").unwrap();
    let rows = locks.lines().skip_while(|line| !line.starts_with("| Rank"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let listed = rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.trim().to_owned());
        (cells.next().unwrap(), cells.next().unwrap())
    });
    let listed: Vec<_> = listed.collect();
    assert!(listed.is_sorted(), "{listed:?}");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), declared);
}
