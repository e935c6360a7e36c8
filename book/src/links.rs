//! Where the links of a folder of web pages lead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What came of following all links.
#[derive(Debug)]
pub(crate) struct Links {
    /// How many were looked at.
    pub(crate) followed: usize,
    /// Those that lead nowhere, and those that need a network where a page is only looked at: page and link.
    pub(crate) broken: Vec<String>,
}

/// What one page has.
#[derive(Debug)]
struct Page {
    anchors: BTreeSet<String>,
    /// Links that are followed by who clicks on them.
    links: Vec<String>,
    /// What the browser loads with the page.
    parts: Vec<String>,
}

/// The values of an attribute, wherever it stands.
fn attributes(text: &str, name: &str) -> Vec<String> {
    let opening = format!(" {name}=\"");
    let values = text.split(&opening).skip(1);
    let values = values.filter_map(|rest| rest.split('"').next());
    values.map(|value| value.replace("&amp;", "&")).collect()
}

impl Page {
    fn read(text: &str) -> Self {
        let (mut links, mut parts) = (Vec::new(), attributes(text, "src"));
        // What `<link` names is loaded; what `<a` names is not.
        for tag in text.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap_or_default();
            let named = attributes(tag, "href");
            match tag.starts_with("link ") {
                true => parts.extend(named),
                false => links.extend(named),
            }
        }
        let anchors = attributes(text, "id").into_iter().collect();
        Self {
            anchors,
            links,
            parts,
        }
    }
}

/// All files below a folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// A path without `.` and `..`; none if it leads out of where it began.
fn settled(path: &Path) -> Option<PathBuf> {
    let mut settled = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => settled.push(name),
            Component::ParentDir if settled.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(settled)
}

/// Whether a link leads out of the book, by a scheme such as `https:`.
fn is_elsewhere(link: &str) -> bool {
    let scheme = link.split(['/', '#', '?']).next().unwrap_or_default();
    scheme.contains(':')
}

/// Follows every link of every page below `folder`.
///
/// # Errors
///
/// A file or folder cannot be read.
pub(crate) fn follow(folder: &Path) -> io::Result<Links> {
    let mut known = BTreeSet::new();
    let mut pages = BTreeMap::new();
    for path in files(folder)? {
        let name = path.strip_prefix(folder).map_err(io::Error::other)?;
        if name.extension().is_some_and(|ending| ending == "html") {
            pages.insert(name.to_owned(), Page::read(&fs::read_to_string(&path)?));
        }
        known.insert(name.to_owned());
    }
    let mut links = Links {
        followed: 0,
        broken: Vec::new(),
    };
    for (name, page) in &pages {
        let loaded = page.parts.iter().map(|part| (part, true));
        let clicked = page.links.iter().map(|link| (link, false));
        for (link, is_loaded) in loaded.chain(clicked) {
            links.followed += 1;
            let leads = match is_elsewhere(link) {
                true => !is_loaded || link.starts_with("data:"),
                false => leads_somewhere(&known, &pages, name, link),
            };
            if !leads {
                links.broken.push(format!("{}: {link}", name.display()));
            }
        }
    }
    Ok(links)
}

/// Whether a link of the page `from` leads to a file, and to an anchor if it names one.
fn leads_somewhere(
    known: &BTreeSet<PathBuf>,
    pages: &BTreeMap<PathBuf, Page>,
    from: &Path,
    link: &str,
) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = path.split('?').next().unwrap_or_default();
    let target = match path.is_empty() {
        true => Some(from.to_owned()),
        false => settled(&from.parent().unwrap_or(Path::new("")).join(path)),
    };
    let Some(target) = target.filter(|target| known.contains(target)) else {
        return false;
    };
    anchor.is_empty()
        || pages
            .get(&target)
            .is_some_and(|page| page.anchors.contains(anchor))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes pages and answers which of their links are broken.
    fn broken(pages: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pictures")).unwrap();
        for (name, text) in pages {
            fs::write(folder.path().join(name), text).unwrap();
        }
        follow(folder.path()).unwrap().broken
    }

    #[test]
    fn links_that_lead_somewhere_are_left_alone() {
        let one = r##"<a href="two.html#there">x</a> <img src="pictures/a.png"> <a href="#here">x</a>
            <h2 id="here">x</h2> <a href="https://example.org/">x</a>"##;
        let two = r#"<h2 id="there">x</h2><a href="./one.html">x</a><a href="pictures/../one.html">x</a>"#;
        let pages = [("one.html", one), ("two.html", two), ("pictures/a.png", "")];
        assert!(broken(&pages).is_empty());
    }

    #[test]
    fn those_that_lead_nowhere_are_found() {
        let cases = [
            r#"<a href="none.html">x</a>"#,
            r##"<a href="#nowhere">x</a>"##,
            r#"<a href="one.html#nowhere">x</a>"#,
            r#"<img src="pictures/none.png">"#,
            r#"<a href="../one.html">x</a>"#,
            r#"<a href="/one.html">x</a>"#,
        ];
        for text in cases {
            assert_eq!(broken(&[("one.html", text)]).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_page_that_needs_a_network_to_be_shown_is_found() {
        let cases = [
            r#"<script src="https://example.org/a.js"></script>"#,
            r#"<link rel="stylesheet" href="https://example.org/a.css">"#,
        ];
        for text in cases {
            assert_eq!(broken(&[("one.html", text)]).len(), 1, "{text}");
        }
    }
}
