//! Code in the documents is code of the project: a block names the file that it is from, and is there.

use std::fs;

use crate::documents::{blocks, read};
use crate::sources::root;

/// Documents all of whose Rust code must name a file: those that people copy from.
const COPIED_FROM: [&str; 2] = ["README.md", "docs/porting.md"];

/// The file that a block's first line names: `rust,file=examples/…`.
fn file_of(language: &str) -> Option<&str> {
    language
        .split(',')
        .find_map(|word| word.strip_prefix("file="))
}

/// Whether `sample` is whole lines of `text`.
fn occurs(text: &str, sample: &str) -> bool {
    !sample.trim().is_empty() && format!("\n{text}").contains(&format!("\n{sample}"))
}

/// What a difference leads to: its lines without those that go, and without the marks.
fn after(difference: &str) -> String {
    let lines = difference.lines().filter(|line| !line.starts_with('-'));
    let lines = lines.map(|line| line.get(1..).unwrap_or_default());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What a block says that its file has.
fn said(language: &str, block: &str) -> String {
    match language.starts_with("diff") {
        true => after(block),
        false => block.to_owned(),
    }
}

#[test]
fn code_in_the_documents_occurs_in_the_files_that_it_names() {
    let mut documents = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let entry = entry.unwrap();
        // Pictures are in a folder of their own.
        if entry.path().is_dir() {
            continue;
        }
        let name = entry.file_name();
        documents.push(format!("docs/{}", name.to_str().unwrap()));
    }
    let mut looked_at = 0;
    for document in documents {
        let text = read(&document);
        for (language, block) in blocks(&text).0 {
            let Some(file) = file_of(language) else {
                let must = COPIED_FROM.contains(&document.as_str());
                let is_code = language.starts_with("rust") || language.starts_with("diff");
                assert!(!must || !is_code, "{document}: from which file is\n{block}");
                continue;
            };
            let said = said(language, &block);
            assert!(
                occurs(&read(file), &said),
                "{document}: not in {file}:\n{said}"
            );
            looked_at += 1;
        }
    }
    assert!(looked_at >= 3, "only {looked_at} blocks name a file");
}

#[test]
fn the_check_of_code_can_fail() {
    let text = "fn one() {\n    two();\n}\n";
    assert!(occurs(text, "    two();\n"));
    assert!(!occurs(text, "two();\n") && !occurs(text, "fn one\n") && !occurs(text, "\n"));
    assert_eq!(
        after(" fn one() {\n-    old();\n+    two();\n\n }\n"),
        "fn one() {\n    two();\n\n}\n"
    );
    assert_eq!(file_of("rust,file=a/b.rs"), Some("a/b.rs"));
    assert_eq!(file_of("rust"), None);
}

/// What is promised to who begins: a whole kernel, and a platform, that can be read in a minute.
#[test]
fn the_smallest_examples_stay_small() {
    let kernel = read("examples/tiny-kernel/src/main.rs");
    assert!(
        kernel.lines().count() <= 60,
        "examples/tiny-kernel has grown"
    );
    let platform = read("boot/memory/src/one_cpu.rs");
    let (_, body) = platform
        .split_once("unsafe impl Platform for OneCpu {")
        .unwrap();
    let (required, _) = body.split_once("    // What follows is optional").unwrap();
    let lines = required.lines().count() + 1;
    assert!(
        (20..=40).contains(&lines),
        "{lines} lines of a platform are required"
    );
}

/// The guide says of everything that a platform may answer what is missing without.
#[test]
fn the_guide_names_all_of_the_platform() {
    let code = read("mm/src/platform.rs");
    let (_, body) = code.split_once("\npub unsafe trait Platform").unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    let items = body.lines().filter_map(|line| {
        let rest = line
            .strip_prefix("    fn ")
            .or(line.strip_prefix("    const "))?;
        rest.split(['(', ':', '<']).next()
    });
    let guide = read("docs/porting.md");
    let items: Vec<_> = items.collect();
    assert!(items.len() > 30, "{items:?}");
    let is_named =
        |name: &str| guide.contains(&format!("`{name}`")) || guide.contains(&format!("fn {name}("));
    let missing: Vec<_> = items.iter().filter(|name| !is_named(name)).collect();
    assert!(missing.is_empty(), "not in docs/porting.md: {missing:?}");
}
