//! `docs/unsafe.md` lists all files that ship with `unsafe` in them, and how much: as they are now.
//!
//! `MM_UPDATE_DOCS=1 cargo test -p mm-tests --test structure inventory` writes the page's tables anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::documents::read;
use crate::sources::root;

const PAGE: &str = "docs/unsafe.md";

/// What ships, by the sections of the page, and where it lies. Tests and tools of the host are not part of it.
const PARTS: [(&str, &str); 5] = [
    ("mm", "mm/src"),
    ("boot", "boot/src"),
    ("boot-memory", "boot/memory/src"),
    ("examples", "examples"),
    ("kernel", "kernel/src"),
];

/// What one file has.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Uses {
    /// Blocks in which something is done that the compiler cannot check.
    blocks: usize,
    /// Functions that only `unsafe` code may call.
    functions: usize,
    /// Traits that are a promise, and types that give it.
    promises: usize,
    /// Symbols of the linker's, and foreign functions.
    symbols: usize,
}

impl Uses {
    /// Uses in code, as it is formatted here: not those in comments, texts of messages, or tests.
    fn of(text: &str) -> Self {
        let mut uses = Self::default();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in text.lines() {
            let code = line.split("//").next().unwrap();
            uses.blocks += code.matches("unsafe {").count();
            uses.functions += code.matches("unsafe fn ").count();
            uses.functions += code.matches("unsafe extern \"C\" fn ").count();
            uses.functions += code.matches("unsafe extern \"sysv64\" fn ").count();
            uses.promises += code.matches("unsafe impl").count();
            uses.promises += code.matches("unsafe trait ").count();
            uses.symbols += code.matches("#[unsafe(").count();
            uses.symbols += code.matches("unsafe extern \"C\" {").count();
        }
        uses
    }

    fn sum(self) -> usize {
        self.blocks + self.functions + self.promises + self.symbols
    }

    fn add(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            functions: self.functions + other.functions,
            promises: self.promises + other.promises,
            symbols: self.symbols + other.symbols,
        }
    }
}

/// What a file says of itself: its first sentence, or its first line where that is longer.
fn about(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<_> = lines
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    let sentence = paragraph.split_once(". ");
    let sentence = sentence.map_or(paragraph.as_str(), |(first, _)| first);
    // A link to an item is the item's name here, and a cell of a table has no line of its own.
    let sentence = sentence.replace("[`", "`").replace("`]", "`");
    sentence.trim_end_matches(['.', ':']).replace('|', "\\|")
}

/// All sources below a folder, in order.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_for_tests = path
            .file_stem()
            .is_some_and(|name| name == "tests" || name == "loom_tests");
        if path.is_dir() && !is_for_tests {
            found.extend(below(&path));
        } else if path.extension().is_some_and(|its| its == "rs") && !is_for_tests {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The table of a part, and its sum.
fn table(folder: &str) -> (String, Uses) {
    let mut table = String::from(
        "| File | Blocks | `unsafe fn` | Traits, impls | Symbols | What it is |\n|---|--:|--:|--:|--:|---|\n",
    );
    let mut sum = Uses::default();
    for path in below(&root().join(folder)) {
        let text = fs::read_to_string(&path).unwrap();
        let uses = Uses::of(&text);
        if uses.sum() == 0 {
            continue;
        }
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let about = about(&text);
        assert!(!about.is_empty(), "{name} says nothing of itself");
        let cell = |count: usize| match count {
            0 => String::new(),
            count => count.to_string(),
        };
        let cells = [uses.blocks, uses.functions, uses.promises, uses.symbols].map(cell);
        writeln!(table, "| `{name}` | {} | {about} |", cells.join(" | ")).unwrap();
        sum = sum.add(uses);
    }
    let cells = [sum.blocks, sum.functions, sum.promises, sum.symbols].map(|sum| sum.to_string());
    writeln!(table, "| together | {} | |", cells.join(" | ")).unwrap();
    (table, sum)
}

/// The page with its tables as they should be.
fn with_tables(page: &str) -> String {
    let mut page = page.to_owned();
    for (part, folder) in PARTS {
        let opening = format!("<!-- unsafe: {part} -->\n");
        let (before, rest) = page
            .split_once(&opening)
            .unwrap_or_else(|| panic!("{PAGE} has no table for {part}"));
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        page = format!(
            "{before}{opening}\n{}\n<!-- end -->{after}",
            table(folder).0
        );
    }
    page
}

#[test]
fn the_inventory_is_that_of_the_code() {
    let page = read(PAGE);
    let wanted = with_tables(&page);
    if std::env::var_os("MM_UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), wanted).unwrap();
        return;
    }
    let differs = page.lines().zip(wanted.lines());
    let first = differs.clone().find(|(has, wants)| has != wants);
    assert!(
        page == wanted,
        "{PAGE} is out of date: {first:?}\nMM_UPDATE_DOCS=1 cargo test -p mm-tests --test structure inventory",
    );
}

#[test]
fn the_library_has_as_much_as_is_counted_elsewhere() {
    let (_, sum) = table("mm/src");
    assert!(sum.blocks > 100, "{sum:?}");
    let (_, none) = table("viewer/src");
    assert_eq!(none, Uses::default(), "the viewer forbids it");
}

#[test]
fn uses_are_told_from_words() {
    let text = "//! One thing. More.\n// unsafe { }\nunsafe impl X for Y {}\npub unsafe fn f() {\n    unsafe { g() };\n\
                #[unsafe(no_mangle)]\n#[cfg(test)]\nmod tests {\n unsafe { h() };\n";
    let uses = Uses {
        blocks: 1,
        functions: 1,
        promises: 1,
        symbols: 1,
    };
    assert_eq!((Uses::of(text), about(text).as_str()), (uses, "One thing"));
}
