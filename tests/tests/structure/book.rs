//! The book: every page is a chapter, and links lead to files and headings that are there. `cargo run -p book` makes it, and
//! follows the links of what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::documents::{blocks, read};
use crate::sources::root;

/// The pages of `docs/`, without the list of chapters.
fn pages() -> BTreeSet<String> {
    let folder = fs::read_dir(root().join("docs")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = names.filter(|name| name.ends_with(".md") && name != "SUMMARY.md");
    pages.collect()
}

/// What the links of a text name, code left out.
fn links(text: &str) -> Vec<String> {
    let (_, prose) = blocks(text);
    let mut found = Vec::new();
    for (number, part) in prose.split('`').enumerate() {
        // Odd parts are code spans; a link's text may be one, so what follows `](` is in an even part.
        if number % 2 == 0 {
            let links = part.split("](").skip(1);
            found.extend(
                links
                    .filter_map(|rest| rest.split(')').next())
                    .map(str::to_owned),
            );
        }
    }
    found
}

/// The anchors of a text's headings, as viewers of Markdown make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (_, prose) = blocks(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let anchors = headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let letters = heading.chars().filter_map(|letter| match letter {
            _ if letter.is_alphanumeric() || letter == '_' || letter == '-' => Some(letter),
            _ if letter.is_whitespace() => Some('-'),
            _ => None,
        });
        let anchor: String = letters.collect();
        let before = seen.entry(anchor.clone()).or_default();
        *before += 1;
        match *before {
            1 => anchor,
            again => format!("{anchor}-{}", again - 1),
        }
    });
    anchors.collect()
}

/// The links of a file that lead nowhere.
fn broken(file: &str, text: &str) -> Vec<String> {
    let folder = Path::new(file).parent().unwrap();
    let is_page = file.starts_with("docs/");
    let links = links(text).into_iter();
    let links = links.filter(|link| !link.starts_with("https://"));
    let broken = links.filter(|link| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        // What is outside of docs/ is not in the book.
        if is_page && path.starts_with("../") {
            return true;
        }
        let target = match path.is_empty() {
            true => root().join(file),
            false => root().join(folder).join(path),
        };
        let leads = match anchor.is_empty() {
            true => target.exists(),
            false => fs::read_to_string(&target).is_ok_and(|it| anchors(&it).contains(anchor)),
        };
        !leads
    });
    broken.map(|link| format!("{file}: {link}")).collect()
}

#[test]
fn every_page_is_a_chapter_once() {
    let chapters = links(&read("docs/SUMMARY.md"));
    let listed: BTreeSet<_> = chapters.iter().cloned().collect();
    assert_eq!(listed, pages(), "docs/SUMMARY.md, and the pages there are");
    assert_eq!(listed.len(), chapters.len(), "a page is listed twice");
}

#[test]
fn links_lead_somewhere() {
    let mut files: Vec<_> = pages().iter().map(|page| format!("docs/{page}")).collect();
    files.extend(["README.md", "CHANGELOG.md", "docs/SUMMARY.md"].map(str::to_owned));
    let looked_at: usize = files.iter().map(|file| links(&read(file)).len()).sum();
    let broken: Vec<_> = files
        .iter()
        .flat_map(|file| broken(file, &read(file)))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(looked_at > 100, "only {looked_at} links were found");
}

#[test]
fn the_check_of_links_can_fail() {
    let text = "# One `two`\n[a](none.md) [b](#one-two) [c](#nowhere) `[d](code.md)` [`e`](../README.md)\n\n```\n[f](x.md)\n```\n";
    assert_eq!(anchors(text), BTreeSet::from(["one-two".to_owned()]));
    let found = links(text);
    assert_eq!(found, ["none.md", "#one-two", "#nowhere", "../README.md"]);
    // Anchors of the page itself are looked for in the file.
    assert_eq!(broken("docs/tour.md", text).len(), 4);
    assert!(broken("README.md", "[x](docs/tour.md#boot) [y](docs/tour.md)").is_empty());
}
